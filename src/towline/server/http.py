"""HTTP/1.1 as a server reads it: the head of a request, its body, and what an answer is made of.

Strict where laxness lets one request hide in another (RFC 9112, section 11.2): a length beside
chunks, lengths that differ, folded or malformed headers and lone line feeds are refused, and the
connection ends. Knows neither registries nor when a connection is kept.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qs, unquote

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from io import FileIO

    from towline.server.limits import Limits

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_NUMBER = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")
_LONE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_LINE_BYTES = 4096
"""Longest line of a chunked body: a chunk's size with its extensions, a trailer."""
_TRAILERS = 32
_EMPTY_LINES = 8
_RECEIVE = 16 << 10
_RECEIVE_CHUNKS = 128 << 10
"""Bytes; whoever sends a body in chunks mostly sends 32 or 64 KiB in one."""
_END_OF_HEAD = b"\r\n\r\n"


class BadRequest(Exception):
    """What arrived is no request that can be answered; the connection cannot go on."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Cut(Exception):
    """The client went away, or fell silent, in the middle of a request."""


class Input:
    """The bytes of a connection in order; keeps what came after a head for whoever is next."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()

    def head(self, limits: Limits) -> bytes | None:
        """The next request's head without its last empty line; None at an orderly end.

        Waits `idle_seconds` for a first byte, then `head_seconds` for the rest.
        """
        self._socket.settimeout(limits.idle_seconds)
        if not self._skip_empty_lines():
            return None
        deadline = time.monotonic() + limits.head_seconds
        while (end := self._buffer.find(_END_OF_HEAD)) < 0:
            if len(self._buffer) > limits.head_bytes:
                break
            if _LONE_LINE_FEED.search(self._buffer):
                raise BadRequest(400, "lines end with CR and LF")
            if not self._receive_until(deadline):
                raise Cut
        self._socket.settimeout(limits.idle_seconds)
        if end < 0 or end > limits.head_bytes:
            raise BadRequest(431, f"the headers are longer than {limits.head_bytes} bytes")
        head = bytes(self._buffer[:end])
        del self._buffer[: end + len(_END_OF_HEAD)]
        return head

    def _skip_empty_lines(self) -> bool:
        """Whether a request begins: old clients send an empty line after a body."""
        for _ in range(_EMPTY_LINES):
            while not self._buffer or self._buffer == b"\r":
                try:
                    if not self._receive():
                        return False
                except Cut:
                    return False
            if not self._buffer.startswith(b"\r\n"):
                return True
            del self._buffer[:2]
        return False

    def _receive_until(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        self._socket.settimeout(max(left, 0.001))
        try:
            return self._receive()
        except Cut as cut:
            if isinstance(cut.__cause__, TimeoutError):
                raise BadRequest(408, "the headers did not arrive in time") from cut
            raise

    def _receive(self, size: int = _RECEIVE) -> bool:
        try:
            data = self._socket.recv(size)
        except OSError as error:
            raise Cut from error
        self._buffer += data
        return bool(data)

    @property
    def at_hand(self) -> bool:
        """Whether bytes have been received that nobody has read."""
        return bool(self._buffer)

    @property
    def chunk_at_hand(self) -> bool:
        """The same where a chunk has ended: whether some of the next one has been received."""
        size_end = self._buffer.find(b"\r\n", 2, _LINE_BYTES)
        return 0 < size_end < len(self._buffer) - 2

    def readinto(self, view: memoryview) -> int:
        """Some bytes into the front of `view`; raises Cut at the end."""
        if self._buffer:
            count = min(len(view), len(self._buffer))
            view[:count] = self._buffer[:count]
            del self._buffer[:count]
            return count
        try:
            count = self._socket.recv_into(view)
        except OSError as error:
            raise Cut from error
        if not count:
            raise Cut
        return count

    def line(self) -> bytes:
        """The bytes before the next CRLF, which is read too."""
        while (end := self._buffer.find(b"\r\n", 0, _LINE_BYTES + 2)) < 0:
            if len(self._buffer) > _LINE_BYTES:
                break
            if not self._receive(_RECEIVE_CHUNKS):
                raise Cut
        if end < 0 or end > _LINE_BYTES:
            raise BadRequest(400, "a line of the chunked body is too long")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line


class Body(Protocol):
    """A request's body, read once from front to end."""

    @property
    def length(self) -> int | None:
        """Bytes that were announced; None when it comes in chunks."""
        ...

    @property
    def received(self) -> int:
        """Bytes that were read."""
        ...

    @property
    def finished(self) -> bool:
        """Whether every byte was read."""
        ...

    @property
    def at_hand(self) -> bool:
        """Whether more of it has been received already."""
        ...

    def readinto(self, view: memoryview, /) -> int:
        """Some bytes into the front of `view`; 0 at the end. Raises Cut or BadRequest."""
        ...


class SizedBody:
    """A body with a Content-Length, or none at all: then without a source too."""

    def __init__(self, source: Input | None, length: int, begin: Callable[[], None] | None) -> None:
        self._source = source
        self._begin = begin
        self.length: int | None = length
        self.received = 0
        self._left = length

    @property
    def finished(self) -> bool:
        """Whether every byte was read."""
        return not self._left

    @property
    def at_hand(self) -> bool:
        """See `Body`."""
        return self._left > 0 and self._source is not None and self._source.at_hand

    def readinto(self, view: memoryview, /) -> int:
        """See `Body`."""
        if not self._left or self._source is None:
            return 0
        if self._begin:
            self._begin()
            self._begin = None
        count = self._source.readinto(view[: self._left])
        self._left -= count
        self.received += count
        return count


class ChunkedBody:
    """A body in chunks (RFC 9112, section 7.1); extensions and trailers are read over."""

    def __init__(self, source: Input, begin: Callable[[], None] | None) -> None:
        self._source = source
        self._begin = begin
        self.length: int | None = None
        self.received = 0
        self.finished = False
        self._left = 0
        self._first = True

    @property
    def at_hand(self) -> bool:
        """See `Body`."""
        if self.finished:
            return False
        return self._source.at_hand if self._left else self._source.chunk_at_hand

    def readinto(self, view: memoryview, /) -> int:
        """See `Body`."""
        if self._begin:
            self._begin()
            self._begin = None
        if not self._left and not self.finished:
            self._next_chunk()
        if self.finished:
            return 0
        count = self._source.readinto(view[: self._left])
        self._left -= count
        self.received += count
        return count

    def _next_chunk(self) -> None:
        if not self._first and self._source.line():
            raise BadRequest(400, "a chunk is longer than its size")
        self._first = False
        match = _CHUNK_SIZE.fullmatch(self._source.line())
        if not match:
            raise BadRequest(400, "a chunk has no size")
        self._left = int(match[1], 16)
        if not self._left:
            self._skip_trailers()
            self.finished = True

    def _skip_trailers(self) -> None:
        for _ in range(_TRAILERS):
            if not self._source.line():
                return
        raise BadRequest(400, "too many trailers")


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
        body=_body(headers, version, source, begin if waits else None),
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


def _body(
    headers: Mapping[str, str], version: str, source: Input, begin: Callable[[], None] | None
) -> Body:
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if length is not None or version == "HTTP/1.0":
            raise BadRequest(400, "Transfer-Encoding does not go with Content-Length or HTTP/1.0")
        if coding.lower() != "chunked":
            raise BadRequest(501, "the only transfer coding known here is chunked")
        return ChunkedBody(source, begin)
    if length is not None and not _NUMBER.fullmatch(length):
        raise BadRequest(400, "the Content-Length is no number")
    return SizedBody(source, int(length or 0), begin)
