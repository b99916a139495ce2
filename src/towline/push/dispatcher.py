"""Starts passes as the slots of their hosts become free, the largest first."""

from __future__ import annotations

import threading
from bisect import insort
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from towline.transfers.slots import Slots

Release = Callable[[str], None]
"""Gives the slot of one host back."""
_MOST_THREADS = 1 << 10
"""Far above what slots allow: a thread is made only for a pass that has its slots."""


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    hosts: frozenset[str]
    size: int
    run: Callable[[Release], None]


class Dispatcher:
    """A queue of passes over slots; none of them has a thread before it has its slots."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._lock = threading.Lock()
        self._queue: list[_Waiting] = []
        self._threads = ThreadPoolExecutor(_MOST_THREADS, "towline-send")
        self._unsubscribe = slots.subscribe(self._start_ready)

    def submit(self, hosts: frozenset[str], size: int, run: Callable[[Release], None]) -> bool:
        """Run it as soon as each host has a free slot; whether that is now.

        `size` orders the queue: the longest first, so that none is left to run alone at the end.
        `run` must give back every slot, each as soon as it is of no more use.
        """
        waiting = _Waiting(hosts, size, run)
        with self._lock:
            insort(self._queue, waiting, key=lambda one: -one.size)
        self._start_ready()
        with self._lock:
            return waiting not in self._queue

    def _start_ready(self) -> None:
        with self._lock:
            ready = [one for one in self._queue if self._slots.try_take(one.hosts)]
            for one in ready:
                self._queue.remove(one)
        for one in ready:
            self._threads.submit(one.run, self._release)

    def beside(self, work: Callable[[], None]) -> None:
        """Run something that a pass goes on with after it has read its last byte."""
        self._threads.submit(work)

    def _release(self, host: str) -> None:
        self._slots.release([host])

    def close(self) -> None:
        """Wait for what runs; what still waits is never started."""
        self._unsubscribe()
        with self._lock:
            self._queue.clear()
        self._threads.shutdown(wait=True)
