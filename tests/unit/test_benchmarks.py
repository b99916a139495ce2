"""The figures of `make bench` are what they are said to be."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks import image, report
from benchmarks.measure import CommandError, cost

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MiB = 1 << 20


def environ() -> Mapping[str, str]:
    return {"PATH": os.environ["PATH"]}


def run(peer: str, number: int, wall: float, cpu: float = 1.0) -> report.Run:
    return report.Run(peer, "first", number, wall, cpu, 50 * MiB, 10**6, 20, 0.5)


def test_the_cost_of_a_command_is_its_own_and_its_childrens() -> None:
    spin = "x = bytearray(40 << 20)\nfor _ in range(2_000_000): pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spin!r}], check=True)"
    spent = cost([sys.executable, "-c", child], environ())
    assert spent.cpu > 0.01
    assert spent.wall > 0
    assert 40 * MiB < spent.peak < 80 * MiB


def test_this_process_s_own_memory_is_not_counted_as_the_command_s() -> None:
    ballast = bytearray(100 * MiB)
    assert cost(["true"], environ()).peak < 30 * MiB
    assert len(ballast) == 100 * MiB


def test_a_command_that_fails_is_told_by_its_last_line() -> None:
    with pytest.raises(CommandError, match=r"^no such image$"):
        cost(["sh", "-c", "echo trying; echo no such image >&2; exit 3"], environ())


def test_a_command_that_is_not_there_is_told_as_such() -> None:
    with pytest.raises(CommandError):
        cost(["/nonexistent/pusher"], environ())


def test_ratios_are_taken_round_by_round() -> None:
    # The second round was slow for both: the ratio is that of each round, not of the medians.
    walls = {"towline": (1.0, 30.0, 1.0), "skopeo": (4.0, 60.0, 2.0)}
    runs = [run(peer, n, wall) for peer, some in walls.items() for n, wall in enumerate(some)]
    rows = report.Rows("first", tuple(runs))
    assert rows.ratio("towline", "skopeo", lambda each: each.wall) == 0.5
    assert rows.ratio("towline", None, lambda each: each.wall) is None


def test_the_best_is_the_fastest_of_the_others() -> None:
    runs = (run("towline", 1, 1.0), run("crane", 1, 9.0), run("skopeo", 1, 5.0))
    rows = report.Rows("first", runs)
    assert rows.best() == "skopeo"
    assert report.Rows("first", runs[:1]).best() is None
    head, names, *_ = report.table(rows).splitlines()
    assert head == report.TITLES["first"]
    assert names.split()[-2:] == ["wall/skopeo", "CPU/skopeo"]


def test_an_archive_of_anybody_s_making_is_described_by_its_manifest(tmp_path: Path) -> None:
    from towline.testing import make_image

    made = make_image(tmp_path / "image.tar", layers=[{"a": b"1" * 5000}, {"b": b"2"}])
    found = image.opened(made.path)
    assert found.size == made.path.stat().st_size
    assert len(found.layers) == 2
    assert found.layers[0] > 5000
