"""The calls that write nothing: what a push would do, what an image is, which digest it has."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from towline.errors import RegistryError, TowlineError
from towline.events import Working
from towline.findings import (
    InspectedLayer,
    InspectResult,
    ManifestResult,
    PlannedLayer,
    PlanResult,
)
from towline.layers.blobstream import BlobStream
from towline.push import reporting
from towline.push.begin import Begun, check
from towline.push.image import Blob, Gatherer, Index, Layer, Tree, images, nowhere, tree_blobs
from towline.push.manifests import build
from towline.push.pipeline import early
from towline.push.plan import Ask, Delivered, Made, Mount, Send, Step, own, there
from towline.spec import manifest as manifests
from towline.spec import media_types, reading
from towline.spec.manifest import MAX_SIZE, RawManifest, parse_config

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from towline.context import Context
    from towline.findings import TagPlan
    from towline.push.interface.options import Wish
    from towline.push.resources import Resources
    from towline.push.source_images import Opened
    from towline.push.target import Target, TargetPush
    from towline.reference import Reference
    from towline.sources.base import SourceEntry
    from towline.sources.image_source import ImageSource
    from towline.spec.descriptor import Descriptor, Platform
    from towline.spec.digest import Digest


# What a push would do: the same plan, walked without writing.


def estimate(begun: Begun, *, check: bool) -> dict[Reference, TagPlan]:
    """The plan for each tag of a push that has begun, or the error of its questions.

    `check`: find out whether a push would be let in.
    """
    planned: dict[Reference, TagPlan] = dict(begun.broken)
    for target in begun.targets:
        planned |= _unchanged(target)
    for target in begun.unsettled:
        try:
            if check and not target.layout:
                # Nothing else tells whether a push is let in.
                target.retry("an upload", target.registry.start_upload, target.context).cancel()
            planned |= _estimate(target)
        except TowlineError as error:
            planned |= dict.fromkeys((tag for tag, _ in target.tags), error)
    return planned


def prepared(plan: TagPlan, source: ImageSource) -> TagPlan:
    """The plan, with a warning of what the source would have to do first."""
    if isinstance(plan, TowlineError) or plan.status != "pushed":
        return plan
    message = source.preparation(plan.send_bytes)
    return replace(plan, warnings=(*plan.warnings, message)) if message else plan


def _estimate(target: TargetPush) -> dict[Reference, TagPlan]:
    over = early(target)
    for limit in target.repository.facts.limits():
        target.warn(f"{target.repository.name.host} takes {limit}")
    if over:
        return _unchanged(target)
    found = {blob.key: _walk(target, blob, steps) for blob, steps in target.plans.items()}
    held = {
        blob.key: _held(target, blob)
        for blob in target.plans
        if blob.held and ((there := found[blob.key]) is None or there.outcome == "pushed")
    }
    reporting.leave_staying(target)
    planned = _unchanged(target)
    for tag, tree in target.due:
        missing = [blob for blob in tree_blobs([tree]) if not blob.held and not found[blob.key]]
        if missing:
            planned[tag] = nowhere(missing, target.repository.name)
        else:
            planned[tag] = _result(target, tag, tree, found=found, held=held)
    return planned


def _unchanged(target: TargetPush) -> dict[Reference, TagPlan]:
    """The plans for the tags of a target that would be left as they are."""
    planned: dict[Reference, TagPlan] = {}
    for tag, outcome in target.outcomes.items():
        if isinstance(outcome, TowlineError):
            planned[tag] = outcome
            continue
        told = {name: getattr(outcome, name) for name in outcome.__dataclass_fields__}
        told["layers"] = tuple(PlannedLayer(**layer.as_dict()) for layer in outcome.layers)
        told["warnings"] = tuple(target.warnings)
        planned[tag] = PlanResult(**told, resumable=target.repository.facts.resumes)
    return planned


def _walk(target: TargetPush, blob: Blob, steps: tuple[Step, ...]) -> Delivered | None:
    """The outcome that a blob would have; None: it would be compressed and sent."""
    for step in steps:
        match step:
            case Ask(candidate):
                # As in a push: of a registry only the cache's size has to be checked, not that of
                # our source.
                size = None if blob.stored and not target.layout else candidate.size
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


def _held(target: TargetPush, blob: Blob) -> int:
    """Bytes of an earlier process's upload that a push would resume."""
    unfinished = target.resources.unfinished
    kept = unfinished.of(blob, target.repository, target.wish.profile, learn=target.wish.learn)
    with suppress(TowlineError):
        return kept.held(target.context) if kept else 0
    return 0


def _result(
    target: TargetPush,
    reference: Reference,
    tree: Tree,
    *,
    found: Mapping[str, Delivered | None],
    held: Mapping[str, int],
) -> PlanResult:
    wish = target.wish
    made = {key: delivered.made for key, delivered in found.items() if delivered}
    outlined = any(image.source.outline for image in images(tree))
    whole = not outlined and all(blob.key in made for blob in tree.blobs)
    documents = build.documents(tree, made, wish.format) if whole else None
    digest = documents.top.digest if documents else None
    stands = digest and target.seen.get(reference.tag or "") == digest
    send_bytes = sum(
        (come.sent_bytes if (come := found[blob.key]) else blob.size) - held.get(blob.key, 0)
        for blob in tree_blobs(target.with_referrers(reference, tree))
    )
    unbuilt = build.media_type(tree, wish.format, wish.profile)
    return PlanResult(
        reference=str(reference),
        tag=reference.tag,
        digest=digest,
        size=documents.top.size if documents else None,
        media_type=documents.top.media_type if documents else unbuilt,
        status="unchanged" if stands else "pushed",
        layers=_planned_layers(tree, found, held, wish.profile.name),
        manifests=reporting.manifests(tree, documents) if documents else (),
        digest_differs=documents.differs if documents else None,
        learned_from=reporting.learned_from(target, tree, found),
        warnings=tuple(target.warnings),
        resumable=target.repository.facts.resumes,
        send_bytes=send_bytes,
        seconds_estimate=target.repository.facts.seconds(send_bytes),
        **target.costs.share()._asdict(),
    )


def _planned_layers(
    tree: Tree,
    found: Mapping[str, Delivered | None],
    held: Mapping[str, int],
    profile: str,
) -> tuple[PlannedLayer, ...]:
    """The layers of a push that was only planned. One that would be compressed has no digest yet.

    `held`: by blob keys, the bytes of unfinished uploads that the push would resume. `profile`: its
    name.
    """
    known = {key: delivered for key, delivered in found.items() if delivered}
    results: list[PlannedLayer] = []
    for layer in dict.fromkeys(layer for image in images(tree) for layer in image.layers):
        if isinstance(layer, Blob) and layer.key not in known:
            planned = PlannedLayer(
                layer.diff_id, None, None, "pushed", profile, plain_size=layer.size
            )
        else:
            there = reporting.layer_result(layer, known)
            planned = PlannedLayer(**{**there.as_dict(), "sent_bytes": 0})
        if isinstance(layer, Blob) and held.get(layer.key):
            planned = replace(planned, outcome="resumed")
        results.append(planned)
    return tuple(results)


# What an image is.


def inspect_local(opened: Opened, wish: Wish) -> InspectResult:
    """An image of an archive or a layout; or the names, if there are several."""
    name = opened.name
    if names := opened.names():
        return InspectResult(name, None, None, None, None, None, images=names)
    tree = Gatherer(wish.profile).tree(opened.entry().content)
    raw = tree.source.manifest
    if isinstance(tree, Index):
        return _inspected(name, raw, children=tree.source.descriptors)
    return _inspected(
        name,
        raw,
        config=_config(tree.source.config),
        platform=_platform(tree.source.platform),
        layers=tuple(_layer(layer) for layer in tree.layers),
    )


def _layer(layer: Layer) -> InspectedLayer:
    if not isinstance(layer, Blob):
        return InspectedLayer(layer.digest, layer.size, layer.media_type, None)
    stored = layer.stored
    media_type = stored.media_type if stored else media_types.DOCKER_LAYER
    size = layer.size if layer.held else layer.size or None
    return InspectedLayer(stored.digest if stored else None, size, media_type, layer.diff_id)


def inspect_remote(reference: Reference, target: Target) -> InspectResult:
    """An image or index of a registry. Raises RegistryError where there is none."""
    raw = target.existing_manifest(reference)
    try:
        parsed = manifests.parse(raw.content, raw.media_type)
    except ValueError as error:
        raise RegistryError(f"what is at {reference} cannot be read: {error}") from None
    if isinstance(parsed, manifests.Index):
        return _inspected(str(reference), raw, children=parsed.manifests)
    read_blob, digest = target.repository.read_blob, parsed.config.digest
    content = target.retry("the config", read_blob, digest, target.context, MAX_SIZE)
    diff_ids: Sequence[Digest | None] = ()
    platform = None
    with suppress(ValueError):  # an artifact: its config is no image config
        config = parse_config(content)
        diff_ids, platform = config.diff_ids, _platform(config.platform)
    # An artifact again, or an image that is damaged: nothing says which DiffID is which layer's.
    if len(diff_ids) != len(parsed.layers):
        diff_ids = [None] * len(parsed.layers)
    return _inspected(
        str(reference),
        raw,
        config=_config(content),
        platform=platform,
        layers=tuple(
            InspectedLayer(layer.digest, layer.size, layer.media_type, diff_id)
            for layer, diff_id in zip(parsed.layers, diff_ids, strict=True)
        ),
    )


def _inspected(
    name: str,
    raw: RawManifest | None,
    *,
    config: dict[str, Any] | None = None,
    platform: str | None = None,
    layers: tuple[InspectedLayer, ...] = (),
    children: Sequence[Descriptor] = (),
) -> InspectResult:
    return InspectResult(
        reference=name,
        digest=raw.digest if raw else None,
        media_type=raw.media_type if raw else None,
        size=raw.size if raw else None,
        config=config,
        platform=platform,
        layers=layers,
        manifests=tuple(
            ManifestResult(each.digest, each.media_type, _platform(each.platform), each.size)
            for each in children
        ),
    )


def _platform(platform: Platform | None) -> str | None:
    return str(platform or "") or None


def _config(content: bytes) -> dict[str, Any] | None:
    try:
        document = reading.document(content)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def local_digest(resources: Resources, entry: SourceEntry, wish: Wish, context: Context) -> Digest:
    """The digest that a push with these options to an empty registry would have.

    Layers are compressed where a push would do so, and dropped.
    """
    tree: Tree = Gatherer(wish.profile, recompress=wish.explicit_profile).tree(entry.content)
    check(tree, wish)
    made = {blob.key: _make(resources, blob, wish, context) for blob in dict.fromkeys(tree.blobs)}
    return build.documents(tree, made, wish.format).top.digest


def _make(resources: Resources, blob: Blob, wish: Wish, context: Context) -> Made:
    if blob.stored is not None:
        return own(blob)
    stream = BlobStream(blob.open(), wish.profile, resources.encoders, context.cancel)
    what = f"compressing {blob.id}"
    for _ in stream:
        context.emit(Working(reference="", what=what, current=stream.position, total=blob.size))
    blob.check(stream.blob.digest, stream.blob.diff_id)
    return Made(stream.blob.digest, stream.blob.size, wish.profile.compression)
