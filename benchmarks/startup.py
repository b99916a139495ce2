"""How long a command takes that does nothing, and what Python spends on imports for it."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.peers import SkippedError, home_environ, towline_command
from benchmarks.report import aligned

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.peers import Place

RUNS = 20


@dataclass(frozen=True, slots=True)
class Startup:
    """Start-up of towline and, to compare, of others."""

    seconds: Mapping[str, float]
    """Median wall time by command."""
    import_seconds: float
    """Spent on imports by `towline --version`, above what a bare Python imports."""
    modules: int
    """How many imports those are."""


def measured(place: Place) -> Startup:
    """In turn, so that a drifting machine is fair to all."""
    environ = home_environ(place.new("home"))
    commands = _commands(place)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(RUNS + 1):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, capture_output=True, env=environ, check=True)
            times[name].append(time.perf_counter() - started)
    seconds = {name: median(taken[1:]) for name, taken in times.items()}
    return Startup(seconds, *_imports(environ))


def _commands(place: Place) -> dict[str, list[str | Path]]:
    commands: dict[str, list[str | Path]] = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "towline --version": [*towline_command(), "--version"],
    }
    for name, arguments in (("crane", "version"), ("skopeo", "--version")):
        try:
            commands[f"{name} {arguments}"] = [place.program(name), arguments]
        except SkippedError:
            continue
    return commands


def _imports(environ: Mapping[str, str]) -> tuple[float, int]:
    bare = _import_times(["-c", "pass"], environ)
    ours = _import_times(["-m", "towline", "--version"], environ)
    added = {name: spent for name, spent in ours.items() if name not in bare}
    return sum(added.values()) / 1e6, len(added)


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
    lines = [[name, f"{seconds * 1000:.1f}"] for name, seconds in startup.seconds.items()]
    imports = f"{startup.import_seconds * 1000:.1f} ms in {startup.modules} imports"
    shown = aligned([["", "wall ms"], *lines])
    return f"Start-up (median of {RUNS})\n{shown}\nof towline's: {imports} above a bare Python's"
