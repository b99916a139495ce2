"""Who makes others wait, and for how long: looked at ten times a second while anybody does.

A target may hold the others of its push for some seconds altogether (`layers.lanes.Patience`): by
settling late, by having no slot free, or, while a pass runs, by a full queue. The last is seen to
by `layers.lanes`; this is about what comes before a pass.
"""

from __future__ import annotations

import time
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from towline.push.jobs import Job

SLICE = 0.1
"""Seconds from one look to the next."""


class Held(Protocol):
    """Jobs that wait for others of their blob."""

    def late(self) -> Sequence[Job]:
        """Those for whom the others wait now."""
        ...

    @property
    def over(self) -> bool:
        """Whether nobody waits any more, and nobody will."""
        ...

    def go_on(self) -> None:
        """The patience with one of them is spent."""
        ...


class Holding:
    """Takes the time for which they are waited for off the patience with late targets."""

    def __init__(self, after: Callable[[float, Callable[[], None]], None]) -> None:
        self._after = after
        self._lock = Lock()
        self._held: list[Held] = []
        self._looked = 0.0
        self._looking = False

    def watch(self, held: Held) -> None:
        """Look at it until it is over."""
        with self._lock:
            self._held.append(held)
            begin, self._looking = not self._looking, True
            if begin:
                self._looked = time.monotonic()
        if begin:
            self._later()

    def _later(self) -> None:
        with suppress(RuntimeError):  # everything is being closed
            self._after(SLICE, self._look)

    def _look(self) -> None:
        with self._lock:
            self._held = [held for held in self._held if not held.over]
            began, self._looked = self._looked, time.monotonic()
            held, self._looking = list(self._held), bool(self._held)
        late = {one: [job.patience for job in one.late()] for one in held}
        for one, patience in late.items():
            for some in patience:
                some.spend(began)
            if any(some.left <= 0 for some in patience):
                one.go_on()
        if held:
            self._later()
