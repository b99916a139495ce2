"""The order of things in a push to several targets: one plan, one read, each to its own end."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from towline.push import build, learn, plan
from towline.push.passes import Passes
from towline.push.plan import Rules
from towline.push.wanted import images

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from towline.knowledge.base import Entry
    from towline.push.engine import Engine
    from towline.push.options import Wish
    from towline.push.run import Outcome, Run
    from towline.push.wanted import Blob
    from towline.spec.digest import Digest
    from towline.spec.media_types import Format

T = TypeVar("T")


def push(engine: Engine, runs: Sequence[Run], wish: Wish) -> list[list[Outcome]]:
    """Carry out the runs of one push; for each an outcome for each of its tags.

    Raises Cancelled, and what has nothing to do with any one target.
    """
    blobs = prepare(engine, runs, wish)
    done = dict(zip(runs, _each(runs, lambda run: run.early()), strict=True))
    left = [run for run in runs if not done[run]]
    passes = Passes(engine, wish)
    _start(passes, left, blobs)
    done.update(zip(left, _each(left, lambda run: run.finish(passes.start)), strict=True))
    return [done[run] for run in runs]


def prepare(engine: Engine, runs: Sequence[Run], wish: Wish) -> Mapping[Blob, None]:
    """Announce, learn and plan; every blob once. Nothing is written."""
    for run in runs:
        run.announce()
    blobs = dict.fromkeys(blob for run in runs for blob in run.blobs)
    known = learn.known(engine.knowledge, blobs)
    taught = [entry for found in _each(runs, lambda run: run.learn(known)) for entry in found]
    if taught:
        engine.knowledge.record(taught)
        known = learn.merged(known, taught)
    rules = _rules(runs, known, wish)
    for run in runs:
        run.plan(known, rules)
    return blobs


def _start(passes: Passes, runs: Sequence[Run], blobs: Mapping[Blob, None]) -> None:
    """Begin every blob at every target, the largest first: they take the longest."""
    for blob in sorted(blobs, key=lambda blob: -blob.size):
        jobs = [job for run in runs if blob in run.blobs and (job := run.join(blob))]
        if jobs:
            passes.start(jobs)


def _rules(runs: Sequence[Run], known: Mapping[Digest, Sequence[Entry]], wish: Wish) -> Rules:
    hosts = frozenset(run.target.repository.name.host for run in runs)
    return Rules(
        profile=wish.profile,
        explicit=wish.explicit_profile,
        formats=_formats(runs, wish),
        everywhere=plan.common(known.values(), hosts) if len(runs) > 1 else None,
    )


def _formats(runs: Sequence[Run], wish: Wish) -> frozenset[Format]:
    trees = dict.fromkeys(tree for run in runs for _, tree in run.target.tags)
    return frozenset(
        build.preferred(image, wish.format, wish.profile)
        for tree in trees
        for image in images(tree)
    )


def _each(runs: Sequence[Run], step: Callable[[Run], T]) -> list[T]:
    """The step for every run, side by side; one alone needs no thread."""
    if len(runs) <= 1:
        return [step(run) for run in runs]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(runs), "towline-target") as threads:
        return list(threads.map(step, runs))
