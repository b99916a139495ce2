"""Image manifests and indexes (image-spec; schema 2): reading them, and their bytes when built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from towline.spec import gojson, media_types, reading
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from towline.spec.media_types import Format

MAX_SIZE = 4 << 20
"""Bytes of a manifest that registries must accept; more is refused by many (distribution-spec)."""
_INDENT = 3
"""Spaces; schema 2 has had them since its first builder, and its digests rest on them."""


class RawManifest(NamedTuple):
    """A manifest or index as bytes: the only form that has a digest."""

    content: bytes
    media_type: str
    signed: bytes | None = None
    """Of one of schema 1 with its signatures inside: what they sign, and the digest is of."""

    @property
    def digest(self) -> Digest:
        """Digest of the content."""
        return Digest.of(self._counted)

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self._counted)

    @property
    def _counted(self) -> bytes:
        return self.content if self.signed is None else self.signed

    def descriptor(self) -> Descriptor:
        """What an index says of it."""
        return Descriptor(self.media_type, self.digest, self.size)


class Manifest(NamedTuple):
    """An image manifest, read."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = {}
    subject: Descriptor | None = None
    artifact_type: str | None = None

    def __hash__(self) -> int:
        return hash((self.media_type, self.config, self.layers))  # annotations have none


class Index(NamedTuple):
    """An image index or manifest list, read."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = {}
    subject: Descriptor | None = None

    def __hash__(self) -> int:
        return hash((self.media_type, self.manifests))  # annotations have none


def parse(content: bytes, media_type: str | None = None) -> Manifest | Index:
    """Read a manifest or an index.

    The document's own `mediaType` counts, then the one given, then its shape. ValueError with
    one clause when it is neither.
    """
    document = _object(content)
    declared = str(document.get("mediaType") or media_type or "")
    if declared in media_types.INDEXES or (not declared and "manifests" in document):
        return _index(document, declared or media_types.OCI_INDEX)
    if declared in media_types.IMAGES or (not declared and "config" in document):
        return _manifest(document, declared or media_types.OCI_MANIFEST)
    msg = f"neither an image manifest nor an index (mediaType {declared[:100]!r})"
    raise ValueError(msg)


def _object(content: bytes) -> dict[str, Any]:
    document = reading.document(content)
    if not isinstance(document, dict):
        msg = "not a JSON object"
        raise ValueError(msg)  # noqa: TRY004 - bad data, not a bad call
    return document


def _manifest(document: dict[str, Any], media_type: str) -> Manifest:
    return Manifest(
        media_type=media_type,
        config=Descriptor.from_json(document.get("config")),
        layers=_descriptors(document, "layers"),
        annotations=reading.pairs(document, "annotations"),
        subject=_subject(document),
        artifact_type=reading.text(document, "artifactType"),
    )


def _index(document: dict[str, Any], media_type: str) -> Index:
    return Index(
        media_type=media_type,
        manifests=_descriptors(document, "manifests"),
        annotations=reading.pairs(document, "annotations"),
        subject=_subject(document),
    )


def _descriptors(document: dict[str, Any], key: str) -> tuple[Descriptor, ...]:
    """What it lists. Go writes an empty list as null, and some tools write none at all."""
    return tuple(Descriptor.from_json(value) for value in reading.array(document, key))


def _subject(document: dict[str, Any]) -> Descriptor | None:
    value = document.get("subject")
    return Descriptor.from_json(value) if value is not None else None


def build(
    fmt: Format,
    config: Descriptor,
    layers: Sequence[Descriptor],
    annotations: Mapping[str, str] | None = None,
) -> RawManifest:
    """The bytes of an image manifest: keys in Go's order, indented by 3, no final newline."""
    oci = fmt == "oci"
    media_type = media_types.OCI_MANIFEST if oci else media_types.DOCKER_MANIFEST
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": config.as_json(),
        "layers": [layer.as_json() for layer in layers],
    }
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    return RawManifest(gojson.encode(document, indent=_INDENT), media_type)


def build_index(
    fmt: Format,
    manifests: Sequence[Descriptor],
    annotations: Mapping[str, str] | None = None,
) -> RawManifest:
    """The bytes of an index or manifest list, in the same form."""
    oci = fmt == "oci"
    media_type = media_types.OCI_INDEX if oci else media_types.DOCKER_LIST
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [manifest.as_json() for manifest in manifests],
    }
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    return RawManifest(gojson.encode(document, indent=_INDENT), media_type)
