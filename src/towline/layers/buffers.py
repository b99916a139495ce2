"""Memory for the blocks that streams hold: one block for each, some more shared by all."""

from __future__ import annotations

import os
from threading import Lock

# Two cores get five gzip blocks or one zstd block: with fewer, a lone stream's encoders wait for
# it (measured); more cost memory and win next to nothing.
_SHARED = 7 << 19
_SHARED_A_CORE = 1 << 20
_MOST_CORES = 16


class Spares:
    """Memory, in bytes, that streams which share this may hold beyond one block each.

    One stream alone needs several blocks to keep the cores busy; many streams keep them busy with
    one each. Shared, it bounds the memory of all together. Nobody ever waits for it: a stream
    that gets none goes on with what it has. By default it grows with the cores, up to a point.
    """

    def __init__(self, size: int | None = None) -> None:
        cores = min(os.cpu_count() or 1, _MOST_CORES)
        self._lock = Lock()
        self._left = _SHARED + cores * _SHARED_A_CORE if size is None else size

    def take(self, size: int) -> bool:
        """Take that much, if there is as much."""
        with self._lock:
            enough = self._left >= size
            if enough:
                self._left -= size
            return enough

    def give(self, size: int) -> None:
        """Give it back."""
        with self._lock:
            self._left += size


class Buffers:
    """One stream's buffers, made when first needed and used again; for one thread."""

    def __init__(self, size: int, spares: Spares) -> None:
        self._size = size
        self._spares = spares
        self._free: list[memoryview] = []
        self._made = 0

    def take(self) -> memoryview | None:
        """A free buffer, with anything in it; None when no more may be held."""
        if self._free:
            return self._free.pop()
        if self._made and not self._spares.take(self._size):
            return None
        self._made += 1
        return memoryview(bytearray(self._size))

    def give(self, buffer: memoryview) -> None:
        """Take a buffer back."""
        self._free.append(buffer)

    def close(self) -> None:
        """Let all go."""
        self._free.clear()
        if self._made > 1:
            self._spares.give((self._made - 1) * self._size)
        self._made = 0
