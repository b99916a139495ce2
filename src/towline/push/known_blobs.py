"""What is known of the blobs: what was remembered, what a registry can teach, what to remember.

A manifest lists blobs and its config lists DiffIDs, in the same order. So a machine that has never
pushed finds out which blobs of its layers the registry has. Such pairs are as good as whoever may
write to that repository: they never leave its registry host, are marked `learned`, and are dropped
whole where manifest and config do not fit together.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from towline.errors import RegistryError
from towline.knowledge.base import Entry, is_sound
from towline.push.manifests import if_exists
from towline.push.plan import Destination
from towline.spec import config as configs
from towline.spec import manifest as manifests
from towline.spec import media_types

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from towline.knowledge.base import Knowledge
    from towline.push.image import Blob
    from towline.push.plan import Delivered, Made
    from towline.push.target import Target
    from towline.reference import Reference, RepositoryName
    from towline.registry.repository import Repository
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest
    from towline.spec.manifest import Manifest


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


def keep(knowledge: Knowledge, repositories: Iterable[Repository], taught: Iterable[Entry]) -> None:
    """Record what the registries of these repositories have taught, as far as they may."""
    teachers = {repository.name.host for repository in repositories if repository.may_teach}
    knowledge.record([e for e in taught if e.repository.partition("/")[0] in teachers])


def destination(
    knowledge: Knowledge, repository: Repository, entries: Mapping[Digest, Sequence[Entry]]
) -> Destination:
    """A target as the plan sees it: its name, and how entries of our own account look."""
    digests = {entry.digest for some in entries.values() for entry in some}
    key = knowledge.account_key() if digests else b""
    accounts = {digest: repository.account_mac(key, digest) for digest in digests}
    return Destination(repository.name, accounts)


def remember(
    knowledge: Knowledge, repository: Repository, delivered: Iterable[tuple[Blob, Delivered]]
) -> None:
    """Record where blobs were just seen."""
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


_MOST_CHILDREN = 16
"""Images of one index that are looked into; each costs two reads."""


def worth_asking(
    blobs: Iterable[Blob], known: Mapping[Digest, Sequence[Entry]], host: str, *, asked: bool
) -> bool:
    """Whether there is a layer of which nothing is known at that host.

    What goes as it is has one digest, which needs no learning; only where it could be mounted
    from can be of use, and that is looked up where it was `asked` for.
    """
    return any(
        not any(entry.repository.startswith(f"{host}/") for entry in known.get(blob.identity, ()))
        for blob in blobs
        if blob.stored is None or (asked and blob.is_layer)
    )


def pairs(target: Target, reference: Reference, key: bytes) -> list[Entry]:
    """Entries for the layers of what lies under a reference; none where nothing does.

    `key` is that of the accounts' HMAC. An answer that makes no sense teaches nothing. Raises
    AuthError and NetworkError: then the push itself has no hope.
    """
    repository = target.repository
    if reference.repository != repository.name:
        client = target.resources.client
        repository = client.repository(reference.repository, context=target.context)
    try:
        return _pairs(target, repository, reference.target, key)
    except (RegistryError, ValueError):
        return []


def _pairs(target: Target, repository: Repository, tag: str, key: bytes) -> list[Entry]:
    if (digest := _digest(target, repository, tag)) is None:
        return []
    found = []
    for manifest in _manifests(target, repository, digest):
        config = _config(target, repository, manifest)
        found += [
            _taught(diff_id, layer, repository, repository.account_mac(key, layer.digest))
            for diff_id, layer in fitting(manifest, config)
        ]
    return found


def _digest(target: Target, repository: Repository, tag: str) -> Digest | None:
    """HEAD first: a manifest that is read counts as a pull where pulls are limited."""
    if repository.name == target.repository.name:
        return if_exists.seen(target, tag)
    head = target.retry("the manifest", partial(repository.head_manifest, tag, target.context))
    return head.digest if head else None


def _manifests(target: Target, repository: Repository, digest: Digest) -> Iterable[Manifest]:
    raw = target.retry("the manifest", partial(repository.get_manifest, digest, target.context))
    if raw is None:
        return
    parsed = manifests.parse(raw.content, raw.media_type)
    if isinstance(parsed, manifests.Manifest):
        yield parsed
        return
    images = [one for one in parsed.manifests if not one.platform or one.platform.known]
    for child in images[:_MOST_CHILDREN]:
        if child.media_type in media_types.IMAGES:
            yield from _manifests(target, repository, child.digest)


def _config(target: Target, repository: Repository, manifest: Manifest) -> configs.ImageConfig:
    read_blob = partial(repository.read_blob, manifest.config.digest, target.context)
    return configs.parse(target.retry("the config", partial(read_blob, configs.MAX_SIZE)))


def fitting(manifest: Manifest, config: configs.ImageConfig) -> Sequence[tuple[Digest, Descriptor]]:
    """DiffIDs with their blobs, all or none: one out of place makes all of them doubtful."""
    counts = {len(manifest.layers), len(config.diff_ids)}
    if config.filled:
        counts.add(sum(config.filled))
    known = all(media_types.layer_compression(layer.media_type) for layer in manifest.layers)
    if len(counts) > 1 or not known:
        return []
    return list(zip(config.diff_ids, manifest.layers, strict=True))


def _taught(diff_id: Digest, layer: Descriptor, repository: Repository, account: str) -> Entry:
    return Entry(
        diff_id=diff_id,
        digest=layer.digest,
        size=layer.size,
        media_type=layer.media_type,
        compression=media_types.layer_compression(layer.media_type) or "none",
        profile=None,
        repository=str(repository.name),
        account=account,
        learned=True,
        seen=time.time(),
    )
