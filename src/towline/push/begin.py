"""What a push begins with: connections, its targets, what goes to each, and what needs no push."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, NamedTuple

from towline.context import SLICE, Cancel
from towline.errors import Cancelled, SourceError, TowlineError
from towline.push.content.source_images import Opened, opening, registry_reference
from towline.push.image import Gatherer, images
from towline.push.interface import copying, destinations, options
from towline.push.manifests import build
from towline.push.target import target_at
from towline.push.target_push import TargetPush

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from towline.context import Context
    from towline.push.content.assembling import Assembled
    from towline.push.content.source_images import Wanted
    from towline.push.image import Tree
    from towline.push.interface.options import Wish
    from towline.push.interface.result import TagOutcome
    from towline.push.resources import Resources
    from towline.push.target import Target
    from towline.reference import Reference, RepositoryName
    from towline.sources.base import SourceEntry
    from towline.spec.digest import Digest


_LONGEST = 1.0
"""Seconds to wait for a connection under way, rather than to open another."""


@contextmanager
def connecting(
    resources: Resources, names: Iterable[RepositoryName], context: Context
) -> Iterator[Callable[[], None]]:
    """Connect to each host while the source is opened; what is given waits for a single one.

    Nothing is asked: what the push does not need is not requested, and what fails here the first
    question finds out once more, and tells. At the end of the block what is still under way is
    given up.
    """
    cancel = Cancel()
    threads = []
    for host in {name.host for name in names if name.is_at_registry}:
        connect = partial(_connect, resources, host, context.but(cancel=cancel))
        thread = Thread(target=connect, name="towline-connecting", daemon=True)
        with suppress(RuntimeError):  # no thread is to be had
            thread.start()
            threads.append(thread)

    def wait() -> None:
        until = time.monotonic() + _LONGEST
        while len(threads) == 1 and threads[0].is_alive() and time.monotonic() < until:
            threads[0].join(SLICE)
            context.cancel.check()

    try:
        yield wait
    finally:
        cancel.cancel()
        for thread in threads:
            thread.join(_LONGEST)


def _connect(resources: Resources, host: str, context: Context) -> None:
    with suppress(TowlineError, Cancelled):
        resources.client.connect(host, context)


class Begun(NamedTuple):
    """A push that has begun."""

    early: dict[Reference, TagOutcome]
    """What was settled before the source was read."""
    runs: list[TargetPush]
    """One for each repository, over trees that share their blobs."""
    broken: dict[Reference, SourceError]
    """Images that cannot be read, of several."""

    @property
    def outcomes(self) -> dict[Reference, TagOutcome]:
        """What came of each tag that has come to its end."""
        ended = {tag: outcome for run in self.runs for tag, outcome in run.outcomes.by_tag.items()}
        return self.early | ended | self.broken


def begin(
    resources: Resources,
    opened: Opened | Assembled,
    wanted: Wanted,
    wish: Wish,
    context: Context,
    *,
    passed: Mapping[RepositoryName, Target],
) -> Begun:
    """Settle what can be settled at once, and describe the rest.

    `passed` are targets that have got blobs already. What the source's registry is asked counts
    for the first of the targets.
    """
    wish = opened.taught(wish)
    early: dict[Reference, TagOutcome] = {}
    places = destinations.by_repository(wanted)
    targets = {name: passed.get(name) or target_at(resources, name, context) for name in places}
    if opened.origin:
        first = next(iter(targets.values()))
        first.context, first.costs = opened.context, opened.costs
    if wish.omit_from:
        _omit(resources, [*targets.values()], wish, context)
    if opened.origin:
        from towline.push import settled  # which most have no need of

        for name, tags in places.items():
            early |= settled.settled(targets[name], tags, wanted, wish)
        wanted = {tag: entry for tag, entry in wanted.items() if tag not in early}
        opened.read_ahead(wanted.values())
    gatherer = Gatherer(wish.profile, recompress=wish.explicit_profile)
    found, broken = _trees(wanted, gatherer)
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


def _trees(
    wanted: Wanted, gatherer: Gatherer
) -> tuple[dict[Reference, Tree], dict[Reference, SourceError]]:
    """What goes under each destination; and of several images those that cannot be read, and why.

    Raises SourceError where there is one image alone.
    """
    found: dict[SourceEntry, Tree | SourceError] = {}
    for entry in dict.fromkeys(wanted.values()):
        try:
            found[entry] = gatherer.tree(entry.content)
        except SourceError as error:
            found[entry] = error
    readable: dict[Reference, Tree] = {}
    broken: dict[Reference, SourceError] = {}
    for reference, entry in wanted.items():
        tree = found[entry]
        if not isinstance(tree, SourceError):
            readable[reference] = tree
        elif len(found) == 1:
            raise tree
        else:
            broken[reference] = _unreadable(reference, entry, tree)
    return readable, broken


def _unreadable(reference: Reference, entry: SourceEntry, error: SourceError) -> SourceError:
    tag = str(reference.tag)
    name = next((name for name in entry.names if name.endswith(f":{tag}")), tag)
    said = f"could not find image from tag {name}: {error.message}"
    return SourceError(said, hint=error.hint)


def _omit(resources: Resources, targets: Sequence[Target], wish: Wish, context: Context) -> None:
    """Have archives go without the layers that are where they will be pushed to."""
    omitted: set[Digest] = set()
    plain = options.wish({})
    for source in wish.omit_from:
        reference = registry_reference(source)
        spelled = f"docker://{reference}" if reference else source
        with opening(spelled, resources, context, wish=plain) as opened:
            omitted |= opened.layers()
            targets[0].context.meter.add(requests=opened.context.meter.requests)
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
