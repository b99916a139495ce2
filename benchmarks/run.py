"""Pushes one real image with towline and its peers, in turn, and prints what each push cost.

    python -m benchmarks [--rounds N] [--only NAMES] [--scenario first|repeat|startup|knowledge|all]

Peers are looked for in PEERS (a folder), in `.tools/bin` and on PATH; one that is missing or cannot
run here is named with the reason. Each push goes to a registry of its own, which is empty.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import image, knowledge, registry, report, startup
from benchmarks.measure import CommandError, cost
from benchmarks.peers import PEERS, Place, SkippedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.peers import Peer

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS = ("first", "repeat", "startup", "knowledge", "all")
REPOSITORY, TAG = "bench/app", "1"
TARGETS = {"wall_to_best": 0.33, "cpu_to_best": 0.33, "peak": 64e6}
"""What a first push is to stay below (peak in bytes)."""


def main() -> int:
    options = _options()
    folder: Path = options.folder.resolve()
    tools = (*_peers_folders(options.peers), ROOT / ".tools/bin")
    with ExitStack() as stack:
        made = image.opened(options.image) if options.image else image.kept(folder, print)
        work = Path(tempfile.mkdtemp(prefix="work-", dir=_existing(folder)))
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        place = Place(made.path.resolve(), tools, work, stack)
        print(_heading(made))
        results: dict[str, object] = {"machine": _machine(), "image": _described(made)}
        if options.scenario not in {"startup", "knowledge"}:
            results.update(_pushes(place, made, options))
        if options.scenario in {"startup", "all"}:
            started = startup.measured(place)
            print(f"\n{startup.table(started)}")
            results["startup"] = asdict(started)
        if options.scenario in {"knowledge", "all"}:
            known = knowledge.measured()
            print(f"\n{knowledge.table(known)}")
            results["knowledge"] = asdict(known)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=5, help="counted ones (%(default)s)")
    parser.add_argument("--warmup", type=int, default=1, help="not counted (%(default)s)")
    parser.add_argument("--only", help=f"of {','.join(PEERS)}; separated by commas")
    parser.add_argument("--image", type=Path, help="another `docker save` archive")
    parser.add_argument("--peers", type=Path, help="a folder of programs (PEERS)")
    parser.add_argument("--scenario", choices=SCENARIOS, default="all")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="(%(default)s)")
    return parser.parse_args()


def _pushes(place: Place, made: image.Image, options: argparse.Namespace) -> dict[str, object]:
    server = place.program("docker-registry")
    ready, skipped = _ready(place, options.only)
    for name, peer in ready.items():
        print(f"{name}: {peer.version}")
    for name, reason in skipped.items():
        print(f"{name}: not measured: {reason}")
    runs: list[report.Run] = []
    for number in range(1 - options.warmup, options.rounds + 1):
        for name, peer in ready.items():
            with registry.started(server, place.folder) as where:
                for run in _turn(
                    name, peer, where, number=number, made=made, scenario=options.scenario
                ):
                    _progress(run)
                    runs += [run] if number > 0 else []
    shown = [rows for rows in _by_scenario(runs, options.scenario) if rows.runs]
    for rows in shown:
        print(f"\n{report.table(rows)}")
    _compare_with_targets(shown)
    return {
        "versions": {name: peer.version for name, peer in ready.items()},
        "skipped": skipped,
        "runs": [run.as_dict() for run in runs],
        "summary": {rows.scenario: report.summary(rows) for rows in shown},
    }


def _ready(place: Place, only: str | None) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers that can run, and why the others cannot."""
    ready: dict[str, Peer] = {}
    skipped: dict[str, str] = {}
    for name in only.split(",") if only else PEERS:
        try:
            ready[name] = PEERS[name](place)
        except SkippedError as why:
            skipped[name] = str(why)
    return ready, skipped


def _turn(
    name: str,
    peer: Peer,
    where: registry.Registry,
    *,
    number: int,
    made: image.Image,
    scenario: str,
) -> Iterator[report.Run]:
    """A first push, and the same once more where that is asked for."""
    target = f"{where.host}/{REPOSITORY}:{TAG}"
    peer.forget()
    peer.prepare(target)
    wanted: tuple[report.Scenario, ...] = ("first", "repeat")
    for each in wanted[:1] if scenario == "first" else wanted:
        cpu, requests = where.cpu(), where.requests()
        try:
            spent = cost(peer.push(target), peer.environ(), peer.daemons)
        except CommandError as failure:
            raise SystemExit(f"{name} failed to push: {failure}") from None
        answered = where.requests() - requests
        registry_cpu = where.cpu() - cpu
        where.check(REPOSITORY, TAG, len(made.layers))
        yield report.Run(
            name,
            each,
            number,
            **asdict(spent),
            stored=where.stored(),
            requests=answered,
            registry_cpu=registry_cpu,
        )


def _by_scenario(runs: list[report.Run], scenario: str) -> Iterator[report.Rows]:
    wanted: tuple[report.Scenario, ...] = ("first", "repeat")
    for each in wanted:
        if scenario in {"all", each}:
            yield report.Rows(each, tuple(run for run in runs if run.scenario == each))


def _progress(run: report.Run) -> None:
    turn = f"round {run.round}" if run.round > 0 else "warm-up"
    print(f"  {turn}: {run.peer}, {run.scenario} push: {run.wall:.2f} s", file=sys.stderr)


def _compare_with_targets(shown: list[report.Rows]) -> None:
    for rows in shown:
        figures = report.summary(rows).get("towline")
        if rows.scenario == "first" and figures and figures["wall_to_best"] is not None:
            print(f"\ntowline's first push against its targets: {_judged(figures)}")


def _judged(figures: Mapping[str, float | None]) -> str:
    parts = []
    for name, limit in TARGETS.items():
        value = figures[name] or 0.0
        shown = f"{value / 1e6:.0f} of {limit / 1e6:.0f} MB" if name == "peak" else f"{value:.2f}"
        word = "reached" if value <= limit else "MISSED"
        parts.append(f"{name.replace('_', ' ')} {shown} {word}")
    return ", ".join(parts)


def _peers_folders(given: Path | None) -> tuple[Path, ...]:
    named = given or (Path(os.environ["PEERS"]) if os.environ.get("PEERS") else None)
    return (named / "bin", named) if named else ()


def _existing(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _heading(made: image.Image) -> str:
    layers = ", ".join(f"{size / 1e6:.1f}" for size in made.layers)
    return f"{made.path}: {made.size / 1e6:.0f} MB in layers of {layers} MB\n{_machine_line()}"


def _machine_line() -> str:
    machine = _machine()
    return ", ".join(f"{name} {value}" for name, value in machine.items())


def _machine() -> dict[str, str]:
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
        names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        return next(names, platform.machine())


def _described(made: image.Image) -> dict[str, object]:
    return {"path": str(made.path), "size": made.size, "layers": list(made.layers)}


if __name__ == "__main__":
    sys.exit(main())
