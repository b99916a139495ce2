"""Encodes a layer's plain bytes block by block, each block by itself.

The bytes of an encoded block depend on the block and, for gzip, on the 32 KiB before it. So any
thread can encode any block, and the blob is their concatenation. Where blocks are cut
(`block_size`) is therefore part of the profile, like the level. Reading, ordering and hashing are
`blobstream`'s work.
"""

from __future__ import annotations

import struct
import threading
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import zstandard

    from towline.layers.profile import Profile

GZIP_BLOCK = 1 << 20
"""Bytes; part of the profiles' promise: another value would change every digest."""
GZIP_WINDOW = 1 << 15
"""Bytes that deflate can refer back (RFC 1951, section 2)."""
ZSTD_BLOCK = 4 << 20
"""Bytes of a frame's content; its window is no larger, so any decoder takes it (RFC 8878,
3.1.1.1.2)."""

_GZIP_HEADER = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF))
"""Deflate; no name, time, level or system (RFC 1952, section 2.3): nothing that varies."""
_GZIP_END = b"\x03\x00"
"""An empty final deflate block, so that no block with content has to know that it is the last."""
_GZIP_LEVEL = 1
"""ISA-L's, at 593 MB/s a core and 0.434 of the size; zlib's level 6 takes 18 times as long for
0.381 (decision 19)."""
_GZIP_MEMORY = 8
"""zlib's usual value. ISA-L makes other bytes with others, and so other digests: it must stay."""
_RAW_DEFLATE = -15
"""A window of 32 KiB, and no header or trailer: those are made here, once for all blocks."""
_BEGINNING = 16
"""Bytes of a layer that are flushed by themselves.

ISA-L's code for x86, at the start of a stream that has neither dictionary nor history, takes a hash
of the stream's address in memory instead of the data: one layer in some thousands came out with
another digest. So few bytes take another way through that code, and then there is history.
"""
_PIECE = 4 << 10
"""Bytes of a piece that is tried."""
_PIECES = range(1 << 16, GZIP_BLOCK, 1 << 17)
"""Where pieces of a whole block are tried: a block of which none shrinks is stored. ISA-L takes
1.57 ms for a MiB of noise, trying and storing 0.18."""
_thread = threading.local()
_STORED_MAX = 0xFFFF
"""Bytes of a stored deflate block (RFC 1951, section 3.2.4)."""


class Encoder:
    """One blob's encoder. `encode` may be called from several threads at once, the rest not."""

    block_size: int
    """Plain bytes of each block but the last."""
    history = 0
    """Bytes before a block that `encode` needs."""

    def head(self) -> bytes:
        """The bytes before the first block."""
        return b""

    def saw(self, block: memoryview) -> None:
        """Note a block's plain bytes; called for each block, in order."""

    def encode(self, history: memoryview, block: memoryview) -> bytes:
        """The bytes of one block. `history` is empty for the first."""
        raise NotImplementedError

    def tail(self) -> bytes:
        """The bytes behind the last block; called once all blocks were seen."""
        return b""


def encoder_of(profile: Profile) -> Encoder | None:
    """A new encoder; None for the profile that leaves the bytes as they are."""
    match profile.compression:
        case "gzip" if profile.level:
            return PartsEncoder(GZIP_BLOCK, partial(_gzip_member, profile.level))
        case "gzip":
            return GzipEncoder()
        case "zstd":
            return PartsEncoder(ZSTD_BLOCK, partial(_zstd_frame, profile.level))
        case "none":
            return None


class GzipEncoder(Encoder):
    """One gzip member (RFC 1952), flushed at every block's end and after its very first bytes.

    A block starts with the 32 KiB before it as its dictionary, so cutting costs next to nothing
    in size, and ends on a byte boundary (Z_SYNC_FLUSH), so blocks can be put one after another. One
    that would not shrink (model weights, media, archives in archives) is stored.
    """

    block_size = GZIP_BLOCK
    history = GZIP_WINDOW

    def __init__(self) -> None:
        from isal import isal_zlib

        self._deflate = isal_zlib
        self._crc = 0
        self._size = 0

    def head(self) -> bytes:
        """The header."""
        return _GZIP_HEADER

    def saw(self, block: memoryview) -> None:
        """Check sum and length go into the trailer; together 1% of what hashing costs."""
        self._crc = self._deflate.crc32(block, self._crc)
        self._size += len(block)

    def encode(self, history: memoryview, block: memoryview) -> bytes:
        """Deflate one block up to a byte boundary, or store it if it would not shrink."""
        if len(block) == GZIP_BLOCK and not self._shrinks(block):
            return _stored(block)
        return self._deflated(history, block)

    def _shrinks(self, block: memoryview) -> bool:
        """Whether one of eight pieces would shrink. Most often the first does."""
        return any(
            len(self._deflated(block[at - _PIECE : at], block[at : at + _PIECE])) < _PIECE
            for at in _PIECES
        )

    def _deflated(self, history: memoryview, block: memoryview) -> bytes:
        deflate = self._deflate
        encoder = deflate.compressobj(
            _GZIP_LEVEL,
            deflate.DEFLATED,
            _RAW_DEFLATE,
            _GZIP_MEMORY,
            deflate.Z_DEFAULT_STRATEGY,
            history,
        )
        # Only the first block has no history; see `_BEGINNING`.
        pieces = (block,) if history else (block[:_BEGINNING], block[_BEGINNING:])
        encoded: list[bytes] = []
        for piece in filter(len, pieces):
            encoded += encoder.compress(piece), encoder.flush(deflate.Z_SYNC_FLUSH)
        return b"".join(encoded)

    def tail(self) -> bytes:
        """The final deflate block and the trailer."""
        return _GZIP_END + struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)


def _stored(block: memoryview) -> bytes:
    """Stored blocks of deflate (RFC 1951, section 3.2.4): a length, its complement, the bytes."""
    parts: list[bytes | memoryview] = []
    for at in range(0, len(block), _STORED_MAX):
        piece = block[at : at + _STORED_MAX]
        parts += struct.pack("<xHH", len(piece), len(piece) ^ _STORED_MAX), piece
    return b"".join(parts)


class PartsEncoder(Encoder):
    """Parts that each stand alone: gzip members (RFC 1952, section 2.2), zstd frames (RFC 8878)."""

    def __init__(self, block_size: int, compress: Callable[[memoryview], bytes]) -> None:
        self.block_size = block_size
        self._compress = compress
        self._empty = True

    def saw(self, block: memoryview) -> None:
        """Note whether the layer has any bytes."""
        self._empty = self._empty and not block

    def encode(self, history: memoryview, block: memoryview) -> bytes:
        """Compress one part."""
        del history
        return self._compress(block)

    def tail(self) -> bytes:
        """Nothing, except for an empty layer: one part without content.

        A blob of no bytes at all would be neither gzip nor zstd.
        """
        return self._compress(memoryview(b"")) if self._empty else b""


def _zstd_frame(level: int, block: memoryview) -> bytes:
    """A zstd frame that has its content's size in its header."""
    # Each thread keeps its compressor, whose tables take megabytes: too many to make for a frame.
    if getattr(_thread, "level", None) != level:
        import zstandard

        _thread.compressor = zstandard.ZstdCompressor(level, write_content_size=True)
        _thread.level = level
    compressor: zstandard.ZstdCompressor = _thread.compressor
    return compressor.compress(block)


def _gzip_member(level: int, block: memoryview) -> bytes:
    """A gzip member by libdeflate, whose header has no name, time or system."""
    import deflate

    return bytes(deflate.gzip_compress(block, level))
