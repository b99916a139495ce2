"""Removes blobs that no repository needs, and writes the index of all tags.

A blob that a manifest lists stays. So does one that was uploaded or asked for a short while ago,
because a push puts its manifest only afterwards. The time on the blob's file tells: it is set when
the blob is asked for, mounted, or listed by a manifest that is put.

Beside a running server this time alone decides. Without a server no push is under way: a blob that
a manifest has listed since it was last asked for, and that none lists now, is removed at once.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import TowlineError
from towline.server import manifests
from towline.server.limits import Limits
from towline.server.repository import Repository, StoredManifest
from towline.server.sessions import Sessions
from towline.server.storage import Storage, last_asked
from towline.spec.descriptor import Descriptor
from towline.spec.digest import HEX_LENGTHS, Digest
from towline.spec.manifest import build_index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_GRACE = 3600.0
"""Seconds for which a blob is kept that no manifest lists.

Far above `storage.TOUCH_AFTER`: the time on a file may be that much older than the last question.
"""


class Swept(NamedTuple):
    """The blobs, and their bytes, that a collection has removed."""

    blobs: int
    bytes: int


def collect_once(root: Path) -> Swept:
    """Collect and write the index, whether a server runs on that root or not.

    Raises TowlineError when the root holds no registry, or cannot be used.
    """
    if not (root / "repositories").exists():
        raise TowlineError(f"{root} holds no registry")
    storage = Storage(root)
    try:
        alone = storage.hold()
        if alone:
            Sessions(storage, Limits())  # removes sessions that are too old
        swept = collect(storage, alone=alone)
        write_index(storage)
    finally:
        storage.close()
    return swept


def collect(storage: Storage, *, alone: bool = False) -> Swept:
    """Remove blobs that nothing refers to. Safe beside pushes, and collections in any process."""
    # Marking takes no lock: a blob that is needed only since then has a young file.
    marks = _Marks(storage, alone=alone)
    for name in list(storage.names()):
        marks.mark(Repository(storage, name))
    # A lock for each blob and not for all: pushes wait for one removal at most.
    for repository, digest in marks.loose:
        with storage.sweeping():
            marks.let_go(repository, digest)
    removed: list[int] = []
    for algorithm in HEX_LENGTHS:
        for path in list((storage.blobs / algorithm).iterdir()):
            with suppress(ValueError, FileNotFoundError):
                if Digest(f"{algorithm}:{path.name}") in marks.needed:
                    continue
                with storage.sweeping():
                    status = path.stat()
                    if alone or status.st_mtime <= marks.young:
                        storage.remove(path)
                        removed.append(status.st_size)
    return Swept(len(removed), sum(removed))


class _Marks:
    """What a collection finds before it removes anything."""

    def __init__(self, storage: Storage, *, alone: bool) -> None:
        """`alone`: no server runs, and none can start."""
        self._storage = storage
        self._alone = alone
        self.young = time.time() - _GRACE
        """Seconds since the epoch: files that were asked for after it stay."""
        self.needed: set[Digest] = set()
        """Manifests, the content that they list, and blobs that repositories hold for a push."""
        self.loose: list[tuple[Repository, Digest]] = []
        """Blobs that a repository holds, and no manifest of it lists."""

    def mark(self, repository: Repository) -> None:
        """Note what a repository needs, and what it holds beside that."""
        listed: set[Digest] = set()
        for digest in list(repository.manifests()):
            if found := repository.manifest(digest):
                listed |= {found.stored, *_listed_by(repository, found)}
        self.needed |= listed
        self.loose += [
            (repository, digest)
            for digest in list(repository.blobs())
            if digest not in listed and not self._keeps(repository, digest)
        ]

    def _keeps(self, repository: Repository, digest: Digest) -> bool:
        """Whether a push may be about to list a blob that no manifest lists yet: then it stays."""
        keeps = repository.asked(digest) > self.young or self._asked_anywhere(digest)
        if keeps:
            self.needed.add(digest)
        return keeps

    def _asked_anywhere(self, digest: Digest) -> bool:
        """Whether a push to any repository may rely on a blob."""
        return not self._alone and last_asked(self._storage.path(digest)) > self.young

    def let_go(self, repository: Repository, digest: Digest) -> None:
        """End a repository's hold of a blob, unless somebody has just asked for it."""
        if self._keeps(repository, digest):
            return
        repository.unlink_blob(digest)
        # Here the hold is dropped first, and the mark looked for afterwards. `Repository.ask_blob`
        # marks first, and looks for the hold afterwards: one of the two sees the other.
        if self._asked_anywhere(digest):
            repository.link_blob(digest)
            self.needed.add(digest)


def _listed_by(repository: Repository, found: StoredManifest) -> Iterator[Digest]:
    try:
        yield from manifests.parse(found.path.read_bytes(), found.media_type).digests()
    except FileNotFoundError:  # the manifest was deleted since
        return
    except (OSError, ValueError):  # unreadable: it might list any blob, so all stay
        yield from repository.blobs()


def write_index(storage: Storage) -> None:
    """Write every tag into `index.json`, so that the root can be read as an OCI layout."""
    listed: list[Descriptor] = []
    for name in sorted(storage.names()):
        repository = Repository(storage, name)
        for tag in sorted(repository.tags()):
            if found := repository.resolve(tag):
                named = {"org.opencontainers.image.ref.name": f"{name}:{tag}"}
                held = Descriptor(found.media_type, found.stored, found.size, annotations=named)
                listed.append(held)
    storage.write(storage.index, build_index("oci", listed).content)
