"""What a push begins with: its targets, what is to go to each, and what needs no push at all."""

from __future__ import annotations

from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, NamedTuple

from towline.context import Meter
from towline.push import copying, settled
from towline.push.content.source_images import Opened, registry_reference, trees
from towline.push.image import Gatherer, images
from towline.push.interface import destinations, options
from towline.push.manifests import build
from towline.push.target import target_at
from towline.push.target_push import TargetPush

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from towline.context import Context
    from towline.errors import SourceError
    from towline.push.content.assembling import Assembled
    from towline.push.content.source_images import Wanted
    from towline.push.image import Tree
    from towline.push.interface.options import Wish
    from towline.push.interface.result import TagOutcome
    from towline.push.resources import Resources
    from towline.push.target import Target
    from towline.reference import Reference, RepositoryName
    from towline.spec.digest import Digest


class Begun(NamedTuple):
    """A push that has begun."""

    early: dict[Reference, TagOutcome]
    """What was settled before the source was read."""
    runs: list[TargetPush]
    """One for each repository, over trees that share their blobs."""
    broken: dict[Reference, SourceError]
    """Images that cannot be read, of several."""


def begin(
    resources: Resources,
    opened: Opened | Assembled,
    wanted: Wanted,
    wish: Wish,
    context: Context,
    *,
    begun: Mapping[RepositoryName, Target],
) -> Begun:
    """Settle what can be settled at once, and describe the rest.

    `begun` are targets that there are already. What the source's registry is asked
    counts for the first of the targets.
    """
    early: dict[Reference, TagOutcome] = {}
    places = destinations.by_repository(wanted)
    targets = {name: begun.get(name) or target_at(resources, name, context) for name in places}
    if opened.origin:
        first = next(iter(targets.values()))
        first.context, first.costs = opened.context, opened.costs
    if wish.omit_from:
        _omit(resources, [*targets.values()], wish, context)
    if opened.origin:
        for name, tags in places.items():
            early |= settled.settled(targets[name], tags, wanted, wish)
        wanted = {tag: entry for tag, entry in wanted.items() if tag not in early}
        opened.read_ahead(wanted.values())
    gatherer = Gatherer(wish.profile, recompress=wish.explicit_profile)
    found, broken = trees(wanted, gatherer)
    for tree in found.values():
        check(tree, wish)
    left = destinations.by_repository(found)
    for name, tags in left.items():
        target = targets[name]
        target.tags = copying.fitting(name, ((each, found[each]) for each in tags))
        for entry in dict.fromkeys(wanted[reference] for reference, _ in target.tags):
            for warning in entry.warnings:
                target.warn(warning)
    remaining = [targets[name] for name in left]
    _tell_hosts(remaining, wish)
    if wish.referrers:
        from towline.push.content import referring  # which most have no need of

        referring.attach(remaining, opened, gatherer)
    opened.charge(remaining)
    agreed: dict[Tree, tuple[str, Digest]] = {}
    runs = [TargetPush(target, wish, agreed) for target in remaining]
    return Begun(early, runs, broken)


def _omit(resources: Resources, targets: Sequence[Target], wish: Wish, context: Context) -> None:
    """Have archives go without the layers that are where they will be pushed to."""
    omitted: set[Digest] = set()
    plain = options.wish({})
    for source in wish.omit_from:
        reference = registry_reference(source)
        spelled = f"docker://{reference}" if reference else source
        counted = context.but(meter=Meter())
        with (
            closing(Opened(spelled, resources, counted, wish=plain)) as opened,
            copying.sides_named() if opened.origin else nullcontext(),
        ):
            omitted |= opened.layers()
            targets[0].context.meter.add(requests=counted.meter.requests)
    for target in targets:
        if target.layout:
            target.layout.omitted = omitted


def check(tree: Tree, wish: Wish) -> None:
    """Mark what is annotated; raises UsageError for what no manifest can say as it is wanted."""
    if wish.annotations:
        from towline.push.interface.annotations import mark  # which most have no need of

        mark(tree, wish.annotations)
    for image in images(tree):
        build.check(image, build.preferred(image, wish.format, wish.profile), wish.profile)
    if wish.preserve_digests:
        build.check_preserved(tree, wish.format)


def _tell_hosts(targets: Sequence[Target], wish: Wish) -> None:
    """What the targets are to know of the hosts of all."""
    hosts = {target.repository.name.host for target in targets}
    for lesson in wish.cache_from:
        if targets and lesson.repository.host not in hosts:
            targets[0].warn(f"nothing is learned from {lesson}: no destination is there")
    for target in targets:
        target.alone = len(hosts) == 1
