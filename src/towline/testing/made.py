"""The images that `make_image` has built, for a test to compare with."""

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
    """One built image, of one platform."""

    platform: str
    config: bytes
    layers: tuple[MadeLayer, ...]
    manifest: RawManifest
    """As in the archive; a legacy docker archive contains no manifest."""

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """The layers' DiffIDs, base first."""
        return tuple(layer.diff_id for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Made:
    """What `make_image` has built: the images of one or more platforms, under some names."""

    path: Path
    names: tuple[str, ...]
    images: tuple[MadeImage, ...]
    """The images that the archive contains, in the order of the index."""
    root: RawManifest
    """The index, or the manifest of the only image."""

    @property
    def digest(self) -> Digest:
        """Digest of `root`."""
        return self.root.digest

    @property
    def config(self) -> bytes:
        """The config of the first image."""
        return self.images[0].config

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """The DiffIDs of the first image, base first."""
        return self.images[0].diff_ids
