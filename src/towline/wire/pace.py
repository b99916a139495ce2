"""A limit on how fast bodies go out, one for all connections together (`--limit-rate`)."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from towline.context import Cancel

_PIECES_A_SECOND = 20
_PIECE_LEAST, _PIECE_MOST = 1 << 10, 64 << 10


class Pace:
    """Whoever sends takes its bytes first, and waits until they are due. Safe from any thread."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`rate`: bytes a second."""
        self.piece = int(min(max(rate / _PIECES_A_SECOND, _PIECE_LEAST), _PIECE_MOST))
        """Bytes to take at once: small enough for the line to stay even."""
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._due = clock()

    def take(self, size: int, cancel: Cancel) -> None:
        """Wait until that many bytes may go. Raises `Cancelled`."""
        with self._lock:
            now = self._clock()
            start = max(now, self._due)
            self._due = start + size / self._rate
        if start > now:
            cancel.wait(start - now)

    def pieces(self, views: Sequence[memoryview], cancel: Cancel) -> Iterator[list[memoryview]]:
        """The same bytes in pieces, each when it is due."""
        for view in views:
            for at in range(0, len(view), self.piece):
                piece = view[at : at + self.piece]
                self.take(len(piece), cancel)
                yield [piece]
