"""From what was delivered to the fields of a result."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from towline.push.result import LayerResult, ManifestResult, PushResult
from towline.push.wanted import Blob, Index, images

if TYPE_CHECKING:
    from collections.abc import Mapping

    from towline.layers.profile import Profile
    from towline.push.build import Documents
    from towline.push.deliver import Delivered
    from towline.push.result import Status
    from towline.push.target import Target
    from towline.push.wanted import Layer, Tree
    from towline.reference import Reference
    from towline.spec.descriptor import Descriptor


def layers(tree: Tree, delivered: Mapping[str, Delivered]) -> tuple[LayerResult, ...]:
    """An image's layers in its manifest's order; of an index every layer once.

    A layer that an image lists twice was sent once: its bytes count at its first place.
    """
    listed = [layer for image in images(tree) for layer in image.layers]
    if isinstance(tree, Index):
        listed = list(dict.fromkeys(listed))
    seen: set[Layer] = set()
    results = []
    for layer in listed:
        result = _layer(layer, delivered)
        results.append(replace(result, sent_bytes=0) if layer in seen else result)
        seen.add(layer)
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
    tree: Tree, found: Mapping[str, Delivered | None], profile: Profile
) -> tuple[LayerResult, ...]:
    """The layers of a push that was only planned; None where a layer would be compressed."""
    known = {key: delivered for key, delivered in found.items() if delivered}
    results = []
    for layer in dict.fromkeys(layer for image in images(tree) for layer in image.layers):
        if isinstance(layer, Blob) and layer.key not in known:
            result = LayerResult(layer.diff_id, None, None, "pushed", profile.name)
        else:
            result = replace(_layer(layer, known), sent_bytes=0)
        results.append(result)
    return tuple(results)


def pushed(
    target: Target,
    reference: Reference,
    documents: Documents,
    status: Status,
    *,
    started: float,
    layers: tuple[LayerResult, ...],
    manifests: tuple[ManifestResult, ...],
) -> PushResult:
    """The result of a tag that holds the image; `started` by the context's clock."""
    context = target.context
    top = documents.top
    return PushResult(
        reference=str(reference),
        tag=reference.tag,
        digest=top.digest,
        size=top.size,
        media_type=top.media_type,
        status=status,
        layers=layers,
        manifests=manifests,
        digest_differs=documents.differs,
        warnings=tuple(target.warnings),
        sent_bytes=context.meter.sent_bytes,
        requests=context.meter.requests,
        seconds=context.clock() - started,
    )


def skipped(
    target: Target, reference: Reference, standing: Descriptor, started: float
) -> PushResult:
    """The result of a tag that is left as it is; `started` by the context's clock."""
    context = target.context
    return PushResult(
        reference=str(reference),
        tag=reference.tag,
        digest=standing.digest,
        size=standing.size,
        media_type=standing.media_type,
        status="skipped",
        warnings=tuple(target.warnings),
        requests=context.meter.requests,
        seconds=context.clock() - started,
    )


def manifests(tree: Tree, documents: Documents) -> tuple[ManifestResult, ...]:
    """The children of an index; nothing for an image."""
    pairs = zip(images(tree), documents.children, strict=False)
    return tuple(
        ManifestResult(
            child.digest, child.media_type, str(image.source.platform) or None, child.size
        )
        for image, child in pairs
    )


def total_bytes(tree: Tree, delivered: Mapping[str, Delivered]) -> int:
    """Bytes of all blobs of a tree, as they are stored at the destination."""
    return sum(delivered[key].made.size for key in {blob.key for blob in tree.blobs})
