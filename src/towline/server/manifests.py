"""Manifests by tag and digest: read, put, deleted (distribution-spec, end-3, end-7, end-9)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.server import blobs, documents
from towline.server.http import Response
from towline.server.refusals import Refused, digest_of
from towline.spec import distribution
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.server.call import Call
    from towline.server.documents import Document
    from towline.server.repository import Repository


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
        document = documents.read(content, call.request.headers.get("content-type", ""))
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
        subject = documents.read(found.path.read_bytes(), found.media_type).subject
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
    if (call.body.length or 0) <= limit:
        while len(content) <= limit and (block := call.body.read()):
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
            storage.files.write(storage.path(stored), content)
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
