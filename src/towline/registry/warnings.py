"""What a registry wants people to know: `Warning: 299 - "…"` (distribution-spec, "Warnings")."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.wire.message import Response

_MAX = 4096
"""Bytes of warnings of one answer; more than that may be dropped."""
_TOLD_MAX = 20
"""Different ones that are told: nobody reads more."""
_WARNING = r'299 - "((?:[^"\\]|\\.)*)"'
_ESCAPE = r"\\(.)"


class Warnings:
    """Tells each warning once, on one line. Safe from any thread."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._lock = threading.Lock()
        self._told: set[str] = set()

    def tell(self, response: Response) -> None:
        """Tell what is new in an answer."""
        for quoted in re.findall(_WARNING, ", ".join(response.headers.all("Warning"))[:_MAX]):
            text = re.sub(_ESCAPE, r"\1", quoted)
            text = "".join(c if c.isprintable() else " " for c in text).strip()
            message = f"{response.url.authority} says: {text}"
            with self._lock:
                new = bool(text) and message not in self._told and len(self._told) < _TOLD_MAX
                if new:
                    self._told.add(message)
            if new:
                self._warn(message)
