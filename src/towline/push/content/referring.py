"""Manifests that refer to the images of a push: signatures, SBOMs, attestations.

The source is asked for them, for an index and for its images, and for those that refer to them in
turn. Each is pushed with its subject, and put after it. If the user does not want them they are
counted, so that nobody misses them later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.errors import TowlineError
from towline.events import Note
from towline.push.image import Index
from towline.push.target import Referral
from towline.reference import Reference
from towline.spec.descriptor import is_attestation
from towline.spec.digest import Digest
from towline.spec.manifest import parse

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from towline.push.content.source_images import Assembled, Opened
    from towline.push.image import Gatherer, Tree
    from towline.push.target import Target
    from towline.sources.base import Referrer

_DEPTH = 4
"""Levels of signatures of signatures, and so on; real ones have two."""


def attach(targets: Sequence[Target], opened: Opened | Assembled, gatherer: Gatherer) -> None:
    """Give each target the referrers of its images that are not listed there yet.

    Raises SourceError, and the source's registry's errors.
    """
    trees = dict.fromkeys(tree for target in targets for _, tree in target.tags)
    own = {reference for target in targets for reference, _ in target.tags}
    found = [
        (each, gatherer.tree(each.read()))
        for each in _found(opened, _subjects(trees), patient=True)
    ]
    sound = [(each, tree) for each, tree in found if _refers(each, tree)]
    for target in targets:
        missing = list(_missing(target, sound))
        target.referrers = tuple(each for each in missing if each.reference not in own)


def left_behind(targets: Sequence[Target], opened: Opened | Assembled) -> int:
    """The number of referrers, as far as it is known at the first try."""
    trees = dict.fromkeys(tree for target in targets for _, tree in target.tags)
    tags = {reference.tag for target in targets for reference, _ in target.tags}
    try:
        found = _found(opened, _subjects(trees), patient=False)
    except TowlineError:
        return 0
    return sum(each.tag not in tags or each.tag is None for each in found)


def tell(target: Target, count: int) -> None:
    """Tell how many referrers were left behind."""
    one = count == 1
    what = f"{count} that {'refers' if one else 'refer'} to it, such as a signature, "
    message = f"{what}{'was' if one else 'were'} left behind: `referrers=True` takes them along"
    target.context.emit(Note(reference=target.reference, message=message))


def _subjects(trees: Iterable[Tree]) -> list[Digest]:
    """Manifests that may have referrers: those of the source, without attestations."""
    return list(dict.fromkeys(digest for tree in trees for digest in _came(tree)))


def _came(tree: Tree) -> Iterator[Digest]:
    if tree.source.manifest:
        yield tree.source.manifest.digest
    if isinstance(tree, Index):
        for child, listed in zip(tree.children, tree.source.descriptors, strict=True):
            if not is_attestation(listed):
                yield from _came(child)


def _found(
    opened: Opened | Assembled, subjects: Collection[Digest], *, patient: bool
) -> list[Referrer]:
    """All referrers of these subjects, and the referrers of those; subjects come first.

    `patient`: questions that fail are asked again.
    """
    found: dict[tuple[Digest, str | None], Referrer] = {}
    seen = set(subjects)
    level = subjects
    for _ in range(_DEPTH):
        new = [
            each
            for each in (opened.referrers(level, patient=patient) if level else ())
            # Some registries read a tag as a digest, and list an index's own images (oras#1728).
            if each.listed.digest not in seen
        ]
        found |= {(each.listed.digest, each.tag): each for each in new}
        level = [each.listed.digest for each in new if each.tag is None]
        seen.update(level)
    return list(found.values())


def _refers(each: Referrer, tree: Tree) -> bool:
    """Whether a manifest refers to the subject under which it is listed: a list may be wrong."""
    raw = tree.source.manifest
    if each.tag or raw is None:
        return raw is not None
    subject = parse(raw.content, raw.media_type).subject
    return subject is not None and subject.digest == each.subject


def _missing(target: Target, found: Iterable[tuple[Referrer, Tree]]) -> Iterator[Referral]:
    """The referrers that a target lacks, each with the tag that has its subject."""
    name = target.repository.name
    # Reversed, so that of several tags with one manifest the first counts.
    tag_of = {digest: tag for tag, tree in reversed(target.tags) for digest in _came(tree)}
    there: dict[str, Collection[Digest]] = {}
    for each, tree in found:
        digest = each.listed.digest
        if (main := tag_of.get(each.subject)) is None:
            continue
        tag_of.setdefault(digest, main)
        where = each.tag or each.subject
        if where not in there:
            there[where] = _there(target, where)
        if digest not in there[where]:
            reference = Reference(name, each.tag, None if each.tag else digest)
            yield Referral(reference, tree, each.subject, main)


def _there(target: Target, where: str) -> Collection[Digest]:
    """The manifest under a tag at the target, or the listed referrers of a digest.

    Empty after an error: then a referrer is put again.
    """
    context = target.context
    try:
        if not isinstance(where, Digest):
            found = target.head_manifest(where)
            return (found.digest,) if found else ()
        if target.layout:
            return ()
        ask = target.registry.referrers
        return {each.digest for each in target.retry("what refers to it", ask, where, context)}
    except TowlineError:
        return ()
