"""Progress on standard error: bars, plain lines in docker's words, JSON objects, or nothing.

Faces (`tty`, `plain`, `json`) turn events into text and write nothing themselves. `base` feeds them
from a thread of its own, so that a slow terminal never holds up a transfer.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from towline.cli.progress.base import Progress

if TYPE_CHECKING:
    from towline.cli.progress.base import Face


def start(mode: str, *, layers: bool = True, debug: bool = False) -> Progress:
    """Progress on standard error in one of the modes of `--progress`.

    Commands that only read leave `layers` out: they show warnings and notes, and on a terminal a
    bar for what takes long (a pipe that is spooled, layers that are compressed).
    """
    face: Face
    if mode == "auto":
        terminal = sys.stderr is not None and sys.stderr.isatty()
        # No bars with `--debug`, whose lines scroll by too fast for rows below them.
        rows = terminal and os.environ.get("TERM") != "dumb" and not (debug and layers)
        mode = "tty" if rows else "plain"
    if mode == "tty":
        from towline.cli.progress.tty import Bars, size_of

        colour = not os.environ.get("NO_COLOR")
        face = Bars(lambda: size_of(sys.stderr), sys.stderr, colour=colour, layers=layers)
    elif mode == "json":
        from towline.cli.progress.json import Objects

        face = Objects(notes_only=not layers)
    else:
        from towline.cli.progress.plain import Lines, Quiet

        face = Lines() if layers and mode == "plain" else Quiet(notes=mode == "plain")
    return Progress(face, sys.stderr)
