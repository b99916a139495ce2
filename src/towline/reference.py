"""Image names: their grammar, their defaults, their familiar and full forms.

The grammar is docker's (distribution `reference`); the first part is a host when it has a dot,
a colon, is `localhost`, an IPv6 address in brackets, or has an upper-case letter.
"""

# No `from __future__ import annotations`: at every start Python would compile each text that
# annotates a field of a named tuple.

import re
from typing import NamedTuple, NoReturn

from towline.errors import InvalidReference
from towline.spec import distribution
from towline.spec.digest import Digest

HUB = "docker.io"
HUB_ALIASES = frozenset({HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})
LIBRARY = "library/"
LATEST = "latest"

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:(?:\.|_+){_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]+))?")
_PATH_CHARACTERS = re.compile(r"[a-z0-9._/-]*")
_TRANSPORT = "docker://"
_PORTS = range(1, 1 << 16)
_LOGIN = r"(?s)(\w+://)?(?![./])(.+)@(?!sha\d+:)(.*)"
"""A scheme, a login and the rest of a name; the login ends at the last @ that begins no digest."""


class RepositoryName(NamedTuple):
    """A repository: registry host (with its port) and path."""

    host: str
    path: str

    def __str__(self) -> str:
        return f"{self.host}/{self.path}"

    @property
    def is_at_registry(self) -> bool:
        """True: a registry's repository, unlike the folder or file of a local destination."""
        return True

    @property
    def familiar(self) -> str:
        """As docker shows it: without the Hub's host and `library/`."""
        if self.host != HUB:
            return str(self)
        return self.path.removeprefix(LIBRARY)


class Reference(NamedTuple):
    """An image name; tag and digest as written, None where they were not."""

    repository: RepositoryName
    tag: str | None = None
    digest: Digest | None = None

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def familiar(self) -> str:
        """As docker shows it."""
        return self.repository.familiar + str(self).removeprefix(str(self.repository))

    @property
    def target(self) -> str:
        """The last part of a manifest's address: the digest, else the tag, else `latest`."""
        return self.digest or self.tag or LATEST

    def with_tag(self, tag: str | None) -> "Reference":
        """The same repository under another tag."""
        return self._replace(tag=tag, digest=None)


def parse(text: str) -> Reference:
    """Read a reference, with or without `docker://`.

    Raises InvalidReference, whose `position` is the character at fault. The text of a name that
    contains a login is never shown: `user:password@host` may end up in logs.
    """
    shown = without_login(text)
    if shown != text:
        raise InvalidReference(
            "a name holds no login, as what stands before this @ seems to be",
            text=shown,
            position=shown.index("@"),
            hint="leave it out: `creds`, or towline login, is where to give it",
        )
    start = len(_TRANSPORT) if text.startswith(_TRANSPORT) else 0
    return _Parser(text, start).reference()


def parse_if_any(text: str) -> Reference | None:
    """The reference in a text that may be anything; None: it is none."""
    try:
        return parse(text)
    except InvalidReference:
        return None


def without_login(text: str) -> str:
    """A name or an address with the login before its host, if any, replaced by `[hidden]`."""
    match = re.fullmatch(_LOGIN, text) if "@" in text else None
    if match is None or not (":" in match[2] or "/" in match[3]):
        return text
    return f"{match[1] or ''}[hidden]@{match[3]}"


class _Parser:
    """Reads one text once, left to right; positions count in the text as it was given."""

    def __init__(self, text: str, start: int) -> None:
        self.text = text
        self.at = start

    def reference(self) -> Reference:
        if self.at >= len(self.text):
            self.fail("the image name is empty", self.at)
        host = self.host()
        path = self.path(HUB if host is None else host)
        tag = self.tag() if self.next_is(":") else None
        digest = self.digest() if self.next_is("@") else None
        if self.at < len(self.text):
            self.fail(f"{self.text[self.at]!r} cannot stand here in the image name", self.at)
        return Reference(RepositoryName(HUB if host is None else host, path), tag, digest)

    def next_is(self, character: str) -> bool:
        return self.text.startswith(character, self.at)

    def host(self) -> str | None:
        if self.text.startswith(("http://", "https://"), self.at):
            hint = f"leave the scheme out: {self.text[self.at :].partition('//')[2]}"
            self.fail("an image name has no scheme", self.at, hint)
        first, slash, _ = self.text[self.at :].partition("/")
        named = first == "localhost" or first != first.lower() or first.startswith("[")
        if not slash or not (named or "." in first or ":" in first):
            return None
        match = _HOST.match(first)
        end = match.end() if match else 0
        if first[end : end + 1] == ":":
            self.fail(f"{first[end + 1 :]!r} is no port number", self.at + end + 1)
        if end < len(first):
            self.fail(f"{first!r} is no registry host", self.at + end)
        # Six digits tell that a port is too large; Python's `int` raises at some thousands.
        if match and (port := match["port"]) and int(port[:6]) not in _PORTS:
            self.fail(f"{port} is no port number", self.at + match.start("port"))
        self.at += len(first) + 1
        if first in HUB_ALIASES:
            return HUB
        return first.lower() if first.startswith("[") else first

    def path(self, host: str) -> str:
        start = self.at
        match = _PATH_CHARACTERS.match(self.text, start)
        end = match.end() if match else start
        path = self.text[start:end]
        if end < len(self.text) and self.text[end] not in ":@":
            self.bad_character(end)
        if not path:
            self.fail(f"the repository name is missing in {self.text}", start)
        if len(host) + 1 + len(path) > distribution.NAME_MAX:
            self.fail(f"the repository name is longer than {distribution.NAME_MAX} characters", end)
        if not distribution.NAME.fullmatch(path):
            wrong = start + self.wrong_in(path)
            self.fail(f"{self.text[wrong]!r} cannot stand here in the repository name", wrong)
        self.at = end
        return LIBRARY + path if host == HUB and "/" not in path else path

    @staticmethod
    def wrong_in(path: str) -> int:
        """The first character that no name has there; or the last one, which none ends with."""
        ends = range(1, len(path) + 1)
        bad = (end for end in ends if not distribution.NAME.fullmatch(f"{path[:end]}a"))
        return next(bad, len(path)) - 1

    def bad_character(self, at: int) -> NoReturn:
        if not self.text[at].isupper():
            self.fail(f"{self.text[at]!r} cannot stand in a repository name", at)
        path, colon, rest = self.text[at:].partition(":")
        cured = f"{self.text[:at]}{path.lower()}{colon}{rest}"
        hint = f"repository names are lower case: {cured}"
        self.fail(f"upper case in the repository name of {self.text}", at, hint)

    def tag(self) -> str:
        start = self.at + 1
        match = distribution.TAG.match(self.text, start)
        if match is None:
            self.fail("the tag is empty or starts with a wrong character", start)
        self.at = match.end()
        if distribution.TAG.match(self.text, self.at):
            self.fail(f"the tag is longer than {len(match.group())} characters", self.at)
        return match.group()

    def digest(self) -> Digest:
        start = self.at + 1
        try:
            digest = Digest(self.text[start:])
        except ValueError as error:
            self.fail(str(error), start)
        self.at = len(self.text)
        return digest

    def fail(self, message: str, position: int, hint: str | None = None) -> NoReturn:
        raise InvalidReference(message, text=self.text, position=position, hint=hint)
