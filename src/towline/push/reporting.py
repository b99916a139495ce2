"""The reports of a push: its events while it runs, and the outcome of each tag, told once final."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import TowlineError, TransferCancelled
from towline.layers.profile import AUTO
from towline.push.image import Blob, Index, Layer, Tree, images, tree_blobs
from towline.push.interface.result import LayerResult, PushResult
from towline.push.target import Cost, Target
from towline.spec import media_types
from towline.spec.manifest import RawManifest, parse
from towline.told import LayerProgress, PushStarted, Summary, TagPushed

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from towline.push.interface.details import ManifestResult, Verification
    from towline.push.interface.result import Status, TagOutcome
    from towline.push.manifests.build import Documents
    from towline.push.plan import Delivered
    from towline.reference import Reference
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest


def tell_started(target: Target) -> None:
    """Tell the repository, docker's first line."""
    repository = str(target.repository.name)
    target.context.emit(PushStarted(reference=target.reference, repository=repository))


def announce(target: Target) -> None:
    """Announce the layers, the top one first, in docker's words; not those that have passed."""
    passed = target.passed
    if passed is None:
        tell_started(target)
    for tree in dict.fromkeys(tree for _, tree in target.tags):
        for layer in (layer for image in images(tree) for layer in reversed(image.layers)):
            if not isinstance(layer, Blob):
                tell_layer(target, layer.digest.short, "Skipped foreign layer")
            elif passed is None or layer.key not in passed:
                tell_layer(target, layer.id, "Preparing", layer.size)


def tell_layer(target: Target, shown: str, status: str, total: int | None = None) -> None:
    """Tell a layer's state; `shown` is its id."""
    event = LayerProgress(reference=target.reference, id=shown, status=status, total=total)
    target.context.emit(event)


def _ended(target: Target, result: PushResult, total_bytes: int) -> None:
    """Tell a tag that is in place, and what it cost."""
    emit, reference = target.context.emit, result.reference
    emit(TagPushed(reference=reference, tag=result.tag, digest=result.digest, size=result.size))
    cost = Cost(result.sent_bytes, result.requests, result.seconds)
    emit(Summary(reference=reference, total_bytes=total_bytes, **cost._asdict()))


class Placed(NamedTuple):
    """The manifests that are under a tag in the end."""

    documents: Documents
    status: Status
    verified: Verification | None = None


class Outcomes:
    """The outcomes of one target's tags: a result or an error for each, told once it is final.

    Each tag is charged the costs since the tag before it.
    """

    def __init__(self, target: Target, agreed: dict[Tree, tuple[str, Digest]]) -> None:
        """`agreed`: by tree, the first tag of the push that has it, with its digest; added to."""
        self.target = target
        self._agreed = agreed
        self.by_tag: dict[Reference, TagOutcome] = {}
        """The outcomes of tags whose push has ended."""
        self._untold: dict[Reference, int] = {}
        """Tags that are in place and not told yet, with the bytes of their blobs and referrers'."""

    def left_alone(
        self,
        reference: Reference,
        standing: Descriptor | TowlineError,
        status: Status = "skipped",
    ) -> None:
        """Note a tag that needs nothing more, by what is under it or by the error of its push."""
        if isinstance(standing, TowlineError):
            self.by_tag[reference] = standing
        else:
            self.by_tag[reference] = left = self._result(reference, standing, status)
            _ended(self.target, left, 0)

    def _result(
        self, reference: Reference, standing: Descriptor | RawManifest, status: Status
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
            warnings=tuple(self.target.warnings),
            **self.target.costs.share()._asdict(),
        )

    def failed(self, references: Iterable[Reference], error: TowlineError) -> None:
        """Note the error of these tags."""
        self.by_tag |= dict.fromkeys(references, error)

    def placed(
        self, reference: Reference, tree: Tree, placed: Placed, delivered: Mapping[str, Delivered]
    ) -> None:
        """Note a tag that holds the image."""
        target = self.target
        documents, status, verified = placed
        self._compare(reference, tree, documents)
        if verified:
            from towline.events import Verified  # which most have no need of

            target.context.emit(Verified(reference=str(reference), **verified.as_dict()))
        self.by_tag[reference] = replace(
            self._result(reference, documents.top, status),
            layers=_layers(tree, delivered, target.costs.layers),
            manifests=manifests(tree, documents),
            digest_differs=documents.differs,
            learned_from=learned_from(target, tree, delivered),
            verified=verified,
        )
        self._tell_reused(reference, tree, delivered)
        keys = {blob.key for blob in tree_blobs(target.with_referrers(reference, tree))}
        # One of a referrer's may have failed.
        self._untold[reference] = sum(delivered[key].made.size for key in keys & delivered.keys())
        layout = target.layout
        # Referrers follow, and an archive is still to be written: until then it is not final.
        if not target.referrers and not (layout and layout.begun):
            self.tell()

    def _compare(self, reference: Reference, tree: Tree, documents: Documents) -> None:
        """Warn if another target of the push has another digest of the same image."""
        # Signed schema 1 names its repository and tag, so that its digests always differ.
        if documents.top.media_type == media_types.SCHEMA1_SIGNED:
            return
        mine = (str(reference), documents.top.digest)
        other, digest = self._agreed.setdefault(tree, mine)
        if digest != mine[1]:
            self.target.warn(
                f"{reference} has the digest {mine[1]}, {other} has {digest}: "
                "the same image, of layers that were compressed in different ways"
            )

    def _tell_reused(
        self, reference: Reference, tree: Tree, delivered: Mapping[str, Delivered]
    ) -> None:
        """Tell which layers are used in another compression than the profile's."""
        profile = self.target.wish.profile
        others: dict[str | None, dict[str, None]] = {}
        for blob in tree.blobs:
            found = delivered[blob.key]
            wanted = profile is AUTO or found.made.compression == profile.compression
            if found.label == "reused" and not wanted:
                others.setdefault(found.made.compression, {})[blob.id] = None
        for compression, ids in others.items():
            what = f"used as the registry holds them, in {compression}: {', '.join(ids)}"
            self.target.note(f"not compressed with {profile.name} but {what}", str(reference))

    def charge(self, reference: Reference) -> None:
        """Add the costs and warnings since the last tag to this one."""
        result, cost = self.by_tag[reference], self.target.costs.share()
        if isinstance(result, PushResult):
            self.by_tag[reference] = replace(
                result,
                warnings=tuple(self.target.warnings),
                sent_bytes=result.sent_bytes + cost.sent_bytes,
                requests=result.requests + cost.requests,
                seconds=result.seconds + cost.seconds,
            )

    def tell(self) -> None:
        """Tell the tags that are in place."""
        for reference, total_bytes in self._untold.items():
            if isinstance(outcome := self.by_tag[reference], PushResult):
                _ended(self.target, outcome, total_bytes)
        self._untold.clear()


def _layers(
    tree: Tree, delivered: Mapping[str, Delivered], told: set[Layer]
) -> tuple[LayerResult, ...]:
    """The results of an image's layers, in its manifest's order; of an index each layer once.

    A layer that is listed twice was sent once: its bytes count in the first place. `told` has the
    layers that have counted, and is added to.
    """
    listed = [layer for image in images(tree) for layer in image.layers]
    results = []
    for layer in dict.fromkeys(listed) if isinstance(tree, Index) else listed:
        result = layer_result(layer, delivered)
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
    from towline.push.interface.details import ManifestResult  # which most have no need of

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
    told = wanted if done else []
    results, names = [ended.get(tag) for tag in told], [str(tag) for tag in told]
    raise TransferCancelled("; ".join(said), results=results, references=names)


def _listed(wanted: Iterable[Reference], some: Container[Reference]) -> str:
    return ", ".join(str(tag) for tag in wanted if tag in some)
