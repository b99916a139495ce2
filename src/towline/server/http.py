"""HTTP/1.1 as a server reads it: a request's head, and what an answer is made of.

Strict where laxness lets one request hide in another (RFC 9112, section 11.2): lengths that
differ, folded or malformed headers and lone line feeds are refused, and the connection ends. Knows
neither registries nor when a connection is kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

from towline.server.bodies import body_of
from towline.server.input import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from io import FileIO

    from towline.server.bodies import Body
    from towline.server.input import Input
    from towline.server.limits import Limits

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


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


def parse(head: bytes, source: Input, limits: Limits, begin: Callable[[], None]) -> Request:
    """Read a request's head; `begin` is called before the first byte of an expected body.

    Raises BadRequest with the status to answer.
    """
    request_line, *lines = head.decode("latin-1").split("\r\n")
    method, target, version = _request_line(request_line)
    if len(lines) > limits.header_count:
        raise BadRequest(431, f"more than {limits.header_count} headers")
    headers = _headers(lines)
    if version == "HTTP/1.1" and "host" not in headers:
        raise BadRequest(400, "the Host header is missing")
    waits = version == "HTTP/1.1" and headers.get("expect", "").lower() == "100-continue"
    path, _, query = target.partition("?")
    return Request(
        method=method,
        path=unquote(path),
        query=_query(query),
        headers=headers,
        body=body_of(headers, version, source, begin if waits else None),
        target=target,
        keep_alive=version == "HTTP/1.1" and "close" not in headers.get("connection", "").lower(),
    )


def _request_line(line: str) -> tuple[str, str, str]:
    parts = line.split(" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or _UNPRINTABLE.search(line):  # noqa: PLR2004 - method, target, version
        raise BadRequest(400, "the request line is malformed")
    method, target, version = parts
    if version not in {"HTTP/1.1", "HTTP/1.0"}:
        raise BadRequest(505, "only HTTP/1.1 is spoken here")
    if target.startswith(("http://", "https://")):  # as proxies send it
        target = "/" + target.split("/", 3)[3] if target.count("/") >= 3 else "/"  # noqa: PLR2004 - two of the scheme
    if not target.startswith("/"):
        raise BadRequest(400, "the request target is malformed")
    return method, target, version


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or _UNPRINTABLE.search(value):
            raise BadRequest(400, "a header is malformed")
        key = name.lower()
        if key in headers:
            if key in {"content-length", "transfer-encoding", "host", "authorization"}:
                raise BadRequest(400, f"the header {key} is there twice")
            headers[key] += ", " + value.strip(" \t")
        else:
            headers[key] = value.strip(" \t")
    return headers


def _query(text: str) -> dict[str, list[str]]:
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=500) if text else {}
    except ValueError as error:
        raise BadRequest(414, "too many query parameters") from error
