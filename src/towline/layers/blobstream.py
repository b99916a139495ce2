"""Makes the bytes of a blob from those of a layer in a single pass: read, hash, compress, hash.

`BlobStream` yields the blob's blocks in order; at the end it has their digest and size. The calling
thread takes them in order, and reads and hashes where no other thread is lent for that; a pool
compresses. The bytes depend on the layer and the profile alone: not on threads, on timing, or on
how much the reader gives at once. Where the blocks go is the caller's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle
from threading import Event
from typing import TYPE_CHECKING

from towline.layers.decoders import decoder_of
from towline.layers.encoders import encoder_of
from towline.layers.pipelines import STORED_BLOCK, Source, Work, checked, encoded, nobody, stored
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from hashlib import _Hash

    from towline.context import Cancel
    from towline.layers.pipelines import Lend, Look, Pool, Spares
    from towline.layers.profile import Profile
    from towline.layers.reader import Reader
    from towline.spec.media_types import Compression

_LENT_FOR = 256 << 10
"""Bytes of the smallest block whose hash is worth another thread."""
Block = bytes | memoryview
"""Bytes of a blob. A memoryview is valid until the next block is asked for, or as `kept` says."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Digest and size of the blob that a stream has made."""

    digest: Digest
    """Of the blob's bytes."""
    size: int
    """Bytes of the blob."""
    diff_id: Digest | None
    """The digest of the plain bytes; None when a stored blob was not decompressed."""


class BlobStream:
    """The bytes of one blob, made from one reader; iterated once, by one thread.

    With `encoding` None the stored bytes go as they are: about `size`, which bounds the buffer. If
    `diff_id_of` is then their compression, they are decompressed too, for the DiffID; errors call
    them `name`. Streams that share `spares` share the memory for blocks beyond each one's first.
    `lend` has work done by another thread, if one is free; `look` is told of each block.

    Raises SourceError from the reader, or when a stored blob that is decompressed is damaged;
    Cancelled when `cancel` is thrown. The stream closes the reader when it ends, or fails.
    """

    def __init__(
        self,
        reader: Reader,
        encoding: Profile | None,
        pool: Pool,
        cancel: Cancel,
        *,
        size: int = STORED_BLOCK,
        diff_id_of: Compression | None = None,
        spares: Spares | None = None,
        lend: Lend = nobody,
        look: Look | None = None,
        name: str = "the layer",
    ) -> None:
        from hashlib import sha256

        self.kept = 0
        """How many further blocks may be taken while the caller still uses one, a memoryview.

        To be set before the first block is taken.
        """
        self._source = Source(reader)
        self._cancel = cancel
        self._lend = lend
        self._hash = sha256()
        self._size = 0
        self._blob: Blob | None = None
        self._plain: _Hash | None = sha256()
        work = Work(pool, cancel, lend)
        encoder = encoder_of(encoding) if encoding else None
        blocks: Generator[Block, None, None]
        if encoder:
            blocks = encoded(self._source, encoder, self._plain, work, spares, look=look)
        elif diff_id_of and diff_id_of != "none":
            decoder = decoder_of(diff_id_of, name)
            blocks = checked(self._source, decoder, self._plain, work, self._rooms(2, size))
        else:
            blocks = stored(self._source, self._rooms(1, size))
            self._plain = self._hash if encoding or diff_id_of else None
        self._blocks = self._run(blocks)

    @property
    def position(self) -> int:
        """Bytes read from the source so far. Safe from any thread."""
        return self._source.position

    @property
    def blob(self) -> Blob:
        """The blob that was made. Raises RuntimeError before the stream's end."""
        if self._blob is None:
            raise RuntimeError("the stream has not reached its end")
        return self._blob

    def __iter__(self) -> Iterator[Block]:
        """The blob's blocks in order, none of them empty."""
        return self._blocks

    def close(self) -> None:
        """Stop: blocks that wait to be compressed are dropped, the reader is closed."""
        self._blocks.close()
        self._source.close()

    def _run(self, blocks: Generator[Block, None, None]) -> Generator[Block, None, None]:
        try:
            for block in blocks:
                self._cancel.check()
                hashed = self._hash_beside(block)
                if block:
                    yield block
                # Hashed after it was sent, so that the registry has something to do meanwhile; and
                # before the next block is made, which may be written over this one.
                if hashed is None:
                    self._hash.update(block)
                else:
                    hashed.wait()
                self._size += len(block)
            diff_id = _digest(self._plain) if self._plain else None
            self._blob = Blob(_digest(self._hash), self._size, diff_id)
        finally:
            blocks.close()
            self._source.close()

    def _rooms(self, count: int, size: int) -> Iterator[memoryview]:
        """Buffers for blocks in turn, each made when it is first needed."""
        rooms = range(count + self.kept)
        yield from cycle(memoryview(bytearray(min(size, STORED_BLOCK))) for _ in rooms)

    def _hash_beside(self, block: Block) -> Event | None:
        """Have another thread hash the block while it is sent. None: no thread is free."""
        if len(block) < _LENT_FOR:
            return None
        hashed = Event()

        def hash_it() -> None:
            self._hash.update(block)
            hashed.set()

        return hashed if self._lend(hash_it) else None


def _digest(hashed: _Hash) -> Digest:
    return Digest("sha256:" + hashed.hexdigest())
