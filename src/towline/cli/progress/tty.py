"""Bars on a terminal: one row a layer in docker's order, and a total with rate and time left.

rich draws them. It is imported when the first bytes move, so that a push that sends nothing never
waits for it; until then the rows are words alone.

rich's live display is not used: after a resize it clears as many rows as it drew before, which are
then more or fewer on the screen. Here the cursor rests on the *first* row between two frames. A
terminal that is resized wraps rows anew but keeps the cursor on its line, so that clearing from
there down clears exactly our rows. No row is as wide as the terminal and no frame as high, since
either would scroll.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING, TextIO

from towline.cli import wording
from towline.cli.progress import Face, Logged
from towline.cli.progress.board import PUSHING, Board, Row, Total, percent
from towline.cli.progress.plain import line_of, repository_of
from towline.cli.wording import one_line
from towline.events import Event, Verified, Working
from towline.push_events import LayerProgress, PushStarted, Summary, TagPushed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console, RenderableType


_REPAINT = 1.0
"""Seconds after which rate and time left are drawn again without any event."""
_FALLBACK = (80, 24)
_LABEL = 21
"""Columns before a bar: an id, a colon, a word."""
_FIGURES = 22
"""Columns after a bar, so that all bars end in one place."""
_WIDE = 76
"""Columns of a terminal above which `_LABEL` and `_FIGURES` are kept; narrower ones align less."""


def size_of(stream: TextIO | None) -> tuple[int, int]:
    """The terminal's columns and lines now; 80 and 24 where it does not tell."""
    try:
        found = os.get_terminal_size(stream.fileno()) if stream else os.terminal_size(_FALLBACK)
    except (OSError, ValueError):
        return _FALLBACK
    return found.columns or _FALLBACK[0], found.lines or _FALLBACK[1]


class Bars(Face):
    """The face of bars: draws a frame when something has changed."""

    reset = "\r\x1b[J"

    def __init__(
        self,
        size: Callable[[], tuple[int, int]],
        stream: TextIO | None = None,
        *,
        colour: bool = True,
        layers: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._size = size
        self._stream = stream
        self._colour = colour
        self._layers = layers
        self._clock = clock
        self._board = Board()
        self._repositories: set[str] = set()
        self._closing: list[str] = []
        self._drawn = ((0, 0), 0.0)
        self._console: Console | None = None

    def show(self, told: Sequence[Event | Logged]) -> str:
        """A frame, or nothing where neither events, nor the size, nor the time call for one."""
        above = [line for event in told if (line := self._take(event)) is not None]
        now, size = self._clock(), self._size()
        drawn_size, drawn_at = self._drawn
        stale = self._board.under_way and now - drawn_at >= _REPAINT
        if not told and size == drawn_size and not stale:
            return ""
        self._drawn = size, now
        lasting = "".join([self.reset, *(f"{line}\r\n" for line in above)]) if above else ""
        rows = self._drawn_rows(self._fitting(size[1] - 1, now), size[0] - 1)
        if not rows:
            return lasting
        up = f"\x1b[{len(rows) - 1}A" if len(rows) > 1 else ""
        return f"{lasting}\r" + "\r\n".join(rows) + f"\x1b[J\r{up}"

    def end(self) -> str:
        """Every row, however many, and the last lines: verified, digests, summary."""
        rows: list[Row | str] = []
        for row in self._rows():
            if isinstance(row, Row) and row.status == PUSHING:  # cancelled or failed
                whole = f" of {wording.size(row.total)}" if row.total is not None else ""
                rows.append(f"{row} stopped at {wording.size(row.current)}{whole}")
            else:
                rows.append(row)
        drawn = self._drawn_rows(rows, self._size()[0] - 1)
        return "\r" + "".join(f"{line}\r\n" for line in [*drawn, *self._closing]) + "\x1b[J"

    def _take(self, event: Event | Logged) -> str | None:
        """Take an event in, and give the line that it leaves above the rows, if any."""
        if isinstance(event, Logged):
            return line_of(event)
        if isinstance(event, (PushStarted, LayerProgress)) and not self._layers:
            return None
        self._board.apply(event)
        line = line_of(event)
        if isinstance(event, TagPushed) and len(self._repositories) > 1:
            self._closing.append(f"[{repository_of(event, self._repositories)}]")
        if isinstance(event, (Verified, TagPushed, Summary)):
            self._closing.append(line or "")
            return None
        if isinstance(event, PushStarted):
            known = event.repository in self._repositories
            self._repositories.add(event.repository)
            return None if known else line
        return line

    def _rows(self) -> list[Row | str]:
        """The rows of all layers, under their destinations' names where there are several."""
        by_reference: dict[str, list[Row | str]] = {}
        for row in self._board.rows:
            by_reference.setdefault(row.reference, []).append(row)
        several = len(by_reference) > 1
        return [
            row
            for reference, layers in by_reference.items()
            for row in ([reference, *layers] if several else layers)
        ]

    def _fitting(self, height: int, now: float) -> list[Row | Working | Total | str]:
        """At most `height` rows: all, or those that matter most and a count of the rest."""
        total = self._board.total(now)
        below: list[Row | Working | Total | str] = [*self._board.works.values()]
        if any(row.phase == "under way" for row in self._board.rows):
            below.append(total)
        every = self._rows()
        if len(every) + len(below) <= height:
            return [*every, *below]
        layers = list(self._board.rows)
        chosen = _most_telling(layers, max(0, height - len(below) - 1))
        counts = Counter(row.phase for row in layers if row not in chosen)
        said = ", ".join(f"{counts[word]} {word}" for word in sorted(counts))
        more = f"and {wording.counted(counts.total(), 'more layer')}: {said}"
        return [*chosen, more, *below][-height:]

    def _drawn_rows(self, rows: Sequence[Row | Working | Total | str], width: int) -> list[str]:
        """Each row as one line of the terminal, which clears what the line showed before."""
        if self._console is None and any(isinstance(row, Total | Working) for row in rows):
            from rich.console import Console

            self._console = Console(
                file=self._stream,
                force_terminal=True,
                color_system="auto" if self._colour else None,
                no_color=not self._colour,
            )
        if self._console is None:
            return [f"{str(row)[:width]}\x1b[K" for row in rows]
        with self._console.capture() as drawn:
            for row in rows:
                self._console.print(
                    _drawn(row, width), width=max(1, width), no_wrap=True, overflow="ellipsis"
                )
        return [f"{line}\x1b[K" for line in drawn.get().splitlines()]


def _most_telling(rows: Sequence[Row], room: int) -> list[Row]:
    """The `room` rows to show: first those under way, then the next to come, then the latest done.

    They keep the order that they have among all rows.
    """

    def rank(place: int) -> tuple[int, int]:
        phase = rows[place].phase
        return ("under way", "waiting", "done").index(phase), -place if phase == "done" else place

    return [rows[place] for place in sorted(sorted(range(len(rows)), key=rank)[:room])]


def _drawn(row: Row | Working | Total | str, width: int) -> RenderableType:
    """A row as rich draws it."""
    from rich.text import Text

    if isinstance(row, Total):
        return _with_bar(width, "total", row.current, row.total, "  ".join(row.figures))
    if isinstance(row, Working):
        whole = f"/{wording.size(row.total)}" if row.total is not None else ""
        said = f"{wording.size(row.current)}{whole}"
        return _with_bar(width, one_line(row.what), row.current, row.total, said)
    if isinstance(row, str):
        return Text(row)
    if row.status == PUSHING:
        said = f"{wording.size(row.sent)} sent"
        return _with_bar(width, str(row), row.current, row.total, said)
    return Text(str(row), {"done": "green", "waiting": "dim"}.get(row.phase, "yellow"))


def _with_bar(width: int, label: str, current: int, total: int | None, said: str) -> RenderableType:
    """A label, a bar and figures; without a total the bar runs to and fro."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    whole = f"{percent(current, total):3d}%  " if total else ""
    row = Table.grid(padding=(0, 1), expand=True)
    wide = width > _WIDE
    row.add_column(no_wrap=True, min_width=_LABEL if wide else None)
    row.add_column(ratio=1)
    row.add_column(no_wrap=True, min_width=_FIGURES if wide else None)
    bar = ProgressBar(total, current, complete_style="cyan", finished_style="cyan")
    row.add_row(label, bar, f"{whole}{said}")
    return row
