"""What was measured, written into the documentation: each case replaces what it said before."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from benchmarks import report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def told(machine: Mapping[str, str], versions: Mapping[str, str]) -> str:
    """Where, by whom, when, and what else the machine had to do."""
    where = ", ".join(f"{name} {value}" for name, value in machine.items())
    named = {name.split()[0]: " ".join(said.split()) for name, said in versions.items()}
    whom = "".join(
        f"{said if name in said else f'{name} {said}'}; " for name, said in named.items()
    )
    load = os.getloadavg()[1]
    return f"{whom}{where}; {datetime.now(UTC):%Y-%m-%d}, load {load:.1f}"


def write(root: Path, name: str, tables: Sequence[report.Rows], notes: Sequence[str]) -> None:
    """Into `docs/benchmarks.md` below that folder, and a line of README.md."""
    main = root / "docs/benchmarks.md"
    parts = [f"**{rows.case}**\n\n{report.markdown(report.cells(rows))}" for rows in tables]
    replace(root, name, *parts, *notes)
    if tables[0].beside:  # towline with itself
        return
    line = summary(tables[0])
    for page in (main, root / "README.md"):
        lines = page.read_text("utf-8").splitlines(keepends=True)
        start = line[: line.index(" | ") + 3]
        page.write_text("".join(line if old.startswith(start) else old for old in lines), "utf-8")


def replace(root: Path, name: str, *parts: str) -> None:
    """What stands between the marks of that name; ValueError where there are none."""
    page = root / "docs/benchmarks.md"
    text = "\n\n".join(("", *parts, ""))
    pattern = rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)"
    new, count = re.subn(pattern, lambda _: text[1:], page.read_text("utf-8"), flags=re.DOTALL)
    if not count:
        raise ValueError(f"{page} has no place for {name}")
    page.write_text(new, "utf-8")


def summary(rows: report.Rows) -> str:
    """A line: the case, towline, the best of the others, and the ratio."""
    best = rows.best()
    walls = {peer: f"{rows.median(peer, lambda run: run.wall):.2f} s" for peer in rows.peers}
    ratio = rows.figure("towline", "wall")
    cells = [rows.case, walls.get("towline", "-"), f"{best} {walls.get(str(best), '-')}"]
    return f"| {' | '.join((*cells, report.shown(ratio)))} |\n"
