"""Connections that are kept for their next request."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from towline.context import Cancel
    from towline.wire.channel import Channel

IDLE_MAX = 55.0
"""Seconds that a connection is kept: load balancers commonly close theirs after 60."""
_DEAD_MAX = 3
"""Kept connections that die in a row before none is kept any more: some servers end each
connection after one answer, and do not say so."""


class Kept:
    """Connections without an exchange, of all origins. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, list[tuple[float, Channel]]] = {}
        self._dead: dict[str, int] = {}
        """By origin: kept connections in a row that had died."""
        self._closed = False

    def take(self, origin: str, cancel: Cancel) -> Channel | None:
        """A connection that still lives; None: there is none."""
        # The one used last, which is most likely to live. The lock is not held while it is looked
        # at: that is a system call.
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
        """Keep a connection for the next request, unless kept ones keep dying at this origin.

        `fresh`: it has served no more than one request.
        """
        with self._lock:
            if not fresh:
                self._dead[origin] = 0
            if not self._closed and self._dead.get(origin, 0) < _DEAD_MAX:
                self._idle.setdefault(origin, []).append((time.monotonic(), channel))
                return
        channel.close()

    def count_dead(self, origin: str) -> None:
        """Note that a kept connection had died."""
        with self._lock:
            self._dead[origin] = self._dead.get(origin, 0) + 1

    def close(self) -> None:
        """Close the kept connections; those in use are closed when they come back."""
        self._closed = True
        self.drop()

    def drop(self) -> bool:
        """Close the connections that nobody uses. Returns whether there were any."""
        with self._lock:
            idle = [channel for channels in self._idle.values() for _, channel in channels]
            self._idle.clear()
        for channel in idle:
            channel.close()
        return bool(idle)
