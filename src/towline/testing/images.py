"""Builds real images: small ones for tests, larger ones for demos, always the same bytes.

Each image is first a store of blobs on disk, which `image_formats` then arranges as the tool would
that writes the format.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from towline.errors import UsageError
from towline.sources.select import parse_platform
from towline.spec import gojson, manifest, media_types
from towline.spec.descriptor import Platform
from towline.spec.media_types import Compression
from towline.testing import image_formats
from towline.testing.blob_store import BlobStore, Content, MadeLayer
from towline.testing.image_formats import Form, Made, MadeImage

if TYPE_CHECKING:
    from towline.spec.manifest import RawManifest

PLATFORM = "linux/amd64"
_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """One image to build."""

    layers: Sequence[Mapping[str, Content]] = ({"hello.txt": b"hello\n"},)
    """The layers, base first: for each its files' contents by their paths."""
    platforms: Sequence[str] | None = None
    """Such as `linux/arm64`; None for one image without an index."""
    names: Sequence[str] = ("app:1",)
    absent: Sequence[str] = ()
    """Platforms that the index lists but the archive does not contain."""
    attestations: bool = False
    """Whether the index has an attestation beside each image, as BuildKit writes them."""


def make_image(
    path: str | os.PathLike[str],
    layers: Sequence[Mapping[str, Content]] = ({"hello.txt": b"hello\n"},),
    platforms: Sequence[str] | None = None,
    format: Form = "docker",  # noqa: A002 - the public name of the option
    *,
    names: Sequence[str] = ("app:1",),
    compression: Compression | None = None,
    archive: Compression = "none",
    absent: Sequence[str] = (),
    attestations: bool = False,
) -> Made:
    """Build one image at `path`.

    `format` is `docker` (as docker 25 and later save it from the classic store),
    `docker-containerd` (from the containerd store: layers compressed), `docker-legacy` (no index;
    with `compression`, layers named by their digests, as jib and kaniko write them), `oci` (a
    folder) or `oci-archive`. `compression` is that of the layers (None: the format's usual one),
    `archive` that of the archive file itself.
    """
    spec = ImageSpec(layers, platforms, names, absent, attestations)
    return make_images(path, [spec], format, compression=compression, archive=archive)[0]


def make_images(
    path: str | os.PathLike[str],
    specs: Sequence[ImageSpec],
    format: Form = "docker",  # noqa: A002 - as make_image
    *,
    compression: Compression | None = None,
    archive: Compression = "none",
) -> list[Made]:
    """Build several images in one archive or layout; see `make_image`. Raises UsageError."""
    path = Path(path)
    if compression is None:
        compression = "none" if format in {"docker", "docker-legacy"} else "gzip"
    for word, kind in ((format, Form), (compression, Compression), (archive, Compression)):
        if word not in get_args(kind):
            raise UsageError(f"{word!r} is none of {', '.join(get_args(kind))}")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        store = BlobStore(Path(folder))
        made = [_build(store, path, spec, compression) for spec in specs]
        image_formats.write(format, store, made, path, archive)
    return made


def _build(store: BlobStore, path: Path, spec: ImageSpec, compression: Compression) -> Made:
    """Put the blobs and manifests of an image into the store."""
    layers = [store.add_layer(files, compression) for files in spec.layers]
    images = []
    for platform in (PLATFORM,) if spec.platforms is None else spec.platforms:
        content = _config(parse_platform(platform), layers)
        raw = _add_manifest(store, content, layers)
        images.append(MadeImage(platform, content, tuple(layers), raw))
    root = images[0].manifest if spec.platforms is None else _add_index(store, spec, images)
    held = tuple(image for image in images if image.platform not in spec.absent)
    return Made(path, tuple(spec.names), held, root)


def _add_manifest(store: BlobStore, content: bytes, layers: Sequence[MadeLayer]) -> RawManifest:
    """Put a config and its manifest into the store, and give the manifest."""
    config = store.add(content, media_types.OCI_CONFIG)
    raw = manifest.build("oci", config, [layer.blob for layer in layers])
    store.add(raw.content, raw.media_type)
    return raw


def _add_index(store: BlobStore, spec: ImageSpec, images: Sequence[MadeImage]) -> RawManifest:
    listed = []
    for image in images:
        raw = image.manifest
        listed.append(raw.descriptor()._replace(platform=parse_platform(image.platform)))
        if spec.attestations:  # what BuildKit says of an image, in the form of one
            said = gojson.encode({"subject": [{"digest": raw.digest}]})
            blob = store.add(said, "application/vnd.in-toto+json")
            unknown, layer = Platform("unknown", "unknown"), MadeLayer(blob.digest, blob)
            attestation = _add_manifest(store, _config(unknown, [layer]), [layer])
            marks = {
                "vnd.docker.reference.digest": str(raw.digest),
                "vnd.docker.reference.type": "attestation-manifest",
            }
            about = attestation.descriptor()._replace(annotations=marks, platform=unknown)
            listed.append(about)
        if image.platform in spec.absent:  # docker saves one platform of what it has pulled
            store.path(raw.digest).unlink()
    index = manifest.build_index("oci", listed)
    store.add(index.content, index.media_type)
    return index


def _config(platform: Platform, layers: Sequence[MadeLayer]) -> bytes:
    history = [
        {"created": _EPOCH, "created_by": f"COPY layer {place} /"} for place in range(len(layers))
    ]
    document = {
        **platform.as_json(),
        "created": _EPOCH,
        "config": {"Cmd": ["/bin/sh"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": history,
    }
    return gojson.encode(document)
