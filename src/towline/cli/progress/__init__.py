"""What standard error shows while a push runs: bars, docker's words a line each, objects, nothing.

Faces (`tty`, `plain`, `json`, `quiet`) turn events into text and know no streams; `base` feeds
them from a thread of its own, so that a slow terminal never holds up a transfer.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from towline.cli.progress.base import Progress

if TYPE_CHECKING:
    from towline.cli.progress.base import Face


def start(mode: str, *, debug: bool = False) -> Progress:
    """Progress on standard error in one of the modes of `--progress`."""
    return Progress(_face(_resolved(mode, debug=debug)), sys.stderr)


def start_without(mode: str) -> Progress:
    """For commands that only look: warnings and notes on standard error, as the mode has them.

    On a terminal what takes long (a pipe that is spooled, layers that are compressed) has its bar.
    """
    from towline.cli.progress.plain import KEPT, Quiet

    if _resolved(mode, debug=False) == "tty":
        return Progress(_bars(layers=False), sys.stderr)
    if mode != "json":
        return Progress(Quiet(notes=mode != "none"), sys.stderr)
    from towline.cli.progress.json import Objects

    return Progress(Objects(KEPT), sys.stderr)


def _resolved(mode: str, *, debug: bool) -> str:
    if mode != "auto":
        return mode
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return "tty" if terminal and not debug and os.environ.get("TERM") != "dumb" else "plain"


def _bars(*, layers: bool) -> Face:
    from towline.cli.progress.tty import Bars, size_of

    colour = not os.environ.get("NO_COLOR")
    return Bars(lambda: size_of(sys.stderr), sys.stderr, colour=colour, layers=layers)


def _face(mode: str) -> Face:
    if mode == "tty":
        return _bars(layers=True)
    if mode == "json":
        from towline.cli.progress.json import Objects

        return Objects()
    from towline.cli.progress.plain import Lines, Quiet

    return Quiet() if mode == "none" else Lines()
