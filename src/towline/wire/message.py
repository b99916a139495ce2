"""HTTP messages as values: addresses, header fields, requests and responses (RFC 9110).

An address keeps its path and query byte for byte. Registries sign the query of an upload session,
so it must come back exactly as they sent it, which `urllib.parse` does not promise.
"""

# No `from __future__ import annotations`: at every start Python would compile each text that
# annotates a field of a named tuple.

import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

from towline.spec import reading

if TYPE_CHECKING:
    from towline.layers.reader import Reader

ANSWER_MAX = 64 << 10
"""Bytes of an answer's body that are read, unless the caller asks for more."""
Shunned = Literal["this machine", "a private network", "another machine"]
"""Addresses that a request must not reach. A private network includes this machine."""
DEFAULT_PORTS = {"http": 80, "https": 443}
_ABSOLUTE = r"(?is)(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<rest>.*)"
_AUTHORITY = r"(?:[^@]*@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^:@\[\]\s]+)(?::(?P<port>[0-9]{0,5}))?"
_BARE_HOST = r"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?::\d+)?|[A-Za-z0-9-]+:\d+)(?=/)"
_SHOWN = 500
"""Characters of a path in a message: the longest name of a repository, and some more."""
_NO_ADDRESS_SHOWN = 60
"""Characters that are shown of a text that is no address."""
_UNSAFE = r"[^!-~]"
_UNRESERVED = r"[^A-Za-z0-9._~:/-]"
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a token of the grammar
_PARAMETER = rf"(?s)({_TOKEN})\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"?|([^\s,\"]*))"
_CHALLENGE = rf"({_TOKEN})(?:\s+([A-Za-z0-9._~+/-]+=*)(?=\s*(?:,|$)))?"
_QUOTED = r"(?s)\\(.)"


class Url(NamedTuple):
    """A URL: where to connect, and what to request there."""

    scheme: str
    """`http` or `https`."""
    host: str
    """Lower case, an IPv6 address without brackets."""
    port: int
    target: str
    """Path and query, as they stand in the request line."""

    def __str__(self) -> str:
        return self.origin + self.target

    @property
    def authority(self) -> str:
        """Host and, where it is not the scheme's own, port: what the `Host` header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme and authority, as text."""
        return f"{self.scheme}://{self.authority}"

    def same_origin(self, other: "Url") -> bool:
        """Whether one connection can serve both."""
        return self[:3] == other[:3]

    @property
    def redacted(self) -> str:
        """For people: without the query, which may hold a signature."""
        path = self.target.partition("?")[0]
        return self.origin + (path if len(path) <= _SHOWN else path[: _SHOWN - 1] + "…")

    def at(self, target: str) -> "Url":
        """The URL of another path and query at the same origin."""
        return self._replace(target=_safe(target))

    def with_query(self, name: str, value: str) -> "Url":
        """The URL with one parameter more; the others stay as they are."""
        path, mark, query = self.target.partition("?")
        joint = "&" if query and not query.endswith("&") else ""
        return self._replace(target=f"{path}{mark or '?'}{query}{joint}{name}={quote(value)}")

    def join(self, location: str) -> "Url":
        """The URL that a `Location` or `Link` means in an answer to this one.

        See RFC 3986, section 5. Raises ValueError when it is no http address.
        """
        location = location.strip()
        if re.match(_ABSOLUTE, location):
            return parse_url(location)
        if location.startswith("//"):
            return parse_url(f"{self.scheme}:{location}")
        if "://" in location.partition("?")[0]:
            raise ValueError(f"{shown(location)} is no http address")
        # Some registries send HOST/PATH without a scheme, which should mean a relative path.
        if re.match(_BARE_HOST, location) or location.startswith(f"{self.host}/"):
            return parse_url(f"{self.scheme}://{location}")
        relative, mark, query = location.partition("#")[0].partition("?")
        path = self.target.partition("?")[0]
        if not (relative or mark):
            return self
        if relative.startswith("/"):
            path = relative
        elif relative:
            path = _without_dots(path.rpartition("/")[0] + "/" + relative)
        return self.at(path + mark + query)


def parse_url(text: str) -> Url:
    """Parse an absolute URL. Raises ValueError when it is none of http or https."""
    match = re.fullmatch(_ABSOLUTE, text.strip())
    authority = re.fullmatch(_AUTHORITY, match["authority"]) if match else None
    if match is None or authority is None:
        raise ValueError(f"{shown(text)} is no http address")
    scheme = match["scheme"].lower()
    port = int(authority["port"] or DEFAULT_PORTS[scheme])
    if not 0 < port < 1 << 16:
        raise ValueError(f"{port} is no port")
    target = match["rest"].partition("#")[0]
    if not target.startswith("/"):
        target = "/" + target
    return Url(scheme, authority["host"].strip("[]").lower(), port, _safe(target))


def shown(text: str) -> str:
    """A text that should have been an address, quoted and cut short, for a message."""
    return repr(text if len(text) <= _NO_ADDRESS_SHOWN else text[: _NO_ADDRESS_SHOWN - 1] + "…")


def _without_dots(path: str) -> str:
    kept: list[str] = []
    for part in path.split("/"):
        if part == ".." and len(kept) > 1:
            kept.pop()
        elif part not in {".", ".."}:
            kept.append(part)
    return "/".join(kept)


def quote(value: str) -> str:
    """`value` percent-encoded for a query; the characters of digests and scopes stay readable."""
    return re.sub(_UNRESERVED, _escape, value)


def _safe(target: str) -> str:
    # Only what cannot stand in a request line. Everything else is as its sender has encoded it.
    if target.isascii() and target.isprintable() and " " not in target:
        return target  # as nearly all
    return re.sub(_UNSAFE, _escape, target)


def _escape(match: re.Match[str]) -> str:
    try:  # an argument's undecodable bytes, as Python keeps them (PEP 383)
        octets = match.group().encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        octets = match.group().encode("utf-8", "replace")
    return "".join(f"%{byte:02X}" for byte in octets)


class Headers:
    """Header fields in their order; names are compared without case."""

    __slots__ = ("_fields", "_values")

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields = tuple(fields)
        self._values: dict[str, list[str]] = {}
        for name, value in self._fields:
            self._values.setdefault(name.lower(), []).append(value)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._fields)

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._values

    def get(self, name: str) -> str | None:
        """The first value of that name."""
        values = self.all(name)
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        """Every value of that name."""
        return self._values.get(name.lower(), [])

    def number(self, name: str) -> int | None:
        """The first value as a whole number; None when it is missing or something else."""
        text = self.get(name)
        return reading.number(text) if text is not None else None

    def tokens(self, name: str) -> list[str]:
        """The parts between commas of all values, lower case (`Connection`)."""
        return [part.strip().lower() for value in self.all(name) for part in value.split(",")]


class Request(NamedTuple):
    """A request, and how its answer is to be read.

    Its body is either whole here, or `streamed`: whoever starts the exchange writes it block by
    block. With `length` it goes under a Content-Length, without in chunked encoding.
    """

    method: str
    url: Url
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | memoryview | None = None
    streamed: bool = False
    length: int | None = None
    """Bytes of a streamed body, where known."""
    shuns: Shunned | None = None
    """Addresses to which it must not be sent, wherever the name may lead."""
    fresh: bool = False
    """Send it on a new connection."""
    timeout: float | None = None
    """Seconds without a byte, if other than usual."""
    patience: float | None = None
    """Seconds to wait for the answer's head, if other than usual."""
    extra: int = 0
    """Bytes sent before, which the other side has to hash before it answers."""
    limit: int = ANSWER_MAX
    """Bytes of the answer's body that are read."""
    in_pieces: bool = False
    """Leave the body of a success `unread`, to be read piece by piece."""

    def __repr__(self) -> str:
        # Its headers and its body may hold secrets.
        return f"<Request {self.method} {self.url.redacted}>"

    def authorized(self, header: str | None) -> "Request":
        """The request with this Authorization header; unchanged where it is None or empty."""
        if not header:
            return self
        return self._replace(headers=(*self.headers, ("Authorization", header)))

    @property
    def has_body(self) -> bool:
        """Whether bytes follow the head."""
        return self.streamed or bool(self.body)


class Response(NamedTuple):
    """An answer; redirects and refusals are answers too."""

    status: int
    reason: str
    headers: Headers
    url: Url
    """The URL of the request."""
    method: str = "GET"
    body: bytes = b""
    truncated: bool = False
    """The body was longer than the caller's limit."""
    unread: "Reader | None" = None
    """The body of a success that is to be read piece by piece; whoever wanted that closes it."""

    def __repr__(self) -> str:
        return f"<Response {self.status} to {self.method} {self.url.redacted}>"

    @property
    def ok(self) -> bool:
        """Any 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - the class of success

    @property
    def media_type(self) -> str:
        """`Content-Type` without parameters, lower case; empty when it is missing."""
        return (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower()


class Challenge(NamedTuple):
    """One way to authenticate that a registry offers (RFC 9110, section 11)."""

    scheme: str
    """Lower case: `bearer`, `basic`, `negotiate`."""
    parameters: Mapping[str, str] = MappingProxyType({})
    """Names in lower case."""

    @property
    def usable(self) -> bool:
        """Whether we can answer it."""
        # Enterprise proxies offer `Negotiate` before these two. Gitea's Basic has no realm.
        realm = self.parameters.get("realm")
        return self.scheme == "basic" or (self.scheme == "bearer" and bool(realm))

    @property
    def wants_more(self) -> bool:
        """Whether the token's scopes did not suffice (RFC 6750, section 3.1)."""
        return self.parameters.get("error") == "insufficient_scope"


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """Every challenge of the `WWW-Authenticate` headers, in order. What cannot be read is skipped.

    Takes several headers, several challenges in one, schemes without parameters, names in any case,
    values with and without quotes, escapes and commas in quotes: registries send all of these.
    """
    found: list[tuple[str, dict[str, str]]] = []
    parameter, scheme = re.compile(_PARAMETER), re.compile(_CHALLENGE)
    for text in headers:
        at, first = 0, len(found)
        while at < len(text):
            if len(found) > first and (match := parameter.match(text, at)):
                name, quoted, bare = match.groups()
                value = re.sub(_QUOTED, r"\1", quoted) if quoted is not None else bare
                found[-1][1].setdefault(name.lower(), value)
            elif match := scheme.match(text, at):
                found.append((match[1].lower(), {}))
            at = match.end() if match else at + 1  # separators, or what nobody can read
    return [Challenge(name, parameters) for name, parameters in found]


def user_pass(username: str, password: str) -> str:
    """A login in base64, on one line, as Basic authentication has it (RFC 7617, section 2)."""
    import base64  # which most pushes have no need of

    return base64.b64encode(f"{username}:{password}".encode("utf-8", "surrogateescape")).decode()
