"""What every call of one transfer carries: its cancel switch, its listeners, its counts, its trace.

It is passed as an argument, since context variables do not follow work into other threads. Each
transfer has a context of its own, because the pushes that watch it come and go; a push has one for
the calls that it makes itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from towline.errors import Cancelled
from towline.push_events import nowhere

if TYPE_CHECKING:
    from towline.events import Emit

T = TypeVar("T")
About = tuple[str, str]
"""A blob's id as progress shows it, and the repository that it goes to."""
NOTHING: About = ("", "")
"""The work is for no blob in particular."""

PATIENCE = 2.0
"""Seconds for which one slow target may hold up the others of a push, in all."""
SLICE = 0.1
"""Seconds between two looks at a target's patience, which its other uploads use up too, and at the
cancel switch while a lock is waited for."""


class Cancel:
    """A switch that is thrown once, from any thread.

    Work checks it between blocks and waits on it instead of sleeping; calls that block in the
    kernel register an action that wakes them (`on_cancel`).
    """

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._actions: dict[object, Callable[[], object]] = {}

    @property
    def cancelled(self) -> bool:
        """Whether the switch was thrown."""
        return self._event.is_set()

    def cancel(self) -> None:
        """Throw the switch: every wait ends, every registered action runs, once."""
        with self._lock:
            first = not self._event.is_set()
            self._event.set()
            actions = list(self._actions.values()) if first else []
            self._actions.clear()
        # Without the lock: the blocks that the actions wake take it when they end.
        for action in actions:
            action()

    def check(self) -> None:
        """Raise `Cancelled` if the switch was thrown."""
        if self._event.is_set():
            raise Cancelled

    def wait(self, seconds: float) -> None:
        """Sleep, or raise `Cancelled` as soon as the switch is thrown."""
        if self._event.wait(max(0.0, seconds)):
            raise Cancelled

    @contextmanager
    def on_cancel(self, action: Callable[[], object]) -> Iterator[None]:
        """Call `action` if the switch is thrown while the block runs.

        At once if it was thrown before. The action runs in the thread that throws the switch,
        while the block goes on, so it must only wake (shut a socket down), never clean up.
        """
        token = object()
        with self._lock:
            thrown = self._event.is_set()
            if not thrown:
                self._actions[token] = action
        if thrown:
            action()
        try:
            yield
        finally:
            with self._lock:
                self._actions.pop(token, None)


class Meter:
    """Counts for the result of a push: `wire` counts requests, an upload the bytes of its blob."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests = 0
        """HTTP requests sent, token requests included."""
        self.sent_bytes = 0
        """Blob bytes sent, resent ones too."""

    def add(self, *, requests: int = 0, sent_bytes: int = 0) -> None:
        """Add to the counts; safe from any thread."""
        with self._lock:
            self.requests += requests
            self.sent_bytes += sent_bytes


class Trace:
    """Records what the time of a push is spent on, from any thread; this base records nothing."""

    def span(self, step: str, about: About, size: int) -> AbstractContextManager[object]:
        """A context manager that records the time of its block as `step`, for `size` bytes."""
        del step, about, size
        return _UNTRACED

    def reading(self, reader: T, about: About) -> T:
        """The reader of a blob, wrapped so that the time of each read is recorded."""
        del about
        return reader

    def encoding(self, pool: T, about: About) -> T:
        """The pool that encodes a blob, wrapped so that the time of each block is recorded."""
        del about
        return pool

    def answered(
        self, connection: int, asked: str, about: About, status: int, began: float
    ) -> None:
        """Record a request that began at `began` (of `time.monotonic`) and was answered now."""

    def came_to(self, outcomes: Iterable[object]) -> None:
        """Record the end of the push: a result or an error for each tag."""


_NO_TRACE = Trace()
_UNTRACED = nullcontext()


class Context:
    """What every call of one transfer carries; it never changes."""

    def __init__(
        self,
        cancel: Cancel | None = None,
        emit: Emit = nowhere,
        meter: Meter | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        trace: Trace = _NO_TRACE,
        about: About = NOTHING,
    ) -> None:
        """`clock`: seconds from a fixed moment; `about`: the blob that the work is for, if one."""
        self.cancel = cancel or Cancel()
        self.emit = emit
        self.meter = meter or Meter()
        self.clock = clock
        self.trace = trace
        self.about = about

    def but(
        self,
        *,
        cancel: Cancel | None = None,
        emit: Emit | None = None,
        meter: Meter | None = None,
        about: About | None = None,
    ) -> Context:
        """A copy with another switch, listener, meter or blob; the clock and trace stay."""
        return Context(
            cancel or self.cancel,
            emit or self.emit,
            meter or self.meter,
            self.clock,
            trace=self.trace,
            about=about or self.about,
        )

    def span(self, step: str, size: int = 0) -> AbstractContextManager[object]:
        """A context manager that records the time of its block as `step`, for `size` bytes."""
        return self.trace.span(step, self.about, size)


@contextmanager
def acquired(lock: threading.Lock, context: Context) -> Iterator[None]:
    """Hold a lock; raises `Cancelled` if the context is cancelled before the lock is free."""
    while not lock.acquire(timeout=SLICE):  # a lock's wait cannot be woken by the cancel switch
        context.cancel.check()
    try:
        yield
    finally:
        lock.release()


class Patience:
    """How many seconds more one target may hold up the others of its push.

    It is counted in time on the clock: a second in which several layers wait counts once.
    """

    def __init__(self, seconds: float = PATIENCE) -> None:
        self._lock = threading.Lock()
        self._left = seconds
        self._charged_until = 0.0

    @property
    def spent(self) -> bool:
        """Whether the others no longer wait for the target."""
        return self._left <= 0

    def charge(self, began: float) -> None:
        """Take off the time from `began` (of `time.monotonic`) until now, for which it was waited.

        Time that was charged already is not charged again.
        """
        with self._lock:
            now = time.monotonic()
            self._left -= now - max(began, self._charged_until)
            self._charged_until = now


def wait_patiently(
    wait: Callable[[float], object],
    late: Callable[[], Iterable[Patience]],
    held: Callable[[], bool],
) -> None:
    """Wait until none is late except those whose patience is spent.

    `wait(seconds)` returns at a change, or after that many seconds. `late` gives the patience with
    those that are late; it is charged for the time in which `held` says that somebody is kept
    waiting.
    """
    while waited_for := [patience for patience in late() if not patience.spent]:
        # Asked before the wait: whoever is held now is held for all of it, or until a change.
        began, charge = time.monotonic(), held()
        wait(SLICE)
        if charge:
            for patience in waited_for:
                patience.charge(began)
