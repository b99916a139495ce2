"""Threads that ask and mount: a few for each host, so that one that hangs keeps no other waiting.

They also look after what waits for a certain time. Nothing in here sleeps with work in hand.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from towline.transfers.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.context import Cancel

_TIMERS = ""
"""No host is called so."""


class Settlers:
    """At most `count` threads for each host, made when there is work for them."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._workers: dict[str, Workers] = {}
        self._closed = False

    def submit(
        self,
        host: str,
        work: Callable[[], None],
        due_in: float = 0.0,
        cancel: Cancel | None = None,
    ) -> None:
        """Have work that speaks to a host done; see `Workers.submit`."""
        self._of(host, self._count).submit(work, due_in, cancel)

    def after(self, seconds: float, work: Callable[[], None]) -> None:
        """Have something brief done that speaks to nobody. RuntimeError after `close`."""
        self._of(_TIMERS, 1).submit(work, seconds)

    def _of(self, host: str, count: int) -> Workers:
        with self._lock:
            if self._closed:
                raise RuntimeError("the settlers are closed")
            if host not in self._workers:
                self._workers[host] = Workers(count, f"towline-settle-{host or 'timer'}")
            return self._workers[host]

    def close(self) -> None:
        """Drop what has not begun, and wait for what has."""
        with self._lock:
            self._closed = True
            workers = list(self._workers.values())
        for some in workers:
            some.close()
