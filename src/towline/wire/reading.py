"""Reading an answer off a channel (RFC 9112): strict about its frame, bounded in every part.

Knows bytes and frames; what an answer means is its reader's affair.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, NamedTuple

from towline.spec.reading import number
from towline.wire.message import Headers

if TYPE_CHECKING:
    from towline.wire.channel import Channel

HEAD_MAX = 64 << 10
"""Bytes of status line and header fields together."""
_FIELDS_MAX = 200
_CHUNK_LINE_MAX = 4 << 10
_INTERIM_MAX = 20
_WHOLE = 2
"""Times the allowed silence in which a head that has begun must be whole."""
_SLOWEST = 1 << 10
"""Bytes a second: a body that comes more slowly, after as long, has no end."""
_INTERIM = range(100, 200)
_BODILESS = frozenset({204, 304})
_SWITCHING = 101

_STATUS = re.compile(rb"HTTP/1\.([0-9]) ([1-5][0-9][0-9])(?: ([^\r\n]*))?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:(.*)")
_CHUNK_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")


class Broken(Exception):
    """Bytes that are no HTTP answer; `begun` when there was one and it is torn or false."""

    def __init__(self, message: str, *, begun: bool = False, start: bytes = b"") -> None:
        super().__init__(message)
        self.begun = begun
        self.start = start
        """The first bytes, by which to guess what the other side speaks."""


class Gone(Broken):
    """The connection ended; before any byte of an answer unless `begun`."""


class Head(NamedTuple):
    """Status line and header fields."""

    status: int
    reason: str
    headers: Headers
    minor: int
    """0 or 1: the minor version of HTTP."""

    @property
    def interim(self) -> bool:
        """Whether the answer proper is still to come (100, 103)."""
        return self.status in _INTERIM

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection may serve another request when this answer is read."""
        options = self.headers.tokens("Connection")
        return "close" not in options and (self.minor > 0 or "keep-alive" in options)


def read_head(channel: Channel, seconds: float) -> Head:
    """The final answer's head; interim ones (100, 103) are passed over.

    `seconds` without a byte are allowed. Raises Broken, OSError, Silence.
    """
    for _ in range(_INTERIM_MAX):
        head = read_any_head(channel, seconds)
        if not head.interim:
            return head
    raise Broken("nothing but interim answers", begun=True)


def read_any_head(channel: Channel, seconds: float) -> Head:
    """The next head, interim or final."""
    data = b""
    whole_by: float | None = None
    while (end := _end_of_head(data)) is None:
        if len(data) > HEAD_MAX or (whole_by and time.monotonic() > whole_by):
            raise Broken("header fields without end", begun=True)
        # A long pause is for who still has to think, and that is over with the first byte.
        more = channel.receive(channel.timeout if data else seconds)
        if not more:
            raise Gone("the connection ended", begun=bool(data), start=data[:16])
        data += more
        whole_by = whole_by or time.monotonic() + _WHOLE * channel.timeout
        # What is no HTTP is known by its first line; it may never send an empty one.
        if not data.startswith(b"HTTP/"[: len(data)]):
            raise Broken("no HTTP answer", start=data[:16])
    channel.give_back(data[end:])
    return _parse(data[:end])


def _end_of_head(data: bytes) -> int | None:
    ends = [at + len(mark) for mark in (b"\r\n\r\n", b"\n\n") if (at := data.find(mark)) >= 0]
    return min(ends) if ends else None


def _parse(data: bytes) -> Head:
    first, *lines = data.rstrip(b"\r\n").split(b"\n")
    match = _STATUS.fullmatch(first.rstrip(b"\r"))
    if match is None:
        raise Broken("no HTTP answer", start=data[:16])
    if int(match[2]) == _SWITCHING:
        raise Broken("an answer that changes the protocol", begun=True)
    if len(lines) > _FIELDS_MAX:
        raise Broken("too many header fields", begun=True)
    reason = (match[3] or b"").decode("latin-1").strip()
    return Head(int(match[2]), reason, Headers(_fields(lines)), int(match[1]))


def _fields(lines: list[bytes]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for line in lines:
        text = line.rstrip(b"\r")
        if text[:1] in {b" ", b"\t"} and found:
            name, value = found.pop()
            found.append((name, f"{value} {text.strip().decode('latin-1')}"))
        elif match := _FIELD.fullmatch(text):
            found.append((match[1].decode("ascii"), match[2].strip(b" \t").decode("latin-1")))
        else:
            raise Broken("a header field that is none", begun=True)
    return found


class Body:
    """The body behind a head: read to its end, it leaves the channel at the next answer."""

    def __init__(self, channel: Channel, head: Head, method: str) -> None:
        self._channel = channel
        self._left: int | None = _length(head, method)
        """Bytes to come, of the body or of the chunk; None: until the connection ends."""
        self._chunked = self._left is None and "chunked" in head.headers.tokens("Transfer-Encoding")
        self._begun = False
        self.done = self._left == 0 and not self._chunked
        if self._chunked:
            self._left = 0
        self.delimited = self.done or self._left is not None
        """Whether the end is known other than by the end of the connection."""

    def read(self, seconds: float) -> bytes:
        """The next piece, b"" at the end. Raises Broken, OSError, Silence."""
        if self.done:
            return b""
        if self._chunked and self._left == 0 and not self._next_chunk(seconds):
            return b""
        data = self._channel.receive(seconds)
        if not data:
            if self._left is None:
                self.done = True
                return b""
            raise Gone("the connection ended in the middle of the answer", begun=True)
        if self._left is not None:
            data = self._take(data, self._left)
        return data

    def read_all(self, seconds: float, limit: int) -> bytes:
        """Whole, or some more than `limit` bytes of it. Raises as `read` does."""
        parts: list[bytes] = []
        size = 0
        began = time.monotonic()
        while size <= limit and (piece := self.read(seconds)):
            parts.append(piece)
            size += len(piece)
            if time.monotonic() - began > _WHOLE * self._channel.timeout + size / _SLOWEST:
                raise Broken("a body without end", begun=True)
        return b"".join(parts)

    def _take(self, data: bytes, left: int) -> bytes:
        if len(data) > left:
            self._channel.give_back(data[left:])
            data = data[:left]
        self._left = left - len(data)
        self.done = not self._chunked and self._left == 0
        return data

    def _next_chunk(self, seconds: float) -> bool:
        if self._begun and self._line(seconds):
            raise Broken("a chunk without an end", begun=True)
        self._begun = True
        match = _CHUNK_SIZE.fullmatch(self._line(seconds))
        if match is None:
            raise Broken("a chunk without a size", begun=True)
        self._left = int(match[1], 16)
        if not self._left:
            for _ in range(_FIELDS_MAX):
                if not self._line(seconds):
                    self.done = True
                    return False
            raise Broken("trailers without end", begun=True)
        return True

    def _line(self, seconds: float) -> bytes:
        data = b""
        while b"\n" not in data:
            more = self._channel.receive(seconds)
            if not more:
                raise Gone("the connection ended in the middle of the answer", begun=True)
            data += more
            if len(data) > _CHUNK_LINE_MAX and b"\n" not in data[:_CHUNK_LINE_MAX]:
                raise Broken("a chunk without a size", begun=True)
        line, _, rest = data.partition(b"\n")
        self._channel.give_back(rest)
        return line.rstrip(b"\r")


def _length(head: Head, method: str) -> int | None:
    if method == "HEAD" or head.status in _BODILESS or head.status in _INTERIM:
        return 0
    codings = [coding for coding in head.headers.tokens("Transfer-Encoding") if coding]
    if codings:
        if codings[-1] != "chunked" or len(codings) > 1:
            raise Broken("a transfer coding that was not asked for", begun=True)
        return None
    lengths = set(head.headers.tokens("Content-Length"))
    if not lengths:
        return None
    length = number(lengths.pop())
    if lengths or length is None:
        raise Broken("a Content-Length that is none", begun=True)
    return length
