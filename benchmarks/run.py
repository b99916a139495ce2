"""Pushes one real image with towline and its peers, in turn, and prints what each push cost.

    python -m benchmarks [--rounds N] [--only NAMES] [--scenario WHAT]

Peers are looked for in PEERS (a folder), in `.tools/bin` and on PATH; one that is missing or cannot
run here is named with the reason. Each push goes to a registry of its own, which is empty.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from benchmarks import engine, image, knowledge, pushes, serving, startup
from benchmarks.peers import PEERS, Place, SkippedError

if TYPE_CHECKING:
    from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
WHAT = ("first", "repeat", "engine", "startup", "knowledge", "serving", "all")


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, _terminated)
    folder: Path = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, object] = {"machine": _machine()}
    print(", ".join(f"{name} {value}" for name, value in _machine().items()))
    with ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="work-", dir=folder))
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        place = Place(folder / "image.tar", _tools(options.peers), work, stack)
        for part, scenarios in _PARTS.items():
            if options.scenario in scenarios:
                results[part] = _measured(part, place, options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


_PARTS = {
    "pushes": {"first", "repeat", "all"},
    "engine": {"engine", "all"},
    "startup": {"startup", "all"},
    "knowledge": {"knowledge", "all"},
    "serving": {"serving", "all"},
}


def _measured(part: str, place: Place, options: argparse.Namespace) -> object:
    if part == "pushes":
        return _pushes(place, options)
    if part == "engine":
        return _engine(place, options)
    if part == "startup":
        started = startup.measured(place)
        print(f"\n{startup.table(started)}")
        return asdict(started)
    if part == "serving":
        served = serving.measured(place)
        print(f"\n{serving.table(served)}")
        return {name: asdict(figures) for name, figures in served.items()}
    known = knowledge.measured()
    print(f"\n{knowledge.table(known)}")
    return asdict(known)


def _engine(place: Place, options: argparse.Namespace) -> dict[str, object]:
    made = _image(place, options.image)
    runs, told = engine.measured(replace(place, image=made.path), options.rounds)
    print("\n".join(f"{store}: {version}" for store, version in told.items()))
    if runs:
        print(f"\n{engine.table(runs)}")
    return {"versions": told, "runs": [asdict(run) for run in runs]}


def _pushes(place: Place, options: argparse.Namespace) -> dict[str, object]:
    try:
        server = place.program("docker-registry")
    except SkippedError as why:
        raise SystemExit(f"nothing can be pushed: {why}") from None
    made = _image(place, options.image)
    place = Place(made.path, place.tools, place.folder, place.stack)
    layers = ", ".join(f"{size / 1e6:.1f}" for size in made.layers)
    print(f"{made.path}: {made.size / 1e6:.0f} MB in layers of {layers} MB")
    wanted = [each for each in pushes.SCENARIOS if options.scenario in {each, "all"}]
    course = pushes.Course(server, place.folder, made, tuple(wanted))
    peers = pushes.gathered(place, options.only)
    runs = pushes.run(course, peers, warmup=options.warmup, rounds=options.rounds)
    return {
        "image": {"path": str(made.path), "size": made.size, "layers": made.layers},
        "versions": {name: peer.version for name, peer in peers.ready.items()},
        "not_measured": peers.out,
        **pushes.shown(runs, course),
    }


def _image(place: Place, given: Path | None) -> image.Image:
    if given:
        return image.opened(given.resolve())
    return image.kept(place.image, lambda line: print(line, flush=True))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=5, help="counted ones (%(default)s)")
    parser.add_argument("--warmup", type=int, default=1, help="not counted (%(default)s)")
    parser.add_argument("--only", help=f"of {','.join(PEERS)}; separated by commas")
    parser.add_argument("--image", type=Path, help="another `docker save` archive")
    parser.add_argument("--peers", type=Path, help="a folder of programs (PEERS)")
    parser.add_argument("--scenario", choices=WHAT, default="all", metavar="WHAT", help=_WHAT)
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="(%(default)s)")
    return parser.parse_args()


_WHAT = f"one of {', '.join(WHAT)} (%(default)s)"


def _terminated(number: int, _frame: FrameType | None) -> NoReturn:
    """Unwind, so that daemons and registries are stopped."""
    raise SystemExit(128 + number)


def _tools(given: Path | None) -> tuple[Path, ...]:
    named = given or (Path(os.environ["PEERS"]) if os.environ.get("PEERS") else None)
    return (*((named / "bin", named) if named else ()), ROOT / ".tools/bin")


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


if __name__ == "__main__":
    sys.exit(main())
