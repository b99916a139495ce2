"""What few results hold: the children of an index, and what was looked at again after a push."""

from __future__ import annotations

from dataclasses import dataclass

from towline.push.interface.result import Shown


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ManifestResult(Shown):
    """One child of an index."""

    digest: str
    media_type: str
    platform: str | None
    size: int


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Verification(Shown):
    """What was looked at again after a push, and was as it should be."""

    manifests: int
    blobs: int
    diff_ids: int
    """DiffIDs that were computed from what was read back."""
    bytes: int
    """Bytes of blobs read back."""
