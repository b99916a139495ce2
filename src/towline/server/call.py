"""The arguments of every endpoint: the registry's parts, its log too, and a request taken apart."""

from __future__ import annotations

import threading
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from towline.server.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from towline.server.auth import Guard
    from towline.server.faults import Faults
    from towline.server.http import Request
    from towline.server.limits import Limits
    from towline.server.sessions import Sessions
    from towline.server.storage import Storage


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


class PerClient:
    """Counts how much each client has under way, up to a bound. Safe from any thread."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    @contextmanager
    def one(self, client: str) -> Iterator[bool]:
        """Count one more while the block runs. Yields whether that is within the bound."""
        with self._lock:
            fits = self._counts[client] < self._bound
            self._counts[client] += fits
        try:
            yield fits
        finally:
            with self._lock:
                self._counts[client] -= fits
                if not self._counts[client]:
                    del self._counts[client]


@dataclass(frozen=True, slots=True)
class Registry:
    """One registry: its parts and options."""

    storage: Storage
    sessions: Sessions
    limits: Limits
    guard: Guard | None
    read_only: bool
    schema1: bool
    """Whether manifests of schema 1 are accepted."""
    referrers: bool
    """Whether it lists referrers; if not, clients keep the list under a tag."""
    report: Callable[[BaseException], None]
    """Is told of the registry's own faults."""
    log: RequestLog
    faults: Faults
    bodies: PerClient
    """Counts the bodies that each client has under way."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request to one endpoint."""

    registry: Registry
    request: Request
    name: str
    """The repository's name, which matches the grammar; empty for an endpoint without one."""
    last: str
    """The last part of the path: a digest, a tag, a session's id, or empty."""

    @property
    def repository(self) -> Repository:
        """The repository, which need not exist."""
        return Repository(self.registry.storage, self.name)

    def parameter(self, name: str) -> str | None:
        """The first value of a query parameter."""
        values = self.request.query.get(name)
        return values[0] if values else None
