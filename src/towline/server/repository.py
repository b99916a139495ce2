"""One repository: which blobs and manifests it holds, what its tags point to, who refers to whom.

Order is what keeps it true when the process is killed: content before the sign of it, a manifest
before its tag when writing, tags before their manifest when deleting. Reads take no lock.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from towline.server.files import touched
from towline.spec import distribution
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from towline.server.storage import Storage


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest of one repository."""

    digest: Digest
    media_type: str
    stored: Digest
    """That of the bytes; of schema 1, whose own digest leaves the signatures out, another one."""
    path: Path
    """The file with its bytes."""
    size: int


class Repository:
    """One repository by its name, which was checked; what is first put into it makes it exist."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.name = name
        self.layout = storage.layout.repository(name)
        self._storage = storage
        self._files = storage.files

    @property
    def exists(self) -> bool:
        """Whether anything was ever put into it."""
        return self.layout.manifests.is_dir() or self.layout.blobs.is_dir()

    # Blobs

    def blob(self, digest: Digest) -> int | None:
        """Bytes of a blob that the repository holds, else None."""
        return self._storage.size(digest) if self.layout.blob(digest).exists() else None

    def ask_blob(self, digest: Digest) -> int | None:
        """Like `blob`, and keeps it from collections for a while: the answer may be relied on."""
        hold = self.layout.blob(digest)
        if touched(hold) is None:
            return None
        size = self._storage.keep(digest)
        # A collection drops the hold first and then looks at the note: one of us sees the other.
        return size if hold.exists() else None

    def list_blobs(self, digests: Iterable[Digest]) -> None:
        """Note that a manifest lists these: they may be collected once none does."""
        for digest in digests:
            with suppress(FileNotFoundError, PermissionError):
                os.utime(self.layout.blob(digest), (0, 0))

    def asked(self, digest: Digest) -> float:
        """When a blob was last asked for here; 0 if a manifest has listed it since."""
        try:
            return self.layout.blob(digest).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def link_blob(self, digest: Digest) -> None:
        """Hold a blob from now on."""
        self._files.mark(self.layout.blob(digest))

    def unlink_blob(self, digest: Digest) -> bool:
        """Hold it no longer; whether it was held."""
        return self._files.remove(self.layout.blob(digest))

    def blobs(self) -> Iterator[Digest]:
        """Every blob that it holds."""
        return _digests(self.layout.blobs)

    # Manifests

    def manifest(self, digest: Digest) -> StoredManifest | None:
        """A manifest by its digest."""
        try:
            media_type, text = self.layout.manifest(digest).read_text().splitlines()
        except FileNotFoundError:
            return None
        stored = Digest(text)
        size = self._storage.size(stored)
        path = self._storage.layout.blob(stored)
        return None if size is None else StoredManifest(digest, media_type, stored, path, size)

    def resolve(self, reference: str) -> StoredManifest | None:
        """A manifest by its digest, or by a tag."""
        if isinstance(reference, Digest):
            return self.manifest(reference)
        digest = self.tagged(reference)
        return self.manifest(digest) if digest else None

    def put_manifest(self, digest: Digest, media_type: str, stored: Digest) -> None:
        """Hold a manifest whose bytes are the blob `stored`; within `unswept` and `changing`."""
        self._files.write(self.layout.manifest(digest), f"{media_type}\n{stored}\n".encode())

    def delete_manifest(self, digest: Digest, subject: Digest | None) -> None:
        """Forget a manifest, its tags first; within `changing`."""
        tags = [tag for tag in _entries(self.layout.tags_of(digest)) if self.tagged(tag) == digest]
        for tag in tags:
            self.layout.tag(tag).unlink()
        if tags:
            self._files.sync_directory(self.layout.tags)
        self._files.clear(self.layout.tags_of(digest))
        self._files.remove(self.layout.manifest(digest))
        if subject:
            self._files.remove(self.layout.referrer(subject, digest))

    def manifests(self) -> Iterator[Digest]:
        """Every manifest that it holds."""
        return _digests(self.layout.manifests)

    # Tags

    def tagged(self, tag: str) -> Digest | None:
        """What a tag points to."""
        try:
            return Digest(self.layout.tag(tag).read_text().strip())
        except FileNotFoundError:
            return None

    def set_tag(self, tag: str, digest: Digest) -> None:
        """Point a tag to a manifest that is held; within `changing`."""
        before = self.tagged(tag)
        if before == digest:
            return
        self._files.mark(self.layout.tags_of(digest) / tag)
        self._files.write(self.layout.tag(tag), f"{digest}\n".encode())
        self._untag(before, tag)

    def delete_tag(self, tag: str) -> bool:
        """Remove a tag alone; whether it was there. Within `changing`."""
        before = self.tagged(tag)
        removed = self._files.remove(self.layout.tag(tag))
        self._untag(before, tag)
        return removed

    def _untag(self, digest: Digest | None, tag: str) -> None:
        """Forget that a manifest had a tag."""
        if digest:
            self._files.remove(self.layout.tags_of(digest) / tag)
            with suppress(OSError):  # others are there
                self.layout.tags_of(digest).rmdir()

    def tags(self) -> list[str]:
        """Every tag, in no order."""
        return _entries(self.layout.tags)

    # Referrers

    def add_referrer(self, subject: Digest, digest: Digest, descriptor: dict[str, Any]) -> None:
        """Note that a manifest names another, which need not exist, as its subject."""
        path = self.layout.referrer(subject, digest)
        self._files.write(path, json.dumps(descriptor, ensure_ascii=False).encode())

    def referrers(self, subject: Digest, after: str) -> Iterator[tuple[Digest, bytes]]:
        """The manifests with that subject, by digest, behind one of them; each with its descriptor.

        One at a time: a descriptor has the manifest's annotations, so it may be large.
        """
        folder = self.layout.referrers_of(subject)
        behind = after.replace(":", "-")
        for entry in sorted(entry for entry in _entries(folder) if entry > behind):
            digest = Digest(entry.replace("-", ":"))
            if self.layout.manifest(digest).exists():
                with suppress(FileNotFoundError):
                    yield digest, (folder / entry).read_bytes()


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - names are wanted, not paths: 10,000 of them
    except (FileNotFoundError, NotADirectoryError):
        return []


def _digests(folder: Path) -> Iterator[Digest]:
    for algorithm in _entries(folder):
        for encoded in _entries(folder / algorithm):
            yield Digest(f"{algorithm}:{encoded}")


def is_tag(text: str) -> bool:
    """Whether a text has the form of a tag."""
    return distribution.TAG.fullmatch(text) is not None
