"""The reports of a push: its events while it runs, and the fields of its results."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from towline.errors import TransferCancelled
from towline.events import LayerProgress, Note, PushStarted, Summary, TagPushed, Verified
from towline.layers.profile import AUTO
from towline.push.image import Blob, Index, images, tree_blobs
from towline.push.interface.result import LayerResult, ManifestResult, PlannedLayer, PushResult
from towline.spec.manifest import parse

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from towline.layers.profile import Profile
    from towline.push.image import Layer, Tree
    from towline.push.interface.result import Status, TagOutcome, Verification
    from towline.push.manifests.build import Documents
    from towline.push.plan import Delivered
    from towline.push.target import Cost, Target
    from towline.reference import Reference
    from towline.spec.descriptor import Descriptor
    from towline.spec.manifest import RawManifest


def layers(
    tree: Tree, delivered: Mapping[str, Delivered], told: set[Layer]
) -> tuple[LayerResult, ...]:
    """The results of an image's layers, in its manifest's order; of an index each layer once.

    A layer that is listed twice was sent once: its bytes count in the first place. `told` has the
    layers that have counted, and is added to.
    """
    listed = [layer for image in images(tree) for layer in image.layers]
    if isinstance(tree, Index):
        listed = list(dict.fromkeys(listed))
    results = []
    for layer in listed:
        result = _layer(layer, delivered)
        results.append(replace(result, sent_bytes=0) if layer in told else result)
        told.add(layer)
    return tuple(results)


def _layer(layer: Layer, delivered: Mapping[str, Delivered]) -> LayerResult:
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


def planned(
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
            planned_layer = PlannedLayer(**{**_layer(layer, known).as_dict(), "sent_bytes": 0})
        if isinstance(layer, Blob) and held.get(layer.key):
            planned_layer = replace(planned_layer, outcome="resumed")
        results.append(planned_layer)
    return tuple(results)


Left = Literal["skipped", "unchanged"]


def as_it_stands(
    target: Target,
    reference: Reference,
    standing: Descriptor | RawManifest,
    status: Status,
    cost: Cost,
) -> PushResult:
    """The result of a tag with the manifest `standing` under it, without its layers."""
    return PushResult(
        reference=str(reference if reference.tag else reference._replace(digest=standing.digest)),
        tag=reference.tag,
        digest=standing.digest,
        size=standing.size,
        media_type=standing.media_type,
        status=status,
        warnings=tuple(target.warnings),
        **cost._asdict(),
    )


def manifests(tree: Tree, documents: Documents) -> tuple[ManifestResult, ...]:
    """The results of an index's children; empty for an image."""
    if not isinstance(tree, Index):
        return ()
    listed = parse(documents.top.content, documents.top.media_type)
    return tuple(
        ManifestResult(each.digest, each.media_type, _platform(child, each), each.size)
        for child, each in zip(tree.children, getattr(listed, "manifests", ()), strict=True)
    )


def _platform(child: Tree, listed: Descriptor) -> str | None:
    if isinstance(child, Index):
        return str(listed.platform) if listed.platform else None
    return str(child.source.platform) or None


def learned_from(target: Target, tree: Tree, found: Mapping[str, Delivered | None]) -> str | None:
    """The reference that has taught the lowest of the layers that need not be sent."""
    for blob in tree_blobs([tree]):
        there, teacher = found.get(blob.key), target.teachers.get(blob.identity)
        if there and teacher and there.outcome in {"exists", "mounted"}:
            return str(teacher)
    return None


def total_bytes(tree: Tree, delivered: Mapping[str, Delivered]) -> int:
    """Bytes of all blobs of a tree, as they are stored at the destination."""
    return sum(delivered[key].made.size for key in {blob.key for blob in tree.blobs})


def check_untouched(
    references: Iterable[Reference],
    targets: Sequence[Target],
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
    results = [ended.get(tag) for tag in wanted] if done else []
    names = [str(tag) for tag in wanted] if done else []
    raise TransferCancelled("; ".join(said), results=results, references=names)


def _listed(wanted: Iterable[Reference], some: Container[Reference]) -> str:
    return ", ".join(str(tag) for tag in wanted if tag in some)


class Telling:
    """Emits the events of one target, with docker's words in docker's order."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def started(self) -> None:
        """Tell the repository, docker's first line."""
        target = self._target
        repository = str(target.repository.name)
        target.context.emit(PushStarted(reference=target.reference, repository=repository))

    def announce(self, passed: Container[str] | None = None) -> None:
        """Announce the layers, the top one first; not those that have `passed` already."""
        target = self._target
        if passed is None:
            self.started()
        for tree in dict.fromkeys(tree for _, tree in target.tags):
            for layer in (layer for image in images(tree) for layer in reversed(image.layers)):
                if isinstance(layer, Blob):
                    if passed is None or layer.key not in passed:
                        self.layer(layer.id, "Preparing", layer.size)
                else:
                    self.layer(layer.digest.short, "Skipped foreign layer")

    def layer(self, shown: str, status: str, total: int | None = None) -> None:
        """Tell a layer's state; `shown` is its id."""
        reference = self._target.reference
        event = LayerProgress(reference=reference, id=shown, status=status, total=total)
        self._target.context.emit(event)

    def note(self, reference: Reference, message: str) -> None:
        """Tell a note."""
        self._target.context.emit(Note(reference=str(reference), message=message))

    def reused(
        self, reference: Reference, tree: Tree, delivered: Mapping[str, Delivered], profile: Profile
    ) -> None:
        """Tell which layers are used in another compression than the profile's."""
        others: dict[str | None, dict[str, None]] = {}
        for blob in tree.blobs:
            found = delivered[blob.key]
            wanted = profile is AUTO or found.made.compression == profile.compression
            if found.label == "reused" and not wanted:
                others.setdefault(found.made.compression, {})[blob.id] = None
        for compression, ids in others.items():
            what = f"used as the registry holds them, in {compression}: {', '.join(ids)}"
            self.note(reference, f"not compressed with {profile.name} but {what}")

    def verified(self, reference: Reference, found: Verification) -> None:
        """Tell what was verified."""
        self._target.context.emit(Verified(reference=str(reference), **found.as_dict()))

    def ended(self, result: PushResult, total_bytes: int) -> None:
        """Tell a tag that is in place, and what it cost."""
        emit, reference = self._target.context.emit, result.reference
        emit(TagPushed(reference=reference, tag=result.tag, digest=result.digest, size=result.size))
        emit(
            Summary(
                reference=reference,
                sent_bytes=result.sent_bytes,
                total_bytes=total_bytes,
                requests=result.requests,
                seconds=result.seconds,
            )
        )
