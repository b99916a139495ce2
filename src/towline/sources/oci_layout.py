"""OCI layouts (image-spec, "OCI Image Layout"), in a folder or in a tar.

An index below the layout's own `index.json` is pushed as it is; one that lists an index again is
not. Every blob is looked for when the layout is read; layers are hashed only when they are sent.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from towline.errors import SourceError
from towline.sources import files as stores
from towline.sources.base import (
    ForeignLayer,
    SourceEntry,
    SourceImage,
    SourceIndex,
    UnusableEntry,
)
from towline.spec import config as configs
from towline.spec import manifest as manifests
from towline.spec import media_types
from towline.spec.descriptor import Platform
from towline.spec.manifest import Index, Manifest, RawManifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from towline.sources.base import SourceLayer
    from towline.sources.files import Files
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest

INDEX = "index.json"
_CONTAINERD_NAME = "io.containerd.image.name"
_REF_NAME = "org.opencontainers.image.ref.name"
_ATTESTATION = ("vnd.docker.reference.type", "attestation-manifest")


_NOWHERE = Platform("", "")
_IMAGE_CONFIGS = frozenset({media_types.OCI_CONFIG, media_types.DOCKER_CONFIG})


@dataclass(frozen=True, slots=True)
class _Root:
    """What `index.json` lists, and the names it has there."""

    descriptor: Descriptor
    names: tuple[str, ...]


class OciLayout:
    """An ImageSource that owns its files."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._blobs = LayoutBlobs(files)
        self._raw = RawManifest(stores.read(files, INDEX), media_types.OCI_INDEX)
        document = stores.understood(
            f"{INDEX} in {files.name}",
            lambda: manifests.parse(self._raw.content, media_types.OCI_INDEX),
        )
        if isinstance(document, Manifest):
            raise SourceError(f"{INDEX} in {files.name} is an image manifest, not an index")
        self._index = document

    def close(self) -> None:
        """See `ImageSource`."""
        self._files.close()

    def entries(self) -> Sequence[SourceEntry]:
        """See `ImageSource`."""
        if not self._index.manifests:
            raise SourceError(f"{self._files.name} holds no image: its {INDEX} lists none")
        if self._is_one_image():
            return [SourceEntry((), *self._tree(self._raw, self._index))]
        return [self._entry(root) for root in self._roots()]

    def says_most(self) -> bool:
        """Whether it says more of its images than the `manifest.json` beside it.

        It does where every layer is compressed, since its manifests then go byte for byte, and
        where it has an index, since platforms stand nowhere else.
        """
        documents = list(self._documents())
        return bool(documents) and (
            any(isinstance(each, Index) for each in documents)
            or not any(
                is_plain(layer)
                for each in documents
                if isinstance(each, Manifest)
                for layer in each.layers
            )
        )

    def _documents(self) -> Iterator[Manifest | Index]:
        """What `index.json` lists, if it is here."""
        for each in self._index.manifests:
            try:
                yield self._blobs.document(each)[1]
            except Absent:
                continue

    def _is_one_image(self) -> bool:
        """Whether `index.json` is the index of one image: nothing named, each platform once."""
        listed = self._index.manifests
        platforms = [each.platform for each in listed if not _is_attestation(each)]
        return (
            len(listed) > 1
            and not any(_names(each) for each in listed)
            and not any(each.media_type in media_types.INDEXES for each in listed)
            and None not in platforms
            and len(set(platforms)) == len(platforms)
        )

    def _roots(self) -> Iterable[_Root]:
        """One for each digest, under all its names."""
        roots: dict[Digest, _Root] = {}
        for each in self._index.manifests:
            known = roots[each.digest].names if each.digest in roots else ()
            roots[each.digest] = _Root(each, tuple(dict.fromkeys((*known, *_names(each)))))
        return roots.values()

    def _entry(self, root: _Root) -> SourceEntry:
        try:
            raw, document = self._blobs.document(root.descriptor)
            if isinstance(document, Index):
                return SourceEntry(root.names, *self._tree(raw, document))
            image = self._blobs.image(raw, document, root.descriptor.platform)
        except SourceError as error:
            return UnusableEntry(root.names, error)
        return SourceEntry(root.names, image)

    def _tree(
        self, raw: RawManifest, index: Index
    ) -> tuple[SourceImage | SourceIndex, tuple[str, ...]]:
        """The whole index; where children are not here, the only one that is, with a warning."""
        children = [self._child(each) for each in index.manifests]
        held = tuple(child for child in children if child is not None)
        if len(held) == len(children):
            return SourceIndex(raw, held, index.manifests), ()
        absent = ", ".join(
            _title(listed)
            for listed, child in zip(index.manifests, children, strict=True)
            if child is None
        )
        images = [child for child in held if child.platform.known]
        if len(images) != 1:
            raise SourceError(
                f"{self._files.name} does not hold all that its index names: {absent} missing",
                hint="save the image again with all of its platforms, or with one alone",
            )
        warning = (
            f"{self._files.name} holds {images[0].platform} alone of its index, "
            f"so that image is pushed by itself, without {absent}"
        )
        return replace(images[0], for_index=True), (warning,)

    def _child(self, listed: Descriptor) -> SourceImage | None:
        """A child of an index; None when it, or a part of it, is not here."""
        try:
            raw, document = self._blobs.document(listed)
            if isinstance(document, Manifest):
                return self._blobs.image(raw, document, listed.platform)
        except Absent:
            return None
        raise SourceError(
            f"{self._files.name} has an index in an index ({listed.digest}), which is not pushed"
        )


def _names(listed: Descriptor) -> tuple[str, ...]:
    names = (listed.annotations.get(key) for key in (_CONTAINERD_NAME, _REF_NAME))
    return tuple(name for name in names if name)


def _is_attestation(listed: Descriptor) -> bool:
    key, value = _ATTESTATION
    return listed.annotations.get(key) == value


def _title(listed: Descriptor) -> str:
    """How an absent child is named."""
    if listed.platform and listed.platform.known:
        return str(listed.platform)
    return f"{'the attestation' if _is_attestation(listed) else 'manifest'} {listed.digest}"


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
        return stores.FileLayer(self._files, path, listed.size, diff_id, None if plain else listed)

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
