"""The wire log of `--debug`: every request and answer, with secrets hidden by their place.

Of credentials and cookies only the kind is shown, and in a query only parameters that are known to
be harmless keep their value. Bodies are never written. Known secrets elsewhere in a line are taken
out by their value, where the lines leave the program (`push/interface/edge`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from towline.wire.message import Request, Response
    from towline.wire.url import Url

Log = Callable[[str], None]
"""Takes one line, without its end."""

_SECRET = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-registry-auth"}
)
_SECRETIVE = r"token|secret|passw|credential|signature|session|cookie|api-?key"
"""Words in names of fields that services have made up."""
_LINKS = frozenset({"location", "link", "content-location"})
_OPEN_PARAMETERS = frozenset(
    {"digest", "mount", "from", "tag", "scope", "service", "n", "last", "account", "client_id"}
)
_PARAMETER = r"([?&;])([^=&;?>\"\s]+)=([^&;>\"\s]*)"


def silent(_line: str) -> None:
    """A log that writes nowhere."""


def sent(log: Log, request: Request) -> None:
    """Log a request's head."""
    if log is silent:
        return
    log(f"> {request.method} {url(request.url)}")
    for name, value in request.headers:
        log(f">   {name}: {field(name, value)}")
    if request.body:
        log(f">   ({len(request.body)} bytes)")


def received(log: Log, response: Response, seconds: float) -> None:
    """Log an answer's head; `seconds`: since the request began."""
    if log is silent:
        return
    log(f"< {response.status} {response.reason} ({seconds:.3f} s, to {response.method})")
    for name, value in response.headers:
        log(f"<   {name}: {field(name, value)}")


def url(value: Url) -> str:
    """A URL with the values of its query hidden, but for the harmless ones."""
    return value.origin + query(value.target)


def query(text: str) -> str:
    """A target or a link with the values of its query hidden, but for the harmless ones."""
    return re.sub(_PARAMETER, _hidden, text)


def hidden_values(link: str) -> list[str]:
    """The values of a link's query that are not shown."""
    found = (match.groups() for match in re.finditer(_PARAMETER, link))
    return [value for _, name, value in found if name.lower() not in _OPEN_PARAMETERS]


def field(name: str, value: str) -> str:
    """A header field's value as the log may show it."""
    lower = name.lower()
    if lower in _SECRET or re.search(_SECRETIVE, lower):
        kind = value.partition(" ")[0] if lower.endswith("authorization") else ""
        return f"{kind} <hidden>".strip()
    return query(value) if lower in _LINKS or "://" in value else value


def _hidden(match: re.Match[str]) -> str:
    mark, name, value = match.groups()
    return (
        match.group() if name.lower() in _OPEN_PARAMETERS or not value else f"{mark}{name}=<hidden>"
    )
