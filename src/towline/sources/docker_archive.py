"""`docker save` archives, by their `manifest.json` (docker image specification v1.2).

Layers lie there as plain tars, or compressed, as jib and kaniko write them. A compressed layer goes
byte for byte. Its digest is in its file's name and is checked while it is sent; if the name has
none, the layer is hashed once.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from towline.errors import SourceError
from towline.sources.base import (
    SourceEntry,
    SourceImage,
    SourceLayer,
    foreign_layer,
    missing_layer,
)
from towline.sources.files import blocks, read, read_all, read_json, shown, understood
from towline.sources.image_source import ImageSource
from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest
from towline.spec.manifest import parse_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from towline.context import Cancel
    from towline.sources.files import Archive
    from towline.spec.media_types import Compression

MANIFEST = "manifest.json"
_BLOB = r"blobs/sha256/([0-9a-f]{64})"
_NAMED_BY_DIGEST = r"(?:.*/)?(?:sha256:)?([0-9a-f]{64})\.t(?:ar\.)?(?:gz|zst)"
_MEDIA_TYPES: dict[Compression, str] = {
    "gzip": media_types.DOCKER_LAYER_GZIP,
    "zstd": media_types.OCI_LAYER_ZSTD,
}
_Layer = tuple[SourceLayer, "Compression"]


class DockerArchive(ImageSource):
    """An archive that owns its files."""

    transport = "docker-archive"

    def __init__(self, files: Archive, cancel: Cancel) -> None:
        self._files = files
        self._cancel = cancel
        listed = read_json(files, MANIFEST)
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            raise SourceError(f"{MANIFEST} in {files.name} is no list of images")
        if not listed:
            raise SourceError(f"{files.name} holds no image: its {MANIFEST} lists none")
        self._listed: list[dict[str, Any]] = listed

    def close(self) -> None:
        """See `ImageSource`."""
        self._files.close()

    def entries(self) -> Sequence[SourceEntry]:
        """See `ImageSource`."""
        return [
            SourceEntry(_texts(listed.get("RepoTags")), partial(self._image, listed))
            for listed in self._listed
        ]

    def _image(self, listed: dict[str, Any]) -> SourceImage:
        path = str(listed.get("Config") or "")
        if not path:
            raise SourceError(f"{MANIFEST} in {self._files.name} names no config")
        content = read(self._files, path)
        # Docker since 25.0 names the config by its digest, as a layout does. Other names tell
        # nothing.
        named = re.fullmatch(_BLOB, path.lstrip("/"))
        if named and named[1] != Digest.of(content).hex:
            raise SourceError(
                f"the config {path} in {self._files.name} is damaged: "
                f"its bytes have the digest {Digest.of(content)}"
            )
        with understood(f"the config {shown(path)} in {self._files.name}"):
            config = parse_config(content)
        layers = self._layers(listed, config.diff_ids)
        return SourceImage(
            config=content,
            config_type=None,
            layers=tuple(layer for layer, _ in layers),
            manifest=None,
            platform=config.platform,
            oci=any(kind == "zstd" for _, kind in layers),  # schema 2 has no such layers
        )

    def _layers(self, listed: dict[str, Any], diff_ids: Sequence[Digest]) -> list[_Layer]:
        paths = _texts(listed.get("Layers"))
        if len(paths) != len(diff_ids):
            raise SourceError(
                f"an image in {self._files.name} has {len(paths)} layers by its {MANIFEST} "
                f"and {len(diff_ids)} by its config"
            )
        sources = listed.get("LayerSources")
        described = sources if isinstance(sources, dict) else {}
        return [
            self._layer(path, diff_id, described.get(diff_id))
            for path, diff_id in zip(paths, diff_ids, strict=True)
        ]

    def _layer(self, path: str, diff_id: Digest, described: object) -> _Layer:
        size = self._files.size(path)
        foreign = self._foreign(described, held=size is not None)
        if foreign:
            return foreign_layer(foreign, diff_id), "none"
        if size is None:
            self._check_changed(path, diff_id)
            lacking = missing_layer(self._files.name, shown(path), diff_id, None)
            return lacking, "zstd" if path.endswith("zst") else "none"
        # `manifest.json` does not tell how a layer is compressed: its first bytes do.
        head = read_all(self._files.open(path), min(size, media_types.MAGIC_LENGTH))
        kind = media_types.detect(head)
        named = re.fullmatch(_BLOB, path.lstrip("/"))
        if kind == "none" and named and named[1] != diff_id.hex:
            raise self._changed(diff_id, named[1])
        stored = None
        if kind != "none":
            digest = _told_digest(path, diff_id) or self._hashed(path)
            stored = Descriptor(_MEDIA_TYPES[kind], digest, size)
        return SourceLayer(diff_id, stored, size, partial(self._files.open, path)), kind

    def _hashed(self, path: str) -> Digest:
        """The digest of a file whose name has none: it is read once to know that."""
        digest = hashlib.sha256()
        with closing(self._files.open(path)) as reader:
            for block in blocks(reader):
                self._cancel.check()
                digest.update(block)
        return Digest(f"sha256:{digest.hexdigest()}")

    def _check_changed(self, path: str, diff_id: Digest) -> None:
        """Raise SourceError if a missing layer is missing because the engine found it changed."""
        # Docker's graph drivers name a layer's file by its DiffID. If the bytes have another
        # digest, the file is named by that, and `manifest.json` still has the DiffID.
        listed = {
            str(each).lstrip("/")
            for image in self._listed
            for each in (image.get("Config"), *_texts(image.get("Layers")))
        }
        if not path.endswith(diff_id.hex):
            return
        for name in self._files.files.keys() - listed:
            if match := re.fullmatch(_BLOB, name):
                size = self._files.size(name) or 0  # 262: up to the magic of a tar's first header
                if read_all(self._files.open(name), min(size, 262)).endswith(b"ustar"):
                    raise self._changed(diff_id, match[1])

    def _changed(self, diff_id: Digest, found: str) -> SourceError:
        return SourceError(
            f"the layer {diff_id} in {self._files.name} is damaged: the engine that saved it found "
            f"it changed, to sha256:{found}",
            hint="pull or build the image again, and save it again",
        )

    def _foreign(self, described: object, *, held: bool) -> Descriptor | None:
        """The descriptor in `LayerSources` of a layer that lies elsewhere; None: it does not."""
        if not isinstance(described, dict) or not described.get("urls"):
            return None
        with understood(f"LayerSources of {MANIFEST} in {self._files.name}"):
            descriptor = Descriptor.from_json(described)
        elsewhere = media_types.is_foreign(descriptor.media_type) or not held
        return descriptor if elsewhere else None


def _told_digest(path: str, diff_id: Digest) -> Digest | None:
    """The digest of a compressed layer, by its file's name; None: the name has none."""
    # Some writers name a compressed layer by its DiffID, which is not the digest of these bytes.
    match = re.fullmatch(_BLOB, path.lstrip("/")) or re.fullmatch(_NAMED_BY_DIGEST, path)
    if match is None or match[1] == diff_id.hex:
        return None
    return Digest(f"sha256:{match[1]}")


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(each) for each in value) if isinstance(value, list) else ()
