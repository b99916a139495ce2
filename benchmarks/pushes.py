"""The pushes themselves: every peer in turn, round by round, each into a registry of its own."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from benchmarks import registry, report
from benchmarks.measure import CommandError, cost
from benchmarks.peers import PEERS, SkippedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from benchmarks.image import Image
    from benchmarks.peers import Peer, Place

REPOSITORY, TAG = "bench/app", "1"
SCENARIOS: tuple[report.Scenario, ...] = ("first", "repeat")
TARGETS = {"wall_to_best": 0.33, "cpu_to_best": 0.33, "peak": 64e6}
"""What a first push is to stay below (peak in bytes)."""


@dataclass(slots=True)
class Field:
    """Who takes part."""

    ready: dict[str, Peer] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)
    """Why the others do not."""


def gathered(place: Place, only: str | None) -> Field:
    """The peers that can run here."""
    found = Field()
    for name in only.split(",") if only else PEERS:
        try:
            found.ready[name] = PEERS[name](place)
            print(f"{name}: {found.ready[name].version}")
        except SkippedError as why:
            found.out[name] = str(why)
            print(f"{name}: not measured: {why}")
    return found


@dataclass(frozen=True, slots=True)
class Course:
    """What each of them has to do."""

    server: Path
    """The registry's program."""
    folder: Path
    """For the registries' storage."""
    image: Image
    scenarios: tuple[report.Scenario, ...]
    """A repeat has a first push before it, shown or not."""


def run(course: Course, peers: Field, *, warmup: int, rounds: int) -> list[report.Run]:
    """All rounds; those of the warm-up are not in the result."""
    runs: list[report.Run] = []
    for number in range(1 - warmup, rounds + 1):
        for name, peer in list(peers.ready.items()):
            try:
                for done in _turn(course, name, peer, number):
                    _progress(done)
                    runs += [done] if number > 0 else []
            except (CommandError, registry.WrongPushError) as failure:
                # The others' figures are worth having all the same.
                peers.out[name] = f"it failed in round {number}: {failure}"
                del peers.ready[name]
                print(f"{name}: {peers.out[name]}")
    return runs


def _turn(course: Course, name: str, peer: Peer, number: int) -> Iterator[report.Run]:
    """A first push, and the same once more where that is asked for."""
    peer.forget()
    with registry.started(course.server, course.folder) as where:
        target = f"{where.host}/{REPOSITORY}:{TAG}"
        peer.prepare(target)
        for each in SCENARIOS if "repeat" in course.scenarios else SCENARIOS[:1]:
            cpu, requests = where.cpu(), where.requests()
            spent = cost(peer.push(target), peer.environ(), peer.daemons)
            requests, cpu = where.requests() - requests, where.cpu() - cpu
            where.check(REPOSITORY, TAG, len(course.image.layers))
            yield report.Run(
                name,
                each,
                number,
                **asdict(spent),
                stored=where.stored(),
                requests=requests,
                registry_cpu=cpu,
            )


def _progress(done: report.Run) -> None:
    turn = f"round {done.round}" if done.round > 0 else "warm-up"
    print(f"  {turn}: {done.peer}, {done.scenario} push: {done.wall:.2f} s", file=sys.stderr)


def shown(runs: list[report.Run], course: Course) -> dict[str, object]:
    """Print the tables; the same for the JSON."""
    tables = [
        report.Rows(each, tuple(run for run in runs if run.scenario == each))
        for each in course.scenarios
    ]
    for rows in filter(lambda rows: rows.runs, tables):
        print(f"\n{report.table(rows)}")
        figures = report.summary(rows).get("towline")
        if rows.scenario == "first" and figures and figures["wall_to_best"] is not None:
            print(f"\ntowline's first push against its targets: {_judged(figures)}")
    return {
        "runs": [run.as_dict() for run in runs],
        "summary": {rows.scenario: report.summary(rows) for rows in tables},
    }


def _judged(figures: Mapping[str, float | None]) -> str:
    parts = []
    for name, limit in TARGETS.items():
        value = figures[name] or 0.0
        told = f"{value / 1e6:.0f} of {limit / 1e6:.0f} MB" if name == "peak" else f"{value:.2f}"
        word = "reached" if value <= limit else "MISSED"
        parts.append(f"{name.replace('_', ' ')} {told} {word}")
    return ", ".join(parts)
