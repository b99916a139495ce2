"""One repository: the blobs and manifests that it holds, its tags, and its referrers.

The order of changes keeps it consistent when the process is killed: content comes before the mark
that it is held, a manifest before its tag, and in deleting tags go before their manifest. Reads
take no lock. Its folder has:

    _blobs/ALG/HEX           empty: the repository holds this blob; the file's time is that of the
                             last question for it, or 0 once a manifest has listed it
    _manifests/ALG/HEX       two lines: the media type, and the digest of the stored bytes
    _tags/TAG                the digest
    _referrers/ALG/HEX/ALG-HEX   the descriptor of a manifest whose subject is the folder's digest

No part of a repository's name begins with an underscore, so that nested repositories are never
confused with these. Names, tags and digests are checked before they come here, as they become
paths.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from towline.server.storage import Storage, at, last_asked, touched
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest of one repository."""

    digest: Digest
    media_type: str
    stored: Digest
    """The digest of the bytes. That of schema 1 is another one, which leaves the signatures out."""
    path: Path
    """The file with its bytes."""
    size: int


class Repository:
    """One repository, by its checked name. It exists from the first thing that is put into it."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.name = name
        folder = storage.repositories / name
        self._blobs = folder / "_blobs"
        self._manifests = folder / "_manifests"
        self._tags = folder / "_tags"
        self._referrers = folder / "_referrers"
        self._storage = storage

    @property
    def exists(self) -> bool:
        """Whether anything was ever put into it."""
        return self._manifests.is_dir() or self._blobs.is_dir()

    # Blobs

    def blob(self, digest: Digest) -> int | None:
        """Bytes of a blob; None: the repository does not hold it."""
        return self._storage.size(digest) if at(self._blobs, digest).exists() else None

    def ask_blob(self, digest: Digest) -> int | None:
        """Bytes of a blob, which is not collected for a while then; None: it is not held."""
        hold = at(self._blobs, digest)
        if touched(hold) is None:
            return None
        size = self._storage.keep(digest)
        # The blob is marked first, and the hold looked for afterwards. A collection drops the hold
        # first, and looks for the mark afterwards (`gc`): one of the two sees the other.
        return size if hold.exists() else None

    def list_blobs(self, digests: Iterable[Digest]) -> None:
        """Note that a manifest lists these blobs: once none does, they may be collected at once."""
        for digest in digests:
            with suppress(FileNotFoundError, PermissionError):
                os.utime(at(self._blobs, digest), (0, 0))

    def asked(self, digest: Digest) -> float:
        """The time at which a blob was last asked for here; 0: a manifest has listed it since."""
        return last_asked(at(self._blobs, digest))

    def link_blob(self, digest: Digest) -> None:
        """Hold a blob."""
        self._storage.mark(at(self._blobs, digest))

    def unlink_blob(self, digest: Digest) -> bool:
        """Hold a blob no longer. Returns whether it was held."""
        return self._storage.remove(at(self._blobs, digest))

    def blobs(self) -> Iterator[Digest]:
        """Every blob that the repository holds."""
        return _digests(self._blobs)

    # Manifests

    def manifest(self, digest: Digest) -> StoredManifest | None:
        """A manifest by its digest; None: there is none."""
        try:
            media_type, text = at(self._manifests, digest).read_text().splitlines()
        except FileNotFoundError:
            return None
        stored = Digest(text)
        size = self._storage.size(stored)
        path = self._storage.path(stored)
        return None if size is None else StoredManifest(digest, media_type, stored, path, size)

    def resolve(self, reference: str) -> StoredManifest | None:
        """A manifest by its digest, or by a tag; None: there is none."""
        digest = reference if isinstance(reference, Digest) else self.tagged(reference)
        return self.manifest(digest) if digest else None

    def put_manifest(self, digest: Digest, media_type: str, stored: Digest) -> None:
        """Hold a manifest whose bytes are the blob `stored`. Within `unswept` and `changing`."""
        held = self.manifest(digest)
        if held is None or held.media_type != media_type:  # nothing to write for a second tag
            self._storage.write(at(self._manifests, digest), f"{media_type}\n{stored}\n".encode())

    def delete_manifest(self, digest: Digest, subject: Digest | None) -> None:
        """Delete a manifest, its tags first. Within `changing`."""
        for tag in self.tags():
            if self.tagged(tag) == digest:
                self._storage.remove(self._tags / tag)
        self._storage.remove(at(self._manifests, digest))
        if subject:
            self._storage.remove(at(self._referrers, subject) / digest.replace(":", "-"))

    def manifests(self) -> Iterator[Digest]:
        """Every manifest that the repository holds."""
        return _digests(self._manifests)

    # Tags

    def tagged(self, tag: str) -> Digest | None:
        """The digest under a tag; None: there is no such tag."""
        try:
            return Digest((self._tags / tag).read_text().strip())
        except FileNotFoundError:
            return None

    def set_tag(self, tag: str, digest: Digest) -> None:
        """Set a tag to a manifest that is held. Within `changing`."""
        if self.tagged(tag) != digest:
            self._storage.write(self._tags / tag, f"{digest}\n".encode())

    def delete_tag(self, tag: str) -> bool:
        """Remove a tag alone. Returns whether it was there. Within `changing`."""
        return self._storage.remove(self._tags / tag)

    def tags(self) -> list[str]:
        """Every tag, in no order."""
        return _entries(self._tags)

    # Referrers

    def add_referrer(self, subject: Digest, digest: Digest, descriptor: dict[str, Any]) -> None:
        """Note that a manifest has this subject, which need not exist."""
        path = at(self._referrers, subject) / digest.replace(":", "-")
        self._storage.write(path, json.dumps(descriptor, ensure_ascii=False).encode())

    def referrers(self, subject: Digest, after: str) -> Iterator[tuple[Digest, bytes]]:
        """The manifests with that subject, sorted by digest, after `after`; with descriptors."""
        # One at a time: a descriptor holds the manifest's annotations, so it may be large.
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
