"""TLS to a server inside of TLS to a proxy: OpenSSL's second layer reads and writes memory.

It has the calls of a non-blocking SSLSocket that `channel` uses, and their exceptions.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Literal

RECORD = 64 << 10
"""Bytes asked of the outer layer at once."""


class TlsInTls:
    """Not for two threads at once."""

    def __init__(self, outer: ssl.SSLSocket, context: ssl.SSLContext, name: str) -> None:
        self._outer = outer
        self._arrived = ssl.MemoryBIO()
        self._leaving = ssl.MemoryBIO()
        self._inner = context.wrap_bio(self._arrived, self._leaving, server_hostname=name)
        self._unsent = b""
        self._taken = False

    def do_handshake(self) -> None:
        """Raises ssl.SSLWantReadError, ssl.SSLWantWriteError, OSError."""
        while True:
            try:
                self._inner.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            else:
                self._flush()
                return

    def send(self, piece: memoryview) -> int:
        """Send all of it; after an exception that asks to wait, call again with the same piece."""
        if not self._taken:
            self._inner.write(piece)
            self._taken = True
        self._flush()
        self._taken = False
        return len(piece)

    def recv(self, size: int) -> bytes:
        """All that has arrived, about `size` bytes at most; b"" at the end."""
        data = b""
        while True:
            try:
                more = self._inner.read(size)
            except ssl.SSLWantReadError:
                if data:
                    return data
                # What is to be read may be why nothing more can be sent.
                with suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    self._flush()
                self._fill()
                continue
            except ssl.SSLEOFError:
                return data
            data += more
            # What lies in memory is not heard of by whoever polls the socket.
            if not (more and self._arrived.pending and len(data) < size):
                return data

    def getpeercert(self, *, binary_form: Literal[True]) -> bytes | None:
        """The server's certificate (DER)."""
        return self._inner.getpeercert(binary_form=binary_form)

    def _flush(self) -> None:
        while self._unsent or self._leaving.pending:
            self._unsent = self._unsent or self._leaving.read()
            sent = self._outer.send(self._unsent)
            self._unsent = self._unsent[sent:]

    def _fill(self) -> None:
        data = self._outer.recv(RECORD)
        if data:
            self._arrived.write(data)
        else:
            self._arrived.write_eof()
