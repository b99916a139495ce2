"""The state of every layer and their sum: the model behind bars and total lines."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from towline.cli import wording
from towline.cli.wording import one_line
from towline.events import Event, Working
from towline.push_events import LayerProgress

if TYPE_CHECKING:
    from collections.abc import Iterable


PUSHING = "Pushing"
PUSHED = "Pushed"
_WAITING = frozenset({"Preparing", "Waiting"})
_ELSEWHERE = ("Layer already exists", "Mounted from ", "Skipped foreign layer")
_WINDOW = 10.0
"""Seconds over which a rate is averaged."""


class Row:
    """One layer at one destination."""

    def __init__(self, reference: str, layer: str) -> None:
        self.reference = reference
        self.id = layer
        self.status = ""
        self.current = 0
        """Bytes read from the source."""
        self.total: int | None = None
        self.sent = 0
        """Bytes on the wire."""

    def __str__(self) -> str:
        return f"{self.id}: {self.status}"

    @property
    def settled(self) -> bool:
        """Whether the layer is at the destination without a byte sent."""
        return self.status.startswith(_ELSEWHERE)

    @property
    def phase(self) -> str:
        """`waiting` before it begins, `done` when nothing more will happen, else `under way`."""
        if self.status in _WAITING:
            return "waiting"
        return "done" if self.status == PUSHED or self.settled else "under way"


class Total(NamedTuple):
    """The sum over all layers that are sent."""

    current: int
    """Bytes read from the source."""
    total: int | None
    """None while the size of a layer is not known."""
    sent: int
    """Bytes on the wire."""
    rate: float | None
    """Bytes on the wire a second, over the last ten; None before the second sample."""
    pace: float | None
    """Bytes read a second, likewise."""

    @property
    def seconds_left(self) -> float | None:
        """Seconds left by the pace of reading.

        None where all is read: how much of it is still to be sent is not known.
        """
        if self.total is None or self.current >= self.total or not self.pace:
            return None
        return (self.total - self.current) / self.pace

    @property
    def figures(self) -> list[str]:
        """`201 MB sent`, `28 MB/s`, `7 s left`, as far as they are known."""
        found = [f"{wording.size(self.sent)} sent"]
        if self.rate is not None:
            found.append(f"{wording.size(self.rate)}/s")
        if self.seconds_left is not None:
            found.append(f"{wording.left(self.seconds_left)} left")
        return found


def percent(current: int, total: int | None) -> int | None:
    """Whole percent, at most 100; None without a total."""
    return min(100, current * 100 // total) if total else None


class Board:
    """The rows of all layers, in the order of their first events."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Row] = {}
        self._samples: deque[tuple[float, int, int]] = deque()
        self.works: dict[str, Working] = {}
        """Work beside the sending that is not finished, by its description."""

    @property
    def rows(self) -> Iterable[Row]:
        """The rows of all layers."""
        return self._rows.values()

    @property
    def under_way(self) -> bool:
        """Whether any layer or other work is in progress."""
        return bool(self.works) or any(row.phase == "under way" for row in self.rows)

    def apply(self, event: Event) -> Row | None:
        """Take an event in, and give the row whose status it has changed, if any."""
        if isinstance(event, Working):
            self.works[event.what] = event
            if event.current == event.total:
                del self.works[event.what]
        if not isinstance(event, LayerProgress):
            return None
        fresh = Row(event.reference, event.id)
        row = self._rows.setdefault((event.reference, event.id), fresh)
        if event.total is not None:
            row.total = event.total
        if event.current is not None:
            row.current = event.current
            row.sent = event.sent or row.sent
        elif event.status == PUSHED and row.total is not None:
            row.current = row.total
        before, row.status = row.status, one_line(event.status)
        return row if row.status != before else None

    def total(self, now: float) -> Total:
        """The sum at the moment `now`, which also becomes a sample for the rate."""
        rows = [row for row in self.rows if not row.settled]
        current = sum(row.current for row in rows)
        known = all(row.total is not None for row in rows)
        total = sum(row.total or 0 for row in rows) if known else None
        sent = sum(row.sent for row in rows)
        samples = self._samples
        if samples and current < samples[-1][1]:
            samples.clear()  # a layer began again
        samples.append((now, current, sent))
        while now - samples[0][0] > _WINDOW and len(samples) > 2:  # noqa: PLR2004 - a rate needs two
            samples.popleft()
        then, read_before, sent_before = samples[0]
        if now <= then:
            return Total(current, total, sent, None, None)
        rate, pace = (sent - sent_before) / (now - then), (current - read_before) / (now - then)
        return Total(current, total, sent, rate, pace)
