"""A queue and a thread for each seat of a feed, and the rule for one that holds the others.

The feeding thread hands a block out when every lane has room. While it waits for a full lane and
another lane has nothing left to write, the full one is holding the other: that time is taken off
its target's patience, and when that is spent, the lane is lost with `Outpaced`. Lanes that are all
equally slow hold nobody.
"""

from __future__ import annotations

import time
from collections import deque
from threading import Condition, Lock, Thread
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from towline.errors import Cancelled, NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from towline.context import Cancel
    from towline.layers.blobstream import Block

DEPTH = 3
"""Blocks that a lane may have waiting."""
PATIENCE = 2.0
"""Seconds for which a target may hold others, in a push."""
_SLICE = 0.1
"""Seconds after which patience, which other feeds spend too, is looked at again."""
_GRACE = 0.25
"""Seconds that a feed which ends badly leaves its lanes to come out of their seats."""


class Seat(Protocol):
    """Where a blob's bytes go."""

    def write(self, block: Block, /) -> None:
        """Take the next bytes. They may be overwritten once this returns: copy what is kept."""
        ...


S = TypeVar("S", bound=Seat)


class Outpaced(NetworkError):
    """The seat made others wait for too long; by itself it may well succeed."""

    def __init__(self) -> None:
        super().__init__(
            "it was so much slower than the other destinations that they went on without it",
            transient=True,
            side="destination",
        )


class Patience:
    """Seconds for which one target may hold others; one for all feeds of a push.

    Seconds of the clock on the wall: however many layers wait at one moment, it counts once.
    """

    def __init__(self, seconds: float = PATIENCE) -> None:
        self._lock = Lock()
        self._left = seconds
        self._spent_until = 0.0

    @property
    def left(self) -> float:
        """Seconds left; zero or less once it is spent."""
        return self._left

    def spend(self, began: float) -> None:
        """Somebody has waited from that moment (of `time.monotonic`) until now. Told often."""
        with self._lock:
            now = time.monotonic()
            self._left -= now - max(began, self._spent_until)
            self._spent_until = now


class _Lane(Generic[S]):
    """One seat's queue. Everything here is guarded by the lock of `Lanes`."""

    def __init__(self, seat: S, patience: Patience | None, lock: Lock) -> None:
        self.seat = seat
        self.patience = patience
        self.queue: deque[bytes] = deque()
        self.filled = Condition(lock)
        self.writing = False
        self.ended = False
        self.thread: Thread

    @property
    def full(self) -> bool:
        """No room for a block."""
        return len(self.queue) >= DEPTH

    @property
    def idle(self) -> bool:
        """Nothing to write."""
        return not self.queue and not self.writing

    @property
    def left(self) -> float:
        """Seconds for which it may hold others."""
        return self.patience.left if self.patience else float("inf")


class Lanes(Generic[S]):
    """The lanes of one feed, to be used in a `with` block by its thread.

    `on_lost` is called without a lock held, in the thread that noticed.
    """

    def __init__(
        self,
        seats: Sequence[S],
        patience: Sequence[Patience | None],
        cancel: Cancel,
        on_lost: Callable[[S, BaseException], None],
    ) -> None:
        self._lock = Lock()
        self._moved = Condition(self._lock)
        self._cancel = cancel
        self._on_lost = on_lost
        pairs = zip(seats, patience, strict=True)
        self._all = tuple(_Lane(seat, own, self._lock) for seat, own in pairs)
        self._live = list(self._all)
        self.failed: dict[S, BaseException] = {}
        """The seats that were lost, and why."""

    def __enter__(self) -> Self:
        for lane in self._all:
            # A daemon: a seat that never returns must not keep the process from ending.
            lane.thread = Thread(target=self._serve, args=(lane,), name="towline-seat", daemon=True)
            lane.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let all lanes end. After `finish` they have; else what is queued is forgotten."""
        with self._lock:
            for lane in self._live:
                self._end(lane)
        deadline = time.monotonic() + _GRACE
        for lane in self._all:
            if not isinstance(self.failed.get(lane.seat), Outpaced):
                lane.thread.join(max(0.0, deadline - time.monotonic()))

    def hand_out(self, block: bytes) -> bool:
        """Queue a block for every lane once all have room; False when no lane is left."""
        self._await(lambda lane: lane.full)
        with self._lock:
            for lane in self._live:
                lane.queue.append(block)
                lane.filled.notify()
            return bool(self._live)

    def finish(self) -> bool:
        """Wait until every lane has written what it was given; False when no lane is left."""
        self._await(lambda lane: not lane.idle)
        return bool(self._live)

    def _await(self, behind: Callable[[_Lane[S]], bool]) -> None:
        """Wait until no lane is behind; those that hold others meanwhile spend their patience."""
        with self._cancel.on_cancel(self._wake):
            while True:
                lost: list[_Lane[S]] = []
                with self._lock:
                    self._cancel.check()
                    slow = [lane for lane in self._live if behind(lane)]
                    if not slow:
                        return
                    lost = self._hold(slow)
                for lane in lost:
                    self._on_lost(lane.seat, self.failed[lane.seat])

    def _hold(self, slow: list[_Lane[S]]) -> list[_Lane[S]]:
        """Wait once for slow lanes; gives those that are lost by it."""
        if not any(lane.idle for lane in self._live):
            self._moved.wait()
            return []
        left = min(lane.left for lane in slow)
        if left > 0:
            began = time.monotonic()
            self._moved.wait(min(left, _SLICE))
            for lane in slow:
                if lane.patience:
                    lane.patience.spend(began)
            return []
        spent = [lane for lane in slow if lane.left <= 0]
        for lane in spent:
            self._lose(lane, Outpaced())
        return spent

    def _serve(self, lane: _Lane[S]) -> None:
        """The lane's thread."""
        try:
            while (block := self._next(lane)) is not None:
                lane.seat.write(block)
        except (Exception, Cancelled) as error:  # noqa: BLE001 - told to the seat's owner
            with self._lock:
                news = not lane.ended and not self._cancel.cancelled
                if not lane.ended:
                    self._lose(lane, error)
            if news:
                self._on_lost(lane.seat, error)

    def _next(self, lane: _Lane[S]) -> bytes | None:
        with self._lock:
            lane.writing = False
            self._moved.notify()
            while not lane.queue and not lane.ended:
                lane.filled.wait()
            if lane.ended:
                return None
            lane.writing = True
            return lane.queue.popleft()

    def _lose(self, lane: _Lane[S], error: BaseException) -> None:
        self._live.remove(lane)
        self.failed[lane.seat] = error
        self._end(lane)
        self._moved.notify()

    def _end(self, lane: _Lane[S]) -> None:
        lane.ended = True
        lane.queue.clear()
        lane.filled.notify()

    def _wake(self) -> None:
        with self._lock:
            self._moved.notify()
