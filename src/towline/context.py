"""What every call of one transfer carries: its cancel switch, its listeners, its counts, its trace.

Passed as an argument and never found in the air: context variables do not follow work into
other threads. A transfer has a context of its own, because its watchers come and go; a push has
one for the calls it makes itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, TypeVar

from towline.errors import Cancelled
from towline.events import Emit, nowhere

T = TypeVar("T")
About = tuple[str, str]
"""A blob as progress calls it, and the repository that it goes to."""
NOTHING: About = ("", "")
"""No blob more than another."""

PATIENCE = 2.0
"""Seconds for which a target may hold others, in a push."""
SLICE = 0.1
"""Seconds after which patience, which other uploads of the target spend too, is looked at again."""


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
        """While the block runs, `action` is called when the switch is thrown.

        It is called at once if that has happened already. It may run in another thread while the
        block is still going, so it must only wake (close a socket), never clean up.
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
    """What was put on the wire, added up by `wire` and read by the result."""

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
    """Takes down what time is spent on, from any thread; this one takes down nothing."""

    def span(self, step: str, about: About, size: int) -> AbstractContextManager[object]:
        """Around a block: what `Context.span` gives."""
        del step, about, size
        return _UNTRACED

    def reading(self, reader: T, about: About) -> T:
        """The reader of a blob, which takes down how long each read lasts."""
        del about
        return reader

    def encoding(self, pool: T, about: About) -> T:
        """The pool that encodes a blob, which takes down how long each block lasts."""
        del about
        return pool

    def answered(
        self, connection: int, asked: str, about: About, status: int, began: float
    ) -> None:
        """A request that was begun at that moment of `time.monotonic` has its answer."""

    def came_to(self, outcomes: Iterable[object]) -> None:
        """The push has ended: a result or an error for each tag."""


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
        """`clock`: seconds from some fixed moment; `about`: the blob that it is all for, if any."""
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
        """The same under another switch, for other listeners, counted apart, or for one blob."""
        return Context(
            cancel or self.cancel,
            emit or self.emit,
            meter or self.meter,
            self.clock,
            trace=self.trace,
            about=about or self.about,
        )

    def span(self, step: str, size: int = 0) -> AbstractContextManager[object]:
        """Around a block: its time is spent on that step, with so many bytes."""
        return self.trace.span(step, self.about, size)


class acquired:  # noqa: N801 - reads as what it is: with acquired(lock, context)
    """Hold a lock; the wait for it ends when the context is cancelled."""

    TICK = 0.1
    """Seconds after which a waiting thread looks whether it is still wanted."""

    def __init__(self, lock: threading.Lock, context: Context) -> None:
        self._lock = lock
        self._context = context

    def __enter__(self) -> None:
        while not self._lock.acquire(timeout=self.TICK):
            self._context.cancel.check()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Patience:
    """Seconds for which one target may hold the others of a push, in all.

    Seconds of the clock on the wall: however many layers wait at one moment, it counts once.
    """

    def __init__(self, seconds: float = PATIENCE) -> None:
        self._lock = threading.Lock()
        self._left = seconds
        self._charged_until = 0.0

    @property
    def spent(self) -> bool:
        """Whether nobody waits for the target any more."""
        return self._left <= 0

    def charge(self, began: float) -> None:
        """Somebody has waited for it from that moment (of `time.monotonic`) until now."""
        with self._lock:
            now = time.monotonic()
            self._left -= now - max(began, self._charged_until)
            self._charged_until = now


class HasPatience(Protocol):
    """A target, or something of it."""

    @property
    def patience(self) -> Patience:
        """How much longer it may keep others waiting."""


def wait_patiently(
    wait: Callable[[float], object],
    late: Callable[[], Iterable[HasPatience]],
    held: Callable[[], bool],
) -> None:
    """Wait until nobody is late, but for those with whom the patience is spent.

    `wait` waits for a change, for that many seconds at most. Those who are late are charged for
    the time in which somebody is `held` by them.
    """
    while waited_for := [one for one in late() if not one.patience.spent]:
        began, charge = time.monotonic(), held()
        wait(SLICE)
        if charge:
            for one in waited_for:
                one.patience.charge(began)
