"""Starts passes as the slots of their hosts become free, the largest first."""

from __future__ import annotations

import threading
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from towline.transfers.slots import Slots

Release = Callable[[str], None]
"""Gives the slot of one host back."""
_MOST_THREADS = 1 << 10
"""Far above what slots allow: a thread is made only for a pass that has its slots."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticket:
    """A pass in the queue."""

    hosts: frozenset[str]
    """One slot of each is taken for it."""
    size: int
    """Bytes to read. It orders the queue: the longest first, so that none is left to run alone."""
    run: Callable[[Release], None]
    """Called in a thread with the slots taken; each is to be given back when it is of no more use.

    It must not raise.
    """


class Dispatcher:
    """A queue of passes over slots; none of them has a thread before it has its slots."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._lock = threading.Lock()
        self._queue: list[Ticket] = []
        self._threads: ThreadPoolExecutor | None = None
        self._closed = False
        self._unsubscribe = slots.subscribe(self._start_ready)

    def submit(self, ticket: Ticket) -> bool:
        """Run it as soon as each of its hosts has a free slot; whether that is now."""
        with self._lock:
            insort(self._queue, ticket, key=lambda one: -one.size)
        self._start_ready()
        return not self.waits(ticket)

    def waits(self, ticket: Ticket) -> bool:
        """Whether it is in the queue."""
        with self._lock:
            return ticket in self._queue

    def withdraw(self, ticket: Ticket) -> bool:
        """Take it out of the queue; False where it is not there any more."""
        with self._lock:
            waits = ticket in self._queue
            if waits:
                self._queue.remove(ticket)
            return waits

    def full(self, ticket: Ticket) -> frozenset[str]:
        """Which of its hosts have no free slot now."""
        return self._slots.full(ticket.hosts)

    def _start_ready(self) -> None:
        for one in self._taken():
            self._in_thread(partial(one.run, self._release))

    def _taken(self) -> list[Ticket]:
        """Those that have their slots now, off the queue."""
        ready: list[Ticket] = []
        full: frozenset[str] = frozenset()
        with self._lock:
            for one in self._queue:
                if one.hosts & full:  # a long queue for a busy host is passed over quickly
                    continue
                if self._slots.try_take(one.hosts):
                    ready.append(one)
                else:
                    full |= self._slots.full(one.hosts)
            for one in ready:
                self._queue.remove(one)
        return ready

    def beside(self, work: Callable[[], object]) -> None:
        """Run something in a thread of its own, with no slot taken for it; it must not raise.

        Once closed, in this one.
        """
        try:
            self._in_thread(work)
        except RuntimeError:
            work()

    def _in_thread(self, work: Callable[[], object]) -> None:
        """Raises RuntimeError once closed."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the dispatcher is closed")
            if self._threads is None:
                from concurrent.futures import ThreadPoolExecutor  # a push of nothing needs none

                self._threads = ThreadPoolExecutor(_MOST_THREADS, "towline-send")
            self._threads.submit(work)

    def _release(self, host: str) -> None:
        self._slots.release([host])

    def close(self) -> None:
        """Wait for what runs; what still waits is never started."""
        self._unsubscribe()
        with self._lock:
            self._queue.clear()
            self._closed = True
        if self._threads:
            self._threads.shutdown(wait=True)
