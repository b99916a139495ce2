"""How the rows of a terminal look: a layer, a title, what is left out, the total. No control codes.

Every row fits into the width it is given; what does not fit is cut at the right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from towline.cli.progress import figures
from towline.cli.progress.board import PUSHING, Row, percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from towline.cli.progress.board import Total

Tone = Literal["active", "done", "retry", "dim", "none"]
_LEFT = 22
"""Columns before a bar: an id, a colon, a word."""
_BAR_LEAST = 6
_BAR_MOST = 40


@dataclass(frozen=True, slots=True)
class Line:
    """One row, and what its colour tells."""

    text: str
    tone: Tone = "none"


def layer(row: Row, width: int) -> Line:
    """`ID: WORD`, with a bar while bytes move."""
    text = f"{row.id}: {row.status}"
    if row.status == PUSHING:
        return Line(_with_bar(text, row.current, row.total, "", width), "active")
    if row.active:
        return Line(text[:width], "retry")
    return Line(text[:width], "done" if row.done else "dim")


def last(row: Row, width: int) -> Line:
    """As `layer`, when nothing moves any more: no bar is left half open."""
    if row.status != PUSHING:
        return layer(row, width)
    whole = f" of {figures.size(row.total)}" if row.total is not None else ""
    text = f"{row.id}: {row.status} stopped at {figures.size(row.current)}{whole}"
    return Line(text[:width], "retry")


def total(sum_: Total, width: int) -> Line:
    """The bar of everything, with rate and time left."""
    rate = f"  {figures.size(sum_.rate)}/s" if sum_.rate is not None else ""
    left = sum_.seconds_left
    after = f"{rate}  {figures.left(left)} left" if left is not None else rate
    return Line(_with_bar("total", sum_.current, sum_.total, after, width))


def title(reference: str, width: int) -> Line:
    """Above the layers of one of several destinations."""
    return Line(f"{reference}"[:width])


def left_out(rows: Iterable[Row], width: int) -> Line:
    """How many layers have no row of their own, by what they do."""
    counts: dict[str, int] = {}
    for row in rows:
        word = "waiting" if row.waiting else "done" if row.done else "under way"
        counts[word] = counts.get(word, 0) + 1
    said = ", ".join(f"{counts[word]} {word}" for word in sorted(counts))
    return Line(f"and {figures.counted(sum(counts.values()), 'more layer')}: {said}"[:width], "dim")


def most_telling(rows: Sequence[Row], room: int) -> list[Row]:
    """Those under way, then those that come next, then the latest done; in their own order."""
    order = {id(row): place for place, row in enumerate(rows)}

    def rank(row: Row) -> tuple[int, int]:
        place = order[id(row)]
        return (0, place) if row.active else (1, place) if row.waiting else (2, -place)

    chosen = sorted(rows, key=rank)[:room]
    return sorted(chosen, key=lambda row: order[id(row)])


def _with_bar(text: str, current: int, whole: int | None, after: str, width: int) -> str:
    part = percent(current, whole)
    if whole is None or part is None:
        return f"{text:<{_LEFT}} {figures.size(current)}{after}"[:width]
    right = f"{part:3d}%  {figures.size(current)}/{figures.size(whole)}{after}"
    room = min(_BAR_MOST, width - _LEFT - len(right) - 4)
    if room < _BAR_LEAST:
        return f"{text} {right.lstrip()}"[:width]
    return f"{text:<{_LEFT}} {_bar(part, room)} {right}"[:width]


def _bar(part: int, room: int) -> str:
    full = part * room // 100
    head = ">" if full < room else ""
    return f"[{'=' * full}{head}".ljust(room + 1) + "]"
