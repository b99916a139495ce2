"""A terminal as far as towline uses one: what it would show after the bytes it was sent.

Knows carriage return, line feed, cursor up, the two clearings and colours; anything else fails
the test that sent it. Resizing comes in both manners: terminals that wrap long rows anew, and
those that cut them.
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

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_PIECE = re.compile(r"\r|\n|\x1b\[(\d*)([A-Za-z])|\x1b\[([\d;]*)m|([^\x00-\x1f\x7f]+)")


class Screen:
    """Rows of text; those that have scrolled away are kept above."""

    def __init__(self, columns: int, height: int) -> None:
        self.columns = columns
        self.height = height
        self.rows: list[str] = [""]
        """Everything since the beginning, scrolled away or not."""
        self.top = 0
        """The first row that is still on the screen."""
        self.row = 0
        self.column = 0
        self.longest = 0
        """The most columns that a row has had."""

    @property
    def visible(self) -> list[str]:
        """What is on the screen, without empty rows at its end."""
        return "\n".join(self.rows[self.top : self.top + self.height]).rstrip().split("\n")

    @property
    def text(self) -> str:
        """Everything ever shown that was not overwritten."""
        return "\n".join(row.rstrip() for row in self.rows).rstrip()

    def feed(self, text: str) -> None:
        """Show it."""
        at = 0
        while at < len(text):
            match = _PIECE.match(text, at)
            assert match is not None, f"the terminal does not know {text[at : at + 12]!r}"
            self._do(match)
            at = match.end()

    def _do(self, match: re.Match[str]) -> None:
        if match.group() == "\r":
            self.column = 0
        elif match.group() == "\n":
            self._down()
        elif match[4]:
            self._print(match[4])
        elif match[2] == "A":
            up = int(match[1] or 1)
            assert self.row - up >= self.top, "the cursor was moved up beyond the screen"
            self.row -= up
        elif match[2] == "K":
            self.rows[self.row] = self.rows[self.row][: self.column]
        elif match[2] == "J":
            self.rows[self.row] = self.rows[self.row][: self.column]
            del self.rows[self.row + 1 :]
        else:
            assert match.group().endswith("m"), f"the terminal does not know {match.group()!r}"

    def _down(self) -> None:
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append("")
        self.top = max(self.top, self.row - self.height + 1)

    def _print(self, text: str) -> None:
        for character in text:
            if self.column == self.columns:
                self._down()
                self.column = 0
            row = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = row[: self.column] + character + row[self.column + 1 :]
            self.column += 1
            self.longest = max(self.longest, self.column)

    def resize(self, columns: int, height: int, *, wraps: bool) -> None:
        """Another size; the cursor stays on the character that it was on."""
        rows: list[str] = []
        cursor = 0
        for number, row in enumerate(self.rows):
            if number == self.row:
                cursor = len(rows)
            pieces = [row[at : at + columns] for at in range(0, len(row), columns)] or [""]
            rows.extend(pieces if wraps else pieces[:1])
        self.rows, self.row = rows, cursor
        self.columns, self.height = columns, height
        # Rows below the cursor go first when there is less room, then those at the top.
        self.top = max(0, min(self.row, len(rows) - height))
        self.top = max(self.top, self.row - height + 1)
        self.longest = 0


@dataclass
class Terminal:
    """A real pseudo-terminal with a process on it, and what its user would see."""

    master: int
    process: subprocess.Popen[bytes]
    screen: Screen

    def resize(self, columns: int, height: int, *, wraps: bool = True) -> None:
        """As when a window is dragged: the terminal first, then the process hears of it."""
        self.screen.resize(columns, height, wraps=wraps)
        set_size(self.master, columns, height)

    def until(self, wanted: str, seconds: float = 10.0) -> None:
        """Show what comes until this can be read."""
        end = time.monotonic() + seconds
        while wanted not in self.screen.text:
            assert time.monotonic() < end, f"{wanted!r} did not appear in\n{self.screen.text}"
            self.read(0.05)

    def settle(self, seconds: float = 0.5) -> None:
        """Show what comes for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read(0.05)

    def finish(self) -> int:
        """Show all that comes, and the process's exit code."""
        while self.read(10):
            pass
        return self.process.wait(timeout=10)

    def read(self, seconds: float) -> bool:
        """Show what has come; False when the other side is closed."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            found = os.read(self.master, 65536)
        except OSError:  # how Linux says that a terminal has no process any more
            return False
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


@contextmanager
def on_terminal(
    arguments: Sequence[str],
    columns: int = 80,
    height: int = 24,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Terminal]:
    """Run Python with these arguments, its standard error on a terminal of this size."""
    master, slave = os.openpty()
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
