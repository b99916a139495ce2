"""The figures of a case as a table."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Run:
    """One push, measured."""

    peer: str
    case: str
    round: int
    wall: float
    """Seconds."""
    cpu: float
    """Seconds, of the peer and its daemons."""
    peak: int
    """Bytes of memory."""
    stored: int
    """Bytes that the registry holds afterwards."""
    requests: int
    registry_cpu: float
    """Seconds, of the registry: no peer's merit or fault, but paid on the same processors."""


@dataclass(frozen=True, slots=True)
class Rows:
    """All counted runs of one case."""

    case: str
    runs: tuple[Run, ...]
    beside: str | None = None
    """Whom all are compared with; None: the fastest that is not towline."""

    @property
    def peers(self) -> list[str]:
        """In the order of their turns."""
        return list(dict.fromkeys(run.peer for run in self.runs))

    def of(self, peer: str) -> list[Run]:
        """Its runs, by round."""
        return [run for run in self.runs if run.peer == peer]

    def best(self) -> str | None:
        """Whom all are compared with."""
        others = [peer for peer in self.peers if not peer.startswith("towline")]
        return self.beside or min(others, key=lambda one: self.median(one, _wall), default=None)

    def median(self, peer: str, figure: Callable[[Run], float]) -> float:
        """Of its runs."""
        return median(map(figure, self.of(peer)))

    def ratio(self, peer: str, figure: Callable[[Run], float]) -> float | None:
        """Median over the rounds of one peer's figure by the best's in the same round."""
        best = self.best()
        theirs = {run.round: figure(run) for run in self.of(best)} if best else {}
        pairs = [figure(run) / theirs[run.round] for run in self.of(peer) if theirs.get(run.round)]
        return median(pairs) if pairs else None

    def figure(self, peer: str, name: str) -> float | None:
        """One of a peer's figures, as limits are given for it; None where there is none."""
        if not self.of(peer):
            return None
        if name in {"wall", "cpu"}:
            return self.ratio(peer, _wall if name == "wall" else _cpu)
        if name == "peak":
            return self.median(peer, lambda run: run.peak / MB)
        return self.median(peer, lambda run: run.requests)


def _wall(run: Run) -> float:
    return run.wall


def _cpu(run: Run) -> float:
    return run.cpu


def cells(rows: Rows) -> list[list[str]]:
    """Medians, the range of the wall time, and the ratios; the first line is the head."""
    best = rows.best()
    head = ["", "wall s", "min-max", "CPU s", "peak MB", "stored MB", "requests", "registry CPU s"]
    return [
        [*head, f"wall/{best}", f"CPU/{best}"],
        *([peer, *_figures(rows, peer)] for peer in rows.peers),
    ]


def _figures(rows: Rows, peer: str) -> list[str]:
    walls = [run.wall for run in rows.of(peer)]
    return [
        f"{median(walls):.2f}",
        f"{min(walls):.2f}-{max(walls):.2f}",
        f"{rows.median(peer, _cpu):.2f}",
        f"{rows.median(peer, lambda run: run.peak) / MB:.0f}",
        f"{rows.median(peer, lambda run: run.stored) / MB:.1f}",
        f"{rows.median(peer, lambda run: run.requests):.0f}",
        f"{rows.median(peer, lambda run: run.registry_cpu):.2f}",
        *(shown(rows.ratio(peer, figure)) for figure in (_wall, _cpu)),
    ]


def shown(ratio: float | None) -> str:
    """A ratio, or that there is none."""
    return "-" if ratio is None else f"{ratio:.2f}"


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """The same for a page."""
    head, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join((head, f"|{' --- |' * len(lines[0])}", *rest))
