"""Memory for the blocks that streams hold: a little for each, some more shared by all."""

from __future__ import annotations

import os
from threading import BoundedSemaphore

OWN = 2
"""Blocks that every stream may hold: one being compressed while the next is read."""
SPARES = 2
MOST_SPARES = 16


class Spares:
    """How many blocks the streams that share this may hold beyond their own.

    One stream alone needs several to keep the cores busy; many streams keep them busy with few
    each. Shared, they bound the memory of all together. Nobody ever waits for a spare.
    By default there are as many as cores, within `SPARES` and `MOST_SPARES`.
    """

    def __init__(self, count: int | None = None) -> None:
        if count is None:
            count = max(SPARES, min(os.cpu_count() or 1, MOST_SPARES))
        self._left = BoundedSemaphore(count)

    def take(self) -> bool:
        """Take one if there is one."""
        return self._left.acquire(blocking=False)

    def give(self) -> None:
        """Give one back."""
        self._left.release()


class Buffers:
    """One stream's buffers, made when first needed and used again; for one thread."""

    def __init__(self, size: int, spares: Spares) -> None:
        self._size = size
        self._spares = spares
        self._free: list[memoryview] = []
        self._made = 0
        self._spared = 0

    def take(self) -> memoryview | None:
        """A free buffer, with anything in it; None when no more may be held."""
        if self._free:
            return self._free.pop()
        if self._made >= OWN:
            if not self._spares.take():
                return None
            self._spared += 1
        self._made += 1
        return memoryview(bytearray(self._size))

    def give(self, buffer: memoryview) -> None:
        """Take a buffer back."""
        self._free.append(buffer)

    def close(self) -> None:
        """Let all go."""
        self._free.clear()
        for _ in range(self._spared):
            self._spares.give()
        self._spared = 0
