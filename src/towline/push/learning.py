"""Learns from a registry which blobs it has of layers that nothing is known of.

A manifest lists blobs, and its config lists DiffIDs in the same order. So a machine that has never
pushed finds out which blobs of its layers the registry has. Such pairs can be trusted as far as
whoever may write to that repository: they are used at that registry host alone, marked `learned`,
and dropped, all of them, where manifest and config do not fit together.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from towline.errors import RegistryError, TowlineError
from towline.push.image import Tree, images, tree_blobs
from towline.push.plan import Made, shared
from towline.push.target import entry_of
from towline.reference import HUB, LATEST, Reference
from towline.spec import distribution, media_types
from towline.spec import manifest as manifests
from towline.spec.manifest import MAX_SIZE, ImageConfig, Manifest, parse_config

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from towline.knowledge.base import Entry
    from towline.push.target import TargetPush
    from towline.registry.repository import Repository
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest
    from towline.targets.layout import Layout

_MOST_CHILDREN = 16
"""Images of one index that are read; each takes two requests."""
_MOST_GUESSES = 2
"""Similar tags that are tried; each takes three requests."""
_LISTED_AFTER = 16
"""Absent tags that are looked at one by one before all tags of the repository are listed."""


def learn(target: TargetPush, unknown: set[Digest]) -> list[Entry]:
    """What the registry teaches of layers with these DiffIDs, which are unknown at the host.

    Asked are the tags that are due, then where the image has been before, then what `cache_from`
    names or, where a tag is absent, a similar tag; no more once nothing is left to learn. Documents
    that make no sense teach nothing. Raises AuthError and NetworkError, with which the push itself
    would fail.
    """
    learner, absent = _Learner(target, unknown), 0
    for reference, tree in target.due:
        if reference.tag and not learner.wanted.isdisjoint(_diff_ids([tree])):
            learner.ask(reference)
            if target.seen.get(reference.tag) is None:
                absent += 1
                if absent == _LISTED_AFTER:
                    _note_absent(target)
    for reference in (*target.origins, *target.wish.cache_from):
        if reference.repository.host == target.repository.name.host:
            learner.ask(reference)
    if learner.wanted and not target.wish.cache_from:
        _guess(learner)
    return learner.entries


def _diff_ids(trees: Iterable[Tree]) -> set[Digest]:
    return {blob.identity for blob in tree_blobs(trees)}


def _note_absent(target: TargetPush) -> None:
    """Note which of the tags are absent by a list of all: each would cost a HEAD.

    A tag that is there, and that an old list lacks, teaches nothing and is written without a look.
    That is what `overwrite` wants; under any other rule each tag was looked at before.
    """
    tags = target.due
    if target.layout:
        return
    pages = max(1, len(tags) // _LISTED_AFTER)
    try:
        there = frozenset(target.registry.tags(target.context, pages=pages))
    except TowlineError as error:
        # A list that is refused, or too long, says nothing of our tags; no repository, all.
        if not (isinstance(error, RegistryError) and error.code == distribution.NAME_UNKNOWN):
            return
        there = frozenset()
    absent = (tag for reference, _ in tags if (tag := reference.tag) and tag not in there)
    target.seen = {**dict.fromkeys(absent), **target.seen}


def _guess(learner: _Learner) -> None:
    """Where a tag is absent, learn from another one: `latest`, else similar tags.

    An error ends the guessing, and nothing else.
    """
    target = learner.target
    absent = [
        (reference, tree)
        for reference, tree in target.due
        if reference.tag is None or target.first_seen(reference.tag) is None
    ]
    layers = _diff_ids(tree for _, tree in absent) & learner.wanted
    if not layers:
        return
    place = absent[0][0]
    own = {reference.tag for reference, _ in target.tags}
    try:
        # The Hub counts each GET of a manifest as a pull: no more than `latest` is read there, and
        # no index, which takes more.
        at_hub = place.repository.host == HUB
        latest = None if LATEST in own else target.look(LATEST)
        if latest and not (at_hub and latest.media_type in media_types.INDEXES):
            learner.ask(place.with_tag(LATEST))
        if layers <= learner.wanted and not at_hub:
            there = target.repository.some_tags(target.context)
            others = [tag for tag in there if tag not in own and tag != LATEST]
            for tag in alike(place.tag or LATEST, others)[:_MOST_GUESSES]:
                learner.ask(place.with_tag(tag))
    except TowlineError:
        return


class _Learner:
    """Asks one reference after another, as long as something is left to learn."""

    def __init__(self, target: TargetPush, wanted: set[Digest]) -> None:
        self.target = target
        self.wanted = wanted
        """DiffIDs that nothing is known of yet."""
        self.entries: list[Entry] = []
        """What was learned, each blob of a layer once."""
        tags = target.due
        self._own = dict(tags)
        ours = [image for _, tree in tags for image in images(tree)]
        self._platforms = {image.source.platform[:2] for image in ours}
        # What is there already of the images themselves need not be read from there.
        self._configs = {image.config.identity: image.source.config for image in ours}
        sources = [*(image.source for image in ours), *(tree.source for _, tree in tags)]
        self._raws = {each.manifest.digest: each.manifest for each in sources if each.manifest}
        self._read: set[Digest] = set()
        """Manifests that were read: several tags may hold the same one."""
        self._pairs: set[tuple[Digest, Digest, str]] = set()

    def ask(self, reference: Reference) -> None:
        """Learn from the manifest under a reference. Raises AuthError and NetworkError."""
        if not self.wanted:
            return
        target, repository = self.target, self.target.repository
        if reference.repository != repository.name:
            client = target.resources.client
            repository = client.repository(reference.repository, context=target.context)
        entries: list[Entry] = []
        found: set[Digest] = set()
        try:
            if digest := self._digest(repository, reference.target):
                for manifest in self._manifests(repository, digest):
                    entries += self._entries(repository, manifest)
                    found |= self.wanted & {entry.diff_id for entry in entries}
                    self.wanted -= found
        except (RegistryError, ValueError):
            self.wanted |= found
            return
        if found:
            target.teachers |= dict.fromkeys(found, reference)
            if reference not in self._own:
                layers = "1 layer is" if len(found) == 1 else f"{len(found)} layers are"
                target.note(f"{layers} known from {reference}")
        for entry in entries:  # a thousand tags may share a layer
            pair = (entry.diff_id, entry.digest, entry.repository)
            if pair not in self._pairs:
                self._pairs.add(pair)
                self.entries.append(entry)

    def _digest(self, repository: Repository | Layout, tag: str) -> Digest | None:
        """The digest under a tag, by HEAD: at Docker Hub a GET of a manifest counts as a pull."""
        target = self.target
        if repository.name == target.repository.name:
            return target.first_seen(tag)
        head = target.retry("the manifest", repository.head_manifest, tag, target.context)
        return head.digest if head else None

    def _manifests(self, repository: Repository | Layout, digest: Digest) -> Iterator[Manifest]:
        """The image manifest of that digest, or those of an index, while something is wanted."""
        if digest in self._read or not self.wanted:
            return
        self._read.add(digest)
        raw = self._raws.get(digest)
        if raw is None:
            context = self.target.context
            raw = self.target.retry("the manifest", repository.get_manifest, digest, context)
        if raw is None:
            return
        parsed = manifests.parse(raw.content, raw.media_type)
        if isinstance(parsed, manifests.Manifest):
            yield parsed
            return
        # The images of the platforms that are pushed or, if there are none, all images. Not every
        # index names platforms; attestations have the platform `unknown`.
        found = [
            child
            for child in parsed.manifests
            if child.media_type in media_types.IMAGES
            and (child.platform is None or child.platform.known)
        ]
        ours = [one for one in found if one.platform and one.platform[:2] in self._platforms]
        for child in (ours or found)[:_MOST_CHILDREN]:
            yield from self._manifests(repository, child.digest)

    def _entries(self, repository: Repository | Layout, manifest: Manifest) -> list[Entry]:
        target, digest = self.target, manifest.config.digest
        content = self._configs.get(digest)
        if content is None:
            read_blob = repository.read_blob
            content = target.retry("the config", read_blob, digest, target.context, MAX_SIZE)
        config = parse_config(content)
        key = target.resources.knowledge.account_key()
        pairs = fitting(manifest, config)
        if pairs and digest in self._configs:  # which can be mounted with the layers
            pairs = [*pairs, (digest, manifest.config)]
        entries = []
        for identity, listed in pairs:
            compression = media_types.layer_compression(listed.media_type)
            made = Made(listed.digest, listed.size, compression, learned=True)
            entries.append(entry_of(identity, made, listed.media_type, repository, key))
        return entries


def fitting(manifest: Manifest, config: ImageConfig) -> Sequence[tuple[Digest, Descriptor]]:
    """Each DiffID with its blob; none if the counts differ, as any of them may be out of place."""
    counts = {len(manifest.layers), len(config.diff_ids)}
    if config.filled:
        counts.add(sum(config.filled))
    known = all(media_types.layer_compression(layer.media_type) for layer in manifest.layers)
    if len(counts) > 1 or not known:
        return []
    return list(zip(config.diff_ids, manifest.layers, strict=True))


_HASH = re.compile(r"(?=.*\d)(?=.*[a-f])[0-9a-f]{7,64}")
"""The hash of a commit, whole or short."""
_BESIDE = re.compile(r"sha256-[0-9a-f]{64}.*")
"""Tags of signatures and lists of referrers."""
_TRUNKS = frozenset({("main",), ("master",), ("edge",)})


def alike(tag: str, others: Iterable[str]) -> list[str]:
    """The other tags of a repository, that first whose image probably shares the most layers.

    First are tags with the same words, then with the same leading numbers, then with the highest
    version. Tags with a hash are last, as it does not tell their age; if `tag` itself has a hash,
    the trunk (`main`, `master`, `edge`) is first.
    """
    own_words, own_numbers, own_hashed = _parts(tag)

    def rank(place: int, other: str) -> tuple[object, ...]:
        words, numbers, hashed = _parts(other)
        trunk = words in _TRUNKS
        return (
            not hashed,
            trunk and own_hashed,
            words == own_words,
            trunk,
            shared(numbers, own_numbers),
            not words,
            numbers,
            place,  # many list the newest last
        )

    images = [other for other in others if not _BESIDE.fullmatch(other)]
    ranked = sorted((rank(place, other), other) for place, other in enumerate(images))
    return [other for _, other in reversed(ranked)]


def _parts(tag: str) -> tuple[tuple[str, ...], tuple[float, ...], bool]:
    """A tag's words, its numbers, and whether it has the hash of a commit.

    `v1.10-alpine` has the word `alpine`, and the numbers 1 and 10.
    """
    words, numbers, hashed = [], [], False
    for part in re.split(r"[._-]", tag.lower()):
        if _HASH.fullmatch(part):
            hashed = True
            continue
        for piece in re.findall(r"\d+|\D+", part):
            if piece.isdecimal():
                numbers.append(float(piece))
            elif piece == LATEST:
                numbers.append(float("inf"))
            elif piece != "v":
                words.append(piece)
    return tuple(words), tuple(numbers), hashed
