"""A tar that comes by a pipe, its blobs named by their digests: does it cost more than it must?

It takes at least as long as the writer alone, and as long as sending the same tar from a file. The
writers are one of a steady rate, and `docker save` from a containerd store. The system lets
towline write no file meanwhile.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import registry
from benchmarks.engine import REPOSITORY
from benchmarks.image import NAME
from benchmarks.measure import cost
from benchmarks.peers import Docker, SkippedError, home_environ, towline_command
from benchmarks.report import MB

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.measure import Cost
    from benchmarks.peers import Command, Place

RATE = 90 * MB
"""Bytes a second of the steady writer: the pace of `docker save` on a machine with nothing else to
do, which took 5.9 seconds for the same tar."""
MOST = 1.05
"""Of the longer of the writer alone and the sending: what is to be reached."""
ALONE, FILE, PIPE = "the writer alone", "from a file", "from the pipe"


@dataclass(frozen=True, slots=True)
class Run:
    """One of these three, once."""

    writer: str
    what: str
    wall: float
    """Seconds."""
    cpu: float
    """Seconds of writer and towline; an engine's are its own."""
    peak: int
    """Bytes of memory of the larger of both."""


def measured(place: Place, rounds: int) -> tuple[list[Run], dict[str, str]]:
    """All runs, and the engine's version, or why it is not measured."""
    told: dict[str, str] = {}
    steady: Command = [sys.executable, "-I", "-S", Path(__file__).with_name("steady.py")]
    rate = f"{RATE // MB} MB/s"
    writers = {rate: _Course(place, [*steady, place.image, str(RATE)], {})}
    with ExitStack() as stack:
        try:
            own = replace(place, stack=stack)
            engine = Docker(own, ["--feature=containerd-snapshotter=true"])
            save = _Course(place, [engine.program, "save", NAME], engine.environ())
            writers["docker save"] = save
            told["docker"] = engine.version
        except SkippedError as why:
            told["docker save"] = f"not measured: {why}"
        runs = []
        for _ in range(rounds):
            for writer, course in writers.items():
                for what, spent in course.turn():
                    print(f"  {writer}: {what}: {spent.wall:.2f} s", file=sys.stderr)
                    runs.append(Run(writer, what, spent.wall, spent.cpu, spent.peak))
    return runs, told


class _Course:
    """One writer, what is measured of it, and beside it."""

    def __init__(self, place: Place, writer: Command, environ: Mapping[str, str]) -> None:
        self._place = place
        self._server = place.program("docker-registry")
        self._writer = writer
        self._environ = environ

    def turn(self) -> Iterator[tuple[str, Cost]]:
        """Each of the three, once."""
        environ = {**home_environ(self._place.new("home")), **self._environ}
        to_nowhere: Command = ["sh", "-c", 'exec "$@" >/dev/null', "sh", *self._writer]
        yield ALONE, cost(to_nowhere, environ)
        yield FILE, self._push(self._place.image, [], environ)
        # Behind the first argument, a count, stand the writer's words, then towline's.
        pipe = 'n=$1; shift; "${@:1:n}" | (ulimit -f 0; exec "${@:n+1}" 2>&1) | cat'
        words: Command = ["bash", "-o", "pipefail", "-c", pipe, "bash", str(len(self._writer))]
        yield PIPE, self._push("-", [*words, *self._writer], environ)

    def _push(self, source: str | Path, before: Command, environ: Mapping[str, str]) -> Cost:
        """A push to a registry of its own."""
        with registry.started(self._server, self._place.folder) as where:
            target = f"{where.host}/{REPOSITORY}:1"
            push: Command = [*towline_command(), "push", "--cache", "none", source, target]
            return cost([*before, *push], environ)


def table(runs: list[Run]) -> list[list[str]]:
    """Medians; and of the pipe the wall time by the longer of the others, round by round."""
    lines = [["writer", "", "wall s", "CPU s", "peak MB", "to the longer"]]
    for writer, what in dict.fromkeys((run.writer, run.what) for run in runs):
        some = [run for run in runs if (run.writer, run.what) == (writer, what)]
        lines.append(
            [
                *(writer, what),
                f"{median(run.wall for run in some):.2f}",
                f"{median(run.cpu for run in some):.2f}",
                f"{median(run.peak for run in some) / MB:.0f}",
                f"{ratio(runs, writer):.2f}" if what == PIPE else "",
            ]
        )
    return lines


def ratio(runs: list[Run], writer: str) -> float:
    """Median over the rounds."""
    alone, file, pipe = (
        [run.wall for run in runs if (run.writer, run.what) == (writer, what)]
        for what in (ALONE, FILE, PIPE)
    )
    return median(piped / max(both) for piped, *both in zip(pipe, alone, file, strict=True))


def judged(runs: list[Run]) -> list[str]:
    """A sentence for each writer."""
    sentences = []
    for writer in dict.fromkeys(run.writer for run in runs):
        found = ratio(runs, writer)
        word = "reached" if found <= MOST else "MISSED"
        sentences.append(f"{writer}: wall {found:.2f} of at most {MOST}: {word}")
    return sentences
