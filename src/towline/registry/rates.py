"""How fast blobs went to each host when last some did, for plans to estimate by."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_RATE = "rate"
_NUMBER = re.compile(r"[0-9]{1,18}")
_TELLING = 1 << 20
"""Bytes from which a push tells of a rate: less takes as long as its requests."""


class Rates:
    """Bytes a second, by host; a race between two writers ends in one of their figures."""

    def __init__(self) -> None:
        self._rates: dict[str, int] = {}
        self._noted: set[str] = set()

    def recall(self, host: str, facts: Mapping[str, str]) -> None:
        """Take over what an earlier run has left."""
        text = facts.get(_RATE, "")
        if _NUMBER.fullmatch(text) and int(text):
            self._rates.setdefault(host, int(text))

    def note(self, host: str, sent_bytes: int, seconds: float) -> None:
        """Blobs of that many bytes in all were sent to the host in that time."""
        if sent_bytes >= _TELLING and seconds > 0:
            self._rates[host] = round(sent_bytes / seconds) or 1
            self._noted.add(host)

    def seconds(self, host: str, size: int) -> float | None:
        """How long so many bytes would take; None where nothing is known of the host."""
        rate = self._rates.get(host)
        return size / rate if rate else None

    def to_recall(self, host: str) -> dict[str, str]:
        """For a later run; empty where nothing new was seen."""
        return {_RATE: str(self._rates[host])} if host in self._noted else {}
