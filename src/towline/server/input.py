"""What a client sends, byte by byte: heads of requests, lines, pieces of bodies.

Knows how long to wait for them and how long they may be, not what they mean.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from towline.server.limits import Limits

_LONE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_LINE_BYTES = 4096
"""Longest line of a chunked body: a chunk's size with its extensions, a trailer."""
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
