"""Blobs of images that are built for tests and demos: the same input, the same bytes.

Layers are written through, never held: an image may be as large as the disk allows.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, Protocol

from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import IO

    from _typeshed import ReadableBuffer

    from towline.spec.compression import Compression
    from towline.spec.media_types import Format

Content = bytes | os.PathLike[str]
"""What a file of a layer holds: its bytes, or those of a file of this machine."""
_EXECUTABLE = 0o111


class MadeLayer(NamedTuple):
    """A layer as it lies in the store."""

    diff_id: Digest
    blob: Descriptor


class BlobStore:
    """`blobs/sha256` below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = root / "blobs" / "sha256"
        self._folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: Digest) -> Path:
        """Where a blob lies."""
        return self._folder / digest.hex

    def names(self) -> list[str]:
        """Every blob, by its path below the root."""
        return sorted(f"blobs/sha256/{blob.name}" for blob in self._folder.iterdir())

    def add(self, content: bytes, media_type: str) -> Descriptor:
        """Keep a small blob."""
        descriptor = Descriptor(media_type, Digest.of(content), len(content))
        self.path(descriptor.digest).write_bytes(content)
        return descriptor

    def add_layer(
        self, files: Mapping[str, Content], compression: Compression, fmt: Format
    ) -> MadeLayer:
        """Keep a layer of these files, compressed or not."""
        growing = self.root / "growing"
        with growing.open("wb") as file:
            packed = PackedFile(file, compression)
            write_tar(packed, files)
            packed.finish()
        blob = Descriptor(media_types.layer(fmt, compression), packed.digest, packed.size)
        growing.rename(self.path(blob.digest))
        return MadeLayer(packed.diff_id, blob)


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _compressor(compression: Compression) -> _Compressor:
    if compression == "gzip":
        return zlib.compressobj(6, wbits=31)
    if compression == "zstd":
        import zstandard

        return zstandard.ZstdCompressor().compressobj()
    return _Plain()


class PackedFile(io.RawIOBase):
    """Compresses what is written, and knows the digests on either side."""

    def __init__(self, file: IO[bytes], compression: Compression) -> None:
        super().__init__()
        self._file = file
        self._compressor = _compressor(compression)
        self._plain = hashlib.sha256()
        self._packed = hashlib.sha256()
        self._written = 0
        self.size = 0
        """Compressed bytes."""

    @property
    def diff_id(self) -> Digest:
        """Digest of what was written."""
        return Digest(f"sha256:{self._plain.hexdigest()}")

    @property
    def digest(self) -> Digest:
        """Digest of what it became."""
        return Digest(f"sha256:{self._packed.hexdigest()}")

    def writable(self) -> bool:
        """It is for writing alone."""
        return True

    def tell(self) -> int:
        """Plain bytes so far."""
        return self._written

    def write(self, data: ReadableBuffer, /) -> int:
        """Take plain bytes."""
        block = bytes(data)
        self._plain.update(block)
        self._keep(self._compressor.compress(block))
        self._written += len(block)
        return len(block)

    def finish(self) -> None:
        """Write what the compressor still holds."""
        self._keep(self._compressor.flush())

    def _keep(self, packed: bytes) -> None:
        self._packed.update(packed)
        self._file.write(packed)
        self.size += len(packed)


def write_tar(file: io.RawIOBase, contents: Mapping[str, Content]) -> None:
    """A tar of these files and the folders above them, with nothing in it that may differ."""
    seen: set[str] = set()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in contents.items():
            for folder in _folders_above(name):
                if folder not in seen:
                    seen.add(folder)
                    tar.addfile(entry(folder, kind=tarfile.DIRTYPE, mode=0o755))
            _add_file(tar, name, content)


def _folders_above(name: str) -> Iterator[str]:
    parents = [str(parent) for parent in PurePosixPath(name).parents]
    yield from reversed([parent for parent in parents if parent != "."])


def _add_file(tar: tarfile.TarFile, name: str, content: Content) -> None:
    if isinstance(content, bytes):
        tar.addfile(entry(name, len(content)), io.BytesIO(content))
        return
    with Path(content).open("rb") as file:
        found = os.fstat(file.fileno())
        mode = 0o755 if found.st_mode & _EXECUTABLE else 0o644
        tar.addfile(entry(name, found.st_size, mode=mode), file)


def entry(
    name: str, size: int = 0, *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644
) -> tarfile.TarInfo:
    """A header with the same owner and time everywhere."""
    header = tarfile.TarInfo(name)
    header.size, header.type, header.mode = size, kind, mode
    return header


def link(name: str, target: str, *, hard: bool = False) -> tarfile.TarInfo:
    """The header of a link."""
    header = entry(name, kind=tarfile.LNKTYPE if hard else tarfile.SYMTYPE, mode=0o777)
    header.linkname = target
    return header
