"""How much one client may ask of the registry; every number is documented in `docs/`."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a server; the defaults fit tests, demos and small trusted networks."""

    head_bytes: int = 32 << 10
    """A request line and its headers together; more is 431."""
    head_seconds: float = 30.0
    """From a request's first byte to the end of its headers; more is 408."""
    idle_seconds: float = 60.0
    """Without a byte, between requests and within one."""
    drain_bytes: int = 256 << 10
    """Of a refused body, read so that the connection can go on; beyond, it is closed."""
    manifest_bytes: int = 4 << 20
    """More is 413 (distribution-spec, "Pushing Manifests")."""
    connections: int = 512
    """More at once get 503."""
    client_bodies: int = 128
    """Bodies of requests that one client may have under way at once; more is 429."""
    sessions: int = 10_000
    """Open upload sessions; more is 429."""
    session_seconds: float = 24 * 3600.0
    """An upload session untouched for so long is given up."""
    mounts_apart: bool = False
    """Blobs are mounted from repositories with the same first part alone: those of one test."""
    page: int = 1000
    """Entries of a catalog or of referrers in one answer; tags are listed whole unless `n` says."""
    page_bytes: int = 4 << 20
    """Of referrers in one answer: what clients read of a manifest, and the answer is one."""


class PerClient:
    """Counts what each client has under way, against a bound; safe from any thread."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    @contextmanager
    def one(self, client: str) -> Iterator[bool]:
        """Count one more while the block runs; yields whether that is within the bound."""
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
