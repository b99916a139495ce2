"""The pushes of one case: every peer in turn, round by round, each into a registry of its own."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from benchmarks import registry, report
from benchmarks.measure import CommandError, cost
from benchmarks.peers import SkippedError, ready, towline_command

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.image import Image
    from benchmarks.links import Link
    from benchmarks.peers import Peer, Place

REPOSITORY, TAG = "bench/app", "1"


@dataclass(slots=True)
class Field:
    """Who takes part."""

    ready: dict[str, Peer] = field(default_factory=dict)
    out: dict[str, str] = field(default_factory=dict)
    """Why the others do not."""


def gathered(place: Place, names: Sequence[str]) -> Field:
    """The peers that can run here."""
    found = Field()
    for name in names:
        try:
            found.ready[name] = ready(name, place)
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
    place: Place
    image: Image
    link: Link
    turns: tuple[str, ...]
    """A push into an empty registry, and what is pushed again after it, by what they are called."""


def filled(server: Path, place: Place, copied: str) -> str:
    """A registry that holds what is to be copied, until the case ends; the name of that there."""
    source = place.stack.enter_context(registry.started(server, place.folder))
    name = f"{source.host}/{REPOSITORY}"
    every = copied == "tags"
    words = ["push", "-q", "--cache", "none", *(["-a"] if every else [])]
    target = name if every else f"{name}:{TAG}"
    subprocess.run(
        [*towline_command(), *words, f"oci:{place.image}{'' if every else ':1'}", target],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return target


def run(course: Course, peers: Field, *, warmup: int, rounds: int) -> list[report.Run]:
    """All rounds; those of the warm-up are not in the result. Raises SkippedError."""
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
    """A push to a registry of its own, or as `NAME xN` to N at once, and the same once more."""
    peer.forget()
    with ExitStack() as stack:
        registries = []
        for _ in range(int(name.partition(" x")[2] or 1)):
            way = stack.enter_context(course.link(course.place))
            started = registry.started(course.server, course.place.folder, way)
            registries.append(stack.enter_context(started))
        targets = [f"{where.host}/{REPOSITORY}:{TAG}" for where in registries]
        peer.prepare(targets[0])
        for turn in course.turns:
            cpu = sum(where.cpu() for where in registries)
            requests = sum(where.requests() for where in registries)
            spent = cost(peer.push(*targets), peer.environ(), peer.daemons)
            requests = sum(where.requests() for where in registries) - requests
            cpu = sum(where.cpu() for where in registries) - cpu
            for where in registries:
                where.check(REPOSITORY, TAG, len(course.image.layers))
            yield report.Run(
                name,
                turn,
                number,
                **asdict(spent),
                stored=sum(where.stored() for where in registries),
                requests=requests,
                registry_cpu=cpu,
            )


def _progress(done: report.Run) -> None:
    turn = f"round {done.round}" if done.round > 0 else "warm-up"
    print(f"  {turn}: {done.peer}, {done.case}: {done.wall:.2f} s", file=sys.stderr)
