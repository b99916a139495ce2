"""One repository: which blobs and manifests it holds, what its tags point to, who refers to whom.

Order is what keeps it true when the process is killed: content before the sign of it, a manifest
before its tag when writing, tags before their manifest when deleting. Reads take no lock. What lies
in its folder:

    _blobs/ALG/HEX           empty: the repository holds this blob; its time is that of the last
                             question for it, or 0 once a manifest has listed it
    _manifests/ALG/HEX       two lines: the media type, and the digest of the stored bytes
    _tags/TAG                the digest
    _tagged/ALG/HEX/TAG      empty: what a tag leaves behind at its manifest, to find it by
    _referrers/ALG/HEX/ALG-HEX   the descriptor of a manifest whose subject the folder names

No part of a repository's name begins with an underscore, so the two cannot be confused. Names,
tags and digests are checked before they come here: paths are made of nothing else.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from towline.server.files import last_asked, touched
from towline.server.storage import at
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
        folder = storage.repositories / name
        self._blobs = folder / "_blobs"
        self._manifests = folder / "_manifests"
        self._tags = folder / "_tags"
        self._tagged = folder / "_tagged"
        self._referrers = folder / "_referrers"
        self._storage = storage
        self._files = storage.files

    @property
    def exists(self) -> bool:
        """Whether anything was ever put into it."""
        return self._manifests.is_dir() or self._blobs.is_dir()

    # Blobs

    def blob(self, digest: Digest) -> int | None:
        """Bytes of a blob that the repository holds, else None."""
        return self._storage.size(digest) if at(self._blobs, digest).exists() else None

    def ask_blob(self, digest: Digest) -> int | None:
        """Like `blob`, and keeps it from collections for a while: the answer may be relied on."""
        hold = at(self._blobs, digest)
        if touched(hold) is None:
            return None
        size = self._storage.keep(digest)
        # A collection drops the hold first and then looks at the note: one of us sees the other.
        return size if hold.exists() else None

    def list_blobs(self, digests: Iterable[Digest]) -> None:
        """Note that a manifest lists these: they may be collected once none does."""
        for digest in digests:
            with suppress(FileNotFoundError, PermissionError):
                os.utime(at(self._blobs, digest), (0, 0))

    def asked(self, digest: Digest) -> float:
        """When a blob was last asked for here; 0 if a manifest has listed it since."""
        return last_asked(at(self._blobs, digest))

    def link_blob(self, digest: Digest) -> None:
        """Hold a blob from now on."""
        self._files.mark(at(self._blobs, digest))

    def unlink_blob(self, digest: Digest) -> bool:
        """Hold it no longer; whether it was held."""
        return self._files.remove(at(self._blobs, digest))

    def blobs(self) -> Iterator[Digest]:
        """Every blob that it holds."""
        return _digests(self._blobs)

    # Manifests

    def manifest(self, digest: Digest) -> StoredManifest | None:
        """A manifest by its digest."""
        try:
            media_type, text = at(self._manifests, digest).read_text().splitlines()
        except FileNotFoundError:
            return None
        stored = Digest(text)
        size = self._storage.size(stored)
        path = self._storage.path(stored)
        return None if size is None else StoredManifest(digest, media_type, stored, path, size)

    def resolve(self, reference: str) -> StoredManifest | None:
        """A manifest by its digest, or by a tag."""
        digest = reference if isinstance(reference, Digest) else self.tagged(reference)
        return self.manifest(digest) if digest else None

    def put_manifest(self, digest: Digest, media_type: str, stored: Digest) -> None:
        """Hold a manifest whose bytes are the blob `stored`; within `unswept` and `changing`."""
        held = self.manifest(digest)
        if held is None or held.media_type != media_type:  # a further tag writes nothing anew
            self._files.write(at(self._manifests, digest), f"{media_type}\n{stored}\n".encode())

    def delete_manifest(self, digest: Digest, subject: Digest | None) -> None:
        """Forget a manifest, its tags first; within `changing`."""
        tags_of = at(self._tagged, digest)
        tags = [tag for tag in _entries(tags_of) if self.tagged(tag) == digest]
        for tag in tags:
            (self._tags / tag).unlink()
        if tags:
            self._files.sync_directory(self._tags)
        self._files.clear(tags_of)
        self._files.remove(at(self._manifests, digest))
        if subject:
            self._files.remove(at(self._referrers, subject) / digest.replace(":", "-"))

    def manifests(self) -> Iterator[Digest]:
        """Every manifest that it holds."""
        return _digests(self._manifests)

    # Tags

    def tagged(self, tag: str) -> Digest | None:
        """What a tag points to."""
        try:
            return Digest((self._tags / tag).read_text().strip())
        except FileNotFoundError:
            return None

    def set_tag(self, tag: str, digest: Digest) -> None:
        """Point a tag to a manifest that is held; within `changing`."""
        before = self.tagged(tag)
        if before == digest:
            return
        self._files.mark(at(self._tagged, digest) / tag)
        self._files.write(self._tags / tag, f"{digest}\n".encode())
        self._untag(before, tag)

    def delete_tag(self, tag: str) -> bool:
        """Remove a tag alone; whether it was there. Within `changing`."""
        before = self.tagged(tag)
        removed = self._files.remove(self._tags / tag)
        self._untag(before, tag)
        return removed

    def _untag(self, digest: Digest | None, tag: str) -> None:
        """Forget that a manifest had a tag."""
        if digest:
            tags_of = at(self._tagged, digest)
            self._files.remove(tags_of / tag)
            with suppress(OSError):  # others are there
                tags_of.rmdir()

    def tags(self) -> list[str]:
        """Every tag, in no order."""
        return _entries(self._tags)

    # Referrers

    def add_referrer(self, subject: Digest, digest: Digest, descriptor: dict[str, Any]) -> None:
        """Note that a manifest names another, which need not exist, as its subject."""
        path = at(self._referrers, subject) / digest.replace(":", "-")
        self._files.write(path, json.dumps(descriptor, ensure_ascii=False).encode())

    def referrers(self, subject: Digest, after: str) -> Iterator[tuple[Digest, bytes]]:
        """The manifests with that subject, by digest, behind one of them; each with its descriptor.

        One at a time: a descriptor has the manifest's annotations, so it may be large.
        """
        folder = at(self._referrers, subject)
        behind = after.replace(":", "-")
        for entry in sorted(entry for entry in _entries(folder) if entry > behind):
            digest = Digest(entry.replace("-", ":"))
            if at(self._manifests, digest).exists():
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
