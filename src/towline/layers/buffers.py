"""Memory for the blocks that streams hold: one for each stream, and some that all share."""

from __future__ import annotations

import os
from threading import Lock

# Two cores get five gzip blocks or one zstd block. With fewer, the encoders of a stream that is
# alone wait for it (measured); more cost memory and win next to nothing.
_SHARED = 7 << 19
_SHARED_A_CORE = 1 << 20
_MOST_CORES = 16
"""Cores for which memory grows: at most 19.5 MiB, however large the machine."""


class Spares:
    """Bytes of memory that all streams together may hold beyond one block each.

    A stream that is alone needs several blocks to keep the cores busy; many streams keep them busy
    with one each. No stream waits for memory: one that gets none goes on with the blocks it has.
    The default grows with the cores, up to 16.
    """

    def __init__(self, size: int | None = None) -> None:
        cores = min(os.cpu_count() or 1, _MOST_CORES)
        self._lock = Lock()
        self._left = _SHARED + cores * _SHARED_A_CORE if size is None else size

    def take(self, size: int) -> bool:
        """Take so many bytes. False: there are not as many left."""
        with self._lock:
            enough = self._left >= size
            if enough:
                self._left -= size
            return enough

    def give(self, size: int) -> None:
        """Give so many bytes back."""
        with self._lock:
            self._left += size


class Buffers:
    """One stream's buffers, made when first needed and used again. Not for two threads at once."""

    def __init__(self, size: int, spares: Spares) -> None:
        self._size = size
        self._spares = spares
        self._free: list[memoryview] = []
        self._made = 0

    def take(self) -> memoryview | None:
        """A buffer with any content; None: the stream may hold no more."""
        if self._free:
            return self._free.pop()
        # The first one is never refused: a stream that had none could not go on at all.
        if self._made and not self._spares.take(self._size):
            return None
        self._made += 1
        return memoryview(bytearray(self._size))

    def give(self, buffer: memoryview) -> None:
        """Take a buffer back."""
        self._free.append(buffer)

    def close(self) -> None:
        """Drop all buffers, and give back the memory beyond the first."""
        self._free.clear()
        if self._made > 1:
            self._spares.give((self._made - 1) * self._size)
        self._made = 0
