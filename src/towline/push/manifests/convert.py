"""Converts the manifests of an image for a registry that refuses their type. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.push.image import Blob, Index, images
from towline.push.manifests import build
from towline.spec import manifest as manifests
from towline.spec import media_types, schema1_builder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from towline.push.image import Image, Tree
    from towline.push.manifests.build import Documents
    from towline.push.plan import Made
    from towline.spec.digest import Digest
    from towline.spec.media_types import Format
    from towline.spec.schema1_builder import Unsigned

FORMATS: dict[Format, str] = {"docker": "docker's format (schema 2)", "oci": "OCI's format"}
"""The formats' names in messages."""
SCHEMA1 = "signed schema 1"
_CONFIGS = frozenset({None, media_types.OCI_CONFIG, media_types.DOCKER_CONFIG})


class CannotConvert(Exception):
    """The image has no form in that format. `str()` is a clause that says why."""

    def __init__(self, why: str, hint: str | None = None) -> None:
        super().__init__(why)
        self.hint = hint


def families(documents: Documents) -> tuple[Format, ...]:
    """The families to try, in order, when a registry refuses the type of one of the documents."""
    # Where an index and its children are of both families, the index's own comes first: it may be
    # a child that is refused.
    own = media_types.family(documents.top.media_type)
    other: Format = "docker" if own == "oci" else "oci"
    mixed = any(media_types.family(child.media_type) != own for child in documents.children)
    return (own, other) if mixed else (other,)


def to_family(tree: Tree, made: Mapping[str, Made], fmt: Format) -> Documents:
    """All documents of a tree in one family. Raises CannotConvert."""
    if fmt == "docker":
        _check_annotations(tree, FORMATS[fmt])
    for image in images(tree):
        _check_image(image)
        if fmt == "docker":
            _check_docker(image, made)
    return build.documents(tree, made, fmt)


def loses_annotations(tree: Tree, fmt: Format) -> bool:
    """Whether the tree has annotations that documents of that family cannot hold."""
    if fmt == "oci":
        return False
    index = manifests.parse(tree.source.manifest.content) if isinstance(tree, Index) else None
    return bool(index and index.annotations) or any(i.source.annotations for i in images(tree))


def to_schema1(image: Tree, made: Mapping[str, Made], *, name: str, tag: str) -> Unsigned:
    """The image's manifest of schema 1, unsigned; `name` is the repository without its host.

    Raises CannotConvert.
    """
    if isinstance(image, Index):
        raise CannotConvert(f"{SCHEMA1} has no form for an index of several images")
    _check_annotations(image, SCHEMA1)
    _check_image(image)
    layers = _gzip_layers(image, made)
    try:
        return schema1_builder.build(image.source.config, layers, name=name, tag=tag)
    except ValueError as error:
        raise CannotConvert(f"its config does not fit into {SCHEMA1} ({error})") from error


def _gzip_layers(image: Image, made: Mapping[str, Made]) -> Sequence[Digest]:
    found = []
    for layer in image.layers:
        if not isinstance(layer, Blob):
            raise CannotConvert(f"{SCHEMA1} has no form for foreign layers")
        blob = made[layer.key]
        if blob.compression != "gzip":
            raise CannotConvert(
                f"{SCHEMA1} takes gzip layers alone, and layer {layer.id} is none",
                # The hint is for layers that we compress; the source's own blobs stay as they are.
                None if layer.stored and layer.stored.digest != layer.identity else _use_gzip(),
            )
        found.append(blob.digest)
    return found


def _use_gzip() -> str:
    return "push with `compression='gzip'`"


def _check_annotations(tree: Tree, form: str) -> None:
    if tree.annotations or any(image.annotations for image in images(tree)):
        raise CannotConvert(f"annotations are wanted, which {form} does not have")


def _check_image(image: Image) -> None:
    """Raise CannotConvert for artifacts: only a plain image means the same in another family."""
    came = image.source.manifest
    parsed = manifests.parse(came.content, came.media_type) if came else None
    if isinstance(parsed, manifests.Manifest) and (parsed.subject or parsed.artifact_type):
        raise CannotConvert("it is an artifact, which has no other form")
    if image.source.config_type not in _CONFIGS:
        raise CannotConvert(
            f"its config is of the type {image.source.config_type}, which has no other form"
        )
    for layer in image.layers:
        if isinstance(layer, Blob) and layer.stored and layer.stored_compression is None:
            raise CannotConvert(
                f"it holds a blob of the type {layer.stored.media_type}, which has no other form"
            )


def _check_docker(image: Image, made: Mapping[str, Made]) -> None:
    for layer in image.layers:
        if isinstance(layer, Blob):
            if made[layer.key].compression == "zstd":
                hint = None if layer.stored else _use_gzip()
                raise CannotConvert(_no_zstd(layer.id), hint)
        elif media_types.layer_compression(layer.media_type) == "zstd":
            raise CannotConvert(_no_zstd(layer.digest.short))


def _no_zstd(layer: str) -> str:
    return f"layer {layer} is compressed with zstd, which schema 2 cannot hold"
