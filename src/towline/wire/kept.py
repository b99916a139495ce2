"""Connections that are kept for the next request to the same place, each lent to one at a time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from towline.context import Cancel
    from towline.wire.channel import Channel

IDLE_MAX = 55.0
"""Seconds that a connection is kept; load balancers commonly close theirs after 60."""
_DEAD_MAX = 3
"""Kept connections that die in a row before none is kept any more."""


class Kept:
    """Those of all origins. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, list[tuple[float, Channel]]] = {}
        self._dead: dict[str, int] = {}
        """Kept connections in a row that had died, by origin."""
        self._closed = False

    def take(self, origin: str, cancel: Cancel) -> Loan | None:
        """One that still lives, the one used last first."""
        while True:
            with self._lock:
                idle = self._idle.get(origin)
                if not idle:
                    return None
                since, channel = idle.pop()
            channel.cancel = cancel
            if time.monotonic() - since < IDLE_MAX and channel.idle:
                return Loan(self, origin, channel, fresh=False)
            channel.close()

    def lend(self, origin: str, channel: Channel) -> Loan:
        """A new one."""
        return Loan(self, origin, channel, fresh=True)

    def keep(self, loan: Loan) -> None:
        """For the next request: but not where none that was kept has served a second one."""
        with self._lock:
            if not loan.fresh:
                self._dead[loan.origin] = 0
            if not self._closed and self._dead.get(loan.origin, 0) < _DEAD_MAX:
                idle = self._idle.setdefault(loan.origin, [])
                idle.append((time.monotonic(), loan.channel))
                return
        loan.channel.close()

    def count_dead(self, origin: str) -> None:
        """Note that one that was kept had died."""
        with self._lock:
            self._dead[origin] = self._dead.get(origin, 0) + 1

    def close(self) -> None:
        """Close them; those that are lent are closed when they are given back."""
        self._closed = True
        self.drop()

    def drop(self) -> bool:
        """Close those that nobody uses, to make room for others; whether there were any."""
        with self._lock:
            idle = [channel for channels in self._idle.values() for _, channel in channels]
            self._idle.clear()
        for channel in idle:
            channel.close()
        return bool(idle)


class Loan:
    """A connection that belongs to one exchange until it is given back or closed."""

    def __init__(self, kept: Kept, origin: str, channel: Channel, *, fresh: bool) -> None:
        self.origin = origin
        self.channel = channel
        self.fresh = fresh
        """It has served no request before."""
        self._kept = kept
        self._ended = False

    def give_back(self) -> None:
        """It is fit for another request."""
        if not self._ended:
            self._ended = True
            self._kept.keep(self)

    def close(self) -> None:
        """It is not; without effect when it was given back."""
        if not self._ended:
            self._ended = True
            self.channel.close()

    def had_died(self) -> None:
        """It ended before an answer."""
        if not self.fresh:
            self._kept.count_dead(self.origin)
