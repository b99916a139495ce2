"""Pushes images with towline and its peers, in turn, and prints what each push cost.

    python -m benchmarks [CASE...] [--rounds N] [--only NAMES]

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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from benchmarks import (
    cases,
    document,
    engine,
    image,
    knowledge,
    made,
    model,
    pipe,
    report,
    serving,
    startup,
)
from benchmarks.peers import PEERS, Place

if TYPE_CHECKING:
    from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
WHAT = (*cases.CASES, "engine", "pipe", "startup", "knowledge", "serving", "model")


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, _terminated)
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    options.machine = _machine()
    results: dict[str, object] = {"machine": options.machine}
    print(", ".join(f"{name} {value}" for name, value in options.machine.items()))
    wanted = WHAT if "all" in options.case else options.case
    with ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="work-", dir=options.folder))
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        for name in wanted:
            with ExitStack() as own:
                place = Place(options.folder / "image.tar", _tools(options.peers), work, own)
                results[name] = _measured(name, place, options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return 0


def _measured(name: str, place: Place, options: argparse.Namespace) -> object:
    own = {"engine": _engine, "pipe": _pipe, "model": _model}
    if name in own:
        return own[name](place, options)
    if name == "startup":
        started = startup.measured(place)
        print(f"\n{startup.table(started)}")
        return asdict(started)
    if name == "serving":
        served = serving.measured(place)
        print(f"\n{serving.table(served)}")
        return {name: asdict(figures) for name, figures in served.items()}
    if name == "knowledge":
        known = knowledge.measured()
        print(f"\n{knowledge.table(known)}")
        return asdict(known)
    return cases.measured(name, place, options)


def _model(place: Place, options: argparse.Namespace) -> dict[str, object]:
    rates = model.measured(image.kept(place.image, partial(print, flush=True)).path)
    table, said = model.table(rates), model.told(rates)
    print(f"\n{said}\n{report.aligned(table)}")
    if options.write:
        where = document.told(options.machine, {})
        document.replace(options.write, "model", report.markdown(table), f"{said}; {where}")
    return {"rates": rates._asdict(), "table": table}


def _engine(place: Place, options: argparse.Namespace) -> dict[str, object]:
    made = image.kept(place.image, partial(print, flush=True))
    runs, told = engine.measured(replace(place, image=made.path), options.rounds)
    print("\n".join(f"{store}: {version}" for store, version in told.items()))
    if runs:
        table = engine.table(runs)
        print(f"\n{report.aligned(table)}")
        if options.write:
            said = document.told(options.machine, told)
            document.replace(options.write, "engine", report.markdown(table), said)
    return {"versions": told, "runs": [asdict(run) for run in runs]}


def _pipe(place: Place, options: argparse.Namespace) -> dict[str, object]:
    image_of_gzip = made.kept(options.folder, made.named_by_digest)
    runs, told = pipe.measured(replace(place, image=image_of_gzip.path), options.rounds)
    table, reached = pipe.table(runs), pipe.judged(runs)
    print("\n".join(("", report.aligned(table), "", *reached)))
    if options.write:
        said = document.told(options.machine, told)
        document.replace(options.write, "pipe", report.markdown(table), *reached, said)
    return {"versions": told, "runs": [asdict(run) for run in runs], "reached": reached}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "case", nargs="*", choices=(*WHAT, "all"), default="all", metavar="CASE", help=_WHAT
    )
    parser.add_argument("--rounds", type=int, default=5, help="counted ones (%(default)s)")
    parser.add_argument("--warmup", type=int, default=1, help="not counted (%(default)s)")
    parser.add_argument("--only", help=f"of {','.join(PEERS)}; separated by commas")
    parser.add_argument("--peers", type=Path, help="a folder of programs (PEERS)")
    parser.add_argument(
        "--write", action="store_const", const=ROOT, help="into the documentation too"
    )
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--folder", type=Path, default=ROOT / ".bench", help="(%(default)s)")
    return parser.parse_args()


_WHAT = f"of {', '.join(WHAT)} (%(default)s)"


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
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
        names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        return next(names, platform.machine())


if __name__ == "__main__":
    sys.exit(main())
