"""Signals before there is anything to be cancelled: they end the process at once, with their code.

Raising an exception instead, as Python does for SIGINT, is not to be relied upon here: modules are
being imported, and what is raised in the middle of that may be swallowed, or come out as another.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType


_WITHOUT_PROGRESS = {"inspect", "tags", "digest", "login", "logout", "cache", "serve", "demo"}
"""Commands that say so little that what `--progress` says is not for them."""


def catch(words: Sequence[str], environ: Mapping[str, str]) -> None:
    """From now on SIGINT and SIGTERM end the process, in whatever way they are told of."""
    json = wants_json(words, environ)

    def end(number: int, _frame: FrameType | None) -> None:
        code, line = 128 + number, "towline: error: interrupted"
        if json:  # by hand: nothing is imported in the middle of who knows what
            line = (
                f'{{"event": "error", "reference": "", "time": {time.time()}, '
                f'"message": "interrupted", "exit_code": {code}}}'
            )
        with suppress(OSError):  # closed: nobody listens
            os.write(2, f"{line}\n".encode())
        os._exit(code)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def wants_json(words: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether standard error is for JSON, by a look at words that nobody has read yet."""
    if words and words[0] in _WITHOUT_PROGRESS:
        return False
    if "--progress=json" in words or ("--progress", "json") in pairwise(words):
        return True
    other = any(word in {"-q", "--quiet"} or word.startswith("--progress") for word in words)
    return not other and environ.get("TOWLINE_PROGRESS") == "json"
