"""Makes images and indexes of the documents that describe them, wherever those lie.

A manifest lists a config and layers, an index lists manifests (image-spec). Manifests that an index
lists and the source lacks are noted; `select` decides which of its images go.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from towline import reference as references
from towline.errors import InvalidReference, SourceError
from towline.sources.base import (
    SourceImage,
    SourceIndex,
    SourceLayer,
    foreign_layer,
    missing_layer,
)
from towline.sources.files import understood
from towline.sources.image_source import ImageSource
from towline.spec import manifest as manifests
from towline.spec import media_types
from towline.spec.descriptor import Platform
from towline.spec.manifest import ImageConfig, Index, Manifest, RawManifest, parse_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from towline.layers.reader import Reader
    from towline.reference import RepositoryName
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest

_NOWHERE = Platform("", "")
_IMAGE_CONFIGS = frozenset({media_types.OCI_CONFIG, media_types.DOCKER_CONFIG})
_SEEN_IN = "containerd.io/distribution.source."
"""The beginning of annotations in containerd's exports. A host follows, without its port; the value
has the repositories there, between commas, that the content came from or was pushed to."""
MAX_DEPTH = 8
"""Levels of indexes in indexes; real ones have two."""
MAX_CHILDREN = 10_000
"""Manifests below one entry, each counted as often as it is listed: a small index may list another
one a thousand times, and that one a third."""


class Absent(SourceError):
    """The source lacks a manifest or config that another document of it lists."""


class OciImages(ImageSource):
    """Reads images; a subclass gives the bytes of their documents and layers."""

    sparse = False
    """Whether layers were left out on purpose."""
    packs_plain = True
    """Whether plain layers are compressed on the way; else they go byte for byte."""

    def __init__(self, name: str) -> None:
        """`name`: the source's name in errors."""
        self.name = name
        self._children = 0
        """Manifests below the entry that is being read."""
        self._seen_in: tuple[RepositoryName, ...] = ()
        """Repositories in which that entry has been."""

    def content(self, listed: Descriptor, what: str) -> bytes:
        """A manifest or config, checked against its digest. Raises Absent, SourceError."""
        raise NotImplementedError

    def holds(self, listed: Descriptor) -> bool:
        """Whether the source has a layer. Raises SourceError."""
        raise NotImplementedError

    def open(self, listed: Descriptor) -> Reader:
        """Open a layer. Raises SourceError."""
        raise NotImplementedError

    def entry(self, listed: Descriptor) -> SourceImage | SourceIndex:
        """The image or index of a descriptor. Raises Absent, SourceError."""
        self._children = 0
        self._seen_in = tuple(_seen_in(listed))
        return self._read(listed, 0)

    def entry_of(self, raw: RawManifest, listed: Sequence[Descriptor]) -> SourceIndex:
        """The index `raw`, which lists these descriptors. Raises SourceError."""
        self._children = 0
        return self._index(raw, listed, 0)

    def _read(self, listed: Descriptor, depth: int) -> SourceImage | SourceIndex:
        raw, document = self.document(listed)
        if isinstance(document, Manifest):
            return self.image(raw, document, listed.platform)
        return self._index(raw, document.manifests, depth)

    def _index(self, raw: RawManifest, listed: Sequence[Descriptor], depth: int) -> SourceIndex:
        """An index with those of its children that the source has."""
        self._children += len(listed)
        if depth > MAX_DEPTH or self._children > MAX_CHILDREN:
            raise self.too_many(raw)
        held: list[tuple[SourceImage | SourceIndex, Descriptor]] = []
        absent: list[Descriptor] = []
        for each in listed:
            try:
                held.append((self._read(each, depth + 1), each))
            except Absent:
                absent.append(each)
        return SourceIndex(
            raw,
            children=tuple(child for child, _ in held),
            descriptors=tuple(descriptor for _, descriptor in held),
            absent=tuple(absent),
            sparse=self.sparse,
        )

    def too_many(self, raw: RawManifest) -> SourceError:
        """The error for an index that lists more than is read."""
        return SourceError(
            f"the index {raw.digest} in {self.name} lists indexes more than "
            f"{MAX_DEPTH} deep, or more than {MAX_CHILDREN} manifests"
        )

    def document(self, listed: Descriptor) -> tuple[RawManifest, Manifest | Index]:
        """A manifest or index, as bytes and parsed. Raises Absent, SourceError."""
        content = self.content(listed, "manifest")
        with understood(f"the manifest {listed.digest} in {self.name}"):
            document = manifests.parse(content, listed.media_type)
        return RawManifest(content, document.media_type), document

    def image(self, raw: RawManifest, manifest: Manifest, platform: Platform | None) -> SourceImage:
        """The image of a manifest; `platform` is the index's word. Raises Absent, SourceError."""
        content = self.content(manifest.config, "config")
        described = None
        # With a config of another type it is an artifact, whose blobs are never compressed anew.
        if manifest.config.media_type in _IMAGE_CONFIGS:
            with understood(f"the config {manifest.config.digest} in {self.name}"):
                described = parse_config(content)
        return SourceImage(
            config=content,
            config_type=manifest.config.media_type,
            layers=tuple(self._layers(raw, manifest, described)),
            manifest=raw,
            platform=platform or (described.platform if described else _NOWHERE),
            oci=media_types.family(manifest.media_type) == "oci",
            annotations=tuple(manifest.annotations.items()),
            origin=self.origin,
            seen_in=self._seen_in,
        )

    def _layers(
        self, raw: RawManifest, manifest: Manifest, described: ImageConfig | None
    ) -> Iterator[SourceLayer]:
        diff_ids: Sequence[Digest | None] = [None] * len(manifest.layers)
        # Attestations have an image's config too, but nothing that can be unpacked.
        if described and (not manifest.layers or any(map(_is_layer, manifest.layers))):
            diff_ids = described.diff_ids
        if len(diff_ids) != len(manifest.layers):
            raise SourceError(
                f"the manifest {raw.digest} in {self.name} has {len(manifest.layers)} "
                f"layers, its config {len(diff_ids)}"
            )
        for listed, diff_id in zip(manifest.layers, diff_ids, strict=True):
            self.check_algorithm(listed, "layer")
            yield self._layer(listed, diff_id if _is_layer(listed) else None)

    def _layer(self, listed: Descriptor, diff_id: Digest | None) -> SourceLayer:
        if listed.urls and (media_types.is_foreign(listed.media_type) or not self.holds(listed)):
            return foreign_layer(listed, diff_id)
        plain = is_plain(listed) and diff_id is not None
        if plain and listed.digest != diff_id:
            raise SourceError(
                f"the layer {listed.digest} in {self.name} is uncompressed by its "
                f"media type, but its config calls it {diff_id}"
            )
        stored = None if plain and self.packs_plain else listed
        if not self.holds(listed):
            return missing_layer(self.name, listed.digest, diff_id, stored, listed.size)
        return SourceLayer(diff_id, stored, listed.size, partial(self.open, listed))

    def check_algorithm(self, listed: Descriptor, what: str) -> None:
        """Raise SourceError for any algorithm but sha256: most registries know no other."""
        if listed.digest.algorithm != "sha256":
            raise SourceError(
                f"{self.name} names the {what} {listed.digest.short} by "
                f"{listed.digest.algorithm}, and only what is named by sha256 is pushed",
                hint="make it again with sha256, which every registry takes",
            )

    def check_size(self, listed: Descriptor, size: int, what: str) -> None:
        """Raise SourceError if the source has other than the listed number of bytes."""
        if size != listed.size:
            raise SourceError(
                f"the {what} {listed.digest} in {self.name} has {size} bytes "
                f"where {listed.size} are listed"
            )


def _seen_in(listed: Descriptor) -> Iterator[RepositoryName]:
    for name, paths in listed.annotations.items():
        host = name.removeprefix(_SEEN_IN)
        for path in paths.split(",") if host != name else ():
            with suppress(InvalidReference):
                place = references.parse(f"{host}/{path}").repository
                if place.host == host:  # a first part that is no host would be read as a path
                    yield place


def is_plain(listed: Descriptor) -> bool:
    """Whether the descriptor is of an uncompressed layer, by its media type."""
    return media_types.layer_compression(listed.media_type) == "none"


def _is_layer(listed: Descriptor) -> bool:
    return media_types.layer_compression(listed.media_type) is not None
