"""What a registry itself can teach: the layers of an image that it holds, by DiffID.

A manifest lists blobs and its config lists DiffIDs, in the same order. So a machine that has
never pushed finds out which blobs of its layers the registry has. Such pairs are as good as
whoever may write to that repository: they never leave its registry host, are marked `learned`,
and are dropped whole where manifest and config do not fit together.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from towline.errors import RegistryError
from towline.knowledge.base import Entry
from towline.push import existing
from towline.spec import config as configs
from towline.spec import manifest as manifests
from towline.spec import media_types

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from towline.push.target import Target
    from towline.push.wanted import Blob
    from towline.reference import Reference
    from towline.registry.repository import Repository
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest
    from towline.spec.manifest import Manifest

_MOST_CHILDREN = 16
"""Images of one index that are looked into; each costs two reads."""


def wanted(
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
        client = target.engine.client
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
            _entry(diff_id, layer, repository, repository.account_mac(key, layer.digest))
            for diff_id, layer in fitting(manifest, config)
        ]
    return found


def _digest(target: Target, repository: Repository, tag: str) -> Digest | None:
    """HEAD first: a manifest that is read counts as a pull where pulls are limited."""
    if repository.name == target.repository.name:
        return existing.seen(target, tag)
    head = target.retry(tag, partial(repository.head_manifest, tag, target.context))
    return head.digest if head else None


def _manifests(target: Target, repository: Repository, digest: Digest) -> Iterable[Manifest]:
    raw = target.retry(digest.short, partial(repository.get_manifest, digest, target.context))
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
    return configs.parse(target.retry("config", partial(read_blob, configs.MAX_SIZE)))


def fitting(manifest: Manifest, config: configs.ImageConfig) -> Sequence[tuple[Digest, Descriptor]]:
    """DiffIDs with their blobs, all or none: one out of place makes all of them doubtful."""
    counts = {len(manifest.layers), len(config.diff_ids)}
    if config.filled:
        counts.add(sum(config.filled))
    known = all(media_types.layer_compression(layer.media_type) for layer in manifest.layers)
    if len(counts) > 1 or not known:
        return []
    return list(zip(config.diff_ids, manifest.layers, strict=True))


def _entry(diff_id: Digest, layer: Descriptor, repository: Repository, account: str) -> Entry:
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
