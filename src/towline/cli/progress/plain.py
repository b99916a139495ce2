"""Plain lines in the words of `docker push`, for logs and pipes."""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING

from towline.cli import wording
from towline.cli.progress import Face, Logged
from towline.cli.progress.board import Board, percent
from towline.cli.wording import one_line, spelled
from towline.events import Note, Retrying, Verified, Warned
from towline.push_events import LayerProgress, PushStarted, Summary, TagPushed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from towline.events import Event

TOTAL_EVERY = 10.0
"""Least seconds between two total lines."""


def line_of(event: Event | Logged) -> str | None:
    """The line of an event that is not a layer's; None where it has none."""
    line: str | None = None
    match event:
        case Logged():
            line = event.line
        case PushStarted():
            line = f"The push refers to repository [{event.repository}]"
        case Retrying():
            wait = wording.counted(max(1, round(event.seconds)), "second")
            line = f"{event.what}: Retrying in {wait} ({event.reason})"
        case Verified():
            manifests = wording.counted(event.manifests, "manifest")
            blobs = wording.counted(event.blobs, "blob")
            line = f"verified: {manifests} and {blobs} are there"
            if event.bytes:
                diff_ids = wording.counted(event.diff_ids, "DiffID")
                size = wording.size(event.bytes)
                line = f"verified: {manifests} and {blobs} read back ({size}), {diff_ids} computed"
        case TagPushed():
            tag = f"{event.tag}: " if event.tag else ""
            line = f"{tag}digest: {event.digest} size: {event.size}"
        case Summary():
            sent = f"sent {wording.size(event.sent_bytes)}" if event.sent_bytes else "nothing sent"
            requests = wording.counted(event.requests, "request")
            took = wording.took(event.seconds)
            line = f"{sent} of {wording.size(event.total_bytes)}, {requests}, {took}"
        case Note():
            line = f"towline: note: {event.message}"
        case Warned():
            line = f"towline: warning: {event.message}"
    return None if line is None else one_line(spelled(line))


class Lines(Face):
    """A line for each change of a layer's status, and now and then a total."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._board = Board()
        self._repository = ""
        """The repository of the last lines."""
        self._begun: set[str] = set()
        self._next_total = clock() + TOTAL_EVERY

    def show(self, told: Sequence[Event | Logged]) -> str:
        """The lines of these events, and a total line where it is due."""
        return "".join(f"{line}\n" for line in self._lines(told))

    def _lines(self, told: Sequence[Event | Logged]) -> Iterator[str]:
        for layers, run in groupby(told, lambda event: isinstance(event, LayerProgress)):
            # Layers told at one time are grouped by repository, so that its heading is shown once.
            for event in sorted(run, key=self._place) if layers else run:
                line = self._line(event)
                if line is not None:
                    repository = repository_of(event, self._begun)
                    if len(self._begun) > 1 and repository not in {"", self._repository}:
                        self._repository = repository
                        yield f"[{repository}]"
                    yield line
        now = self._clock()
        total = self._board.total(now)
        if now >= self._next_total and self._board.under_way:
            self._next_total = now + TOTAL_EVERY
            for work in self._board.works.values():
                yield one_line(f"{work.what}: {_moved(work.current, work.total)}")
            if total.sent or not self._board.works:
                yield ", ".join((_moved(total.current, total.total), *total.figures))

    def _place(self, event: Event | Logged) -> tuple[bool, str]:
        repository = repository_of(event, self._begun)
        return repository != self._repository, repository

    def _line(self, event: Event | Logged) -> str | None:
        """The line of an event, if any; the beginning of a repository is shown only once."""
        if isinstance(event, Logged):
            return line_of(event)
        row = self._board.apply(event)
        if isinstance(event, PushStarted):
            if event.repository in self._begun:
                return None  # another tag of it
            self._begun.add(event.repository)
            self._repository = event.repository
        return f"{row.id}: {row.status}" if row else line_of(event)


def repository_of(event: Event | Logged, begun: Iterable[str]) -> str:
    """Which of these an event is of whose line does not name its repository; empty for all others.

    `begun`: the repositories to which pushes have begun.
    """
    if not isinstance(event, (LayerProgress, Retrying, Verified, TagPushed, Summary)):
        return ""
    # A tag of a layout may have slashes and colons itself.
    reference = f"{event.reference}:"
    return next((each for each in begun if reference.startswith((f"{each}:", f"{each}@"))), "")


def _moved(current: int, total: int | None) -> str:
    """`612 MB of 1.2 GB (51%)`."""
    if total is None:
        return wording.size(current)
    return f"{wording.size(current)} of {wording.size(total)} ({percent(current, total) or 0}%)"
