"""One request and one answer, as endpoints see them. Knows neither registries nor sockets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

from towline.server.framing import BadRequest, Body

if TYPE_CHECKING:
    from collections.abc import Mapping
    from io import FileIO

    import h11

    from towline.server.framing import Framing

_MOST_HEADERS = 100


@dataclass(slots=True)
class Request:
    """One request; its body is still on the way."""

    method: str
    path: str
    """Decoded; begins with a slash."""
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    """Names in lower case; several of one name are joined by commas."""
    body: Body
    target: str = ""
    """As it came, for the log."""
    keep_alive: bool = True

    def parameter(self, name: str) -> str | None:
        """The first value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else None


@dataclass(frozen=True, slots=True)
class FilePart:
    """A piece of an open file as the body of an answer; who sends it closes it."""

    file: FileIO
    offset: int
    length: int


@dataclass(slots=True)
class Response:
    """One answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | FilePart = b""
    length: int | None = None
    """Content-Length where it differs from the content sent: answers to HEAD."""
    close: bool = False

    def discard(self) -> None:
        """Give back the file of an answer that is not sent."""
        if isinstance(self.content, FilePart):
            self.content.file.close()


def parse(head: h11.Request, source: Framing) -> Request:
    """Take a head apart; its body is read from `source`. Raises BadRequest."""
    target, version = head.target.decode(), head.http_version
    if version not in {b"1.1", b"1.0"}:
        raise BadRequest(505, "only HTTP/1.1 is spoken here")
    if target.startswith(("http://", "https://")):  # as proxies send it
        target = "/" + target.partition("://")[2].partition("/")[2]
    if not target.startswith("/"):
        raise BadRequest(400, "the request target is malformed")
    headers = _headers(head)
    if version == b"1.0" and "transfer-encoding" in headers:
        raise BadRequest(400, "HTTP/1.0 has no Transfer-Encoding")
    path, _, query = target.partition("?")
    try:
        parameters = parse_qs(query, keep_blank_values=True, max_num_fields=500) if query else {}
    except ValueError:
        raise BadRequest(414, "too many query parameters") from None
    length = None if "transfer-encoding" in headers else int(headers.get("content-length", 0))
    return Request(
        method=head.method.decode(),
        path=unquote(path),
        query=parameters,
        headers=headers,
        body=Body(source, length),
        target=target,
        keep_alive=version == b"1.1" and "close" not in headers.get("connection", "").lower(),
    )


def _headers(head: h11.Request) -> dict[str, str]:
    if len(head.headers) > _MOST_HEADERS:
        raise BadRequest(431, f"more than {_MOST_HEADERS} headers")
    headers: dict[str, str] = {}
    for raw_name, raw_value in head.headers.raw_items():
        name, value = raw_name.decode().lower(), raw_value.decode("latin-1")
        if name == "authorization" and name in headers:
            raise BadRequest(400, "there are two Authorization headers")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
