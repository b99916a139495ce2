"""Throws away blobs that no repository needs, and writes down the index of what there is.

A blob stays while a manifest of a repository that holds it lists it, or while it was put or asked
for a short while ago: a push asks or uploads first and puts its manifest afterwards.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from towline.server import documents
from towline.spec import gojson, media_types
from towline.spec.digest import HEX_LENGTHS, Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.server.repository import Repository
    from towline.server.storage import Storage

GRACE = 3600.0
"""Seconds for which a blob is kept that nothing refers to yet."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a collection came to."""

    blobs: int
    bytes: int


def collect(storage: Storage, grace: float = GRACE) -> Swept:
    """Remove what nothing refers to; safe beside a running server and other collections."""
    count = size = 0
    with storage.sweeping():
        young = time.time() - grace
        needed: set[Digest] = set()
        for name in list(storage.names()):
            needed |= _sweep(storage.repository(name), young)
        for digest in _blobs(storage):
            path = storage.layout.blob(digest)
            status = path.stat()
            if digest not in needed and status.st_mtime < young:
                storage.files.remove(path)
                count += 1
                size += status.st_size
    return Swept(count, size)


def _sweep(repository: Repository, young: float) -> set[Digest]:
    """Drop the repository's hold of what its manifests do not list; what it still needs."""
    needed = set()
    for digest in list(repository.manifests()):
        found = repository.manifest(digest)
        if found is None:
            continue
        needed.add(digest)
        document = documents.read(found.path.read_bytes(), found.media_type)
        needed |= {descriptor.digest for descriptor in (*document.blobs, *document.children)}
    for digest in list(repository.blobs()):
        mark = repository.layout.blob(digest)
        if digest not in needed and mark.stat().st_mtime >= young:
            needed.add(digest)
        elif digest not in needed:
            repository.unlink_blob(digest)
    return needed


def _blobs(storage: Storage) -> Iterator[Digest]:
    for algorithm in HEX_LENGTHS:
        for path in (storage.layout.blobs / algorithm).iterdir():
            try:
                yield Digest(f"{algorithm}:{path.name}")
            except ValueError:
                continue


def write_index(storage: Storage) -> None:
    """Make `index.json` tell every tag, so that the root reads as an OCI layout."""
    listed = [entry for name in sorted(storage.names()) for entry in _tags(storage, name)]
    index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": listed}
    storage.files.write(storage.layout.index, gojson.encode(index))


def _tags(storage: Storage, name: str) -> Iterator[dict[str, Any]]:
    repository = storage.repository(name)
    for tag in repository.tags():
        if found := repository.resolve(tag):
            yield {
                "mediaType": found.media_type,
                "digest": found.digest,
                "size": found.size,
                "annotations": {"org.opencontainers.image.ref.name": f"{name}:{tag}"},
            }
