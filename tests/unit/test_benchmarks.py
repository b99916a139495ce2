"""The figures of `make bench` are what they are said to be."""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import towline
from benchmarks import document, image, links, model, registry, report
from benchmarks.cases import CASES, Case, Limit, judged
from benchmarks.measure import CommandError, cost
from benchmarks.peers import Place, SkippedError
from tests.support import components
from towline.testing import make_image

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
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
    assert report.Rows("first", tuple(runs)).figure("towline", "wall") == 0.5
    assert report.Rows("first", tuple(runs), "towline").figure("skopeo", "wall") == 2
    assert report.Rows("first", tuple(runs[:3])).figure("towline", "wall") is None
    assert report.Rows("first", tuple(runs[:3])).figure("skopeo", "peak") is None


def test_the_best_is_the_fastest_of_the_others() -> None:
    runs = (run("towline", 1, 1.0), run("crane", 1, 9.0), run("skopeo", 1, 5.0))
    rows = report.Rows("first", runs)
    assert rows.best() == "skopeo"
    assert report.Rows("first", runs[:1]).best() is None
    head, towline, *_ = report.cells(rows)
    assert head[-2:] == ["wall/skopeo", "CPU/skopeo"]
    assert towline[-2:] == ["0.20", "1.00"]


def test_an_archive_of_anybody_s_making_is_described_by_its_manifest(tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", layers=[{"a": b"1" * 5000}, {"b": b"2"}])
    found = image.opened(made.path)
    assert found.size == made.path.stat().st_size
    assert len(found.layers) == 2
    assert found.layers[0] > 5000


def test_a_limit_is_judged_by_the_median() -> None:
    runs = (run("towline", 1, 1.0), run("skopeo", 1, 2.0))
    again = (run("towline", 1, 3.0), run("skopeo", 1, 2.0))
    limits = (
        Limit("towline", "wall", 0.5),
        Limit("towline", "peak", 50),
        Limit("no", "wall", 1),
        Limit("towline", "wall", 1, again=True),
    )
    case = Case("first", None, ("towline", "skopeo"), limits=limits)
    assert judged(case, [report.Rows("first", runs), report.Rows("again", again)]) == [
        "towline: wall 0.50 of at most 0.5: reached",
        "towline: peak 52.43 of at most 50 MB: MISSED",
        "towline: wall 1.50 of at most 1 (again): MISSED",
    ]


def test_a_case_replaces_what_the_documentation_said_of_it(tmp_path: Path) -> None:
    page, readme = tmp_path / "docs/benchmarks.md", tmp_path / "README.md"
    page.parent.mkdir()
    page.write_text("| first | 9 s |\n| other | 8 s |\n<!-- one -->\nold\n<!-- end -->\nrest\n")
    readme.write_text("| first | 9 s | |\n")
    rows = report.Rows("first", (run("towline", 1, 1.0), run("skopeo", 1, 4.0)))
    document.write(tmp_path, "one", [rows], ["A note."])
    said = page.read_text()
    assert said.startswith("| first | 1.00 s | skopeo 4.00 s | 0.25 |\n| other | 8 s |\n<!-- one")
    assert said.endswith("\n\nA note.\n\n<!-- end -->\nrest\n")
    assert "| skopeo | 4.00 |" in said
    assert "old" not in said
    assert readme.read_text() == "| first | 1.00 s | skopeo 4.00 s | 0.25 |\n"


def test_every_case_has_its_place_in_the_documentation() -> None:
    page, readme = (ROOT / "docs/benchmarks.md").read_text(), (ROOT / "README.md").read_text()
    for name, case in CASES.items():
        assert f"<!-- {name} -->\n" in page
        if case.beside:
            continue
        rows = [line for line in page.splitlines() if line.startswith(f"| {case.title} | ")]
        assert len(rows) == 1
        assert rows[0] in readme.splitlines()


@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_a_long_way_delays_the_opening_and_each_answer(tmp_path: Path, seconds: float) -> None:
    with ExitStack() as stack:
        place = Place(tmp_path, (), tmp_path, stack)
        way = stack.enter_context(links.late(seconds)(place))
        name, _, port = way.address.partition(":")
        server = stack.enter_context(socket.create_server((name, int(port))))
        began = time.monotonic()
        near = stack.enter_context(socket.create_connection(("127.0.0.1", int(way.host[10:]))))
        near.sendall(b"asked")
        far = stack.enter_context(server.accept()[0])
        assert far.recv(5) == b"asked"
        assert time.monotonic() - began >= seconds * 1.5
        far.sendall(b"answered")
        assert near.recv(8) == b"answered"
        assert time.monotonic() - began >= seconds * 2
        far.shutdown(socket.SHUT_WR)
        assert near.recv(1) == b""


@pytest.mark.needs("docker-registry")
def test_a_narrow_link_leads_to_a_registry(tmp_path: Path, docker_registry_bin: Path) -> None:
    with ExitStack() as stack:
        place = Place(tmp_path, (components.TOOLS,), tmp_path, stack)
        try:
            with links.narrow("8mbit")(place):
                pass  # and nothing of it is left
        except SkippedError as why:
            pytest.skip(str(why))
        way = stack.enter_context(links.narrow("8mbit")(place))
        where = stack.enter_context(registry.started(docker_registry_bin, tmp_path, way))
        began = time.monotonic()
        made = make_image(tmp_path / "image.tar", layers=[{"a": os.urandom(1 << 20)}])
        towline.push(made.path, f"{where.host}/app:1", plain_http=True)
        where.check("app", "1", 1)
        assert time.monotonic() - began > 0.8


RATES = model.Rates(reading=2e9, encoding=5e8, sending=1e9, ratio=0.5)


@pytest.mark.parametrize(
    ("place", "bound", "seconds"),
    [
        (model.Place(16, 125e6, 0.0001), "link", 20.0),
        (model.Place(1, 1e12, 0.0001), "processors", 15.0),
        (model.Place(16, 1e12, 0.0001), "reading in one thread", 2.5),
        (model.Place(16, 1e12, 0.4), "TCP's window", 238.4),
    ],
)
def test_a_simulated_layer_is_bound_by_what_is_slowest(
    place: model.Place, bound: str, seconds: float
) -> None:
    bounds = model.simulated(place, RATES, [5e9])
    assert bounds[bound] == pytest.approx(seconds, rel=0.01)
    assert sum(bounds.values()) - bounds[bound] < 12 * place.trip + 0.01


def test_simulated_layers_share_the_link() -> None:
    place = model.Place(64, 125e6, 0.0001)
    alone, together = (model.simulated(place, RATES, [5e9] * n)["link"] for n in (1, 12))
    assert together == pytest.approx(12 * alone, rel=0.01)
