"""Single flight: callers that want the same thing at the same time share one piece of work.

The first caller leads: it has the work done, and says how that ended. Others watch. A flight
belongs to no caller: its leader may leave while others still wait. It is cancelled when the last
watcher has left. Equal keys make it the same work (`push/upload/target_blobs`).
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Generic, TypeVar

from towline.context import Cancel, Context
from towline.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Hashable
    from concurrent.futures import Future

    from towline.events import Event

T = TypeVar("T")


class Restart(Exception):
    """The work was cancelled while this watcher still wanted it: join again."""


class Flight(Generic[T]):
    """Work under way for its watchers. The leader calls `done` or `failed` once, in any case."""

    def __init__(self, flights: SingleFlight[T], key: Hashable, leader: Context) -> None:
        from concurrent.futures import Future  # a push of nothing needs none

        self.context = leader.but(cancel=Cancel(), emit=self._tell)
        """The work's context. Its switch is thrown when nobody watches any more, its events go to
        all watchers, its counts and clock are the leader's."""
        self.future: Future[T] = Future()
        """Ends with the flight; that of a cancelled flight raises Cancelled."""
        self.watches: tuple[Watch[T], ...] = ()
        """Replaced under the lock of SingleFlight, and read without it: so it is a tuple. Empty:
        the work was told to stop, and may not have stopped yet."""
        self.key = key
        self.flights = flights
        self._telling = threading.RLock()
        self._last: Event | None = None

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for the work."""
        # A cancelled watcher may not have left yet: its switch runs its actions one by one.
        return any(not watch.watcher.cancel.cancelled for watch in self.watches)

    def done(self, result: T) -> None:
        """End the flight: every watcher gets this result."""
        # First: whoever is woken and joins again must not find a flight that has ended.
        self.flights.land(self.key)
        self.future.set_result(result)

    def failed(self, error: BaseException) -> None:
        """End the flight: every watcher gets this error, Cancelled if it was cancelled."""
        self.flights.land(self.key)
        self.future.set_exception(error)

    def _tell(self, event: Event) -> None:
        # Under a lock, so that a late watcher neither misses an event nor gets one twice.
        with self._telling:
            self._last = event
            for watch in self.watches:
                if watch.listens:
                    watch.tell(event)

    def listen(self, watch: Watch[T]) -> None:
        """Tell a watcher the latest event, and from now on each that follows."""
        with self._telling:
            watch.listens = True
            if self._last is not None:
                watch.tell(self._last)


class Watch(Generic[T]):
    """One caller's interest in a flight. It ends by `result` or `leave`."""

    def __init__(self, flight: Flight[T], watcher: Context, *, leads: bool) -> None:
        self.flight = flight
        self.leads = leads
        """Whether this caller has to have the work done."""
        self.listens = False
        """Whether events are passed on: from `Flight.listen` on, until the caller's listener
        raises."""
        self.watcher = watcher
        self._leaving = ExitStack()

    def result(self) -> T:
        """Wait for the end of the flight, and leave.

        Raises what the work raised; `Cancelled` as soon as the caller's own switch is thrown;
        `Restart` where the work was cancelled although this caller had not left.
        """
        try:
            await_end(self.flight, self.watcher.cancel)
            return self.flight.future.result()
        except Cancelled:
            self.watcher.cancel.check()
            raise Restart from None
        finally:
            self.leave()

    def leave(self) -> None:
        """Watch no longer. The last watcher to leave before the end cancels the flight."""
        self.flight.flights.leave(self)
        self._leaving.close()

    def leave_when_cancelled(self) -> None:
        """Have the watch left as soon as the caller's switch is thrown."""
        # Not our own `leave`: it would close the stack while this enters it.
        leave = self.watcher.cancel.on_cancel(lambda: self.flight.flights.leave(self))
        self._leaving.enter_context(leave)

    def tell(self, event: Event) -> None:
        """Pass an event on to the caller's listener; one that raises is told no more."""
        try:
            self.watcher.emit(event)
        except (Exception, SystemExit):  # noqa: BLE001 - the flight is the other watchers' too
            self.listens = False


class SingleFlight(Generic[T]):
    """The flights that are under way, by key. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Flight[T]] = {}

    def __len__(self) -> int:
        """Flights that have not ended, cancelled ones included."""
        return len(self._flights)

    def join(self, key: Hashable, watcher: Context) -> Watch[T]:
        """Watch the flight of that key; if there is none, make one that this caller leads.

        Raises `Cancelled`.
        """
        while True:
            watcher.cancel.check()
            with self._lock:
                flight = self._flights.get(key)
                leads = flight is None
                if flight is None:
                    flight = self._flights[key] = Flight(self, key, watcher)
                if leads or flight.watches:
                    watch = Watch(flight, watcher, leads=leads)
                    flight.watches = (*flight.watches, watch)
                    break
            # All watchers have left, so it is being cancelled. It is waited for, and a new one is
            # made: two flights at once would write the same thing.
            await_end(flight, watcher.cancel)
        watch.flight.listen(watch)
        watch.leave_when_cancelled()
        return watch

    def leave(self, watch: Watch[T]) -> None:
        """Take a watcher off its flight; after the last one the work is told to stop."""
        flight = watch.flight
        with self._lock:
            if watch not in flight.watches:
                return
            flight.watches = tuple(other for other in flight.watches if other is not watch)
            abandoned = not flight.watches and not flight.future.done()
        # Outside the lock: the switch runs actions that may take it.
        if abandoned:
            flight.context.cancel.cancel()

    def land(self, key: Hashable) -> None:
        """Note that the flight of that key is over: the next caller makes a new one."""
        with self._lock:
            del self._flights[key]


def await_end(flight: Flight[T], cancel: Cancel) -> None:
    """Wait until a flight is over. Raises `Cancelled`."""
    wake = threading.Event()
    flight.future.add_done_callback(lambda _: wake.set())
    with cancel.on_cancel(wake.set):
        wake.wait()
    cancel.check()
