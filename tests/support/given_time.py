"""Time that a test gives: waiting takes none, and every wait is on record."""

from __future__ import annotations

from towline.context import Cancel, Context


class GivenTime:
    """A clock that moves only when somebody waits for it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def clock(self) -> float:
        """Seconds from some fixed moment."""
        return self.now

    def context(self) -> Context:
        """A context whose waits move this clock."""
        return Context(cancel=_GivenCancel(self), clock=self.clock)


class _GivenCancel(Cancel):
    def __init__(self, time: GivenTime) -> None:
        super().__init__()
        self._time = time

    def wait(self, seconds: float) -> None:
        self.check()
        self._time.waits.append(seconds)
        self._time.now += seconds
