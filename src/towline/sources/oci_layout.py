"""OCI layouts (image-spec, "OCI Image Layout"), in a folder or in a tar.

Every blob is looked for when the layout is read; layers are hashed only when they are sent. What is
absent of an index is said; which of its images go, `platforms` decides.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from towline.errors import SourceError
from towline.sources import files as stores
from towline.sources.base import (
    ForeignLayer,
    MissingLayer,
    SourceEntry,
    SourceImage,
    SourceIndex,
    UnusableEntry,
)
from towline.spec import config as configs
from towline.spec import manifest as manifests
from towline.spec import media_types
from towline.spec.descriptor import Platform, is_attestation
from towline.spec.digest import Digest
from towline.spec.manifest import Index, Manifest, RawManifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from towline.sources.base import SourceLayer
    from towline.sources.files import Files
    from towline.spec.descriptor import Descriptor

INDEX = "index.json"
_CONTAINERD_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"
_REFERRER = "io.containerd.manifest.subject"
"""Docker since 29.1 marks so what refers to an image beside it, and gives it no name."""
_NOWHERE = Platform("", "")
_IMAGE_CONFIGS = frozenset({media_types.OCI_CONFIG, media_types.DOCKER_CONFIG})
_MAX_DEPTH = 8
"""Indexes in indexes; real ones have two."""
_MAX_CHILDREN = 10_000
"""Manifests below one entry, each counted as often as it is listed."""


class Absent(SourceError):
    """A manifest or config is not here, while what lists it is."""


class OciLayout:
    """An ImageSource that owns its files."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self.transport = "oci" if isinstance(files, stores.Folder) else "oci-archive"
        self._blobs = LayoutBlobs(files)
        self._raw = RawManifest(stores.read(files, INDEX), media_types.OCI_INDEX)
        document = stores.understood(
            f"{INDEX} in {files.name}",
            lambda: manifests.parse(self._raw.content, media_types.OCI_INDEX),
        )
        if isinstance(document, Manifest):
            raise SourceError(f"{INDEX} in {files.name} is an image manifest, not an index")
        self._listed = tuple(each for each in document.manifests if not _is_referrer(each))
        self.referrers = tuple(each for each in document.manifests if _is_referrer(each))
        """What refers to images of the layout, and is none."""
        self._children = 0
        """Below the entry that is being read."""

    def close(self) -> None:
        """See `ImageSource`."""
        self._files.close()

    def entries(self) -> Sequence[SourceEntry]:
        """See `ImageSource`."""
        if not self._listed:
            raise SourceError(f"{self._files.name} holds no image: its {INDEX} lists none")
        if self._is_one_image():
            return [self._entry((), lambda: self._index(self._raw, self._listed, 0))]
        return [
            self._entry(names, partial(self._read, descriptor))
            for descriptor, names in self._roots()
        ]

    def says_most(self) -> bool:
        """Whether it says more of its images than the `manifest.json` beside it.

        It does where every layer is compressed, since its manifests then go byte for byte, and
        where it has an index, since platforms stand nowhere else. Raises SourceError where an
        image of it contradicts itself: Docker 25.0 wrote some that had no layers (moby#47065).
        """
        plain = index = False
        for each in self._listed:
            try:
                raw, document = self._blobs.document(each)
                if isinstance(document, Index):
                    index = True
                else:
                    self._blobs.image(raw, document, each.platform)
                    plain = plain or any(map(_is_plain, document.layers))
            except Absent:
                continue
        return index or bool(self._listed and not plain)

    def _is_one_image(self) -> bool:
        """Whether `index.json` is the index of one image: nothing named, each platform once."""
        platforms = [each.platform for each in self._listed if not is_attestation(each)]
        return (
            len(self._listed) > 1
            and not any(_names(each) for each in self._listed)
            and not any(each.media_type in media_types.INDEXES for each in self._listed)
            and None not in platforms
            and len(set(platforms)) == len(platforms)
        )

    def _roots(self) -> Iterable[tuple[Descriptor, tuple[str, ...]]]:
        """What `index.json` lists, each digest once, with all names it has there."""
        names: dict[Digest, dict[str, None]] = {}
        for each in self._listed:
            names.setdefault(each.digest, {}).update(dict.fromkeys(_names(each)))
        roots = {each.digest: each for each in self._listed}
        return [(roots[digest], tuple(found)) for digest, found in names.items()]

    def _entry(
        self, names: tuple[str, ...], read: Callable[[], SourceImage | SourceIndex]
    ) -> SourceEntry:
        self._children = 0
        try:
            return SourceEntry(names, read())
        except SourceError as error:
            return UnusableEntry(names, error)

    def _read(self, listed: Descriptor, depth: int = 0) -> SourceImage | SourceIndex:
        """The image or index of a descriptor. Raises Absent, SourceError."""
        raw, document = self._blobs.document(listed)
        if isinstance(document, Manifest):
            return self._blobs.image(raw, document, listed.platform)
        return self._index(raw, document.manifests, depth)

    def _index(self, raw: RawManifest, listed: Sequence[Descriptor], depth: int) -> SourceIndex:
        """An index with those of its children that are here."""
        self._children += len(listed)
        if depth > _MAX_DEPTH or self._children > _MAX_CHILDREN:
            raise SourceError(
                f"the index {raw.digest} in {self._files.name} lists indexes more than "
                f"{_MAX_DEPTH} deep, or more than {_MAX_CHILDREN} manifests"
            )
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
        )


def _names(listed: Descriptor) -> tuple[str, ...]:
    names = (listed.annotations.get(key) for key in (_CONTAINERD_NAME, _REF_NAME))
    return tuple(name for name in names if name)


def _is_referrer(listed: Descriptor) -> bool:
    return _REFERRER in listed.annotations and not _names(listed)


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
        if described and (not manifest.layers or any(map(_is_layer, manifest.layers))):
            diff_ids = described.diff_ids
        if len(diff_ids) != len(manifest.layers):
            raise SourceError(
                f"the manifest {raw.digest} in {self._files.name} has {len(manifest.layers)} "
                f"layers, its config {len(diff_ids)}"
            )
        for listed, diff_id in zip(manifest.layers, diff_ids, strict=True):
            yield self._layer(listed, diff_id if _is_layer(listed) else None)

    def _layer(self, listed: Descriptor, diff_id: Digest | None) -> SourceLayer:
        self._check_algorithm(listed, "layer")
        path = _path(listed.digest)
        size = self._files.size(path)
        if listed.urls and (size is None or media_types.is_foreign(listed.media_type)):
            return ForeignLayer(listed, diff_id)
        plain = _is_plain(listed) and diff_id is not None
        if plain and listed.digest != diff_id:
            raise SourceError(
                f"the layer {listed.digest} in {self._files.name} is uncompressed, "
                f"but its config calls it {diff_id}"
            )
        stored = None if plain else listed
        if size is None:
            return MissingLayer(self._files.name, listed.digest, diff_id, stored, listed.size)
        self._check_size(listed, size, "layer")
        return stores.FileLayer(self._files, path, listed.size, diff_id, stored)

    def _content(self, listed: Descriptor, what: str) -> bytes:
        """A small blob, checked against its digest."""
        self._check_algorithm(listed, what)
        path = _path(listed.digest)
        size = self._files.size(path)
        if size is None:
            raise Absent(f"{self._files.name} lacks the {what} {listed.digest}")
        self._check_size(listed, size, what)
        content = stores.read(self._files, path)
        if (found := Digest.of(content)) != listed.digest:
            raise SourceError(
                f"the {what} {listed.digest} in {self._files.name} is damaged: "
                f"its bytes have the digest {found}"
            )
        return content

    def _check_algorithm(self, listed: Descriptor, what: str) -> None:
        """Registries need know sha256 alone, and most know nothing else."""
        if listed.digest.algorithm != "sha256":
            raise SourceError(
                f"{self._files.name} names the {what} {listed.digest.short} by "
                f"{listed.digest.algorithm}, and only what is named by sha256 is pushed",
                hint="make it again with sha256, which every registry takes",
            )

    def _check_size(self, listed: Descriptor, size: int, what: str) -> None:
        if size != listed.size:
            raise SourceError(
                f"the {what} {listed.digest} in {self._files.name} has {size} bytes "
                f"where {listed.size} are listed"
            )


def _is_plain(listed: Descriptor) -> bool:
    """Whether it is a layer that is not compressed."""
    return media_types.layer_compression(listed.media_type) == "none"


def _is_layer(listed: Descriptor) -> bool:
    return media_types.layer_compression(listed.media_type) is not None


def _path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"
