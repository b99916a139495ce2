"""What is known of the blobs: what was remembered, what was just learned, what to remember."""

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
    """Everything that is remembered of these blobs; what others wrote, as far as it is sound."""
    found = knowledge.entries([blob.identity for blob in blobs])
    return {diff_id: list(filter(is_sound, entries)) for diff_id, entries in found.items()}


def merged(
    known: Mapping[Digest, Sequence[Entry]], taught: Iterable[Entry]
) -> Mapping[Digest, Sequence[Entry]]:
    """What was just learned, as the oldest of all that is known: it ranks last."""
    entries = {diff_id: list(some) for diff_id, some in known.items()}
    for entry in taught:
        entries.setdefault(entry.diff_id, []).insert(0, entry)
    return entries


def keep(
    knowledge: Knowledge, repositories: Iterable[Repository | Layout], taught: Iterable[Entry]
) -> None:
    """Record what the registries of these repositories have taught, as far as they may."""
    teachers = {repository.name.host for repository in repositories if repository.may_teach}
    knowledge.record([e for e in taught if e.repository.partition("/")[0] in teachers])


def destination(
    knowledge: Knowledge, repository: Repository | Layout, entries: Mapping[Digest, Sequence[Entry]]
) -> Destination:
    """A target as the plan sees it: its name, and how entries of our own account look."""
    digests = {entry.digest for some in entries.values() for entry in some}
    key = knowledge.account_key() if digests else b""
    accounts = {digest: repository.account_mac(key, digest) for digest in digests}
    return Destination(repository.name, accounts)


def remember(
    knowledge: Knowledge,
    repository: Repository | Layout,
    delivered: Iterable[tuple[Blob, Delivered]],
) -> None:
    """Record where blobs were just seen, at a registry: a folder is looked at as quickly."""
    if not isinstance(repository, Repository):
        return
    key = knowledge.account_key()
    now = time.time()
    entries = [
        _entry(blob, found, repository, key, now)
        for blob, found in delivered
        # What a source says of its own blobs is no lesson of the registry's.
        if repository.may_teach or blob.stored or not found.learned
    ]
    if entries:
        knowledge.record(entries)


def forget(
    knowledge: Knowledge, diff_id: Digest, digest: Digest, repository: RepositoryName
) -> None:
    """A repository turned out not to hold a blob."""
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
