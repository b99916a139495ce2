"""What a push comes to: the fields of the JSON, as frozen values.

What few of them hold, and what plans and inspections come to, is in `findings`: to define a frozen
dataclass takes half a millisecond, which a push that has nothing to do shall not pay.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import towline
from towline.errors import TowlineError
from towline.push_events import Outcome, Value

Status = Literal["pushed", "unchanged", "skipped"]
DigestDiffers = Literal["recompressed", "converted", "platforms", "annotations"]


class Shown(Value):
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
class LayerResult(Shown):
    """One layer of a push."""

    diff_id: str | None
    """Digest of the uncompressed tar; None for blobs that are no layers."""
    digest: str
    """Digest of the blob."""
    size: int
    """Bytes of the blob."""
    outcome: Outcome
    compression: str
    """Profile name, `source` when it came compressed, `reused` when another push made it."""
    mounted_from: str | None = None
    """Repository path that it was mounted from."""
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PushResult(Shown):
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
    manifests: tuple[towline.ManifestResult, ...] = ()
    digest_differs: DigestDiffers | None = None
    """Why the digest is not the source's; None when it is, or when the source had none and nothing
    was converted."""
    learned_from: str | None = None
    """The reference at the registry that taught what the layers are, where one did."""
    verified: towline.Verification | None = None
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


TagOutcome = PushResult | TowlineError
"""What came of one tag."""
