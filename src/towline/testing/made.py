"""What was built, for a test to compare with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from towline.spec.digest import Digest
    from towline.spec.manifest import RawManifest
    from towline.testing.blob_store import MadeLayer


@dataclass(frozen=True, slots=True)
class MadeImage:
    """One image of one platform, as it was built."""

    platform: str
    config: bytes
    layers: tuple[MadeLayer, ...]
    manifest: RawManifest
    """As the archive holds it; a legacy docker archive holds none."""

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """Base first."""
        return tuple(layer.diff_id for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Made:
    """What lies under some names, as it was built."""

    path: Path
    names: tuple[str, ...]
    images: tuple[MadeImage, ...]
    """Those that the archive holds, in the order of the index."""
    root: RawManifest
    """The index, or the manifest of the only image."""

    @property
    def digest(self) -> Digest:
        """Of the root."""
        return self.root.digest

    @property
    def config(self) -> bytes:
        """Of the first image."""
        return self.images[0].config

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """Of the first image, base first."""
        return self.images[0].diff_ids
