"""`docker save` archives, by their `manifest.json` (docker image specification v1.2).

Layers lie there as plain tars, or compressed, as jib and kaniko write them. A compressed one goes
byte for byte under the digest that its name tells, which is checked while it is sent, or under
the one found by hashing it once.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from towline.errors import SourceError
from towline.sources import access
from towline.sources import files as stores
from towline.sources.base import SourceEntry, SourceImage
from towline.sources.blobs import FileLayer, ForeignLayer, UnnamedLayer
from towline.sources.entries import UnusableEntry
from towline.spec import compression, media_types
from towline.spec import config as configs
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from towline.context import Cancel
    from towline.sources.base import SourceLayer
    from towline.sources.files import Files
    from towline.spec.compression import Compression

MANIFEST = "manifest.json"
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_NAMED_BY_DIGEST = re.compile(r"(?:.*/)?(?:sha256:)?([0-9a-f]{64})\.t(?:ar\.)?(?:gz|zst)")
_MEDIA_TYPES: dict[Compression, str] = {
    "gzip": media_types.DOCKER_LAYER_GZIP,
    "zstd": media_types.OCI_LAYER_ZSTD,
}
_Layer = tuple["SourceLayer", "Compression"]


class DockerArchive:
    """An ImageSource that owns its files."""

    def __init__(self, files: Files, cancel: Cancel) -> None:
        self._files = files
        self._cancel = cancel
        listed = stores.read_json(files, MANIFEST)
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
        return [self._entry(listed) for listed in self._listed]

    def _entry(self, listed: dict[str, Any]) -> SourceEntry:
        names = tuple(_texts(listed.get("RepoTags")))
        try:
            return SourceEntry(names, self._image(listed))
        except SourceError as error:
            return UnusableEntry(names, error)

    def _image(self, listed: dict[str, Any]) -> SourceImage:
        path = str(listed.get("Config") or "")
        if not path:
            raise SourceError(f"{MANIFEST} in {self._files.name} names no config")
        content = stores.read(self._files, path)
        self._check_name(path, content)
        config = stores.understood(
            f"the config {stores.shown(path)} in {self._files.name}",
            lambda: configs.parse(content),
        )
        layers = self._layers(listed, config.diff_ids)
        return SourceImage(
            config=content,
            config_type=None,
            layers=tuple(layer for layer, _ in layers),
            manifest=None,
            platform=config.platform,
            oci=any(kind == "zstd" for _, kind in layers),  # schema 2 has no such layers
        )

    def _check_name(self, path: str, content: bytes) -> None:
        match = _BLOB.fullmatch(path)
        if match and match[1] != Digest.of(content).hex:
            raise SourceError(
                f"the config {path} in {self._files.name} is damaged: "
                f"its bytes have the digest {Digest.of(content)}"
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
            return ForeignLayer(foreign, diff_id), "none"
        if size is None:
            raise SourceError(f"{self._files.name} lacks the layer {stores.shown(path)}")
        head = access.read_all(self._files.open(path), min(size, compression.MAGIC_LENGTH))
        kind = compression.detect(head)
        if kind == "none":
            return FileLayer(self._files, path, size, diff_id, None), kind
        media_type = _MEDIA_TYPES[kind]
        digest = _told_digest(path, diff_id)
        if digest is None:
            unnamed = UnnamedLayer(
                self._files, path, diff_id=diff_id, media_type=media_type, cancel=self._cancel
            )
            return unnamed, kind
        stored = Descriptor(media_type, digest, size)
        return FileLayer(self._files, path, size, diff_id, stored), kind

    def _foreign(self, described: object, *, held: bool) -> Descriptor | None:
        """What `LayerSources` says of a layer that lies elsewhere."""
        if not isinstance(described, dict) or not described.get("urls"):
            return None
        descriptor = stores.understood(
            f"LayerSources of {MANIFEST} in {self._files.name}",
            lambda: Descriptor.from_json(described),
        )
        elsewhere = media_types.is_foreign(descriptor.media_type) or not held
        return descriptor if elsewhere else None


def _told_digest(path: str, diff_id: Digest) -> Digest | None:
    """The digest of a compressed layer by the name of its file, where the name is one.

    A name that is the DiffID tells nothing of the compressed bytes.
    """
    match = _BLOB.fullmatch(path) or _NAMED_BY_DIGEST.fullmatch(path)
    if match is None or match[1] == diff_id.hex:
        return None
    return Digest(f"sha256:{match[1]}")


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(each) for each in value) if isinstance(value, list) else ()
