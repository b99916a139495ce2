"""Keeps secrets in: by their place in lines of the wire log, and by their value in any text.

By their place, of credentials and cookies only the kind is shown, and in a query only parameters
that are known to be harmless keep their value. By their value they are taken out of every text that
leaves the library (`push/interface/edge`): servers send back what they were shown, anywhere and in
any encoding. So the encodings in a text are undone, as those of a secret are, before one is looked
for in the other.
"""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING

from towline.wire.message import Request, Response, user_pass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


HIDDEN = "[hidden]"
_LEAST = 4
"""Characters of the shortest secret: a shorter one protects nothing, and hiding it would spoil
every sentence."""
_ANYWHERE = 8
"""Characters of a secret that is hidden inside words too; a shorter one only as a word."""
_PART = 12
"""Characters of a secret's beginning that is hidden like the whole, if it is at least half."""
_CAPABILITY = 16
"""Characters of a value in an address that may let in whoever knows it (a signature)."""
_PASSING_MAX = 1000
"""Tokens and signatures that are looked for: the last ones."""
_ROUNDS = 4
"""Encodings inside one another that are undone."""
_CUT = "\N{HORIZONTAL ELLIPSIS}"
"""Marks where a text was cut, perhaps in the middle of a secret."""
_CUTS = 50
"""Cuts of a text at which the beginning of a secret is looked for: the last ones."""

_VARIABLES = ("TOWLINE_PASSWORD", "CI_REGISTRY_PASSWORD", "TOWLINE_CACHE_KEY")
_ADDRESSES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "TOWLINE_CACHE")
_GIVEN_AS_OPTION = r"[?&]password=([^&#]*)"
_TOKEN = rb'"(?:access_|refresh_|id_)?token"\s*:\s*"((?:[^"\\]|\\.)*)'
"""A token in a token service's answer (RFC 6749, and Docker's own form), even a torn one."""

_ESCAPED = (
    r"%(?:25)*(?P<ascii>[0-7][0-9a-f])"
    r"|(?P<bytes>%(?:25)*[c-f][0-9a-f](?:%(?:25)*[89ab][0-9a-f]){1,3}|%(?:25)*[89a-f][0-9a-f])"
    r"|(?P<units>\\+ud[89ab][0-9a-f]{2}\\+ud[c-f][0-9a-f]{2}|\\+u[0-9a-f]{4})"
    r"|\\+x(?P<hex>[0-9a-f]{2})"
    r"|(?P<entity>&(?:\#[0-9]{1,7}|\#x[0-9a-f]{1,6}|[a-z]{2,8});)"
    r"|\\+(?P<white>[nrtbf])"
    r"|(?P<slashes>\\+)"
)
"""Escapes of URLs and forms, of JSON, Python, Go and HTML, each perhaps applied several times."""
_MAYBE_ESCAPED = r"[%\\&]"
_UNFINISHED = r"[^\0-\x7f]{0,3} ?(?:[%\\&][\\%#0-9a-z]{0,8}|[ux]?[0-9a-f]{0,3})"
"""The rest of an escape, or of a character of several bytes, that was cut; or nothing."""
_PERCENT = rb"%(?:25)*([0-9A-Fa-f]{2})"
_UNIT = r"\\+u([0-9a-f]{4})"
_SPACES = r"[\s+]+"

_SECRET = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-registry-auth"}
)
_SECRETIVE = r"token|secret|passw|credential|signature|session|cookie|api-?key"
"""Words in names of fields that services have made up."""
_LINKS = frozenset({"location", "link", "content-location"})
_OPEN_PARAMETERS = frozenset(
    {"digest", "mount", "from", "tag", "scope", "service", "n", "last", "account", "client_id"}
)
_QUERY = r"([?&;])([^=&;?>\"\s]+)=([^&;>\"\s]+)"


def field(name: str, value: str) -> str:
    """A header field's value as the wire log may show it."""
    lower = name.lower()
    if lower in _SECRET or re.search(_SECRETIVE, lower):
        kind = value.partition(" ")[0] if lower.endswith("authorization") else ""
        return f"{kind} <hidden>".strip()
    return query(value) if lower in _LINKS or "://" in value else value


def query(text: str) -> str:
    """An address or a link with the values of its query hidden, but for the harmless ones."""

    def shown(match: re.Match[str]) -> str:
        mark, name, _ = match.groups()
        return match.group() if name.lower() in _OPEN_PARAMETERS else f"{mark}{name}=<hidden>"

    return re.sub(_QUERY, shown, text)


class Secrets:
    """The secrets of one run. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given: dict[str, set[str]] = {}
        self._passing: dict[str, set[str]] = {}
        """Secrets of requests and answers, which come and go; the one used last is at the end."""
        self._sought: dict[str, list[str]] | None = {}
        """All spellings of all secrets, by their beginnings; None: one was added since."""

    def add(self, *values: str | None) -> None:
        """Look for these values from here on."""
        with self._lock:
            for value in filter(None, values):
                if value not in self._given:
                    self._given[value] = _spellings(value)
                    self._sought = None

    def add_account(self, username: str, password: str) -> None:
        """Look for a password, also in the form of Basic authentication."""
        if password:
            self.add(password, user_pass(username, password))

    def add_address(self, text: str | None) -> None:
        """Look for an address's password: before its host, or in its query, as Redis takes it."""
        if not text:
            return
        scheme, _, rest = text.partition("://")
        rest = rest or scheme
        # A password that was not escaped may hold an @ itself, so each @ may be its end.
        for end in re.finditer("@", rest):
            user, _, password = rest[: end.start()].partition(":")
            self.add_account(_plain(user), _plain(password))
        self.add(*map(_plain, re.findall(_GIVEN_AS_OPTION, rest)))

    def add_environment(self, environ: Mapping[str, str]) -> None:
        """Look for the secrets in the variables that we read."""
        self.add(*map(environ.get, _VARIABLES))
        for name in _ADDRESSES:
            self.add_address(environ.get(name))

    def sent(self, request: Request) -> None:
        """Look for the credentials in a request, and for signatures in its address."""
        self._address(request.url.target)
        for name, value in request.headers:
            if name == "Authorization":
                self._pass(value.partition(" ")[2], _spellings)

    def received(self, response: Response) -> None:
        """Look for the tokens in an answer, and for signatures in the addresses that it names."""
        for link in response.headers.all("Location"):
            self._address(link)
        if b'token"' in response.body:
            for value in re.findall(_TOKEN, response.body):
                self._pass(value.decode("utf-8", "replace"), _spellings)

    def _address(self, link: str) -> None:
        for _, name, value in re.findall(_QUERY, link) if "=" in link else ():
            if name.lower() not in _OPEN_PARAMETERS and len(value) >= _CAPABILITY:
                self._pass(value, _alike)

    def _pass(self, value: str, spelled: Callable[[str], set[str]]) -> None:
        with self._lock:
            if value in self._given:
                return
            spellings = self._passing.pop(value, None)
            if spellings is None:
                spellings = spelled(value)
                self._sought = None
            self._passing[value] = spellings
            if len(self._passing) > _PASSING_MAX:
                del self._passing[next(iter(self._passing))]

    def redact(self, text: str) -> str:
        """The text with every secret replaced."""
        with self._lock:
            if self._sought is None:
                sought = self._sought = {}
                for one in set().union(*self._given.values(), *self._passing.values()):
                    sought.setdefault(one[:_LEAST], []).append(one)
            sought = self._sought
        spans = [span for view in _views(text) for span in _found(view, sought)] if sought else ()
        parts: list[str] = []
        end = 0
        for start, stop in sorted(spans):
            if stop > end:
                parts += [text[end:start], HIDDEN] if start > end or not parts else []
                end = stop
        return "".join([*parts, text[end:]])


def _spellings(secret: str) -> set[str]:
    """The forms of a secret that are looked for, in a text whose escapes were undone."""
    content = secret.encode("utf-8", "surrogateescape")
    # Header fields are read as Latin-1, whatever was meant.
    found = _alike(secret) | _alike(content.decode("latin-1"))
    whole = len(secret) >= _ANYWHERE
    encodings = [content.hex(), *_in_base64(content, whole=whole)]
    for encoded in encodings if len(secret) >= _LEAST else []:
        found |= _alike(encoded) | _alike(encoded.translate(_URL_SAFE))
    return found


_URL_SAFE = str.maketrans("+/", "-_")


def _in_base64(content: bytes, *, whole: bool) -> Iterator[str]:
    """In base64 without padding; of a longer secret (`whole`) in the middle of others, too."""
    import base64  # which most pushes have no need of

    yield base64.b64encode(content).decode().rstrip("=")
    for before in range(3 if whole else 0):
        encoded = base64.b64encode(bytes(before) + content).decode()
        # The first and last characters hold bits of the bytes beside it: left out.
        after = (before + len(content)) % 3
        yield encoded[(0, 2, 3)[before] : len(encoded) - (0, 3, 2)[after]]


def _alike(secret: str) -> set[str]:
    """A secret as it is, and with its own escapes undone, as they are in a text."""
    texts = {view.text.strip() for view in _views(secret)}
    return {text for text in texts if len(text) >= _LEAST}


class _View:
    """A text in the form in which it is searched."""

    def __init__(self, text: str, at: Sequence[int]) -> None:
        self.text = text
        self.at = at
        """For each character its place in the text itself; last, the text's length."""


def _views(text: str) -> Iterator[_View]:
    """The text as it is, and with every encoding undone; both in lower case."""
    lower = _lower(text)
    view = _View(lower, range(len(text) + 1))
    yield view
    for _ in range(_ROUNDS):
        if not re.search(_MAYBE_ESCAPED, view.text):
            break
        # Compiled at its first use: most runs have none.
        view = _replaced(view, re.compile(_ESCAPED), _meaning)
    if not view.text.isprintable():
        printable = "".join(c if c.isprintable() else " " for c in view.text)
        view = _View(printable, view.at)
    view = _replaced(view, re.compile(_SPACES), lambda _: " ")
    if view.text != lower:
        yield view


def _replaced(
    view: _View, pattern: re.Pattern[str], meaning: Callable[[re.Match[str]], str]
) -> _View:
    texts: list[str] = []
    at: list[int] = []
    end = 0
    for match in pattern.finditer(view.text):
        plain = meaning(match)
        texts += view.text[end : match.start()], plain
        at += view.at[end : match.start()]
        at += [view.at[match.start()]] * len(plain)
        end = match.end()
    texts.append(view.text[end:])
    return _View("".join(texts), [*at, *view.at[end:]])


def _meaning(match: re.Match[str]) -> str:
    found = match.group()
    match match.lastgroup:
        case "ascii" | "hex":
            plain = chr(int(found[-2:], 16))
        case "bytes":
            plain = _plain(found)
        case "units":
            units = "".join(re.findall(_UNIT, found))
            plain = bytes.fromhex(units).decode("utf-16-be", "replace")
        case "entity":
            import html

            plain = html.unescape(found)
        case "white":
            plain = " "
        case _:
            plain = ""
    return _lower(plain)


def _lower(text: str) -> str:
    """The text in lower case, at the same length: letters that would become two stay."""
    return (
        text.lower()
        if text.isascii()
        else "".join(c if len(c.lower()) > 1 else c.lower() for c in text)
    )


def _plain(text: str) -> str:
    """The text with its percent-encoding undone."""
    content = re.sub(
        _PERCENT,
        lambda match: bytes.fromhex(match[1].decode()),
        text.encode("utf-8", "surrogateescape"),
    )
    try:
        return content.decode()
    except ValueError:
        return content.decode("latin-1")


def _found(view: _View, sought: Mapping[str, Sequence[str]]) -> Iterator[tuple[int, int]]:
    """Where secrets stand, as places in the text itself."""
    text = view.text
    cuts = [match.start() for match in re.finditer(_CUT, text)][-_CUTS:]
    # Nearly always no beginning of any is there. Of many secrets those of the text are looked up.
    if len(text) < 4 * len(sought):
        begins = sought.keys() & {text[at : at + _LEAST] for at in range(len(text))}
    else:
        begins = {begin for begin in sought if begin in text}
    for secret in (each for begin in begins for each in sought[begin]):
        if secret[: _LEAST if cuts else _ANYWHERE] not in text:
            continue
        # A text may quote only its beginning, up to a quotation mark in it, say.
        part = secret[: max(_PART, len(secret) // 2)]
        start = text.find(part)
        while start >= 0:
            # What repeats itself overlaps itself, and the secret may go on from any of its places.
            places = [start]
            while (again := text.find(part, places[-1] + 1, places[-1] + 2 * len(part) - 1)) >= 0:
                places.append(again)
            # Only the last ones can reach beyond what all of them cover.
            last = places[-len(secret) :]
            end = max(at + _shared(secret, text[at : at + len(secret)]) for at in last)
            beside = text[start - 1 : start] + text[end : end + 1]
            if len(secret) >= _ANYWHERE or not any(map(str.isalnum, beside)):
                yield _span(view, start, end)
            start = text.find(part, places[-1] + 1)
        for cut in cuts:
            yield from _cut(view, secret, secret[:_LEAST], cut)
        if len(secret) >= _ANYWHERE:
            yield from _cut(view, secret, secret[:_ANYWHERE], len(text))


def _cut(view: _View, secret: str, part: str, cut: int) -> Iterator[tuple[int, int]]:
    """Where the secret begins with `part` and goes on until the text was cut."""
    start = view.text.find(part, max(0, cut - len(secret) - _ANYWHERE), cut)
    while start >= 0:
        rest = view.text[start:cut]
        if re.fullmatch(_UNFINISHED, rest[_shared(secret, rest) :]):
            yield _span(view, start, cut)
            break
        start = view.text.find(part, start + 1, cut)


def _shared(one: str, other: str) -> int:
    """The length of the beginning that both have in common."""
    return len(os.path.commonprefix([one, other]))  # noqa: RUF071 - by characters, as they are


def _span(view: _View, start: int, end: int) -> tuple[int, int]:
    """The places in the text itself. An escape is covered as a whole."""
    while end < len(view.text) and view.at[end] == view.at[end - 1]:
        end += 1
    return view.at[start], view.at[end]
