"""Joining: two that want the same thing at the same moment get it from one transfer.

A transfer belongs to nobody: who started it may leave while others still wait. It has a context
of its own, cancelled when its last watcher has left. `join` names the one who has to do the work,
and he says how it ended; `start` does that for work that is a plain function. What makes two
transfers the same is the key's matter, and the key is chosen by whoever joins.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from towline.context import Cancel
from towline.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Self

    from towline.context import Context
    from towline.events import Event

    Submit = Callable[[Callable[[], None]], object]

T = TypeVar("T")


class Restart(Exception):
    """The work stopped as cancelled while this watcher still wanted it: join again."""


class Transfer(Generic[T]):
    """Work under way for all who watch it. Whoever started it must end it, once, in any case."""

    def __init__(self, starter: Context, lock: threading.Lock, forget: Callable[[], None]) -> None:
        self.context = replace(starter, cancel=Cancel(), emit=self._tell)
        """What the work is to use: a switch of its own, thrown when nobody watches any more; all
        watchers listening; the starter's counts and clock."""
        self.watches: list[Watch[T]] = []
        """Guarded by the lock. Empty: it was told to stop, and may not have stopped yet."""
        self._lock = lock
        self._forget = forget
        self._telling = threading.RLock()
        self._listeners: tuple[Watch[T], ...] = ()
        self._last: Event | None = None
        self._ended = False
        self._result: T | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for it.

        Those who were cancelled do not, though one of them may not have left yet: a switch runs
        its actions one after the other.
        """
        with self._lock:
            return any(not watch.cancelled for watch in self.watches)

    def done(self, result: T) -> None:
        """It succeeded: every watcher gets this result."""
        self._end(result, None)

    def failed(self, error: BaseException) -> None:
        """It failed, or stopped because it was cancelled: every watcher gets this error."""
        self._end(None, error)

    def _end(self, result: T | None, error: BaseException | None) -> None:
        with self._lock:
            if self._ended:
                raise RuntimeError("this transfer has ended already")
            self._ended, self._result, self._error = True, result, error
            self._forget()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once, in whatever thread ends this; now if it has ended."""
        with self._lock:
            if not self._ended:
                self._callbacks.append(callback)
                return
        callback()

    def outcome(self, cancel: Cancel) -> T:
        """Wait for the end: the result, or the error raised; `Restart` instead of `Cancelled`.

        Raises `Cancelled` when `cancel` is thrown.
        """
        _await_end(self, cancel)
        cancel.check()
        if isinstance(self._error, Cancelled):
            raise Restart
        if self._error is not None:
            raise self._error
        return cast("T", self._result)

    def leave(self, watch: Watch[T]) -> None:
        """One watcher less; without any, the work is told to stop."""
        with self._lock:
            if watch not in self.watches:
                return
            self.watches.remove(watch)
            self._listeners = tuple(other for other in self._listeners if other is not watch)
            abandoned = not self.watches and not self._ended
        if abandoned:
            self.context.cancel.cancel()

    def listen(self, watch: Watch[T]) -> None:
        """Tell a watcher the latest event, and then each that follows."""
        with self._telling:
            if self._last is not None:
                watch.tell(self._last)
            with self._lock:
                self._listeners = (*self._listeners, watch)

    def _tell(self, event: Event) -> None:
        # One event after the other, so that a late watcher neither misses one nor gets it twice.
        with self._telling:
            self._last = event
            for watch in self._listeners:
                watch.tell(event)


class Watch(Generic[T]):
    """One caller's interest in a transfer. It ends by `result`, `leave`, or leaving `with`."""

    def __init__(self, transfer: Transfer[T], watcher: Context, *, starts: bool) -> None:
        self.started = transfer if starts else None
        """The transfer, for the one caller who has to do its work; else None."""
        self._transfer = transfer
        self._watcher = watcher
        self._deaf = False
        self._registration = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    @property
    def cancelled(self) -> bool:
        """Whether the watcher's own switch was thrown."""
        return self._watcher.cancel.cancelled

    def result(self) -> T:
        """Wait for the end, and leave.

        Raises what the work raised; `Cancelled` as soon as the watcher's own switch is thrown;
        `Restart` where the work stopped as cancelled, although this watcher had not left.
        """
        try:
            return self._transfer.outcome(self._watcher.cancel)
        finally:
            self.leave()

    def on_done(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once, in whatever thread ends the transfer; now if it has ended.

        It must be brief. From then on `result` does not wait.
        """
        self._transfer.on_end(callback)

    def leave(self) -> None:
        """Lose interest. The last one to do so before the end cancels the transfer, at once."""
        self._transfer.leave(self)
        self._registration.close()

    def begin(self) -> None:
        """Listen, and leave when the watcher's switch is thrown. `join` has called it."""
        self._transfer.listen(self)
        # Not our `leave`: it would close the registration in the middle of its making.
        action = partial(self._transfer.leave, self)
        self._registration.enter_context(self._watcher.cancel.on_cancel(action))

    def tell(self, event: Event) -> None:
        """Pass an event on to the watcher; one that fails at listening is told no more."""
        if self._deaf:
            return
        try:
            self._watcher.emit(event)
        except Exception:  # noqa: BLE001 - the transfer is the other watchers' too
            self._deaf = True


class SharedTransfers(Generic[T]):
    """The transfers that are under way, by key. Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[Hashable, Transfer[T]] = {}

    def __len__(self) -> int:
        """Transfers that have not ended, those told to stop included."""
        with self._lock:
            return len(self._running)

    def join(self, key: Hashable, watcher: Context) -> Watch[T]:
        """Watch the transfer of that key; where there is none, it is this caller's to do.

        One that nobody watches any more is waited for, and then begun anew: its fate is not for
        newcomers, and two at once would write the same thing. Raises `Cancelled`.
        """
        while True:
            watcher.cancel.check()
            with self._lock:
                transfer = self._running.get(key)
                if transfer is None or transfer.watches:
                    watch = self._watch(key, transfer, watcher)
                    break
            _await_end(transfer, watcher.cancel)
        watch.begin()
        return watch

    def _watch(self, key: Hashable, transfer: Transfer[T] | None, watcher: Context) -> Watch[T]:
        """The lock is held."""
        starts = transfer is None
        if transfer is None:
            transfer = Transfer(watcher, self._lock, partial(self._forget, key))
            self._running[key] = transfer
        watch = Watch(transfer, watcher, starts=starts)
        transfer.watches.append(watch)
        return watch

    def _forget(self, key: Hashable) -> None:
        """The lock is held."""
        del self._running[key]

    def start(
        self,
        key: Hashable,
        make: Callable[[Context], T],
        watcher: Context,
        submit: Submit | None = None,
    ) -> Watch[T]:
        """Join; where there is nothing to join, have `make` called with the transfer's context.

        `submit` has it called: `Workers.submit`, say; without it, it gets a thread of its own. A
        transfer that is cancelled before its turn ends at once, and `make` is never called.
        """
        watch = self.join(key, watcher)
        if watch.started is not None:
            try:
                (submit or _in_a_thread)(_Turn(watch.started, make).take)
            except BaseException as error:
                watch.started.failed(error)
                raise
        return watch


def _await_end(transfer: Transfer[T], cancel: Cancel) -> None:
    wake = threading.Event()
    transfer.on_end(wake.set)
    with cancel.on_cancel(wake.set):
        wake.wait()


class _Turn(Generic[T]):
    """A started transfer in somebody's queue: its turn comes, or its cancellation first."""

    def __init__(self, transfer: Transfer[T], make: Callable[[Context], T]) -> None:
        self._transfer = transfer
        self._make = make
        self._unclaimed = threading.Lock()
        self._registration = ExitStack()
        cancel = transfer.context.cancel
        self._registration.enter_context(cancel.on_cancel(self._give_up))

    def _give_up(self) -> None:
        if self._unclaimed.acquire(blocking=False):
            self._transfer.failed(Cancelled())

    def take(self) -> None:
        """Do the work, in this thread."""
        if not self._unclaimed.acquire(blocking=False):
            return
        try:
            with self._registration:
                result = self._make(self._transfer.context)
        except BaseException as error:  # noqa: BLE001 - it is for the watchers, whatever it is
            self._transfer.failed(error)
        else:
            self._transfer.done(result)


def _in_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="transfer", daemon=True).start()
