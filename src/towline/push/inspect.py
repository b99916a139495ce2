"""Inspects images without pushing, and tells the digest that they have, or would have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from towline.errors import RegistryError
from towline.events import Working
from towline.layers.blobstream import BlobStream
from towline.push.begin import check
from towline.push.image import Blob, Gatherer, Index
from towline.push.interface.result import InspectedLayer, InspectResult, ManifestResult
from towline.push.manifests import build
from towline.push.plan import Made, own
from towline.spec import manifest as manifests
from towline.spec import media_types, reading
from towline.spec.manifest import MAX_SIZE, parse_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from towline.context import Context
    from towline.push.content.source_images import Opened
    from towline.push.image import Layer, Tree
    from towline.push.interface.options import Wish
    from towline.push.resources import Resources
    from towline.push.target import Target
    from towline.reference import Reference
    from towline.sources.base import SourceEntry
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest
    from towline.spec.manifest import Manifest, RawManifest


def local(opened: Opened, wish: Wish) -> InspectResult:
    """An image of an archive or a layout; or the names, if there are several."""
    name = opened.name
    if names := opened.names():
        return InspectResult(name, None, None, None, None, None, images=names)
    tree = Gatherer(wish.profile).tree(opened.entry().content)
    raw = tree.source.manifest
    if isinstance(tree, Index):
        return _index(name, tree.source.manifest, tree.source.descriptors)
    return InspectResult(
        reference=name,
        digest=raw.digest if raw else None,
        media_type=raw.media_type if raw else None,
        size=raw.size if raw else None,
        config=_config(tree.source.config),
        platform=str(tree.source.platform) or None,
        layers=tuple(_layer(layer) for layer in tree.layers),
    )


def _layer(layer: Layer) -> InspectedLayer:
    if not isinstance(layer, Blob):
        return InspectedLayer(layer.digest, layer.size, layer.media_type, None)
    stored = layer.stored
    media_type = stored.media_type if stored else media_types.DOCKER_LAYER
    size = layer.size if layer.held else layer.size or None
    return InspectedLayer(stored.digest if stored else None, size, media_type, layer.diff_id)


def remote(reference: Reference, target: Target) -> InspectResult:
    """An image or index of a registry. Raises RegistryError where there is none."""
    raw = target.existing_manifest(reference)
    try:
        parsed = manifests.parse(raw.content, raw.media_type)
    except ValueError as error:
        raise RegistryError(f"what is at {reference} cannot be read: {error}") from None
    if isinstance(parsed, manifests.Index):
        return _index(str(reference), raw, parsed.manifests)
    read_blob, digest = target.repository.read_blob, parsed.config.digest
    content = target.retry("the config", read_blob, digest, target.context, MAX_SIZE)
    return _remote_image(reference, raw, parsed, content)


def _remote_image(
    reference: Reference, raw: RawManifest, parsed: Manifest, content: bytes
) -> InspectResult:
    config = _config(content)
    try:
        read = parse_config(content)
        diff_ids: Sequence[Digest | None] = read.diff_ids
        platform = str(read.platform) or None
    except ValueError:  # an artifact: its config is no image config
        diff_ids, platform = (), None
    # An artifact again, or an image that is damaged: nothing says which DiffID is which layer's.
    if len(diff_ids) != len(parsed.layers):
        diff_ids = [None] * len(parsed.layers)
    return InspectResult(
        reference=str(reference),
        digest=raw.digest,
        media_type=raw.media_type,
        size=raw.size,
        config=config,
        platform=platform,
        layers=tuple(
            InspectedLayer(layer.digest, layer.size, layer.media_type, diff_id)
            for layer, diff_id in zip(parsed.layers, diff_ids, strict=True)
        ),
    )


def _index(name: str, raw: RawManifest, children: Sequence[Descriptor]) -> InspectResult:
    return InspectResult(
        reference=name,
        digest=raw.digest,
        media_type=raw.media_type,
        size=raw.size,
        config=None,
        platform=None,
        manifests=tuple(
            ManifestResult(child.digest, child.media_type, _platform(child), child.size)
            for child in children
        ),
    )


def _platform(child: Descriptor) -> str | None:
    return str(child.platform) if child.platform else None


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
