"""How long a command takes that has nothing to do, and what Python spends on imports for it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.measure import cost
from benchmarks.peers import SkippedError, home_environ, towline_command
from benchmarks.report import aligned
from benchmarks.serving import embedded
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.measure import Cost
    from benchmarks.peers import Command, Place

RUNS = 20
_LAYERS = 6


@dataclass(frozen=True, slots=True)
class Startup:
    """Start-up of towline and, to compare, of others."""

    seconds: Mapping[str, float]
    """Median wall time by command."""
    cpu: Mapping[str, float]
    """Median seconds of processor time likewise."""
    import_seconds: float
    """Spent on imports by a push of what is there, above what a bare Python imports."""
    modules: int
    """How many imports those are."""
    own_modules: int
    """How many of them are towline's."""


def measured(place: Place) -> Startup:
    """In turn, so that a drifting machine is fair to all."""
    environ = home_environ(place.new("home"))
    with embedded(place) as (host, _):
        archive = place.folder / "small.tar"
        make_image(archive, [{f"file-{n}": bytes([n]) * 1000} for n in range(_LAYERS)])
        push = ["push", "--quiet", str(archive), f"{host}/small:1"]
        commands = _commands(place, push)
        costs: dict[str, list[Cost]] = {name: [] for name in commands}
        for _ in range(RUNS + 1):
            for name, command in commands.items():
                costs[name].append(cost(command, environ))
        imports = _imports(push, environ)
    seconds = {name: median(each.wall for each in taken[1:]) for name, taken in costs.items()}
    cpu = {name: median(each.cpu for each in taken[1:]) for name, taken in costs.items()}
    return Startup(seconds, cpu, *imports)


def _commands(place: Place, push: list[str]) -> dict[str, Command]:
    commands: dict[str, Command] = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "towline --version": [*towline_command(), "--version"],
        "towline push, unchanged": [*towline_command(), *push],
    }
    for name, arguments in (("crane", "version"), ("skopeo", "--version")):
        try:
            commands[f"{name} {arguments}"] = [place.program(name), arguments]
        except SkippedError:
            continue
    return commands


def _imports(push: list[str], environ: Mapping[str, str]) -> tuple[float, int, int]:
    bare = _import_times(["-c", "pass"], environ)
    ours = _import_times(["-m", "towline", *push], environ)
    added = {name: spent for name, spent in ours.items() if name not in bare}
    own = [name for name in added if name.partition(".")[0] == "towline"]
    return sum(added.values()) / 1e6, len(added), len(own)


def _import_times(arguments: list[str], environ: Mapping[str, str]) -> dict[str, int]:
    """Microseconds of each import, without those that it imports in turn."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, capture_output=True, env=dict(environ), check=True, text=True)
    rows = (line.partition(":")[2].split("|") for line in done.stderr.splitlines())
    return {
        row[2].strip(): int(row[0]) for row in rows if len(row) == 3 and row[0].strip().isdigit()
    }


def table(startup: Startup) -> str:
    """For people."""
    bare = next(iter(startup.cpu.values()))
    lines = [
        [
            name,
            f"{startup.seconds[name] * 1000:.1f}",
            f"{cpu * 1000:.1f}",
            f"+{(cpu - bare) * 1000:.1f}",
        ]
        for name, cpu in startup.cpu.items()
    ]
    shown = aligned([["", "wall ms", "CPU ms", "above Python"], *lines])
    imports = f"{startup.import_seconds * 1000:.1f} ms in {startup.modules} imports"
    return (
        f"Start-up (median of {RUNS})\n{shown}\nof that push's: {imports} above a bare Python's, "
        f"{startup.own_modules} of them towline's"
    )
