"""The beginning of a push: its targets, tags that stay, what goes to each and what refers to it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from towline.context import Cancel, Meter
from towline.errors import RegistryError, SourceError, TowlineError, UsageError
from towline.push.image import Gatherer, Index, Tree, images
from towline.push.interface import destinations, options
from towline.push.manifests import build, tagged
from towline.push.pipeline import meet
from towline.push.reporting import announce, leave_tag
from towline.push.source_images import Opened, Wanted, describe, opening
from towline.push.target import Costs, Referral, Target, TargetPush
from towline.reference import Reference, RepositoryName
from towline.spec.descriptor import Descriptor, is_attestation
from towline.spec.digest import Digest
from towline.spec.manifest import parse
from towline.transfers.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from towline.context import Context
    from towline.push.interface.options import Annotations, Wish
    from towline.results import Status, TagOutcome
    from towline.sources.base import Referrer, SourceEntry

_DEPTH = 4
"""Levels of signatures of signatures, and so on; real ones have two."""


class Begun(NamedTuple):
    """A push that has begun."""

    targets: list[TargetPush]
    """One for each repository; tags that were settled already have an outcome."""
    broken: dict[Reference, SourceError | RegistryError]
    """The errors of images that cannot be read, if there are several images."""

    @property
    def unsettled(self) -> list[TargetPush]:
        """Those that have other tags; their trees share blobs."""
        return [target for target in self.targets if target.tags]

    @property
    def ended(self) -> dict[Reference, TagOutcome]:
        """The outcome of each tag whose push has ended."""
        found: dict[Reference, TagOutcome] = dict(self.broken)
        for target in self.targets:
            found |= target.outcomes
        return found


def begin(
    opened: Opened,
    wanted: Wanted,
    context: Context,
    *,
    ahead: Mapping[RepositoryName, TargetPush],
) -> Begun:
    """Settle the tags that need nothing more, and describe what goes under the others.

    `ahead`: the targets, if blobs of the source were sent to them already. Raises SourceError,
    UsageError, and a registry's errors.
    """
    wish, places = opened.wish, destinations.by_repository(wanted)
    targets = ahead or targets_of(opened, places, context)
    for target in targets.values():
        target.origins = opened.source.near_origins
    if wish.omit_from:
        _omit(opened, [*targets.values()], context)
    if opened.source.origin:
        where = {
            targets[name]: {tag: _place(tag, wanted[tag]) for tag in tags}
            for name, tags in places.items()
        }
        for target, looked in _look(where, context).items():
            _settle(target, looked, wanted)
        settled = {tag for target in targets.values() for tag in target.outcomes}
        wanted = {tag: entry for tag, entry in wanted.items() if tag not in settled}
        opened.source.read_ahead(wanted.values())
    gatherer = Gatherer(wish.profile, recompress=wish.explicit_profile)
    found, broken = describe(wanted, gatherer)
    for tree in found.values():
        check(tree, wish)
    left = destinations.by_repository(found)
    for name, target in targets.items():
        target.tags = _fitting(name, ((tag, found[tag]) for tag in left.get(name, ())))
        target.staying = {}  # of what was sent ahead
        for tag, _ in target.tags:
            for warning in wanted[tag].content.warnings:
                target.warn(warning)
    begun = Begun([*targets.values()], broken)
    _tell_hosts(begun.unsettled, wish)
    if wish.referrers:
        _attach_referrers(begun.unsettled, opened, gatherer)
    opened.charge(begun.unsettled)
    return begun


def targets_of(
    opened: Opened, names: Iterable[RepositoryName], context: Context
) -> dict[RepositoryName, TargetPush]:
    """The targets of a push. Requests to the source's registry count for the first of them."""
    targets: dict[RepositoryName, TargetPush] = {}
    agreed: dict[Tree, tuple[str, Digest]] = {}
    for name in names:
        theirs = opened.source.origin and not targets
        costs = opened.costs if theirs else Costs(context.but(meter=Meter()))
        targets[name] = TargetPush(opened.resources, name, costs, opened.wish, agreed)
    return targets


def _look(
    where: Mapping[TargetPush, Mapping[Reference, str]], context: Context
) -> Mapping[TargetPush, Mapping[Reference, Descriptor | TowlineError | None]]:
    """Look at the tags of all targets, side by side: see `Target.look_at_all`.

    A target that is late is not among them: the push itself looks at its tags. Raises Cancelled.
    """
    if len(where) == 1:
        return {target: target.look_at_all(tags) for target, tags in where.items()}
    stop, threads = Cancel(), Threads(len(where), "towline-looking")
    looking = {}
    try:
        with context.cancel.on_cancel(stop.cancel):
            for target, tags in where.items():
                at = Target(target.resources, target.repository, target.context.but(cancel=stop))
                looking[target] = threads.submit(partial(at.look_at_all, tags))
            come, _ = meet(looking, lambda *_: True)
    finally:  # of a late one no thread is waited for: its login may be long in coming
        stop.cancel()
        threads.close()
    return come


def _settle(
    target: TargetPush,
    looked: Mapping[Reference, Descriptor | TowlineError | None],
    wanted: Wanted,
) -> None:
    """Settle tags of a target before the image is read: a HEAD at the source and one here.

    Where both name the same digest, or the destination has a tag that stays, nothing else is
    requested: at Docker Hub a GET of a manifest counts as a pull.
    """
    wish, rule = target.wish, target.wish.if_exists
    settled: dict[Reference, tuple[Descriptor | TowlineError, Status]] = {}
    for tag, standing in looked.items():
        if isinstance(standing, TowlineError):
            settled[tag] = standing, "skipped"
            continue
        target.seen[_place(tag, wanted[tag])] = standing.digest if standing else None
        if not (standing and (known := wanted[tag].known)):
            continue
        if tag.tag and rule in {"skip", "fail"}:
            try:
                settled[tag] = tagged.stays(target, tag, standing, rule), "skipped"
            except RegistryError as error:
                settled[tag] = error, "skipped"
        elif wish.as_it_is and standing.digest == known.digest:
            settled[tag] = standing, "unchanged"
    if target.layout and target.layout.whole and len(settled) < len(looked):
        return  # an archive is written with all of its tags
    if len(settled) == len(looked):
        announce(target)
    for tag, (standing, status) in settled.items():
        leave_tag(target, tag, standing, status)


def _place(tag: Reference, entry: SourceEntry) -> str:
    """The tag, or the digest under which an image at a registry goes without one."""
    # With a tag the source's answer to its own HEAD is not waited for here.
    return tag.tag or (entry.known.digest if entry.known else "")


def _fitting(
    name: RepositoryName, tags: Iterable[tuple[Reference, Tree]]
) -> tuple[tuple[Reference, Tree], ...]:
    """The tree for each tag: a docker archive holds images, and no indexes.

    Raises SourceError for an index of several images, and for an artifact.
    """
    if not name.host.startswith("docker-archive:"):
        return tuple(tags)
    fitting = []
    for reference, tree in tags:
        found = [image for image in images(tree) if image.source.platform.known]
        if not found:
            raise SourceError(f"{reference} is to be one image, and the source is none")
        if len(found) > 1:
            platforms = ", ".join(str(image.source.platform) for image in found)
            raise SourceError(
                f"{reference} is to be one image, and the source has {len(found)}: {platforms}",
                hint=f"choose one: `platform='{found[0].source.platform}'`",
            )
        fitting.append((reference, found[0]))
    return tuple(fitting)


def _omit(opened: Opened, targets: Sequence[TargetPush], context: Context) -> None:
    """Have archives leave out the layers that the images of `omit_from` have."""
    omitted: set[Digest] = set()
    plain = options.wish({})
    for source in opened.wish.omit_from:
        where = destinations.looked_at(source)
        with opening(where, opened.resources, context, wish=plain) as base:
            omitted |= base.layers()
            targets[0].context.meter.add(requests=base.costs.context.meter.requests)
    for target in targets:
        if target.layout:
            target.layout.omitted = omitted


def check(tree: Tree, wish: Wish) -> None:
    """Note a tree's annotations. Raises UsageError for what its manifests cannot hold."""
    if wish.annotations:
        _annotate(tree, wish.annotations)
    for image in images(tree):
        build.check(image, build.preferred(image, wish.format, wish.profile), wish.profile)
    if wish.preserve_digests:
        build.check_preserved(tree, wish.format)


def _annotate(tree: Tree, wanted: Annotations) -> None:
    """Note in each part of a tree what its document is to have.

    Raises UsageError where an index is to be annotated, and there is none.
    """
    if not isinstance(tree, Index):
        if wanted.indexes:
            raise UsageError(
                "there is no index to annotate: what is pushed is one image",
                hint="leave `index:` out",
            )
        tree.annotations = {**wanted.images, **wanted.top}
        return
    tree.annotations = {**wanted.indexes, **wanted.top}
    for image in images(tree):
        if image.source.platform.known:  # what stands beside an image says what it is itself
            image.annotations = wanted.images


def _tell_hosts(targets: Sequence[TargetPush], wish: Wish) -> None:
    """Tell each target whether it is alone, and warn of a `cache_from` at no target's host."""
    hosts = {target.repository.name.host for target in targets}
    for lesson in wish.cache_from:
        if targets and lesson.repository.host not in hosts:
            targets[0].warn(f"nothing is learned from {lesson}: no destination is there")
    for target in targets:
        target.alone = len(hosts) == 1


# What refers to the images: signatures, SBOMs, attestations. The source is asked for it, of an
# index and of its images, and for what refers to that in turn.


def _attach_referrers(targets: Sequence[TargetPush], opened: Opened, gatherer: Gatherer) -> None:
    """Give each target the referrers of its images that are not listed there yet.

    Raises SourceError, and the source's registry's errors.
    """
    own = {reference for target in targets for reference, _ in target.tags}
    found = _found(targets, opened, patient=True)
    read = [(each, gatherer.tree(each.read())) for each in found]
    sound = [(each, tree) for each, tree in read if _refers(each, tree)]
    for target in targets:
        missing = _missing(target, sound)
        target.referrers = tuple(each for each in missing if each.reference not in own)
    _warn_of_cut_indexes(targets, opened, gatherer)


def _warn_of_cut_indexes(targets: Sequence[TargetPush], opened: Opened, gatherer: Gatherer) -> None:
    """Warn where something refers to an index of which some platforms alone are pushed."""
    tags = [(target, tree) for target in targets for _, tree in target.tags]
    cut = [(target, whole) for target, tree in tags if (whole := tree.source.part_of)]
    subjects = list(dict.fromkeys(whole for _, whole in cut))
    theirs = opened.source.referrers(subjects, patient=True) if subjects else ()
    found = {each.subject for each in theirs if _refers(each, gatherer.tree(each.read()))}
    for target, whole in cut:
        if whole in found:
            target.warn_of_referrers(whole)


def left_behind(targets: Sequence[TargetPush], opened: Opened) -> int:
    """The number of referrers that stay where they are, as far as it is known at the first try."""
    if opened.wish.referrers:
        return 0
    tags = {reference.tag for target in targets for reference, _ in target.tags}
    try:
        found = _found(targets, opened, patient=False)
    except TowlineError:
        return 0
    return sum(each.tag not in tags or each.tag is None for each in found)


def tell_left_behind(target: TargetPush, count: int) -> None:
    """Tell how many referrers were left behind."""
    refers, was = ("refers", "was") if count == 1 else ("refer", "were")
    target.note(
        f"{count} that {refers} to it, such as a signature, {was} left behind: "
        "`referrers=True` takes them along"
    )


def _came(tree: Tree) -> Iterator[Digest]:
    """Manifests that may have referrers: those of the source, without attestations."""
    if tree.source.manifest:
        yield tree.source.manifest.digest
    if isinstance(tree, Index):
        for child, listed in zip(tree.children, tree.source.descriptors, strict=True):
            if not is_attestation(listed):
                yield from _came(child)


def _found(targets: Sequence[TargetPush], opened: Opened, *, patient: bool) -> list[Referrer]:
    """All referrers of what is pushed, and the referrers of those; subjects come first.

    `patient`: questions that fail are asked again.
    """
    trees = dict.fromkeys(tree for target in targets for _, tree in target.tags)
    level = list(dict.fromkeys(digest for tree in trees for digest in _came(tree)))
    found: dict[tuple[Digest, str | None], Referrer] = {}
    seen = set(level)
    for _ in range(_DEPTH):
        new = [
            each
            for each in (opened.source.referrers(level, patient=patient) if level else ())
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


def _missing(target: TargetPush, found: Iterable[tuple[Referrer, Tree]]) -> Iterator[Referral]:
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


def _there(target: TargetPush, where: str) -> Collection[Digest]:
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
