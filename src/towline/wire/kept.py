"""Connections that wait for their next request."""

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
    """Connections without an exchange, of all origins. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, list[tuple[float, Channel]]] = {}
        self._dead: dict[str, int] = {}
        """Kept connections in a row that had died, by origin."""
        self._closed = False

    def take(self, origin: str, cancel: Cancel) -> Channel | None:
        """One that still lives, the one used last first."""
        while True:
            with self._lock:
                idle = self._idle.get(origin)
                if not idle:
                    return None
                since, channel = idle.pop()
            channel.cancel = cancel
            if time.monotonic() - since < IDLE_MAX and channel.idle:
                return channel
            channel.close()

    def keep(self, origin: str, channel: Channel, *, fresh: bool) -> None:
        """For the next request: but not where none that was kept has served a second one.

        `fresh`: this was its first one.
        """
        with self._lock:
            if not fresh:
                self._dead[origin] = 0
            if not self._closed and self._dead.get(origin, 0) < _DEAD_MAX:
                self._idle.setdefault(origin, []).append((time.monotonic(), channel))
                return
        channel.close()

    def count_dead(self, origin: str) -> None:
        """Note that one that was kept had died."""
        with self._lock:
            self._dead[origin] = self._dead.get(origin, 0) + 1

    def close(self) -> None:
        """Close them; those in use are closed when they come back."""
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
