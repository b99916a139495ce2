"""The bars in a real pseudo-terminal, resized while they move."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.terminal import Terminal, on_terminal
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from towline.testing import TestRegistry

PLAYER = """
import sys
from towline.cli import progress
from towline.events import *

REFERENCE = "registry.example/team/app:1"

def layer(number, status, current=None, total=None):
    name = f"{number:012x}"
    return LayerProgress(reference=REFERENCE, id=name, status=status, current=current, total=total)

with progress.start(sys.argv[1]) as shown:
    shown.emit(PushStarted(reference=REFERENCE, repository="registry.example/team/app"))
    for line in sys.stdin:
        for event in eval(line):
            shown.emit(event)
"""
END = (
    "[TagPushed(reference=REFERENCE, tag='1', digest='sha256:' + 'ab' * 32, size=1576),"
    " Summary(reference=REFERENCE, sent_bytes=1, total_bytes=2, requests=3, seconds=4)]"
)


@contextmanager
def player(
    mode: str = "auto", height: int = 24, term: str = "xterm", no_color: str = ""
) -> Iterator[Terminal]:
    environ = {"TERM": term, "NO_COLOR": no_color}
    with on_terminal(["-c", PLAYER, mode], height=height, environ=environ) as terminal:
        terminal.until("The push refers")
        yield terminal


def fits(terminal: Terminal, columns: int) -> bool:
    """Whether each of five layers has a row, and a whole one."""
    rows = [row for row in terminal.screen.rows if ": Pushing" in row]
    return len(rows) == 5 and all(len(row) < columns and row.endswith(" sent") for row in rows)


def finish(terminal: Terminal) -> None:
    assert terminal.process.stdin is not None
    terminal.say(END)
    terminal.process.stdin.close()
    assert terminal.finish() == 0


@pytest.mark.parametrize("wraps", [True, False])
def test_bars_survive_resizing_in_the_middle(*, wraps: bool) -> None:
    with player() as terminal:
        terminal.say("[layer(n, 'Pushing', 5, 10) for n in range(5)]")
        terminal.until("total")
        for columns, height in ((50, 24), (120, 40), (60, 12), (80, 24)):
            terminal.resize(columns, height, wraps=wraps)
            terminal.until("total")
            terminal.wait_for(partial(fits, terminal, columns))
            assert terminal.screen.longest <= columns
        terminal.say("[layer(n, 'Pushed') for n in range(5)]")
        finish(terminal)
        assert [row for row in terminal.screen.rows if ": Pushed" in row] == [
            f"{number:012x}: Pushed" for number in range(5)
        ]
        assert "total" not in terminal.screen.text


def test_a_hundred_layers_behave_on_80_by_24() -> None:
    with player() as terminal:
        terminal.say("[layer(n, 'Preparing', total=10) for n in range(100)]")
        terminal.until("more layers: ")
        terminal.say("[layer(n, 'Pushing', 3, 10) for n in range(40, 45)]")
        terminal.until("total")
        assert len(terminal.screen.visible) <= 24
        assert sum(": Pushing" in row for row in terminal.screen.visible) == 5
        terminal.say("[layer(n, 'Pushed') for n in range(100)]")
        finish(terminal)
        text = terminal.screen.text.replace("\n", "")
        assert text.count(": Pushed") == 100
        assert terminal.screen.text.count("The push refers to repository") == 1
        assert f"1: digest: sha256:{'ab' * 32} size: 1576" in text
        assert terminal.screen.text.endswith("sent 1 B of 2 B, 3 requests, 4.0 s")


def test_a_dumb_terminal_gets_plain_lines() -> None:
    with player(term="dumb") as terminal:
        terminal.say("[layer(1, 'Preparing'), layer(1, 'Pushing', 1, 2)]")
        finish(terminal)
        assert "000000000001: Preparing\n000000000001: Pushing\n1: digest" in terminal.screen.text


def test_colours_are_left_out_where_nobody_wants_them() -> None:
    sent = []
    for no_color in ("", "1"):
        with player(no_color=no_color) as terminal:
            terminal.say("[layer(1, 'Pushing', 1, 2), layer(2, 'Pushed')]")
            finish(terminal)
            sent.append(terminal.sent)
    assert "\x1b[36m" in sent[0]
    assert re.search(r"\x1b\[[\d;]*m", sent[0])
    assert not re.search(r"\x1b\[[\d;]*m", sent[1])


ONCE_MORE = """
import sys
from towline.cli.main import main
assert main(["push", *sys.argv[1:]]) == 0
print("rich" in sys.modules)
"""


def test_the_library_for_bars_is_loaded_when_bytes_move_and_for_an_unchanged_push_never(
    tmp_path: Path, oci_registry: TestRegistry
) -> None:
    make_image(tmp_path / "image.tar", [{"a": os.urandom(1 << 20)}])
    words = [str(tmp_path / "image.tar"), oci_registry.name("app:1"), "--limit-rate", "2M"]
    environ = {"TOWLINE_CACHE": str(tmp_path / "cache.db")}
    for loaded, outcome in (("True", "Pushed"), ("False", "Layer already exists")):
        with on_terminal(["-c", ONCE_MORE, *words], environ=environ) as terminal:
            assert terminal.finish() == 0
            assert f": {outcome}" in terminal.screen.text
            assert terminal.process.stdout is not None
            assert terminal.process.stdout.read().split()[-1].decode() == loaded
