"""What tests of sources share: tars with any members, and reading what a source gives."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

from towline.context import Context
from towline.sources import base, select
from towline.sources.base import SourceIndex
from towline.sources.files import read_all
from towline.sources.location import parse
from towline.sources.open_source import open_source
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from towline.sources.base import SourceEntry, SourceImage, SourceLayer
    from towline.sources.image_source import ImageSource

QUIET = Context()


_open: list[ImageSource] = []


def opened(path: Path) -> ImageSource:
    """A source that `close_all` closes, so that its layers can be read until the test ends."""
    source = open_source(parse(path), QUIET)
    _open.append(source)
    return source


def close_all() -> None:
    while _open:
        _open.pop().close()


def entries(path: Path) -> Sequence[SourceEntry]:
    return opened(path).entries()


def chosen(path: Path, *wanted: str, attestations: bool = True) -> list[SourceEntry]:
    """The entries as a push with these platforms gets them."""
    parsed = [select.parse_platform(text) for text in wanted]
    return [
        select.chosen(entry, parsed, path.name, attestations=attestations)
        for entry in entries(path)
    ]


def image_of(entry: SourceEntry) -> SourceImage:
    assert not isinstance(entry.content, SourceIndex)
    return entry.content


def images_of(entry: SourceEntry) -> tuple[SourceImage, ...]:
    return tuple(base.images_of(entry.content))


def content_of(layer: SourceLayer) -> bytes:
    return read_all(layer.open(), layer.size)


def digest_of(layer: SourceLayer) -> Digest:
    """Of what opening it gives, to the last byte and no further."""
    reader = layer.open()
    hashed = hashlib.sha256()
    buffer = memoryview(bytearray(7000))
    while got := reader.readinto(buffer):
        hashed.update(buffer[:got])
    reader.close()
    return Digest(f"sha256:{hashed.hexdigest()}")


def member(name: str, content: bytes = b"") -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    return entry, content


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry, b""


class Counted(io.BytesIO):
    """A file that counts the bytes read from it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def tar_of(
    *members: tuple[tarfile.TarInfo, bytes], fmt: int = tarfile.PAX_FORMAT, **options: Any
) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=fmt, **options) as tar:
        for entry, content in members:
            tar.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def docker_archive(
    path: Path,
    layers: Mapping[str, bytes],
    diff_ids: Sequence[str] | None = None,
    *,
    more: Sequence[tuple[tarfile.TarInfo, bytes]] = (),
    listed: Mapping[str, Any] | None = None,
    config: bytes | None = None,
) -> Path:
    """An archive with these files as layers, whatever they are."""
    if diff_ids is None:
        diff_ids = [Digest.of(content) for content in layers.values()]
    if config is None:
        rootfs = {"type": "layers", "diff_ids": list(diff_ids)}
        config = json.dumps({"os": "linux", "architecture": "arm64", "rootfs": rootfs}).encode()
    entry = {"Config": "config.json", "RepoTags": ["app:1"], "Layers": list(layers)}
    manifest = json.dumps([{**entry, **(listed or {})}]).encode()
    path.write_bytes(
        tar_of(
            *(member(name, content) for name, content in layers.items()),
            *more,
            member("config.json", config),
            member("manifest.json", manifest),
        )
    )
    return path
