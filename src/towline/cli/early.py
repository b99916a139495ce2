"""Signals before a push begins: they end the process at once, with their exit code.

Raising an exception, as Python does for SIGINT, is not reliable here: it may arise in the middle of
an import, which may swallow it or turn it into another one.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType


_WITHOUT_PROGRESS = frozenset(
    {"inspect", "tags", "digest", "login", "logout", "cache", "serve", "demo", "completion"}
)
"""Commands that have no `--progress`, so that its variable does not change their errors."""


def catch(words: Sequence[str], environ: Mapping[str, str]) -> None:
    """Make SIGINT and SIGTERM end the process, with an error line or, where wanted, an object."""
    json = wants_json(words, environ)

    def end(number: int, _frame: FrameType | None) -> None:
        code = 128 + number
        with suppress(OSError):  # standard error may be closed
            if takes_more(2):
                os.write(2, interrupted(code, "" if json else None))
        os._exit(code)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)


def takes_more(descriptor: int) -> bool:
    """Whether a line can be written at once: nobody may read, and a terminal may be stopped."""
    return bool(select.select([], [descriptor], [], 0)[1])


def interrupted(code: int, reference: str | None) -> bytes:
    """The last line of a process that a signal ends, or an object if there is a `reference`."""
    line = "towline: error: interrupted"
    if reference is not None:  # by hand: the signal may have come in the middle of an import
        line = (
            f'{{"event": "error", "reference": "{reference}", "time": {time.time()}, '
            f'"message": "interrupted", "exit_code": {code}}}'
        )
    return f"{line}\n".encode()


def wants_json(words: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether errors are to be JSON objects, guessed from words that are not parsed yet."""
    if words and words[0] in _WITHOUT_PROGRESS:
        return False
    if "--progress=json" in words or ("--progress", "json") in pairwise(words):
        return True
    other = any(word in {"-q", "--quiet"} or word.startswith("--progress") for word in words)
    return not other and environ.get("TOWLINE_PROGRESS") == "json"
