"""The log of the registry's requests, which tests and the demo read."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request, logged just before its answer is sent."""

    method: str
    path: str
    """With its query, as it came."""
    status: int
    """0: the client had gone before an answer."""
    received: int
    """Bytes of the body that were read."""
    seconds: float
    """From the end of the headers to the answer."""
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Names in lower case; without credentials."""


class RequestLog:
    """The last requests, the oldest first. Bounded, so that a long-lived server needs no memory."""

    def __init__(self, size: int, listener: Callable[[LoggedRequest], None] | None = None) -> None:
        self._listener = listener
        self._entries: deque[LoggedRequest] = deque(maxlen=size)
        self._lock = threading.Lock()
        self.count = 0
        """Requests since the start, with those that are dropped."""

    def add(self, entry: LoggedRequest) -> None:
        """Add a request, and tell the listener."""
        with self._lock:
            self._entries.append(entry)
            self.count += 1
        if self._listener:
            self._listener(entry)

    def since(self, mark: int = 0) -> list[LoggedRequest]:
        """The requests from number `mark` on, counted from 0, as far as they are still there."""
        with self._lock:
            forgotten = self.count - len(self._entries)
            return list(islice(self._entries, max(0, mark - forgotten), None))
