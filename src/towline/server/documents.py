"""Manifests as a registry reads them: their type, and the content that they refer to."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from towline.spec import manifest, media_types, reading, schema1

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest


_SCHEMA1 = frozenset({media_types.SCHEMA1, media_types.SCHEMA1_SIGNED})
_SAYS_NOTHING = frozenset({"", "application/json", media_types.OCTET_STREAM})
"""Content-Types that tell nothing of the manifest's type."""


@dataclass(frozen=True, slots=True)
class Document:
    """The parts of a manifest that a registry needs."""

    media_type: str
    blobs: tuple[Descriptor, ...] = ()
    """Blobs that the repository must hold: the config, and every layer that is not foreign."""
    children: tuple[Descriptor, ...] = ()
    """Manifests of an index."""
    unsized: tuple[Digest, ...] = ()
    """More such blobs, whose sizes the document does not tell: the layers of schema 1."""
    payload: bytes | None = None
    """The bytes that the digest is of, if they are not the whole content: schema 1."""
    subject: Descriptor | None = None
    artifact_type: str | None = None
    """The type in the list of referrers."""
    annotations: Mapping[str, str] = field(default_factory=dict)

    def digests(self) -> Iterator[Digest]:
        """The digests of everything that it lists."""
        yield from (descriptor.digest for descriptor in (*self.blobs, *self.children))
        yield from self.unsized

    def referrer(self, digest: Digest, size: int) -> dict[str, Any]:
        """Its descriptor in the list of referrers (distribution-spec, "Listing Referrers")."""
        shown: dict[str, Any] = {"mediaType": self.media_type, "size": size, "digest": digest}
        if self.artifact_type:
            shown["artifactType"] = self.artifact_type
        if self.annotations:
            shown["annotations"] = dict(self.annotations)
        return shown


def read(content: bytes, content_type: str) -> Document:
    """Parse a manifest that came with a Content-Type. Raises ValueError with the reason."""
    declared = content_type.partition(";")[0].strip().lower()
    if declared in _SAYS_NOTHING:
        declared = ""
    raw = reading.mapping(content)
    if declared in _SCHEMA1 or (not declared and schema1.is_schema1(raw)):
        schema = schema1.parse(content)
        return Document(
            # The digest is that of the payload, without the signatures.
            media_types.SCHEMA1 if schema.payload == content else media_types.SCHEMA1_SIGNED,
            unsized=tuple(dict.fromkeys(schema.layers)),
            payload=schema.payload,
        )
    parsed = manifest.parse(content, declared or None)
    if declared and declared != parsed.media_type:
        raise ValueError(
            f"its mediaType is {parsed.media_type}, but the Content-Type {declared[:100]}"
        )
    if raw.get("schemaVersion") != 2:  # noqa: PLR2004 - that of every media type but schema 1's
        raise ValueError("its schemaVersion is not 2")
    document = Document(
        media_type=parsed.media_type,
        subject=parsed.subject,
        artifact_type=str(raw.get("artifactType") or "") or None,
        annotations=parsed.annotations,
    )
    if isinstance(parsed, manifest.Index):
        if "manifests" not in raw:  # else any JSON object would be an empty index
            raise ValueError("it has no manifests")
        return replace(document, children=parsed.manifests)
    # A foreign layer that says where it is need not be here.
    held = (
        layer
        for layer in parsed.layers
        if not (media_types.is_foreign(layer.media_type) and layer.urls)
    )
    return replace(
        document,
        blobs=(parsed.config, *held),
        artifact_type=document.artifact_type or parsed.config.media_type or None,
    )
