"""The body of a request, of a length that was announced or in chunks (RFC 9112, section 7.1).

Strict where laxness lets one request hide in another (section 11.2): a length beside chunks is
refused, and so are chunks that are not as long as they say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from towline.server.input import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from towline.server.input import Input

_NUMBER = re.compile(r"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?")
_TRAILERS = 32


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


def body_of(
    headers: Mapping[str, str], version: str, source: Input, begin: Callable[[], None] | None
) -> Body:
    """The body that a request's headers announce; `begin` is called before its first byte.

    Raises BadRequest.
    """
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
