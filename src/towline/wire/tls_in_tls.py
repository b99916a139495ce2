"""TLS to a server inside TLS to a proxy: the inner layer of OpenSSL reads and writes memory.

The class has those methods of a non-blocking SSLSocket that `channel` uses, and their exceptions.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Literal

RECORD = 64 << 10
"""Bytes asked of the outer layer at once."""


class TlsInTls:
    """The inner layer of TLS. Not for two threads at once."""

    def __init__(self, outer: ssl.SSLSocket, context: ssl.SSLContext, name: str) -> None:
        self._outer = outer
        self._arrived = ssl.MemoryBIO()
        self._leaving = ssl.MemoryBIO()
        self._inner = context.wrap_bio(self._arrived, self._leaving, server_hostname=name)
        self._unsent = b""
        self._taken = False

    def do_handshake(self) -> None:
        """Go on with the handshake. Raises SSLWantReadError, SSLWantWriteError, OSError."""
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
        """Send all of `piece`. After SSLWantWriteError or -ReadError, call again with the same."""
        if not self._taken:  # else it is encrypted already, and would go twice
            self._inner.write(piece)
            self._taken = True
        self._flush()
        self._taken = False
        return len(piece)

    def recv(self, size: int) -> bytes:
        """All that has arrived, up to about `size` bytes; b"" at the end."""
        data = b""
        while True:
            try:
                more = self._inner.read(size)
            except ssl.SSLWantReadError:
                if data:
                    return data
                # The server may wait for bytes that we have not sent yet. If they cannot be sent
                # now, reading may be what helps.
                with suppress(ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    self._flush()
                self._fill()
                continue
            except ssl.SSLEOFError:
                return data
            data += more
            # Read all that lies in memory: whoever polls the socket does not hear of it.
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
