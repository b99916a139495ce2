"""Manifests by tag and digest: read, put, deleted (distribution-spec, end-3, end-7, end-9)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from towline.server import blobs, documents, refusals
from towline.server.context import digest_of
from towline.server.http import Response
from towline.server.repository import is_tag
from towline.spec import distribution
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.server.context import Call
    from towline.server.documents import Document
    from towline.server.repository import Repository, StoredManifest
    from towline.spec.descriptor import Descriptor


def read(call: Call) -> Response:
    """GET or HEAD of a manifest: as it was stored, whatever `Accept` says."""
    found = _found(call)
    return blobs.content(call, found.path, found.digest, found.size, found.media_type)


def put(call: Call) -> Response:
    """PUT: store a manifest whose parts are here, then point the tags to it."""
    reference = _reference(call.last)
    tags = _tags(call, reference)
    content = _content(call)
    document = _document(call, content)
    digest = _digest(reference, content if document.payload is None else document.payload)
    _store(call, content, digest, document, tags)
    return Response(201, _headers(call, digest, document, tags))


def delete(call: Call) -> Response:
    """DELETE of a tag alone, or of a manifest with all its tags."""
    reference = _reference(call.last)
    repository = call.repository
    if not repository.exists:
        raise refusals.name_unknown(call.name)
    with call.registry.storage.changing(call.name):
        if not isinstance(reference, Digest):
            if not repository.delete_tag(reference):
                raise refusals.manifest_unknown(reference)
            return Response(202)
        found = repository.manifest(reference)
        if found is None:
            raise refusals.manifest_unknown(reference)
        document = documents.read(found.path.read_bytes(), found.media_type)
        subject = document.subject
        repository.delete_manifest(reference, subject.digest if subject else None)
    return Response(202)


def _found(call: Call) -> StoredManifest:
    found = call.repository.resolve(_reference(call.last))
    if found is None:
        if not call.repository.exists:
            raise refusals.name_unknown(call.name)
        raise refusals.manifest_unknown(call.last)
    return found


def _reference(text: str) -> Digest | str:
    """A digest, or a tag; refuses what is neither."""
    if ":" in text:
        return digest_of(text)
    if not is_tag(text):
        raise refusals.tag_invalid(text)
    return text


def _tags(call: Call, reference: Digest | str) -> list[str]:
    """The tags to set: the one of the path, or those asked for beside a digest (end-7b)."""
    if not isinstance(reference, Digest):
        return [reference]
    tags = list(dict.fromkeys(call.request.query.get("tag", [])))
    for tag in tags:
        if not is_tag(tag):
            raise refusals.tag_invalid(tag)
    return tags


def _content(call: Call) -> bytes:
    limit = call.registry.limits.manifest_bytes
    if (call.body.length or 0) > limit:
        raise refusals.too_large(limit)
    content = bytearray()
    while block := call.body.read():
        content += block
        if len(content) > limit:
            raise refusals.too_large(limit)
    return bytes(content)


def _document(call: Call, content: bytes) -> Document:
    try:
        document = documents.read(content, call.request.headers.get("content-type", ""))
    except ValueError as error:
        raise refusals.manifest_invalid(str(error)) from None
    if document.payload is not None and not call.registry.schema1:
        raise refusals.manifest_invalid("schema 1 is only taken with `--schema1`")
    return document


def _digest(reference: Digest | str, content: bytes) -> Digest:
    if not isinstance(reference, Digest):
        return Digest.of(content)
    found = Digest(f"{reference.algorithm}:{hashlib.new(reference.algorithm, content).hexdigest()}")
    if found != reference:
        raise refusals.digest_invalid(f"the content has another digest: {found}", reference)
    return found


def _store(call: Call, content: bytes, digest: Digest, document: Document, tags: list[str]) -> None:
    storage, repository = call.registry.storage, call.repository
    with storage.unswept(), storage.changing(call.name):
        missing = list(_missing(repository, document))
        if missing:
            raise refusals.manifest_blob_unknown(missing)
        stored = digest if document.payload is None else Digest.of(content)
        if storage.keep(stored) is None:
            storage.files.write(storage.layout.blob(stored), content)
        if document.subject:
            descriptor = document.referrer(digest, len(content))
            repository.add_referrer(document.subject.digest, digest, descriptor)
        held = repository.manifest(digest)
        if held is None or held.media_type != document.media_type:
            repository.put_manifest(digest, document.media_type, stored)
        repository.list_blobs(document.digests())
        for tag in tags:
            repository.set_tag(tag, digest)


def _missing(repository: Repository, document: Document) -> Iterator[Digest]:
    """What the document refers to and the repository does not hold."""
    for blob in document.blobs:
        _check_size(blob, found := repository.ask_blob(blob.digest))
        if found is None:
            yield blob.digest
    for child in document.children:
        manifest = repository.manifest(child.digest)
        found = manifest.size if manifest else repository.ask_blob(child.digest)
        _check_size(child, found)
        if found is None:
            yield child.digest
    yield from (digest for digest in document.unsized if repository.ask_blob(digest) is None)


def _check_size(descriptor: Descriptor, found: int | None) -> None:
    if found is not None and found != descriptor.size:
        message = f"{descriptor.digest} has {found} bytes, not {descriptor.size}"
        raise refusals.size_invalid(message)


def _headers(call: Call, digest: Digest, document: Document, tags: list[str]) -> dict[str, str]:
    headers = {
        "Location": distribution.manifest_path(call.name, digest),
        distribution.DOCKER_CONTENT_DIGEST: digest,
    }
    if document.subject and call.registry.referrers:
        headers[distribution.OCI_SUBJECT] = document.subject.digest
    if isinstance(_reference(call.last), Digest) and tags:
        headers["OCI-Tag"] = ", ".join(tags)
    return headers
