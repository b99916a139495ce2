"""The blobs of an OCI layout: manifests and configs checked, images made of them.

Which of them are wanted, and what to do about an index that is not whole, is `oci_layout`'s.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from towline.errors import SourceError
from towline.sources import files as stores
from towline.sources.base import SourceImage
from towline.sources.blobs import FileLayer, ForeignLayer
from towline.spec import config as configs
from towline.spec import manifest as manifests
from towline.spec import media_types
from towline.spec.descriptor import Platform
from towline.spec.manifest import RawManifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from towline.sources.base import SourceLayer
    from towline.sources.files import Files
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest
    from towline.spec.manifest import Index, Manifest

_NOWHERE = Platform("", "")
_IMAGE_CONFIGS = frozenset({media_types.OCI_CONFIG, media_types.DOCKER_CONFIG})


class Absent(SourceError):
    """A manifest, config or layer is not here, while what lists it is."""


class LayoutBlobs:
    """`blobs/ALGORITHM/ENCODED` of one layout."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def document(self, listed: Descriptor) -> tuple[RawManifest, Manifest | Index]:
        """A manifest or index, as bytes and read. Raises Absent, SourceError."""
        content = self._content(listed, "manifest")
        document = stores.understood(
            f"the manifest {listed.digest} in {self._files.name}",
            lambda: manifests.parse(content, listed.media_type),
        )
        return RawManifest(content, document.media_type), document

    def image(self, raw: RawManifest, manifest: Manifest, platform: Platform | None) -> SourceImage:
        """The image of a manifest. Raises Absent, SourceError.

        `platform` is what an index says of it. What has a config of another kind is an artifact:
        nothing of it is a layer that could be compressed anew.
        """
        content = self._content(manifest.config, "config")
        described = None
        if manifest.config.media_type in _IMAGE_CONFIGS:
            described = stores.understood(
                f"the config {manifest.config.digest} in {self._files.name}",
                lambda: configs.parse(content),
            )
        return SourceImage(
            config=content,
            config_type=manifest.config.media_type,
            layers=tuple(self._layers(raw, manifest, described)),
            manifest=raw,
            platform=platform or (described.platform if described else _NOWHERE),
            oci=media_types.family(manifest.media_type) == "oci",
            annotations=tuple(manifest.annotations.items()),
        )

    def _layers(
        self, raw: RawManifest, manifest: Manifest, described: configs.ImageConfig | None
    ) -> Iterator[SourceLayer]:
        diff_ids: Sequence[Digest | None] = [None] * len(manifest.layers)
        # Attestations have an image's config too, but nothing that can be unpacked.
        if described and any(_is_layer(each) for each in manifest.layers):
            diff_ids = described.diff_ids
        if len(diff_ids) != len(manifest.layers):
            raise SourceError(
                f"the manifest {raw.digest} in {self._files.name} has {len(manifest.layers)} "
                f"layers, its config {len(diff_ids)}"
            )
        for listed, diff_id in zip(manifest.layers, diff_ids, strict=True):
            yield self._layer(listed, diff_id if _is_layer(listed) else None)

    def _layer(self, listed: Descriptor, diff_id: Digest | None) -> SourceLayer:
        path = _path(listed.digest)
        size = self._files.size(path)
        if listed.urls and (size is None or media_types.is_foreign(listed.media_type)):
            return ForeignLayer(listed, diff_id)
        self._check_size(listed, size, "layer")
        plain = is_plain(listed) and diff_id is not None
        if plain and listed.digest != diff_id and listed.digest.algorithm == "sha256":
            raise SourceError(
                f"the layer {listed.digest} in {self._files.name} is uncompressed, "
                f"but its config calls it {diff_id}"
            )
        return FileLayer(self._files, path, listed.size, diff_id, None if plain else listed)

    def _content(self, listed: Descriptor, what: str) -> bytes:
        """A small blob, checked against its digest."""
        path = _path(listed.digest)
        self._check_size(listed, self._files.size(path), what)
        content = stores.read(self._files, path)
        found = hashlib.new(listed.digest.algorithm, content).hexdigest()
        if found != listed.digest.hex:
            raise SourceError(
                f"the {what} {listed.digest} in {self._files.name} is damaged: "
                f"its bytes have the digest {listed.digest.algorithm}:{found}"
            )
        return content

    def _check_size(self, listed: Descriptor, size: int | None, what: str) -> None:
        if size is None:
            raise Absent(f"{self._files.name} lacks the {what} {listed.digest}")
        if size != listed.size:
            raise SourceError(
                f"the {what} {listed.digest} in {self._files.name} has {size} bytes "
                f"where {listed.size} are listed"
            )


def is_plain(listed: Descriptor) -> bool:
    """Whether it is a layer that is not compressed."""
    return media_types.layer_compression(listed.media_type) == "none"


def _is_layer(listed: Descriptor) -> bool:
    return media_types.layer_compression(listed.media_type) is not None


def _path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"
