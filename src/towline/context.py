"""What every call of one transfer carries: its cancel switch, its listeners, its counts.

Passed as an argument and never found in the air: context variables do not follow work into
other threads. A transfer has a context of its own, because its watchers come and go; a push has
one for the calls it makes itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from towline.errors import Cancelled
from towline.events import Emit, nowhere


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


@dataclass(frozen=True, slots=True)
class Context:
    """What every call of one transfer carries."""

    cancel: Cancel = field(default_factory=Cancel)
    emit: Emit = nowhere
    meter: Meter = field(default_factory=Meter)
    clock: Callable[[], float] = time.monotonic
    """Seconds from some fixed moment."""

    def with_cancel(self, cancel: Cancel) -> Context:
        """The same listeners and counts under another switch."""
        return replace(self, cancel=cancel)
