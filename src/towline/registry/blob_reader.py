"""A blob of a registry, read from the first byte to the last and checked at the end."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from towline.errors import RegistryError

if TYPE_CHECKING:
    from towline.wire.exchange import Unread


class BlobReader:
    """A `layers.reader.Reader`; the last read raises RegistryError when the digest is another."""

    def __init__(self, digest: str, where: str, unread: Unread) -> None:
        self._digest = digest
        self._where = where
        self._unread = unread
        self._hash = hashlib.new(digest.partition(":")[0])
        self._piece = memoryview(b"")
        self._ended = False

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer from the front; 0 at the end. Raises RegistryError, NetworkError."""
        filled = 0
        while filled < len(buffer) and not self._ended:
            part = self._piece[: len(buffer) - filled]
            buffer[filled : filled + len(part)] = part
            self._piece = self._piece[len(part) :]
            filled += len(part)
            if not self._piece and filled < len(buffer):
                self._piece = memoryview(self._unread.next_piece())
                self._hash.update(self._piece)
                self._ended = not self._piece
        if self._ended and self._hash.hexdigest() != self._digest.partition(":")[2]:
            raise RegistryError(
                f"{self._where} gave other bytes for blob {self._digest}", transient=True
            )
        return filled

    def close(self) -> None:
        """Break off if it was not read to its end."""
        self._unread.close()
