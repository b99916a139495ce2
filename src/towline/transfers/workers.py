"""Threads: a few workers that serve a queue, and the pool that compresses blocks.

They are two, because a pass that waits for its blocks must never use up the threads that make
them. What a job does, and what becomes of its errors, is the job's own matter.
"""

from __future__ import annotations

import heapq
import os
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count as counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from towline.context import Cancel


@dataclass(order=True, slots=True)
class _Job:
    due: float
    number: int
    work: Callable[[], None] = field(compare=False)
    registration: ExitStack = field(compare=False, default_factory=ExitStack)


class Workers:
    """At most `count` threads that do the jobs of one queue, those due first before others.

    Threads are made when there is work for them. A job must not raise: one that does ends its
    thread, which Python reports, and another thread takes its place.
    """

    def __init__(self, count: int, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._count = count
        self._name = name
        self._clock = clock
        self._changed = threading.Condition()
        self._jobs: list[_Job] = []
        self._numbers = counter(1)
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._closed = False

    def submit(
        self, work: Callable[[], None], due_in: float = 0.0, cancel: Cancel | None = None
    ) -> None:
        """Have `work` called in one of the threads, `due_in` seconds from now or a little later.

        A job that must back off returns to the queue so, instead of keeping a thread asleep. With
        `cancel`, it is due as soon as that switch is thrown. Raises RuntimeError after `close`.
        """
        job = _Job(self._clock() + due_in, next(self._numbers), work)
        if cancel is not None and due_in > 0:
            job.registration.enter_context(cancel.on_cancel(lambda: self._hurry(job)))
        with self._changed:
            if not self._closed:
                heapq.heappush(self._jobs, job)
                self._serve()
                return
        job.registration.close()
        raise RuntimeError(f"the {self._name} workers are closed")

    def close(self) -> None:
        """Drop the jobs that have not begun, and wait for those that have."""
        with self._changed:
            self._closed = True
            dropped, self._jobs = self._jobs, []
            threads = list(self._threads)
            self._changed.notify_all()
        for job in dropped:
            job.registration.close()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join()

    def _serve(self) -> None:
        """See to it that somebody looks at the queue. The lock is held."""
        if self._idle >= len(self._jobs) or len(self._threads) >= self._count:
            self._changed.notify()
            return
        name = f"{self._name}-{len(self._threads) + 1}"
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._threads.add(thread)
        thread.start()

    def _hurry(self, job: _Job) -> None:
        with self._changed:
            # Not in the queue yet, or no more: then its order there needs no repair.
            job.due = self._clock()
            heapq.heapify(self._jobs)
            self._changed.notify()

    def _run(self) -> None:
        try:
            while (job := self._next()) is not None:
                job.registration.close()
                job.work()
        finally:
            with self._changed:
                self._threads.discard(threading.current_thread())
                if self._jobs and not self._closed:
                    self._serve()

    def _next(self) -> _Job | None:
        """The next job, once it is due; None when there will be no more."""
        with self._changed:
            while not self._closed:
                left = self._jobs[0].due - self._clock() if self._jobs else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._jobs)
                self._idle += 1
                self._changed.wait(left)
                self._idle -= 1
        return None


def processors() -> int:
    """Processors that this process may use, which a container or `taskset` can make fewer."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it, not every other system
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def encoder_pool() -> ThreadPoolExecutor:
    """A pool for work that keeps a processor busy: one thread for each processor."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(processors(), thread_name_prefix="encoder")
