"""Threads that serve a queue, and the error where the system gives none."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING, Self, TypeVar

from towline.errors import Cancelled, TowlineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from towline.context import Cancel

T = TypeVar("T")

IDLE = 1.0
"""Seconds after which a thread without work ends: a `Pusher` may live for days, and has threads of
each host and archive that it has ever written to."""


class Threads:
    """At most `count` threads that do what is submitted, in that order.

    A thread is made when there is work for it, and ends when there has been none for a second.
    Where the system gives no more threads, those that exist do the work one after the other. They
    are daemons, unlike those of `concurrent.futures`: a thread that is stuck in a call of the
    kernel must not keep the process from ending.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count = count
        self._name = name
        self._changed = threading.Condition()
        self._queue: deque[Callable[[], None]] = deque()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._closed = False

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Have `work` called in one of the threads, unless its future is cancelled before.

        The future fails at once: with UsageError after `close`, and with TowlineError when not a
        single thread can be made. See `not_begun`.
        """
        from concurrent.futures import Future  # a push of nothing needs none

        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001 - whoever waits for it hears of it
                future.set_exception(error)

        with self._changed:
            if self._closed:
                # Not `Cancelled`: a flight that ends so is begun anew.
                future.set_exception(
                    UsageError(
                        "this Pusher was closed while it was used",
                        hint="close it when its pushes are over",
                    )
                )
            elif self._has_thread():
                self._queue.append(run)
                self._changed.notify()
            else:
                future.set_exception(no_thread())
        return future

    def offer(self, work: Callable[[], None]) -> bool:
        """Have `work`, which never raises, called if a thread is free to begin it now.

        Returns whether it is.
        """
        with self._changed:
            free = self._idle > len(self._queue) or len(self._threads) < self._count
            return free and not_begun(self.submit(work)) is None

    def _has_thread(self) -> bool:
        """Make one more thread, if that is of use. False: there is none at all. Lock held."""
        if len(self._queue) < self._idle or len(self._threads) >= self._count:
            return True
        name = f"{self._name}-{len(self._threads) + 1}"
        thread = threading.Thread(target=self._serve, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # "can't start new thread": a limit of the system
            return bool(self._threads)
        self._threads.add(thread)
        return True

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._queue or self._closed, IDLE)
                self._idle -= 1
                if not self._queue:
                    if not self._closed:  # else `join` waits for it
                        self._threads.discard(threading.current_thread())
                    return
                work = self._queue.popleft()
            work()
            del work  # else an idle thread would keep alive all that its last work refers to

    def close(self) -> None:
        """Take no more work. The threads end when the work that was submitted is done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self) -> None:
        """Wait for the end of the threads, after `close`."""
        with self._changed:
            # A thread that closes its own pool must not wait for itself.
            threads = self._threads - {threading.current_thread()}
        for thread in threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.join()


def result_of(future: Future[T], cancel: Cancel) -> T:
    """Wait for the result of submitted work. Raises what it raised, and Cancelled.

    Once the switch is thrown, work that has not begun never does: all threads may be busy with that
    of others. What has begun is waited for; it has to heed the same switch.
    """
    from concurrent.futures import CancelledError  # a push of nothing needs none

    with cancel.on_cancel(future.cancel):
        try:
            return future.result()
        except CancelledError:
            raise Cancelled from None


def not_begun(future: Future[T]) -> BaseException | None:
    """Why `submit` has not queued the work; None: it has. For work that never raises."""
    return future.exception() if future.done() and not future.cancelled() else None


def no_thread() -> TowlineError:
    """The error where the system gives not even one thread."""
    return TowlineError(
        "the system lets this process start no thread",
        hint="raise its limit of processes (`ulimit -u`, or the container's pids limit)",
    )


def processors() -> int:
    """Processors that this process may use: a container or `taskset` may allow fewer."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it, not every other system
    return len(affinity(0)) if affinity else os.cpu_count() or 1
