"""Single flight: two that want the same thing at the same moment get it from one piece of work.

The first to come leads: it has the work done and says how that ended. Others watch. A flight
belongs to nobody: its leader may leave while others still wait, and it is cancelled when the last
watcher has left. What makes two flights the same one is the key's matter (`push/upload/key`).
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Generic, TypeVar

from towline.context import Cancel
from towline.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Hashable
    from concurrent.futures import Future

    from towline.context import Context
    from towline.events import Event

T = TypeVar("T")


class Restart(Exception):
    """The work stopped as cancelled while this watcher still wanted it: join again."""


class Flight(Generic[T]):
    """Work under way for all who watch it. Whoever leads it ends it, once, in any case."""

    def __init__(self, flights: SingleFlight[T], key: Hashable, leader: Context) -> None:
        from concurrent.futures import Future  # a push of nothing needs none

        self.context = leader.but(cancel=Cancel(), emit=self._tell)
        """What the work is to use: a switch of its own, thrown when nobody watches any more; all
        watchers listening; the leader's counts and clock."""
        self.future: Future[T] = Future()
        """Ends with the flight; what is raised by a cancelled one is Cancelled."""
        self.watches: tuple[Watch[T], ...] = ()
        """Guarded by the lock. Empty: it was told to stop, and may not have stopped yet."""
        self._flights = flights
        self._key = key
        self._telling = threading.RLock()
        self._last: Event | None = None

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for it.

        Those who were cancelled do not, though one of them may not have left yet: a switch runs
        its actions one after the other.
        """
        return any(not watch.cancelled for watch in self.watches)

    def done(self, result: T) -> None:
        """It succeeded: every watcher gets this result."""
        self._flights.land(self._key)
        self.future.set_result(result)

    def failed(self, error: BaseException) -> None:
        """It failed, or stopped because it was cancelled: every watcher gets this error."""
        self._flights.land(self._key)
        self.future.set_exception(error)

    def _tell(self, event: Event) -> None:
        # One event after the other, so that a late watcher neither misses one nor gets it twice.
        with self._telling:
            self._last = event
            for watch in self.watches:
                if watch.listens:
                    watch.tell(event)

    def listen(self, watch: Watch[T]) -> None:
        """Tell a watcher the latest event before it came, and from now on each that follows."""
        with self._telling:
            watch.listens = True
            if self._last is not None:
                watch.tell(self._last)


class Watch(Generic[T]):
    """One caller's interest in a flight. It ends by `result` or `leave`."""

    def __init__(
        self, flight: Flight[T], flights: SingleFlight[T], watcher: Context, *, leads: bool
    ) -> None:
        self.flight = flight
        self.leads = leads
        """Whether this caller is the one who has to have the work done."""
        self.listens = False
        """Whether it is told of events: from `Flight.listen` on, until it fails at listening."""
        self._flights = flights
        self._watcher = watcher
        self._registration = ExitStack()

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
            await_end(self.flight, self._watcher.cancel)
            return self.flight.future.result()
        except Cancelled:
            self._watcher.cancel.check()
            raise Restart from None
        finally:
            self.leave()

    def leave(self) -> None:
        """Lose interest. The last one to do so before the end cancels the flight, at once."""
        self._flights.leave(self)
        self._registration.close()

    def begin(self) -> None:
        """Leave by itself when the watcher's switch is thrown. `SingleFlight.join` calls this."""
        # Not our own `leave`: it would close the registration in the middle of its making.
        leave = self._watcher.cancel.on_cancel(lambda: self._flights.leave(self))
        self._registration.enter_context(leave)

    def tell(self, event: Event) -> None:
        """Pass an event on to the watcher; one that fails at listening is told no more."""
        try:
            self._watcher.emit(event)
        except (Exception, SystemExit):  # noqa: BLE001 - the flight is the other watchers' too
            self.listens = False


class SingleFlight(Generic[T]):
    """The flights that are under way, by key. Safe from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, Flight[T]] = {}

    def __len__(self) -> int:
        """Flights that have not ended, cancelled ones included."""
        return len(self._flights)

    def join(self, key: Hashable, watcher: Context) -> Watch[T]:
        """Watch the flight of that key; where there is none, it is this caller's to lead.

        One that nobody watches any more is waited for, and then begun anew: its fate is not for
        newcomers, and two at once would write the same thing. Raises `Cancelled`.
        """
        while True:
            watcher.cancel.check()
            with self._lock:
                flight = self._flights.get(key)
                leads = flight is None
                if flight is None:
                    flight = self._flights[key] = Flight(self, key, watcher)
                if leads or flight.watches:
                    watch = Watch(flight, self, watcher, leads=leads)
                    flight.watches = (*flight.watches, watch)
                    break
            await_end(flight, watcher.cancel)
        watch.flight.listen(watch)
        watch.begin()
        return watch

    def leave(self, watch: Watch[T]) -> None:
        """One watcher less; without any, the work is told to stop."""
        flight = watch.flight
        with self._lock:
            if watch not in flight.watches:
                return
            flight.watches = tuple(other for other in flight.watches if other is not watch)
            abandoned = not flight.watches and not flight.future.done()
        if abandoned:
            flight.context.cancel.cancel()

    def land(self, key: Hashable) -> None:
        """The flight of that key is over: the next to come begins anew."""
        with self._lock:
            del self._flights[key]


def await_end(flight: Flight[T], cancel: Cancel) -> None:
    """Wait until a flight is over. Raises `Cancelled`."""
    wake = threading.Event()
    flight.future.add_done_callback(lambda _: wake.set())
    with cancel.on_cancel(wake.set):
        wake.wait()
    cancel.check()
