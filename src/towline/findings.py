"""What few pushes come to, and what plans and inspections do: fields of the JSON as frozen values.

`ManifestResult` and `Verification` are parts of some `PushResult`s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from towline.errors import TowlineError
from towline.push_events import Outcome
from towline.results import DigestDiffers, Shown, Status


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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PlannedLayer(Shown):
    """One layer of a push that was only planned, its fields as those of `LayerResult`."""

    diff_id: str | None
    digest: str | None
    """Digest of the blob; None where the layer would have to be compressed first."""
    size: int | None
    """Bytes of the blob; None as the digest."""
    outcome: Outcome
    compression: str
    mounted_from: str | None = None
    sent_bytes: int = 0
    plain_size: int | None = None
    """Bytes to be compressed; None for a blob that is there, or goes as it is."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PlanResult(Shown):
    """One tag at one destination, as a push would leave it; nothing was written."""

    reference: str
    tag: str | None
    digest: str | None
    """None where a layer would have to be compressed first."""
    size: int | None
    media_type: str
    status: Status
    layers: tuple[PlannedLayer, ...] = ()
    manifests: tuple[ManifestResult, ...] = ()
    digest_differs: DigestDiffers | None = None
    learned_from: str | None = None
    verified: None = None
    """There is nothing to verify yet."""
    warnings: tuple[str, ...] = ()
    send_bytes: int = 0
    """Blob bytes to be sent; of layers to be compressed the bytes as they came, so at most.

    But for layers that came compressed, with `compression='none'`: nobody has looked how large.
    """
    seconds_estimate: float | None = None
    """Seconds for `send_bytes` at the last rate to that host; None where none is known."""
    resumable: bool | None = None
    """Whether a cut layer would go on where it was cut; None where that is not known."""
    sent_bytes: int = 0
    requests: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class InspectedLayer(Shown):
    """One layer as its manifest and config describe it."""

    digest: str | None
    """None for a layer that the source holds uncompressed without a manifest."""
    size: int | None
    """None where nothing but the DiffID is known: the source lacks it, and has no manifest."""
    media_type: str
    diff_id: str | None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class InspectResult(Shown):
    """An image or index, as it lies where it is."""

    reference: str
    digest: str | None
    """None for an archive that has no manifest; `digest` computes what a push would make."""
    media_type: str | None
    size: int | None
    config: dict[str, Any] | None
    """The image config; None for an index."""
    platform: str | None
    layers: tuple[InspectedLayer, ...] = ()
    manifests: tuple[ManifestResult, ...] = ()
    images: tuple[str, ...] = ()
    """Names of the images of a source that holds several, which is all that is told of it then."""

    def as_dict(self) -> dict[str, Any]:
        """The JSON object, as `--output json` prints it: of several images their names alone."""
        if self.images:
            return {"reference": self.reference, "images": list(self.images)}
        told = Shown.as_dict(self)
        del told["images"]
        return told


TagPlan = PlanResult | TowlineError
"""What came of planning one."""
