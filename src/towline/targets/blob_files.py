"""Files that get their names only when all of them is written."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from towline.errors import SourceError, TowlineError
from towline.layers.decoders import Decoder, decoder_of
from towline.sources.oci_layout import path_of
from towline.sources.spool import FULL
from towline.spec import media_types
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from towline.context import Context

_PARTIAL = ".partial"
_FORGOTTEN = 3600.0
"""Seconds without a byte after which an unfinished file is nobody's: its process was killed."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into a TowlineError with a sentence about `path`."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if error.errno in FULL:
            with suppress(OSError):
                room = os.statvfs(path.parent)
                reason = f"{reason}; {room.f_bavail * room.f_frsize} bytes are free there"
        raise TowlineError(f"cannot write {path}: {reason}", side="destination") from None


class PartialFile:
    """A file under a temporary name. `drop` removes it, unless `rename` came before."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f".{os.urandom(8).hex()}{_PARTIAL}"
        self._file = self._path.open("xb")
        self.write = self._file.write
        """Writes all of a block. Raises OSError."""

    def rename(self, path: Path) -> None:
        """Give the whole file its name. Raises OSError."""
        self._file.close()
        self._path.replace(path)

    def drop(self) -> None:
        """Remove it, unless it was renamed."""
        with suppress(OSError):
            self._file.close()  # a full disk may not take its last bytes
        with suppress(OSError):
            self._path.unlink()


def write_whole(path: Path, pieces: Iterable[bytes], folder: Path | None = None) -> None:
    """Write a file in `folder`, and put it in its place as a whole. Raises TowlineError."""
    with writing(path):
        file = PartialFile(folder or path.parent)
        try:
            for piece in pieces:
                file.write(piece)
            file.rename(path)
        finally:
            file.drop()


def remove_forgotten(folder: Path) -> None:
    """Remove the unfinished files of copies that were killed."""
    for path in folder.glob(f".*{_PARTIAL}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _FORGOTTEN:
                path.unlink()


class BlobFile:
    """A blob that is written to a layout: the interface of `registry.upload.upload.Upload`."""

    acknowledged = 0
    """Always 0: an unfinished blob is begun anew."""
    resumed = False

    def __init__(self, root: Path, context: Context) -> None:
        """`root`: the layout, which has its folders already."""
        self.sent = 0
        """Bytes written."""
        self._root = root
        self._context = context
        with writing(root):
            self._file = PartialFile(root / "blobs" / "sha256")

    def write(self, block: bytes | memoryview) -> None:
        """Write a block. Raises TowlineError, Cancelled."""
        self._context.cancel.check()
        view = memoryview(block).cast("B")
        with writing(self._root):
            self._keep(view)
        self.sent += len(view)
        self._context.meter.add(sent_bytes=len(view))

    def _keep(self, block: memoryview) -> None:
        self._file.write(block)

    def commit(self, digest: str) -> None:
        """After the last byte: give the blob its name. Raises TowlineError."""
        with writing(self._root):
            self._file.rename(self._root / path_of(Digest(digest)))

    def rewind(self) -> bool:
        """False: a new file is begun after a failure."""
        return False

    def cancel(self) -> None:
        """Remove the unfinished file."""
        self._file.drop()


class PlainFile(BlobFile):
    """A blob that is decompressed, and kept under the digest of its plain bytes.

    A link with the digest of the compressed bytes leads there. `write` and `commit` raise
    SourceError, too, if the compressed bytes are damaged.
    """

    def __init__(self, root: Path, context: Context) -> None:
        super().__init__(root, context)
        self._decoder: Decoder | None = None
        self._head = b""
        self._hash = hashlib.sha256()

    def _keep(self, block: memoryview) -> None:
        if self._decoder is None:
            self._head += bytes(block)
            if len(self._head) >= media_types.MAGIC_LENGTH:
                self._begin()
        else:
            self._decode(self._decoder, block)

    def _begin(self) -> Decoder:
        decoder = decoder_of(media_types.detect(self._head), "a layer of the source")
        self._decode(decoder, memoryview(self._head))
        self._decoder = decoder
        return decoder

    def _decode(self, decoder: Decoder, block: memoryview) -> None:
        for piece in decoder.feed(block):
            self._hash.update(piece)
            self._file.write(piece)

    def commit(self, digest: str) -> None:
        """See `BlobFile`."""
        with writing(self._root):
            (self._decoder or self._begin()).finish()
            plain = f"sha256:{self._hash.hexdigest()}"
            super().commit(plain)
            if plain != digest:
                with suppress(FileExistsError):
                    (self._root / path_of(Digest(digest))).symlink_to(Digest(plain).hex)


def plain_digest(root: Path, digest: Digest) -> Digest:
    """The digest of a blob's plain bytes, by the link that a `PlainFile` has made.

    Raises SourceError where there is none.
    """
    try:
        return Digest(f"sha256:{(root / path_of(digest)).resolve().name}")
    except ValueError:
        raise SourceError(f"the layer {digest} was not kept") from None
