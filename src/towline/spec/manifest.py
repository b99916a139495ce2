"""Image manifests, indexes and configs (image-spec; docker's schema 2): read and built."""

# No `from __future__ import annotations`: at every start Python would compile each text that
# annotates a field of a named tuple.

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from towline.spec import gojson, media_types, reading
from towline.spec.descriptor import Descriptor, Platform
from towline.spec.digest import Digest
from towline.spec.media_types import Format

MAX_SIZE = 4 << 20
"""Bytes of a manifest that registries must accept; many refuse more (distribution-spec). They fetch
configs, too, and refuse larger ones."""


class RawManifest(NamedTuple):
    """A manifest or index as bytes: the only form that has a digest."""

    content: bytes
    media_type: str
    signed: bytes | None = None
    """The signed payload of a manifest of schema 1, which its digest is of; None for all others."""

    @property
    def digest(self) -> Digest:
        """Digest of the content; of schema 1 with signatures inside, of the signed payload."""
        return Digest.of(self.signed or self.content)

    @property
    def size(self) -> int:
        """Bytes of what the digest is of."""
        return len(self.signed or self.content)

    def descriptor(self) -> Descriptor:
        """Its descriptor, as an index lists it, without a platform."""
        return Descriptor(self.media_type, self.digest, self.size)


class Manifest(NamedTuple):
    """The fields of an image manifest (image-spec, "Image Manifest")."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = {}
    subject: Descriptor | None = None
    artifact_type: str | None = None

    def __hash__(self) -> int:
        return hash((self.media_type, self.config, self.layers))  # annotations have none


class Index(NamedTuple):
    """The fields of an image index or manifest list (image-spec, "Image Index")."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = {}
    subject: Descriptor | None = None

    def __hash__(self) -> int:
        return hash((self.media_type, self.manifests))  # annotations have none


class ImageConfig(NamedTuple):
    """The parts of a config that a push reads; its bytes are never re-encoded."""

    diff_ids: tuple[Digest, ...]
    """Digests of the uncompressed layers, base first (`rootfs.diff_ids`)."""
    platform: Platform
    filled: tuple[bool, ...]
    """For each `history` entry whether it made a layer (not `empty_layer`)."""


def parse(content: bytes, media_type: str | None = None) -> Manifest | Index:
    """Read a manifest or an index.

    The document's own `mediaType` counts first, then the one given, then its shape. Raises
    ValueError, one clause, when it is neither.
    """
    document = reading.document(content)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - bad data, not a bad call
    declared = str(document.get("mediaType") or media_type or "")
    is_index = declared in media_types.INDEXES or (not declared and "manifests" in document)
    is_image = declared in media_types.IMAGES or (not declared and "config" in document)
    if not (is_index or is_image):
        raise ValueError(f"neither an image manifest nor an index (mediaType {declared[:100]!r})")
    # Go writes an empty list as null, and some tools write none at all.
    listed = reading.array(document, "manifests" if is_index else "layers")
    descriptors = tuple(map(Descriptor.from_json, listed))
    annotations = reading.annotations_of(document)
    subject = document.get("subject")
    if subject is not None:
        subject = Descriptor.from_json(subject)
    if is_index:
        return Index(declared or media_types.OCI_INDEX, descriptors, annotations, subject)
    return Manifest(
        declared or media_types.OCI_MANIFEST,
        Descriptor.from_json(document.get("config")),
        descriptors,
        annotations,
        subject,
        reading.text(document, "artifactType"),
    )


def parse_config(content: bytes) -> ImageConfig:
    """Read an image config; raises ValueError, one clause, when the content is not one."""
    document = reading.document(content)
    rootfs = document.get("rootfs") if isinstance(document, dict) else None
    if not isinstance(rootfs, dict):
        raise ValueError("no image config: it has no `rootfs`")  # noqa: TRY004 - bad data, not a bad call
    history = [entry for entry in reading.array(document, "history") if isinstance(entry, dict)]
    return ImageConfig(
        diff_ids=tuple(Digest(text) for text in reading.texts(rootfs, "diff_ids")),
        platform=Platform.from_json(document),
        # Entries of `ENV` or `CMD` are empty: only the others pair with a DiffID, in order.
        filled=tuple(not entry.get("empty_layer") for entry in history),
    )


def build(
    fmt: Format,
    config: Descriptor,
    layers: Sequence[Descriptor],
    annotations: Mapping[str, str] | None = None,
) -> RawManifest:
    """The bytes of an image manifest: keys in Go's order, indented by 3, no final newline."""
    media_type = media_types.OCI_MANIFEST if fmt == "oci" else media_types.DOCKER_MANIFEST
    listed = [layer.as_json() for layer in layers]
    return _built(media_type, {"config": config.as_json(), "layers": listed}, annotations)


def annotated(raw: RawManifest, more: Mapping[str, str]) -> RawManifest:
    """The manifest or index with `more` annotations added and every other field kept.

    `raw` itself where it has them all already, so that its digest stays. Raises ValueError where
    `raw` is not JSON.
    """
    if not more:
        return raw
    document = reading.document(raw.content)
    has = reading.annotations_of(document)
    if {**has, **more} == has:
        return raw
    document["annotations"] = dict(sorted({**has, **more}.items()))
    return RawManifest(gojson.encode(document, indent=gojson.INDENT), raw.media_type)


def build_index(
    fmt: Format,
    manifests: Sequence[Descriptor],
    annotations: Mapping[str, str] | None = None,
) -> RawManifest:
    """The bytes of an index or manifest list, in the same form as `build`'s."""
    media_type = media_types.OCI_INDEX if fmt == "oci" else media_types.DOCKER_LIST
    listed = [manifest.as_json() for manifest in manifests]
    return _built(media_type, {"manifests": listed}, annotations)


def _built(
    media_type: str, content: dict[str, Any], annotations: Mapping[str, str] | None
) -> RawManifest:
    document = {"schemaVersion": 2, "mediaType": media_type, **content}
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    return RawManifest(gojson.encode(document, indent=gojson.INDENT), media_type)
