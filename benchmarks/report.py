"""The figures as a table for people and as JSON for machines."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

MB = 1_000_000
Scenario = Literal["first", "repeat"]
TITLES: Mapping[Scenario, str] = {
    "first": "First push, into an empty registry",
    "repeat": "Repeat: the same image again to the same place",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One push, measured."""

    peer: str
    scenario: Scenario
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

    def as_dict(self) -> dict[str, Any]:
        """The JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Rows:
    """All counted runs of one scenario."""

    scenario: Scenario
    runs: tuple[Run, ...]

    @property
    def peers(self) -> list[str]:
        """In the order of their turns."""
        return list(dict.fromkeys(run.peer for run in self.runs))

    def of(self, peer: str) -> list[Run]:
        """Its runs, by round."""
        return [run for run in self.runs if run.peer == peer]

    def best(self) -> str | None:
        """The peer, towline aside, with the least median wall time."""
        others = [peer for peer in self.peers if peer != "towline"]
        return min(others, key=lambda peer: _median(self.of(peer), _wall), default=None)

    def ratio(self, peer: str, other: str | None, figure: Callable[[Run], float]) -> float | None:
        """Median over the rounds of one peer's figure by another's in the same round."""
        theirs = {run.round: figure(run) for run in self.of(other)} if other else {}
        pairs = [figure(run) / theirs[run.round] for run in self.of(peer) if theirs.get(run.round)]
        return median(pairs) if pairs else None


def _wall(run: Run) -> float:
    return run.wall


def _cpu(run: Run) -> float:
    return run.cpu


def _median(runs: Iterable[Run], figure: Callable[[Run], float]) -> float:
    return median(map(figure, runs))


def table(rows: Rows) -> str:
    """Medians, the range of the wall time, and the ratios."""
    best = rows.best()
    head = [
        "",
        "wall s",
        "(min-max)",
        "CPU s",
        "peak MB",
        "stored MB",
        "requests",
        "registry CPU s",
    ]
    head += ["wall/skopeo", "CPU/skopeo", f"wall/{best}", f"CPU/{best}"]
    lines = [_row(rows, peer, best) for peer in rows.peers]
    return f"{TITLES[rows.scenario]}\n{aligned([head, *lines])}"


def _row(rows: Rows, peer: str, best: str | None) -> list[str]:
    runs = rows.of(peer)
    walls = [run.wall for run in runs]
    return [
        peer,
        f"{median(walls):.2f}",
        f"({min(walls):.2f}-{max(walls):.2f})",
        f"{_median(runs, _cpu):.2f}",
        f"{_median(runs, lambda run: run.peak) / MB:.0f}",
        f"{_median(runs, lambda run: run.stored) / MB:.1f}",
        f"{_median(runs, lambda run: run.requests):.0f}",
        f"{_median(runs, lambda run: run.registry_cpu):.2f}",
        *(
            _shown(rows.ratio(peer, other, figure))
            for other in ("skopeo", best)
            for figure in (_wall, _cpu)
        ),
    ]


def _shown(ratio: float | None) -> str:
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


def summary(rows: Rows) -> dict[str, dict[str, float | None]]:
    """Medians and ratios by peer, for the JSON."""
    best = rows.best()
    return {
        peer: {
            "wall": _median(rows.of(peer), _wall),
            "cpu": _median(rows.of(peer), _cpu),
            "peak": _median(rows.of(peer), lambda run: run.peak),
            "stored": _median(rows.of(peer), lambda run: run.stored),
            "requests": _median(rows.of(peer), lambda run: run.requests),
            "wall_to_skopeo": rows.ratio(peer, "skopeo", _wall),
            "cpu_to_skopeo": rows.ratio(peer, "skopeo", _cpu),
            "wall_to_best": rows.ratio(peer, best, _wall),
            "cpu_to_best": rows.ratio(peer, best, _cpu),
        }
        for peer in rows.peers
    }
