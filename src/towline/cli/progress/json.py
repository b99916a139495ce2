"""Every event as a JSON object, one a line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from towline.cli.progress import NOTES, Face, Logged
from towline.cli.report import debug_object
from towline.cli.wording import spelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from towline.events import Event


class Objects(Face):
    """The face of `--progress json`."""

    def __init__(self, *, notes_only: bool = False) -> None:
        self._notes_only = notes_only

    def show(self, told: Sequence[Event | Logged]) -> str:
        """A line for each event that is wanted."""
        lines = []
        for event in told:
            if isinstance(event, Logged):
                lines.append(debug_object(event.line))
            elif event.event in NOTES or not self._notes_only:
                shown = event.as_dict()
                if "message" in shown:
                    shown["message"] = spelled(shown["message"])
                lines.append(json.dumps(shown))
        return "".join(f"{line}\n" for line in lines)
