"""Plain lines in docker's words: for logs, pipes and eyes that know `docker push`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from towline.cli.progress import figures
from towline.cli.progress.base import Logged
from towline.cli.progress.board import Board, Row
from towline.events import Note, PushStarted, Retrying, Summary, TagPushed, Warned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from towline.cli.progress.board import Total
    from towline.events import Event

TOTAL_EVERY = 10.0
"""Seconds between two total lines at least."""


def line_of(event: Event | Logged) -> str | None:
    """The line of everything that is not a layer's."""
    line: str | None = None
    match event:
        case Logged():
            line = event.line
        case PushStarted():
            line = f"The push refers to repository [{event.repository}]"
        case Retrying():
            wait = figures.counted(max(1, round(event.seconds)), "second")
            line = f"{event.what}: Retrying in {wait} ({event.reason})"
        case TagPushed():
            tag = f"{event.tag}: " if event.tag else ""
            line = f"{tag}digest: {event.digest} size: {event.size}"
        case Summary():
            line = _summary(event)
        case Note():
            line = f"towline: note: {event.message}"
        case Warned():
            line = f"towline: warning: {event.message}"
    return line


def _summary(event: Summary) -> str:
    sent = figures.sent(event.sent_bytes, event.total_bytes)
    requests = figures.counted(event.requests, "request")
    return f"{sent}, {requests}, {figures.took(event.seconds)}"


class Lines:
    """A line when a word changes, and now and then a total."""

    reset = ""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._board = Board()
        self._repositories: set[str] = set()
        self._next_total = clock() + TOTAL_EVERY

    def show(self, told: Sequence[Event | Logged]) -> str:
        """The lines of these."""
        return "".join(f"{line}\n" for line in self._lines(told))

    def end(self) -> str:
        """Nothing: the last line was the summary's."""
        return ""

    def _lines(self, told: Sequence[Event | Logged]) -> Iterator[str]:
        for event in told:
            line = line_of(event)
            if isinstance(event, PushStarted) and self._known(event.repository):
                line = None  # another tag of it
            if line is not None:
                yield line
            row = None if isinstance(event, Logged) else self._board.apply(event)
            if row is not None:
                yield f"{row.id}: {row.status}{self._where(row)}"
        now = self._clock()
        total = self._board.total(now)
        if now >= self._next_total and self._board.under_way:
            self._next_total = now + TOTAL_EVERY
            yield total_line(total)

    def _known(self, repository: str) -> bool:
        known = repository in self._repositories
        self._repositories.add(repository)
        return known

    def _where(self, row: Row) -> str:
        """Which destination, when there are several."""
        if len(self._repositories) <= 1:
            return ""
        return f" [{self._board.repositories.get(row.reference, row.reference)}]"


def total_line(total: Total) -> str:
    """`612 MB of 1.2 GB (51%), 85 MB/s, 7 s left`."""
    parts = [figures.size(total.current)]
    if total.total is not None:
        parts = [f"{parts[0]} of {figures.size(total.total)} ({total.percent or 0}%)"]
    if total.rate is not None:
        parts.append(f"{figures.size(total.rate)}/s")
    if total.seconds_left is not None:
        parts.append(f"{figures.left(total.seconds_left)} left")
    return ", ".join(parts)


class Quiet:
    """Warnings alone, and what `--debug` asked for."""

    reset = ""

    def show(self, told: Sequence[Event | Logged]) -> str:
        """The lines of these that stay."""
        kept = [line_of(event) for event in told if isinstance(event, (Warned, Logged))]
        return "".join(f"{line}\n" for line in kept)

    def end(self) -> str:
        """Nothing."""
        return ""
