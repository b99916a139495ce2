"""Estimates what a push would do: the same plan, walked without writing (`towline plan`)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from towline.errors import TowlineError
from towline.push import reporting
from towline.push.image import Blob, images, nowhere, tree_blobs
from towline.push.interface.result import PlannedLayer, PlanResult
from towline.push.manifests import build
from towline.push.plan import Ask, Mount, Send, own, there

if TYPE_CHECKING:
    from collections.abc import Mapping

    from towline.layers.profile import Profile
    from towline.push.begin import Begun
    from towline.push.image import Tree
    from towline.push.interface.options import Wish
    from towline.push.interface.result import TagPlan
    from towline.push.manifests.build import Documents
    from towline.push.pipeline import TargetPush
    from towline.push.plan import Delivered, Step
    from towline.push.reporting import Outcomes
    from towline.push.target import Target
    from towline.reference import Reference


def estimate(begun: Begun, *, check: bool) -> dict[Reference, TagPlan]:
    """The plan for each tag of a push that has begun, or the error of its questions.

    `check`: find out whether a push would be let in.
    """
    planned: dict[Reference, TagPlan] = dict(begun.broken)
    for outcomes in begun.outcomes:
        planned |= _unchanged(outcomes)
    for run in begun.runs:
        try:
            if check and not run.target.layout:
                # Nothing else tells whether a push is let in.
                repository, context = run.target.registry, run.target.context
                run.target.retry("an upload", repository.start_upload, context).cancel()
            planned |= _estimate(run)
        except TowlineError as error:
            planned |= dict.fromkeys((tag for tag, _ in run.target.tags), error)
    return planned


def _estimate(run: TargetPush) -> dict[Reference, TagPlan]:
    early = run.early()
    for limit in run.target.repository.facts.limits():
        run.target.warn(f"{run.target.repository.name.host} takes {limit}")
    if early:
        return _unchanged(run.outcomes)
    found = {blob.key: _walk(run.target, blob, steps) for blob, steps in run.plans.items()}
    held = {
        blob.key: _held(run.target, blob)
        for blob in run.plans
        if blob.held and ((there := found[blob.key]) is None or there.outcome == "pushed")
    }
    for tag, standing in run.kept.items():
        run.outcomes.left_alone(tag, standing)
    planned = _unchanged(run.outcomes)
    for tag, tree in run.left:
        missing = [blob for blob in tree_blobs([tree]) if not blob.held and not found[blob.key]]
        if missing:
            planned[tag] = nowhere(missing, run.target.repository.name)
        else:
            planned[tag] = _result(run, tag, tree, found=found, held=held)
    return planned


def _unchanged(outcomes: Outcomes) -> dict[Reference, TagPlan]:
    """The plans for the tags of a target that would be left as they are."""
    target = outcomes.target
    planned: dict[Reference, TagPlan] = {}
    for tag, outcome in outcomes.by_tag.items():
        if isinstance(outcome, TowlineError):
            planned[tag] = outcome
            continue
        told = {name: getattr(outcome, name) for name in outcome.__dataclass_fields__}
        told["layers"] = tuple(PlannedLayer(**layer.as_dict()) for layer in outcome.layers)
        told["warnings"] = tuple(target.warnings)
        planned[tag] = PlanResult(**told, resumable=target.repository.facts.resumes)
    return planned


def _walk(target: Target, blob: Blob, steps: tuple[Step, ...]) -> Delivered | None:
    """The outcome that a blob would have; None: it would be compressed and sent."""
    for step in steps:
        match step:
            case Ask(candidate):
                # As in a push: only the cache's size has to be checked, not that of our source.
                size = None if blob.stored else candidate.size
                has_blob, digest = target.repository.has_blob, candidate.digest
                if target.retry(blob.id, has_blob, digest, target.context, size=size):
                    return there(blob, candidate)
            case Mount(candidate, origin):
                found = there(blob, candidate)
                return found._replace(outcome="mounted", mounted_from=origin.path)
            case Send() if blob.label is not None:
                made = own(blob)
                return there(blob, made)._replace(outcome="pushed", sent_bytes=made.size)
    return None


def _held(target: Target, blob: Blob) -> int:
    """Bytes of an earlier process's upload that a push would resume."""
    unfinished = target.resources.unfinished
    kept = unfinished.of(blob, target.repository, target.wish.profile, learn=target.wish.learn)
    with suppress(TowlineError):
        return kept.held(target.context) if kept else 0
    return 0


def _result(
    run: TargetPush,
    reference: Reference,
    tree: Tree,
    *,
    found: Mapping[str, Delivered | None],
    held: Mapping[str, int],
) -> PlanResult:
    wish = run.target.wish
    documents = _documents(tree, found, wish)
    digest = documents.top.digest if documents else None
    stands = digest and run.target.seen.get(reference.tag or "") == digest
    send_bytes = sum(
        (come.sent_bytes if (come := found[blob.key]) else blob.size) - held.get(blob.key, 0)
        for blob in tree_blobs([tree])
    )
    unbuilt = build.media_type(tree, wish.format, wish.profile)
    return PlanResult(
        reference=str(reference),
        tag=reference.tag,
        digest=digest,
        size=documents.top.size if documents else None,
        media_type=documents.top.media_type if documents else unbuilt,
        status="unchanged" if stands else "pushed",
        layers=_layers(tree, found, held, wish.profile),
        manifests=reporting.manifests(tree, documents) if documents else (),
        digest_differs=documents.differs if documents else None,
        learned_from=reporting.learned_from(run.target, tree, found),
        warnings=tuple(run.target.warnings),
        resumable=run.target.repository.facts.resumes,
        send_bytes=send_bytes,
        seconds_estimate=run.target.repository.facts.seconds(send_bytes),
        **run.target.costs.share()._asdict(),
    )


def _layers(
    tree: Tree,
    found: Mapping[str, Delivered | None],
    held: Mapping[str, int],
    profile: Profile,
) -> tuple[PlannedLayer, ...]:
    """The layers of a push that was only planned. One that would be compressed has no digest yet.

    `held`: by blob keys, the bytes of unfinished uploads that the push would resume.
    """
    known = {key: delivered for key, delivered in found.items() if delivered}
    results: list[PlannedLayer] = []
    for layer in dict.fromkeys(layer for image in images(tree) for layer in image.layers):
        if isinstance(layer, Blob) and layer.key not in known:
            planned_layer = PlannedLayer(
                layer.diff_id, None, None, "pushed", profile.name, plain_size=layer.size
            )
        else:
            there = reporting.layer_result(layer, known)
            planned_layer = PlannedLayer(**{**there.as_dict(), "sent_bytes": 0})
        if isinstance(layer, Blob) and held.get(layer.key):
            planned_layer = replace(planned_layer, outcome="resumed")
        results.append(planned_layer)
    return tuple(results)


def _documents(tree: Tree, found: Mapping[str, Delivered | None], wish: Wish) -> Documents | None:
    if any(image.source.outline for image in images(tree)):
        return None
    made = {key: delivered.made for key, delivered in found.items() if delivered}
    if any(blob.key not in made for blob in tree.blobs):
        return None
    return build.documents(tree, made, wish.format)
