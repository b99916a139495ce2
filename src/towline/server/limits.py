"""Bounds on what clients may ask of the registry; `docs/` documents each number."""

from __future__ import annotations

from dataclasses import dataclass


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
    """Of a refused body that are read, so that the connection can go on; for more it is closed."""
    manifest_bytes: int = 4 << 20
    """More is 413 (distribution-spec, "Pushing Manifests")."""
    connections: int = 512
    """More at once get 503."""
    client_bodies: int = 128
    """Bodies of requests that one client may have under way at once; more is 429."""
    sessions: int = 10_000
    """Open upload sessions; more is 429."""
    session_seconds: float = 24 * 3600.0
    """An upload session that is not used for so long is removed."""
    mounts_apart: bool = False
    """Whether blobs are mounted only from repositories with the same first part: one test's."""
    page: int = 1000
    """Entries of a catalog or of referrers in one answer. Tags are listed whole, unless `n` is
    given."""
    page_bytes: int = 4 << 20
    """Of referrers in one answer. The answer is a manifest, and clients read no more of one."""
