"""What a push, an inspection or a plan comes to: the fields of the JSON, as frozen values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from towline.errors import TowlineError
from towline.events import Outcome, Told

Status = Literal["pushed", "unchanged", "skipped"]
DigestDiffers = Literal["recompressed", "converted", "platforms", "annotations"]


class _Told(Told):
    """A value that has a place in the JSON."""

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """The JSON object, as `--output json` prints it."""
        fields = asdict(self)  # type: ignore[call-overload]  # those below are dataclasses
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in fields.items()
        }


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Layer(_Told):
    diff_id: str | None
    """Digest of the uncompressed tar; None for blobs that are no layers."""
    digest: str | None
    """Digest of the blob; None where the layer would have to be compressed first."""
    size: int | None
    """Bytes of the blob; None as the digest."""
    outcome: Outcome
    compression: str
    """Profile name, `source` when it came compressed, `reused` when another push made it."""
    mounted_from: str | None = None
    """Repository path that it was mounted from."""
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PlannedLayer(_Layer):
    """One layer of a push that was only planned."""

    plain_size: int | None = None
    """Bytes to be compressed; None for a blob that is there, or goes as it is."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LayerResult(_Layer):
    """One layer of a push."""

    digest: str
    """Digest of the blob."""
    size: int
    """Bytes of the blob."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ManifestResult(_Told):
    """One child of an index."""

    digest: str
    media_type: str
    platform: str | None
    size: int


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Verification(_Told):
    """What was looked at again after a push, and was as it should be."""

    manifests: int
    blobs: int
    diff_ids: int
    """DiffIDs that were computed from what was read back."""
    bytes: int
    """Bytes of blobs read back."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PushResult(_Told):
    """One tag at one destination."""

    reference: str
    """Full form, with the tag."""
    tag: str | None
    digest: str
    size: int
    """Bytes of the manifest under the tag."""
    media_type: str
    status: Status
    layers: tuple[LayerResult, ...] = ()
    manifests: tuple[ManifestResult, ...] = ()
    digest_differs: DigestDiffers | None = None
    """Why the digest is not the source's; None when it is, or when the source had none and nothing
    was converted."""
    learned_from: str | None = None
    """The reference at the registry that taught what the layers are, where one did."""
    verified: Verification | None = None
    """What was looked at again (`verify`); None where that was not asked for."""
    warnings: tuple[str, ...] = ()
    sent_bytes: int = 0
    requests: int = 0
    seconds: float = 0.0

    @property
    def pinned(self) -> str:
        """`REGISTRY/REPOSITORY@sha256:…`."""
        name = self.reference.removesuffix(f":{self.tag}" if self.tag else f"@{self.digest}")
        return f"{name}@{self.digest}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PlanResult(_Told):
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
    """Blob bytes to be sent; of layers to be compressed the plain bytes, so at most."""
    seconds_estimate: float | None = None
    """Seconds for `send_bytes` at the last rate to that host; None where none is known."""
    resumable: bool | None = None
    """Whether a cut layer would go on where it was cut; None where that is not known."""
    sent_bytes: int = 0
    requests: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class InspectedLayer(_Told):
    """One layer as its manifest and config describe it."""

    digest: str | None
    """None for a layer that the source holds uncompressed without a manifest."""
    size: int | None
    """None where nothing but the DiffID is known: the source lacks it, and has no manifest."""
    media_type: str
    diff_id: str | None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class InspectResult(_Told):
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
        told = _Told.as_dict(self)
        del told["images"]
        return told


TagOutcome = PushResult | TowlineError
"""What came of one tag."""
TagPlan = PlanResult | TowlineError
"""What came of planning one."""
