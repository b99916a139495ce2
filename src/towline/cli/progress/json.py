"""Objects, one a line: every event as it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from towline.cli.printable import spelled
from towline.cli.progress.base import Logged
from towline.cli.report import debug_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from towline.events import Event


class Objects:
    """`--progress json`."""

    reset = ""

    def __init__(self, kept: tuple[type, ...] = (object,)) -> None:
        self._kept = kept

    def show(self, told: Sequence[Event | Logged]) -> str:
        """A line each, of those that are wanted."""
        return "".join(f"{_line(event)}\n" for event in told if isinstance(event, self._kept))

    def end(self) -> str:
        """Nothing."""
        return ""


def _line(event: Event | Logged) -> str:
    if isinstance(event, Logged):
        return debug_object(event.line)
    told = event.as_dict()
    if "message" in told:
        told["message"] = spelled(told["message"])
    return json.dumps(told)
