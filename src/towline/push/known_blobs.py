"""The knowledge of a push's blobs: read from the cache, merged with lessons, and recorded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from towline.knowledge.base import Entry, is_sound
from towline.push.plan import Destination
from towline.registry.repository import Repository
from towline.spec import media_types

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from towline.knowledge.base import Knowledge
    from towline.push.image import Blob
    from towline.push.plan import Delivered, Made
    from towline.reference import RepositoryName
    from towline.spec.digest import Digest
    from towline.targets.layout import Layout


def known(knowledge: Knowledge, blobs: Iterable[Blob]) -> Mapping[Digest, Sequence[Entry]]:
    """The entries of these blobs. Those that others wrote are checked for their form."""
    found = knowledge.entries([blob.identity for blob in blobs])
    return {diff_id: list(filter(is_sound, entries)) for diff_id, entries in found.items()}


def merged(
    known: Mapping[Digest, Sequence[Entry]], taught: Iterable[Entry]
) -> Mapping[Digest, Sequence[Entry]]:
    """The known entries with those that were just learned, as the oldest: these rank last."""
    entries = {diff_id: list(some) for diff_id, some in known.items()}
    for entry in taught:
        entries.setdefault(entry.diff_id, []).insert(0, entry)
    return entries


def keep(
    knowledge: Knowledge, repositories: Iterable[Repository | Layout], taught: Iterable[Entry]
) -> None:
    """Record entries that registries have taught, if those may teach: see `may_teach`."""
    teachers = {repository.name.host for repository in repositories if repository.may_teach}
    knowledge.record([e for e in taught if e.repository.partition("/")[0] in teachers])


def destination(
    knowledge: Knowledge, repository: Repository | Layout, entries: Mapping[Digest, Sequence[Entry]]
) -> Destination:
    """A target for the plan: its name, and by which HMACs entries of our account are known."""
    digests = {entry.digest for some in entries.values() for entry in some}
    key = knowledge.account_key() if digests else b""
    accounts = {digest: repository.account_mac(key, digest) for digest in digests}
    return Destination(repository.name, accounts)


def remember(
    knowledge: Knowledge,
    repository: Repository | Layout,
    delivered: Iterable[tuple[Blob, Delivered]],
) -> None:
    """Record that blobs were just seen in a repository of a registry."""
    if not isinstance(repository, Repository):  # a folder is asked as fast as the cache
        return
    key = knowledge.account_key()
    now = time.time()
    entries = [
        _entry(blob, found, repository, key, now)
        for blob, found in delivered
        # Not recorded: which layer a blob is, if a registry that may not teach has told it. Of a
        # stored blob the source has told it.
        if repository.may_teach or blob.stored or not found.learned
    ]
    if entries:
        knowledge.record(entries)


def forget(
    knowledge: Knowledge, diff_id: Digest, digest: Digest, repository: RepositoryName
) -> None:
    """Drop the entries of a blob that a repository has turned out not to hold."""
    knowledge.forget(diff_id, digest, str(repository))


def _entry(blob: Blob, found: Delivered, repository: Repository, key: bytes, now: float) -> Entry:
    made = found.made
    return Entry(
        diff_id=blob.identity,
        digest=made.digest,
        size=made.size,
        media_type=_media_type(blob, made),
        compression=made.compression or "none",
        profile=found.profile,
        repository=str(repository.name),
        account=repository.account_mac(key, made.digest),
        learned=found.learned,
        seen=now,
    )


def _media_type(blob: Blob, made: Made) -> str:
    if blob.stored is not None:
        return blob.stored.media_type
    return media_types.layer("oci", made.compression or "none")
