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
_WARNING = re.compile(r'299 - "((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")


class Notices:
    """Tells each warning once. Safe from any thread."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._lock = threading.Lock()
        self._told: set[str] = set()

    def tell(self, response: Response) -> None:
        """Tell what is new in an answer."""
        for text in notices(response):
            message = f"{response.url.authority} says: {text}"
            with self._lock:
                new = message not in self._told and len(self._told) < _TOLD_MAX
                if new:
                    self._told.add(message)
            if new:
                self._warn(message)


def notices(response: Response) -> list[str]:
    """The texts, each fit for one line."""
    values = ", ".join(response.headers.all("Warning"))[:_MAX]
    texts = (_ESCAPE.sub(r"\1", text) for text in _WARNING.findall(values))
    clean = ("".join(c if c.isprintable() else " " for c in text).strip() for text in texts)
    return [text for text in dict.fromkeys(clean) if text]
