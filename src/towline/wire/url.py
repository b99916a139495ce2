"""URLs of http and https, with their path and query kept byte for byte.

Registries sign the query of an upload session, so it must come back exactly as they sent it. A URL
that was taken apart and put together again (`urllib.parse`) may differ.
"""

from __future__ import annotations

import re
from typing import NamedTuple

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
        """Scheme and authority: equal for two URLs that one connection can serve."""
        return f"{self.scheme}://{self.authority}"

    @property
    def redacted(self) -> str:
        """For people: without the query, which may hold a signature."""
        path = self.target.partition("?")[0]
        return self.origin + (path if len(path) <= _SHOWN else path[: _SHOWN - 1] + "…")

    def at(self, target: str) -> Url:
        """The URL of another path and query at the same origin."""
        return self._replace(target=_safe(target))

    def with_query(self, name: str, value: str) -> Url:
        """The URL with one parameter more; the others stay as they are."""
        path, mark, query = self.target.partition("?")
        joint = "&" if query and not query.endswith("&") else ""
        return self._replace(target=f"{path}{mark or '?'}{query}{joint}{name}={quote(value)}")

    def join(self, location: str) -> Url:
        """The URL that a `Location` or `Link` means in an answer to this one.

        See RFC 3986, section 5. Raises ValueError when it is no http address.
        """
        location = location.strip()
        if re.match(_ABSOLUTE, location):
            return parse(location)
        if location.startswith("//"):
            return parse(f"{self.scheme}:{location}")
        if "://" in location.partition("?")[0]:
            raise ValueError(f"{shown(location)} is no http address")
        # Some registries send HOST/PATH without a scheme, which should mean a relative path.
        if re.match(_BARE_HOST, location) or location.startswith(f"{self.host}/"):
            return parse(f"{self.scheme}://{location}")
        relative, mark, query = location.partition("#")[0].partition("?")
        path = self.target.partition("?")[0]
        if not (relative or mark):
            return self
        if relative.startswith("/"):
            path = relative
        elif relative:
            path = _without_dots(path.rpartition("/")[0] + "/" + relative)
        return self.at(path + mark + query)


def parse(text: str) -> Url:
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
    return re.sub(_UNSAFE, _escape, target)


def _escape(match: re.Match[str]) -> str:
    try:  # an argument's undecodable bytes, as Python keeps them (PEP 383)
        octets = match.group().encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        octets = match.group().encode("utf-8", "replace")
    return "".join(f"%{byte:02X}" for byte in octets)
