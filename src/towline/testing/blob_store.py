"""Blobs of images for tests and demos: the same input gives the same bytes.

Layers are written to disk as they grow, never held in memory: an image may be as large as the disk
allows.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zlib
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from _typeshed import ReadableBuffer

    from towline.spec.media_types import Compression

Content = bytes | os.PathLike[str]
"""The content of a file of a layer: its bytes, or the path of a file on this machine."""
_EXECUTABLE = 0o111


class MadeLayer(NamedTuple):
    """A layer in the store: its DiffID, and the descriptor of its blob."""

    diff_id: Digest
    blob: Descriptor


class BlobStore:
    """The folder `blobs/sha256` below a root, as an OCI layout has it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folder = root / "blobs" / "sha256"
        self._folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: Digest) -> Path:
        """The path of a blob's file."""
        return self._folder / digest.hex

    def names(self) -> list[str]:
        """The paths of all blobs, relative to the root."""
        return sorted(f"blobs/sha256/{blob.name}" for blob in self._folder.iterdir())

    def add(self, content: bytes, media_type: str) -> Descriptor:
        """Store a small blob."""
        descriptor = Descriptor(media_type, Digest.of(content), len(content))
        self.path(descriptor.digest).write_bytes(content)
        return descriptor

    def add_layer(self, files: Mapping[str, Content], compression: Compression) -> MadeLayer:
        """Store a layer of `files` and the folders above them, compressed or not."""
        growing = self.root / "growing"
        seen: set[str] = set()
        with growing.open("wb") as file:
            packed = PackedFile(file, compression)
            with packed.tar() as tar:
                for name, content in files.items():
                    above = [str(folder) for folder in reversed(PurePosixPath(name).parents)]
                    for folder in above[1:]:  # the first is the root, `.`
                        if folder not in seen:
                            seen.add(folder)
                            tar.addfile(entry(folder, kind=tarfile.DIRTYPE, mode=0o755))
                    add_file(tar, name, content)
        blob = Descriptor(media_types.layer("oci", compression), packed.digest, packed.size)
        growing.rename(self.path(blob.digest))
        return MadeLayer(packed.diff_id, blob)


class PackedFile(io.RawIOBase):
    """A file that compresses what is written to it, and has the digests before and after."""

    def __init__(self, file: IO[bytes], compression: Compression) -> None:
        super().__init__()
        self._file = file
        self._compressor: Any = None
        if compression == "gzip":
            self._compressor = zlib.compressobj(6, wbits=31)  # gzip, with no time in its header
        elif compression == "zstd":
            import zstandard

            self._compressor = zstandard.ZstdCompressor().compressobj()
        self._plain = hashlib.sha256()
        self._packed = hashlib.sha256()
        self._written = 0
        self.size = 0
        """Compressed bytes."""

    @contextmanager
    def tar(self) -> Iterator[tarfile.TarFile]:
        """A tar to fill in the block; after it, the tar and the file are complete."""
        with tarfile.open(fileobj=self, mode="w", format=tarfile.GNU_FORMAT) as tar:
            yield tar
        if self._compressor:
            self._keep(self._compressor.flush())

    @property
    def diff_id(self) -> Digest:
        """Digest of the plain bytes."""
        return Digest(f"sha256:{self._plain.hexdigest()}")

    @property
    def digest(self) -> Digest:
        """Digest of the compressed bytes."""
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
        self._keep(self._compressor.compress(block) if self._compressor else block)
        self._written += len(block)
        return len(block)

    def _keep(self, packed: bytes) -> None:
        self._packed.update(packed)
        self._file.write(packed)
        self.size += len(packed)


def add_file(tar: tarfile.TarFile, name: str, content: Content) -> None:
    """Put a file into a tar, executable if the one on this machine is."""
    if isinstance(content, bytes):
        tar.addfile(entry(name, len(content)), io.BytesIO(content))
        return
    with Path(content).open("rb") as file:
        found = os.fstat(file.fileno())
        mode = 0o755 if found.st_mode & _EXECUTABLE else 0o644
        tar.addfile(entry(name, found.st_size, mode=mode), file)


def entry(
    name: str, size: int = 0, *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644, target: str = ""
) -> tarfile.TarInfo:
    """A header with nothing in it that may differ: the same owner and time everywhere."""
    header = tarfile.TarInfo(name)
    header.size, header.type, header.mode, header.linkname = size, kind, mode, target
    return header
