"""The reports of a push: its events while it runs, and the outcome of each tag, told once final."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import TowlineError, TransferCancelled
from towline.layers.profile import AUTO
from towline.push.image import Blob, Index, Layer, Tree, images, tree_blobs
from towline.push.target import Cost, TargetPush
from towline.push_events import LayerProgress, PushStarted, Summary, TagPushed
from towline.results import LayerResult, PushResult
from towline.spec import media_types
from towline.spec.manifest import RawManifest, parse

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from towline.findings import ManifestResult, Verification
    from towline.push.manifests.build import Documents
    from towline.push.plan import Delivered
    from towline.reference import Reference
    from towline.results import Status, TagOutcome
    from towline.spec.descriptor import Descriptor


def tell_started(target: TargetPush) -> None:
    """Tell the repository, docker's first line, unless it was told."""
    if not target.started:
        target.started = True
        repository = str(target.repository.name)
        target.context.emit(PushStarted(reference=target.reference, repository=repository))


def announce(target: TargetPush) -> None:
    """Announce the layers, the top one first, in docker's words; not those that are there."""
    tell_started(target)
    for tree in dict.fromkeys(tree for _, tree in target.tags):
        for layer in (layer for image in images(tree) for layer in reversed(image.layers)):
            if not isinstance(layer, Blob):
                tell_layer(target, layer.digest.short, "Skipped foreign layer")
            elif layer.key not in target.delivered:
                tell_layer(target, layer.id, "Preparing", layer.size)


def tell_layer(target: TargetPush, shown: str, status: str, total: int | None = None) -> None:
    """Tell a layer's state; `shown` is its id."""
    event = LayerProgress(reference=target.reference, id=shown, status=status, total=total)
    target.context.emit(event)


class Placed(NamedTuple):
    """The manifests that are under a tag in the end."""

    documents: Documents
    status: Status
    verified: Verification | None = None


def leave_tag(
    target: TargetPush,
    reference: Reference,
    standing: Descriptor | TowlineError,
    status: Status = "skipped",
) -> None:
    """Note a tag that needs nothing more, by what is under it or by the error of its push."""
    if isinstance(standing, TowlineError):
        target.outcomes[reference] = standing
    else:
        result = target.outcomes[reference] = _result(target, reference, standing, status)
        _tell_tag(target, result, 0)


def leave_staying(target: TargetPush) -> None:
    """Note the tags that are not written."""
    for reference, standing in target.staying.items():
        leave_tag(target, reference, standing)


def place_tag(target: TargetPush, reference: Reference, tree: Tree, placed: Placed) -> None:
    """Note a tag that holds the image; it is told once that is final."""
    documents, status, verified = placed
    _compare(target, reference, tree, documents)
    if verified:
        from towline.events import Verified  # which most have no need of

        target.context.emit(Verified(reference=str(reference), **verified.as_dict()))
    target.outcomes[reference] = replace(
        _result(target, reference, documents.top, status),
        layers=_layers(target, tree),
        manifests=manifests(tree, documents),
        digest_differs=documents.differs,
        learned_from=learned_from(target, tree, target.delivered),
        verified=verified,
    )
    _tell_reused(target, reference, tree)
    keys = {blob.key for blob in tree_blobs(target.with_referrers(reference, tree))}
    # One of a referrer's may have failed.
    there = keys & target.delivered.keys()
    target.untold[reference] = sum(target.delivered[key].made.size for key in there)
    # Referrers follow, and an archive is still to be written: until then it is not final.
    if not target.referrers and not (target.layout and target.layout.begun):
        tell_placed(target)


def tell_placed(target: TargetPush) -> None:
    """Tell the tags that are in place."""
    for reference, total_bytes in target.untold.items():
        if isinstance(outcome := target.outcomes[reference], PushResult):
            _tell_tag(target, outcome, total_bytes)
    target.untold.clear()


def _tell_tag(target: TargetPush, result: PushResult, total_bytes: int) -> None:
    """Tell a tag that is in place, and what it cost."""
    emit, reference = target.context.emit, result.reference
    emit(TagPushed(reference=reference, tag=result.tag, digest=result.digest, size=result.size))
    cost = Cost(result.sent_bytes, result.requests, result.seconds)
    emit(Summary(reference=reference, total_bytes=total_bytes, **cost._asdict()))


def _result(
    target: TargetPush, reference: Reference, standing: Descriptor | RawManifest, status: Status
) -> PushResult:
    """The result of a tag with the manifest `standing` under it, without its layers."""
    tag = reference.tag
    return PushResult(
        reference=str(reference if tag else reference._replace(digest=standing.digest)),
        tag=tag,
        digest=standing.digest,
        size=standing.size,
        media_type=standing.media_type,
        status=status,
        warnings=tuple(target.warnings),
        **target.costs.share()._asdict(),
    )


def charge(target: TargetPush, reference: Reference) -> None:
    """Add the costs and warnings since the last tag to this one."""
    result, cost = target.outcomes[reference], target.costs.share()
    if isinstance(result, PushResult):
        target.outcomes[reference] = replace(
            result,
            warnings=tuple(target.warnings),
            sent_bytes=result.sent_bytes + cost.sent_bytes,
            requests=result.requests + cost.requests,
            seconds=result.seconds + cost.seconds,
        )


def _compare(target: TargetPush, reference: Reference, tree: Tree, documents: Documents) -> None:
    """Warn if another target of the push has another digest of the same image."""
    # Signed schema 1 names its repository and tag, so that its digests always differ.
    if documents.top.media_type == media_types.SCHEMA1_SIGNED:
        return
    mine = (str(reference), documents.top.digest)
    other, digest = target.agreed.setdefault(tree, mine)
    if digest != mine[1]:
        target.warn(
            f"{reference} has the digest {mine[1]}, {other} has {digest}: "
            "the same image, of layers that were compressed in different ways"
        )


def _tell_reused(target: TargetPush, reference: Reference, tree: Tree) -> None:
    """Tell which layers are used in another compression than the profile's."""
    profile = target.wish.profile
    others: dict[str | None, dict[str, None]] = {}
    for blob in tree.blobs:
        found = target.delivered[blob.key]
        wanted = profile is AUTO or found.made.compression == profile.compression
        if found.label == "reused" and not wanted:
            others.setdefault(found.made.compression, {})[blob.id] = None
    for compression, ids in others.items():
        what = f"used as the registry holds them, in {compression}: {', '.join(ids)}"
        target.note(f"not compressed with {profile.name} but {what}", str(reference))


def _layers(target: TargetPush, tree: Tree) -> tuple[LayerResult, ...]:
    """The results of an image's layers, in its manifest's order; of an index each layer once.

    A layer that is listed twice was sent once: its bytes count in the first place.
    """
    told = target.costs.layers
    listed = [layer for image in images(tree) for layer in image.layers]
    results = []
    for layer in dict.fromkeys(listed) if isinstance(tree, Index) else listed:
        result = layer_result(layer, target.delivered)
        results.append(replace(result, sent_bytes=0) if layer in told else result)
        told.add(layer)
    return tuple(results)


def layer_result(layer: Layer, delivered: Mapping[str, Delivered]) -> LayerResult:
    """The result of one layer; a foreign one stays where it is."""
    if not isinstance(layer, Blob):
        return LayerResult(None, layer.digest, layer.size, "skipped", "source")
    found = delivered[layer.key]
    return LayerResult(
        diff_id=layer.diff_id,
        digest=found.made.digest,
        size=found.made.size,
        outcome=found.outcome,
        compression=found.label,
        mounted_from=found.mounted_from,
        sent_bytes=found.sent_bytes,
    )


def manifests(tree: Tree, documents: Documents) -> tuple[ManifestResult, ...]:
    """The results of an index's children; empty for an image."""
    if not isinstance(tree, Index):
        return ()
    from towline.findings import ManifestResult  # which most have no need of

    listed = parse(documents.top.content, documents.top.media_type)
    return tuple(
        ManifestResult(each.digest, each.media_type, _platform(child, each), each.size)
        for child, each in zip(tree.children, getattr(listed, "manifests", ()), strict=True)
    )


def _platform(child: Tree, listed: Descriptor) -> str | None:
    if isinstance(child, Index):
        return str(listed.platform) if listed.platform else None
    return str(child.source.platform) or None


def learned_from(
    target: TargetPush, tree: Tree, found: Mapping[str, Delivered | None]
) -> str | None:
    """The reference that has taught the lowest of the layers that need not be sent."""
    for blob in tree_blobs([tree]):
        there, teacher = found.get(blob.key), target.teachers.get(blob.identity)
        if there and teacher and there.outcome in {"exists", "mounted"}:
            return str(teacher)
    return None


def check_untouched(
    references: Iterable[Reference],
    targets: Sequence[TargetPush],
    ended: Mapping[Reference, TagOutcome],
) -> None:
    """Raise TransferCancelled naming the tags that a cancelled push has written, if there are any.

    Tags that may have been written are named as well.
    """
    done = {tag for tag, outcome in ended.items() if isinstance(outcome, PushResult)}
    in_place = done.union(*(target.written for target in targets))
    in_doubt = {tag for target in targets for tag in target.in_doubt} - in_place
    if not in_place and not in_doubt:
        return
    wanted = list(references)
    said = ["the push was cancelled"]
    if in_place:
        said.append(f"{_listed(wanted, in_place)} {'is' if len(in_place) == 1 else 'are'} in place")
    if in_doubt:
        said.append(f"{_listed(wanted, in_doubt)} may have been written")
    told = wanted if done else []
    results, names = [ended.get(tag) for tag in told], [str(tag) for tag in told]
    raise TransferCancelled("; ".join(said), results=results, references=names)


def _listed(wanted: Iterable[Reference], some: Container[Reference]) -> str:
    return ", ".join(str(tag) for tag in wanted if tag in some)
