"""A terminal (pyte), and processes on one: what their user would see.

Resizing comes in both manners: terminals that wrap long rows anew, and those that cut them.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyte
import pytest
from wcwidth import wcswidth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_PATIENCE = 40.0
"""Seconds for what takes one at most, on a machine that is busy with much else."""
_CODES = re.compile(r"\x1b\[[\d;]*[A-Za-z]")


class Screen:
    """Rows of text; those that have scrolled away are kept above."""

    def __init__(self, columns: int, height: int) -> None:
        self.height = height
        self.longest = 0
        """The most columns that a row was to have."""
        self._show(columns, height, "")

    def _show(self, columns: int, height: int, text: str) -> None:
        self._screen = pyte.HistoryScreen(columns, height, history=1000)
        self._stream = pyte.Stream(self._screen)
        self._stream.feed(text)

    @property
    def rows(self) -> list[str]:
        """Everything since the beginning that was not overwritten, scrolled away or not."""
        screen = self._screen
        gone = ["".join(row[x].data for x in range(screen.columns)) for row in screen.history.top]
        return [*(row.rstrip() for row in gone), *self.visible]

    @property
    def visible(self) -> list[str]:
        """What is on the screen, without empty rows at its end."""
        return "\n".join(row.rstrip() for row in self._screen.display).rstrip().split("\n")

    @property
    def text(self) -> str:
        """The same as one text."""
        return "\n".join(self.rows).rstrip()

    def feed(self, text: str) -> None:
        """Show it."""
        for row in _CODES.sub("", text).splitlines():
            self.longest = max(self.longest, wcswidth(row))
        self._stream.feed(text)

    def resize(self, columns: int, height: int, *, wraps: bool) -> None:
        """Another size; the cursor stays on its row, and what is below goes first."""
        here = len(self._screen.history.top) + self._screen.cursor.y
        above, below = (
            [
                piece
                for row in rows
                for piece in (_pieces(row, columns) if wraps else [row[:columns]])
            ]
            for rows in (self.rows[:here], self.rows[here:])
        )
        below = below[:height] or [""]
        up = f"\x1b[{len(below) - 1}A" if len(below) > 1 else ""
        self._show(columns, height, "\r\n".join([*above, *below]) + f"\r{up}")
        self.height = height
        self.longest = 0


def _pieces(row: str, columns: int) -> list[str]:
    return [row[at : at + columns] for at in range(0, len(row), columns)] or [""]


@dataclass
class Terminal:
    """A real pseudo-terminal with a process on it, and what its user would see."""

    master: int
    process: subprocess.Popen[bytes]
    screen: Screen
    sent: str = ""
    """What came, as it came."""

    def resize(self, columns: int, height: int, *, wraps: bool = True) -> None:
        """As when a window is dragged: the terminal first, then the process hears of it."""
        self.screen.resize(columns, height, wraps=wraps)
        set_size(self.master, columns, height)

    def until(self, wanted: str) -> None:
        """Show what comes until this can be read."""
        self.wait_for(lambda: wanted in self.screen.text, wanted)

    def wait_for(self, true: Callable[[], bool], what: str = "what was waited for") -> None:
        """Show what comes until that is so."""
        end = time.monotonic() + _PATIENCE
        while not true():
            assert time.monotonic() < end, f"{what!r} did not appear in\n{self.screen.text}"
            self.read(0.05)

    def finish(self) -> int:
        """Show all that comes, and the process's exit code."""
        while self.read(_PATIENCE):
            pass
        return self.process.wait(timeout=_PATIENCE)

    def read(self, seconds: float) -> bool:
        """Show what has come; False when the other side is closed."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            found = os.read(self.master, 65536)
        except OSError:  # how Linux says that a terminal has no process any more
            return False
        self.sent += found.decode()
        self.screen.feed(found.decode())
        return bool(found)

    def say(self, line: str) -> None:
        """A line to the process's standard input, which is no terminal."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()


def set_size(descriptor: int, columns: int, height: int) -> None:
    """Tell a terminal its size; its processes get SIGWINCH."""
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", height, columns, 0, 0))


def pseudo_terminal() -> tuple[int, int]:
    """Both ends of one; a test that finds none here is skipped with that word."""
    try:
        return os.openpty()
    except OSError as error:  # as in a container without /dev/pts
        pytest.skip(f"no pseudo-terminals here: {error.strerror}")


@contextmanager
def on_terminal(
    arguments: Sequence[str],
    columns: int = 80,
    height: int = 24,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Terminal]:
    """Run Python with these arguments, its standard error on a terminal of this size."""
    master, slave = pseudo_terminal()
    set_size(slave, columns, height)
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=slave,
        env={**os.environ, "TERM": "xterm-256color", **(environ or {})},
    )
    os.close(slave)
    try:
        yield Terminal(master, process, Screen(columns, height))
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        os.close(master)
