"""Bars on a terminal: one row a layer in docker's order, and a total with rate and time left.

Written for a terminal without a library: the rows are redrawn in place, and between two frames
the cursor rests on the *first* of them. A terminal that is resized moves and wraps rows as it
likes but keeps the cursor on its line, so clearing from there down always clears our rows, all
of them and nothing else. No row is as wide as the terminal, no frame as high.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from towline.cli.progress import rows
from towline.cli.progress.base import Logged
from towline.cli.progress.board import Board
from towline.cli.progress.plain import line_of, repository_of
from towline.events import PushStarted, Summary, TagPushed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TextIO

    from towline.cli.progress.board import Row
    from towline.cli.progress.rows import Line
    from towline.events import Event

_CLEAR_DOWN = "\x1b[J"
_CLEAR_LINE = "\x1b[K"
_COLOURS = {"active": "36", "done": "32", "retry": "33", "dim": "2"}
_REPAINT = 1.0
"""Seconds after which rate and time left are drawn anew though nothing was told."""
_FALLBACK = (80, 24)


def size_of(stream: TextIO | None) -> tuple[int, int]:
    """Columns and lines of the terminal at this moment."""
    try:
        found = os.get_terminal_size(stream.fileno()) if stream else os.terminal_size(_FALLBACK)
    except (OSError, ValueError):
        return _FALLBACK
    return found.columns or _FALLBACK[0], found.lines or _FALLBACK[1]


class Bars:
    """The frames, and when to draw one."""

    reset = f"\r{_CLEAR_DOWN}"

    def __init__(
        self,
        size: Callable[[], tuple[int, int]],
        *,
        colour: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._size = size
        self._colour = colour
        self._clock = clock
        self._board = Board()
        self._repositories: set[str] = set()
        self._closing: list[str] = []
        self._drawn = ((0, 0), 0.0)

    def show(self, told: Sequence[Event | Logged]) -> str:
        """A frame, if there is anything new."""
        above = [line for event in told if (line := self._take(event)) is not None]
        now, size = self._clock(), self._size()
        if not told and not self._stale(size, now):
            return ""
        self._drawn = size, now
        lasting = "".join(f"{line}\r\n" for line in above)
        return (
            f"{self.reset}{lasting}{self._frame(*size, now)}" if above else self._frame(*size, now)
        )

    def end(self) -> str:
        """Every row for the last time, however many, and what a script would read."""
        width = max(1, self._size()[0] - 1)
        lines = self._all(width, rows.last)
        last = [f"{self._painted(line)}{_CLEAR_LINE}" for line in lines]
        return "\r" + "".join(f"{line}\r\n" for line in [*last, *self._closing]) + _CLEAR_DOWN

    def _take(self, event: Event | Logged) -> str | None:
        """Take an event in; the line that stays above the rows, if it makes one."""
        if isinstance(event, Logged):
            return line_of(event)
        self._board.apply(event)
        line = line_of(event)
        if isinstance(event, TagPushed) and len(self._repositories) > 1:
            self._closing.append(f"[{repository_of(event)}]")
        if isinstance(event, (TagPushed, Summary)):
            self._closing.append(line or "")
            return None
        if isinstance(event, PushStarted):
            known = event.repository in self._repositories
            self._repositories.add(event.repository)
            return None if known else line
        return line

    def _stale(self, size: tuple[int, int], now: float) -> bool:
        drawn_size, drawn_at = self._drawn
        return size != drawn_size or (self._board.under_way and now - drawn_at >= _REPAINT)

    def _frame(self, columns: int, height: int, now: float) -> str:
        lines = self._lines(max(1, columns - 1), max(1, height - 1), now)
        if not lines:
            return ""
        text = "\r\n".join(f"{self._painted(line)}{_CLEAR_LINE}" for line in lines)
        up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
        return f"\r{text}{_CLEAR_DOWN}\r{up}"

    def _lines(self, width: int, height: int, now: float) -> list[Line]:
        """At most `height` rows: all of them, or those that tell most."""
        total = rows.total(self._board.total(now), width)
        below = [total] if self._board.under_way else []
        every = list(self._all(width))
        if len(every) + len(below) <= height:
            return [*every, *below]
        layers = list(self._board.rows)
        chosen = rows.most_telling(layers, max(0, height - len(below) - 1))
        others = [row for row in layers if row not in chosen]
        shown = [rows.layer(row, width) for row in chosen]
        return [*shown, rows.left_out(others, width), *below][-height:]

    def _all(self, width: int, shown: Callable[[Row, int], Line] = rows.layer) -> Iterator[Line]:
        """Every layer, under the name of its destination where there are several."""
        layers = list(self._board.rows)
        references = list(dict.fromkeys(row.reference for row in layers))
        for reference in references:
            if len(references) > 1:
                yield rows.title(reference, width)
            yield from (shown(row, width) for row in layers if row.reference == reference)

    def _painted(self, line: Line) -> str:
        code = _COLOURS.get(line.tone)
        return f"\x1b[{code}m{line.text}\x1b[0m" if self._colour and code else line.text
