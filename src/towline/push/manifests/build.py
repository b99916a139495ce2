"""Makes the manifests of a push: byte for byte as they came, or built where that cannot be.

Where a registry refuses their type they are converted. No I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from towline.errors import SourceError, UsageError
from towline.push.image import Blob, Image, Index, Layer, Tree, images
from towline.spec import manifest as manifests
from towline.spec import media_types
from towline.spec.descriptor import Descriptor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from towline.layers.profile import Profile
    from towline.push.plan import Made
    from towline.results import DigestDiffers
    from towline.spec.digest import Digest
    from towline.spec.manifest import RawManifest
    from towline.spec.media_types import Format
    from towline.spec.schema1 import Unsigned

_REFERENCE_DIGEST = "vnd.docker.reference.digest"
"""The annotation by which BuildKit's attestation names the image that it is about."""
FORMATS: dict[Format, str] = {"docker": "docker's format (schema 2)", "oci": "OCI's format"}
"""The formats' names in messages."""
SCHEMA1 = "signed schema 1"
_USE_GZIP = "push with `compression='gzip'`"
_CONFIGS = frozenset({None, media_types.OCI_CONFIG, media_types.DOCKER_CONFIG})


class Documents(NamedTuple):
    """The manifest that is put under a tag, and its children, which are put before it."""

    top: RawManifest
    children: tuple[RawManifest, ...] = ()
    differs: DigestDiffers | None = None
    """Why the digest differs from the source's; None where it does not, or the source has none."""


def preferred(image: Image, requested: Format | None, profile: Profile) -> Format:
    """The format of an image's manifest before any registry has refused it."""
    if image.annotations:  # schema 2 has none
        return "oci"
    if requested:
        return requested
    if image.source.manifest and image.whole:
        return media_types.family(image.source.manifest.media_type)
    return "oci" if image.source.oci or profile.compression == "zstd" else "docker"


def check(image: Image, fmt: Format, profile: Profile) -> None:
    """Refuse what a manifest of that format cannot hold, before anything is sent.

    Raises UsageError.
    """
    if fmt == "oci":
        return
    if image.source.oci and (why := _artifact(image)):
        came = f"the manifest {image.source.manifest.digest}" if image.source.manifest else "it"
        raise UsageError(f"{came} is an artifact, {why}", hint="use `format='oci'`")
    if profile.compression == "zstd" and not image.whole:
        msg = "zstd layers do not fit into docker's manifest format (schema 2)"
        raise UsageError(msg, hint="use `format='oci'`, or `compression='gzip'`")
    for layer in image.layers:
        if isinstance(layer, Blob) and layer.stored_compression == "zstd":
            msg = f"layer {layer.id} is compressed with zstd, which schema 2 cannot hold"
            raise UsageError(msg, hint="use `format='oci'`")


def check_preserved(tree: Tree, requested: Format | None) -> None:
    """Refuse options that would change the bytes of the source's manifest, before sending.

    Raises UsageError.
    """
    why, came = "", tree.source.manifest
    kept = came.digest if came else "the manifest"
    if tree.annotations:
        why = "annotations are added to it"
    if isinstance(tree, Index):
        if tree.source.part_of:
            why, kept = "an index of some of its platforms is a new one", tree.source.part_of
        for child in tree.children:
            check_preserved(child, requested)
    elif not tree.whole and tree.source.manifest:
        why = "its layers would have to be compressed"
    if came and requested not in {None, media_types.family(came.media_type)}:
        why = f"it is no manifest of the format {requested!r}"
    if why:
        msg = f"`preserve_digests` keeps {kept} as it is, but {why}"
        raise UsageError(msg, hint="leave out one of the two")


def documents(tree: Tree, made: Mapping[str, Made], requested: Format | None) -> Documents:
    """All manifests of a tree, children first. `made` has every blob of it, by its key."""
    if isinstance(tree, Index):
        return _index(tree, made, requested)
    top = image_manifest(tree, made, requested)
    differs = _differs(tree.source.manifest, top, tree.annotations)
    return Documents(top, differs=differs or ("platforms" if tree.source.part_of else None))


def media_type(tree: Tree, requested: Format | None, profile: Profile) -> str:
    """The media type of the document under the tag, should it have to be built."""
    formats = {preferred(image, requested, profile) for image in images(tree)}
    if not isinstance(tree, Index):
        return media_types.OCI_MANIFEST if "oci" in formats else media_types.DOCKER_MANIFEST
    if tree.annotations:
        formats.add("oci")
    if requested is None:
        formats.add(media_types.family(tree.source.manifest.media_type))
    return media_types.OCI_INDEX if "oci" in formats else media_types.DOCKER_LIST


def _differs(
    came: RawManifest | None, top: RawManifest, annotations: Mapping[str, str]
) -> DigestDiffers | None:
    if came is None or came.content == top.content:
        return None
    if manifests.annotated(came, annotations).content == top.content:
        return "annotations"
    same_family = media_types.family(came.media_type) == media_types.family(top.media_type)
    return "recompressed" if same_family else "converted"


def image_manifest(image: Image, made: Mapping[str, Made], requested: Format | None) -> RawManifest:
    """The manifest of one image: byte for byte as it came, if nothing changed; else built."""
    came = image.source.manifest
    requested = "oci" if image.annotations else requested
    if (
        came
        and requested in {None, media_types.family(came.media_type)}
        and _unchanged(image, made)
    ):
        return manifests.annotated(came, image.annotations)
    blobs = [made[layer.key] for layer in image.layers if isinstance(layer, Blob)]
    as_oci = image.source.oci or any(blob.compression == "zstd" for blob in blobs)
    fmt = requested or ("oci" if as_oci else "docker")
    # An artifact's config has a type of its own, which only OCI can keep. Else it is the format's.
    config_type = image.source.config_type if fmt == "oci" and image.source.oci else None
    default = media_types.OCI_CONFIG if fmt == "oci" else media_types.DOCKER_CONFIG
    config = Descriptor(config_type or default, image.config.identity, image.config.size)
    layers = [_layer(layer, made, fmt) for layer in image.layers]
    own = dict(image.source.annotations)
    annotations = {**own, **image.annotations} if fmt == "oci" else None
    return manifests.build(fmt, config, layers, annotations)


def _unchanged(image: Image, made: Mapping[str, Made]) -> bool:
    """Whether the source's manifest lists exactly the blobs that are at the registry now."""
    came = image.source.manifest
    assert came is not None  # noqa: S101 - the caller's own condition
    parsed = manifests.parse(came.content, came.media_type)
    listed = [layer.digest for layer in getattr(parsed, "layers", ())]
    return listed == [
        made[layer.key].digest if isinstance(layer, Blob) else layer.digest
        for layer in image.layers
    ]


def _layer(layer: Layer, made: Mapping[str, Made], fmt: Format) -> Descriptor:
    if isinstance(layer, Descriptor):
        return layer._replace(media_type=media_types.foreign(layer.media_type, fmt))
    blob = made[layer.key]
    stored = layer.stored
    annotations = stored.annotations if stored and fmt == "oci" else {}
    if blob.compression is None:  # no layer of an image: only its own type says what it is
        assert stored is not None  # noqa: S101 - only what is stored can be of an unknown type
        return stored._replace(digest=blob.digest, size=blob.size)
    media_type = media_types.layer(fmt, blob.compression)
    return Descriptor(media_type, blob.digest, blob.size, annotations=annotations)


def _index(index: Index, made: Mapping[str, Made], requested: Format | None) -> Documents:
    below = [documents(child, made, requested) for child in index.children]
    children = tuple(each.top for each in below)
    all_below = tuple(each for it in below for each in (*it.children, it.top))
    came = index.source.manifest
    parsed = manifests.parse(came.content, came.media_type)
    if not isinstance(parsed, manifests.Index):
        raise SourceError("the index of the source is an image manifest")
    requested = "oci" if index.annotations else requested
    same_type = requested in {None, media_types.family(came.media_type)}
    listed = [descriptor.digest for descriptor in parsed.manifests]
    if same_type and listed == [child.digest for child in children]:
        top = manifests.annotated(came, index.annotations)
    else:
        families = {media_types.family(each.media_type) for each in (came, *children)}
        fmt = requested or ("docker" if families == {"docker"} else "oci")
        descriptors = _descriptors(index.source.descriptors, children)
        annotations = {**parsed.annotations, **index.annotations} if fmt == "oci" else None
        top = manifests.build_index(fmt, descriptors, annotations)
    if index.source.assembled:
        return Documents(top, all_below)
    differs = _differs(came, top, index.annotations)
    if differs == "recompressed":  # an index is never compressed: tell the children's reason
        differs = next((child.differs for child in below if child.differs), differs)
    return Documents(top, all_below, differs or ("platforms" if index.source.part_of else None))


def _descriptors(listed: Sequence[Descriptor], children: Sequence[RawManifest]) -> list[Descriptor]:
    """The index's descriptor of each child, with the child's new digest.

    An annotation that quotes the digest of another child gets the new one, too.
    """
    pairs = list(zip(listed, children, strict=True))
    renamed: dict[str, str] = {old.digest: new.digest for old, new in pairs}
    found = []
    for old, new in pairs:
        notes = old.annotations
        if (quoted := notes.get(_REFERENCE_DIGEST)) in renamed:
            notes = {**notes, _REFERENCE_DIGEST: renamed[quoted]}
        kind, digest, size = new.media_type, new.digest, new.size
        found.append(old._replace(media_type=kind, digest=digest, size=size, annotations=notes))
    return found


# Converted, for a registry that refuses their type.


class CannotConvert(Exception):
    """The image has no form in that format. `str()` is a clause that says why."""

    def __init__(self, why: str, hint: str | None = None) -> None:
        super().__init__(why)
        self.hint = hint


def families(refused: Documents) -> tuple[Format, ...]:
    """The families to try, in order, when a registry refuses the type of one of the documents."""
    # Where an index and its children are of both families, the index's own comes first: it may be
    # a child that is refused.
    own = media_types.family(refused.top.media_type)
    other: Format = "docker" if own == "oci" else "oci"
    mixed = any(media_types.family(child.media_type) != own for child in refused.children)
    return (own, other) if mixed else (other,)


def to_family(tree: Tree, made: Mapping[str, Made], fmt: Format) -> Documents:
    """All documents of a tree in one family. Raises CannotConvert."""
    if fmt == "docker":
        _check_annotations(tree, FORMATS[fmt])
    for image in images(tree):
        _check_image(image)
        for layer in image.layers if fmt == "docker" else ():
            _check_no_zstd(layer, made)
    return documents(tree, made, fmt)


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
    from towline.spec import schema1  # most registries take another form

    _check_annotations(image, SCHEMA1)
    _check_image(image)
    layers = _gzip_layers(image, made)
    try:
        return schema1.build(image.source.config, layers, name=name, tag=tag)
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
                None if layer.stored and layer.stored.digest != layer.identity else _USE_GZIP,
            )
        found.append(blob.digest)
    return found


def _check_annotations(tree: Tree, form: str) -> None:
    if tree.annotations or any(image.annotations for image in images(tree)):
        raise CannotConvert(f"annotations are wanted, which {form} does not have")


def _check_image(image: Image) -> None:
    """Raise CannotConvert for artifacts: only a plain image means the same in another family."""
    if why := _artifact(image):
        raise CannotConvert(f"it is an artifact, {why}")
    for layer in image.layers:
        if isinstance(layer, Blob) and layer.stored and layer.stored_compression is None:
            raise CannotConvert(
                f"it holds a blob of the type {layer.stored.media_type}, which has no other form"
            )


def _artifact(image: Image) -> str:
    """Why the manifest is an artifact's and no image's, as a clause; "": it is an image's."""
    came = image.source.manifest
    parsed = manifests.parse(came.content, came.media_type) if came else None
    if isinstance(parsed, manifests.Manifest) and (parsed.subject or parsed.artifact_type):
        return "which has no other form"
    if image.source.config_type not in _CONFIGS:
        return f"whose config is of the type {image.source.config_type}, which has no other form"
    return ""


def _check_no_zstd(layer: Layer, made: Mapping[str, Made]) -> None:
    if isinstance(layer, Blob):
        name, compression = layer.id, made[layer.key].compression
        hint = None if layer.stored else _USE_GZIP
    else:
        name, compression = layer.digest.short, media_types.layer_compression(layer.media_type)
        hint = None
    if compression == "zstd":
        said = f"layer {name} is compressed with zstd, which schema 2 cannot hold"
        raise CannotConvert(said, hint)
