"""Manifests by tag and digest: read, put, deleted (distribution-spec, end-3, end-7, end-9).

Also what a registry reads in them: their type, and the content that they refer to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from towline.server import blobs
from towline.server.http import Response
from towline.server.refusals import Refused, digest_of
from towline.spec import distribution, manifest, media_types, reading, schema1
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from towline.server.call import Call
    from towline.server.repository import Repository

_SCHEMA1 = frozenset({media_types.SCHEMA1, media_types.SCHEMA1_SIGNED})
_SAYS_NOTHING = frozenset({"", "application/json", media_types.OCTET_STREAM})
"""Content-Types that tell nothing of the manifest's type."""


def read(call: Call) -> Response:
    """GET or HEAD of a manifest: always as it was stored, whatever `Accept` says."""
    found = call.repository.resolve(_reference(call.last))
    if found is None:
        if not call.repository.exists:
            raise Refused(distribution.NAME_UNKNOWN, name=call.name)
        raise Refused(distribution.MANIFEST_UNKNOWN, reference=call.last)
    return blobs.content(call, found.path, found.digest, found.size, found.media_type)


def put(call: Call) -> Response:
    """PUT: store a manifest whose content is here, then set its tags.

    That is the tag in the path or, beside a digest there, those in the query (end-7b).
    """
    reference = _reference(call.last)
    algorithm, tags = "sha256", [reference]
    if isinstance(reference, Digest):
        algorithm, tags = reference.algorithm, [*dict.fromkeys(call.request.query.get("tag", []))]
    for tag in tags:
        _check_tag(tag)
    content = _content(call)
    try:
        document = parse(content, call.request.headers.get("content-type", ""))
    except ValueError as error:
        raise _invalid(str(error)) from None
    if document.payload is not None and not call.registry.schema1:
        raise _invalid("schema 1 is only taken with `--schema1`")
    # A digest of schema 1 is that of the payload, without the signatures.
    digest = Digest.of(content if document.payload is None else document.payload, algorithm)
    if isinstance(reference, Digest) and digest != reference:
        message = f"the content has another digest: {digest}"
        raise Refused(distribution.DIGEST_INVALID, message, digest=reference)
    _store(call, content, digest, document, tags)
    headers = {
        "Location": distribution.manifest_path(call.name, digest),
        distribution.DOCKER_CONTENT_DIGEST: digest,
    }
    # The header tells clients that they need not keep a list of referrers under a tag.
    if document.subject and call.registry.referrers:
        headers[distribution.OCI_SUBJECT] = document.subject.digest
    if isinstance(reference, Digest) and tags:
        headers[distribution.OCI_TAG] = ", ".join(tags)
    return Response(201, headers)


def _invalid(message: str) -> Refused:
    return Refused(distribution.MANIFEST_INVALID, f"manifest invalid: {message}")


def delete(call: Call) -> Response:
    """DELETE of a tag alone, or, by digest, of a manifest with all its tags."""
    reference = _reference(call.last)
    repository = call.repository
    if not repository.exists:
        raise Refused(distribution.NAME_UNKNOWN, name=call.name)
    with call.registry.storage.changing(call.name):
        if not isinstance(reference, Digest):
            if not repository.delete_tag(reference):
                raise Refused(distribution.MANIFEST_UNKNOWN, reference=reference)
            return Response(202)
        found = repository.manifest(reference)
        if found is None:
            raise Refused(distribution.MANIFEST_UNKNOWN, reference=reference)
        subject = parse(found.path.read_bytes(), found.media_type).subject
        repository.delete_manifest(reference, subject.digest if subject else None)
    return Response(202)


def _reference(text: str) -> Digest | str:
    """A digest, or a tag. Raises Refused for anything else."""
    if ":" in text:
        return digest_of(text)
    _check_tag(text)
    return text


def _check_tag(text: str) -> None:
    if not distribution.TAG.fullmatch(text):
        raise Refused(distribution.MANIFEST_INVALID, f"{text[:150]!r} is no tag")


def _content(call: Call) -> bytes:
    """The whole body. Raises Refused if it is larger than a manifest may be."""
    limit = call.registry.limits.manifest_bytes
    content = bytearray()
    if (call.request.body.length or 0) <= limit:
        while len(content) <= limit and (block := call.request.body.read()):
            content += block
        if len(content) <= limit:
            return bytes(content)
    message = f"the manifest is larger than {limit} bytes"
    raise Refused(distribution.MANIFEST_INVALID, message, status=413)


def _store(call: Call, content: bytes, digest: Digest, document: Document, tags: list[str]) -> None:
    storage, repository = call.registry.storage, call.repository
    with storage.unswept(), storage.changing(call.name):
        if missing := list(_missing(repository, document)):
            details = [{"digest": digest} for digest in missing]
            raise Refused(distribution.MANIFEST_BLOB_UNKNOWN, details=details)
        stored = digest if document.payload is None else Digest.of(content)
        if storage.keep(stored) is None:
            storage.write(storage.path(stored), content)
        if document.subject:
            descriptor = document.referrer(digest, len(content))
            repository.add_referrer(document.subject.digest, digest, descriptor)
        repository.put_manifest(digest, document.media_type, stored)
        repository.list_blobs(document.digests())
        for tag in tags:
            repository.set_tag(tag, digest)


def _missing(repository: Repository, document: Document) -> Iterator[Digest]:
    """The digests that the document lists and the repository does not hold.

    Raises Refused where something has another size than the document says.
    """
    found = [(blob, repository.ask_blob(blob.digest)) for blob in document.blobs]
    for child in document.children:
        held = repository.manifest(child.digest)
        found.append((child, held.size if held else repository.ask_blob(child.digest)))
    for part, size in found:
        if size is None:
            yield part.digest
        elif size != part.size:
            message = f"{part.digest} has {size} bytes, not {part.size}"
            raise Refused(distribution.SIZE_INVALID, message)
    yield from (digest for digest in document.unsized if repository.ask_blob(digest) is None)


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
        return Descriptor(
            self.media_type,
            digest,
            size,
            annotations=self.annotations,
            artifact_type=self.artifact_type,
        ).as_json()


def parse(content: bytes, content_type: str) -> Document:
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
    held: tuple[Descriptor, ...] = ()
    children: tuple[Descriptor, ...] = ()
    artifact_type = reading.text(raw, "artifactType")
    if isinstance(parsed, manifest.Index):
        if "manifests" not in raw:  # else any JSON object would be an empty index
            raise ValueError("it has no manifests")
        children = parsed.manifests
    else:
        artifact_type = artifact_type or parsed.config.media_type or None
        # A foreign layer that says where it is need not be here.
        layers = [
            each
            for each in parsed.layers
            if not (media_types.is_foreign(each.media_type) and each.urls)
        ]
        held = (parsed.config, *layers)
    return Document(
        media_type=parsed.media_type,
        blobs=held,
        children=children,
        subject=parsed.subject,
        artifact_type=artifact_type,
        annotations=parsed.annotations,
    )
