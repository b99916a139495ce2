from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest
import zstandard

from tests.support.layers import BytesReader, sample
from towline.errors import SourceError
from towline.layers.decoders import STEP, decoded, decoder_of
from towline.sources.files import read_all

if TYPE_CHECKING:
    from towline.spec.media_types import Compression

PLAIN = sample(300_000)
GZIP = gzip.compress(PLAIN, mtime=0)
ZSTD = zstandard.ZstdCompressor(3, write_checksum=True).compress(PLAIN)
SKIPPABLE = struct.pack("<II", 0x184D2A53, 9) + b"anything!"


def decode(data: bytes, compression: Compression, at_once: int = 1 << 30) -> bytes:
    decoder = decoder_of(compression, "layer.tar")
    view = memoryview(data)
    made = [
        piece
        for start in range(0, len(view), at_once)
        for piece in decoder.feed(view[start : start + at_once])
    ]
    decoder.finish()
    assert all(len(piece) <= STEP for piece in made)
    return b"".join(made)


def gzip_with_long_header(plain: bytes) -> bytes:
    """Every optional part of a header: extra field, name, comment, check."""
    header = b"\x1f\x8b\x08\x1e" + bytes(4) + b"\x00\x03"
    header += struct.pack("<H", 5) + b"\x00ext\x00" + "näme".encode("latin-1") + b"\x00why\x00"
    header += struct.pack("<H", zlib.crc32(header) & 0xFFFF)
    return header + gzip.compress(plain, mtime=0)[10:]


@pytest.mark.parametrize("at_once", [1, 2, 3, 7, 4096, 1 << 30])
@pytest.mark.parametrize(
    ("data", "compression"),
    [
        (GZIP, "gzip"),
        (GZIP + gzip.compress(b"") + gzip_with_long_header(PLAIN[:99]), "gzip"),
        (ZSTD, "zstd"),
        (SKIPPABLE + ZSTD + SKIPPABLE + zstandard.compress(PLAIN[:99]) + SKIPPABLE, "zstd"),
        (PLAIN, "none"),
    ],
    ids=["gzip", "gzip-members", "zstd", "zstd-frames", "none"],
)
def test_a_stream_decodes_in_pieces_of_any_size(
    data: bytes, compression: Compression, at_once: int
) -> None:
    assert decode(data, compression, at_once) in {PLAIN, PLAIN + PLAIN[:99]}


@pytest.mark.parametrize("kept", [0, 1, 9, 10, 11, 5000, len(GZIP) - 8, len(GZIP) - 1])
def test_a_gzip_stream_cut_anywhere_is_said_to_be_cut_short(kept: int) -> None:
    with pytest.raises(SourceError, match=r"^layer\.tar is cut short: it ends inside its gzip"):
        decode(GZIP[:kept], "gzip")


@pytest.mark.parametrize("kept", [0, 3, 4, 5, 6, 9, 5000, len(ZSTD) - 4, len(ZSTD) - 1])
def test_a_zstd_stream_cut_anywhere_is_said_to_be_cut_short(kept: int) -> None:
    with pytest.raises(SourceError, match=r"^layer\.tar is cut short: it ends inside its zstd"):
        decode(ZSTD[:kept], "zstd")


def test_a_second_member_that_is_cut_is_cut_short_too() -> None:
    with pytest.raises(SourceError, match="cut short"):
        decode(GZIP + GZIP[:5], "gzip")
    with pytest.raises(SourceError, match="cut short"):
        decode(ZSTD + SKIPPABLE[:-1], "zstd")


@pytest.mark.parametrize("behind", [b"\0" * 512, b"\0", b"PK\3\4", b"\x1f\x8c"])
def test_something_else_behind_the_end_is_told(behind: bytes) -> None:
    with pytest.raises(SourceError, match="something else behind the end of its gzip data"):
        decode(GZIP + behind, "gzip")
    with pytest.raises(SourceError, match="among its zstd frames is something else"):
        decode(ZSTD + behind * 4, "zstd")


@pytest.mark.parametrize("at_once", [1, 1000, 1 << 30])
def test_zeros_behind_the_end_of_a_padded_gzip_stream_are_ignored(at_once: int) -> None:
    def read(data: bytes) -> bytes:
        reader = decoded(BytesReader(data, at_once=at_once), "gzip", "x.tar", padded=True)
        return read_all(reader, len(PLAIN) + 1)

    assert read(GZIP + bytes(300_000)) == PLAIN
    for behind in (bytes(300_000) + b"\1", bytes(9) + GZIP, b"\1"):
        with pytest.raises(SourceError, match="something else behind the end of its gzip data"):
            read(GZIP + behind)
    with pytest.raises(SourceError, match="it does not begin as gzip does"):
        read(bytes(512))


def test_a_wrong_check_sum_is_told() -> None:
    with pytest.raises(SourceError, match=r"^layer\.tar is damaged: .*checksum"):
        decode(GZIP[:-8] + b"\1\2\3\4" + GZIP[-4:], "gzip")
    with pytest.raises(SourceError, match=r"^layer\.tar is damaged: .*checksum"):
        decode(ZSTD[:-4] + b"\1\2\3\4", "zstd")


def test_a_flipped_bit_is_told() -> None:
    middle = len(GZIP) // 2
    with pytest.raises(SourceError, match="damaged"):
        decode(GZIP[:middle] + bytes([GZIP[middle] ^ 4]) + GZIP[middle + 1 :], "gzip")


@pytest.mark.parametrize(
    ("data", "compression"),
    [
        (b"hello, world", "gzip"),
        (b"\x1f\x8b\x07" + bytes(20), "gzip"),
        (b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * 200_000, "gzip"),
        (b"hello, world", "zstd"),
    ],
)
def test_what_never_was_compressed_is_said_to_be_none(
    data: bytes, compression: Compression
) -> None:
    with pytest.raises(SourceError, match=rf"^layer\.tar is no {compression} data: it"):
        decode(data, compression)


def test_a_zstd_block_of_no_known_kind_is_told() -> None:
    with pytest.raises(SourceError, match="damaged"):
        decode(ZSTD[:4] + b"\x00\x58" + b"\xff\xff\xff" + bytes(99), "zstd")


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_bomb_takes_little_memory(compression: Compression) -> None:
    zeros = bytes(64 << 20)
    bomb = gzip.compress(zeros, 1) if compression == "gzip" else zstandard.compress(zeros, 1)
    del zeros
    tracemalloc.start()
    try:
        reader = decoded(BytesReader(bomb), compression, "layer.tar")
        room = memoryview(bytearray(100_000))
        size = 0
        while count := reader.readinto(room):
            size += count
        assert size == 64 << 20
        assert tracemalloc.get_traced_memory()[1] < 6 * STEP
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("data", "compression"), [(GZIP, "gzip"), (ZSTD, "zstd"), (PLAIN, "none")])
def test_a_decoded_reader_reads_like_any_other(data: bytes, compression: Compression) -> None:
    below = BytesReader(data, at_once=1000)
    reader = decoded(below, compression, "layer.tar")
    made, room = bytearray(), memoryview(bytearray(4096))
    while count := reader.readinto(room):
        made += room[:count]
    reader.close()
    reader.close()
    assert made == PLAIN
    assert below.closed
    assert reader.readinto(room) == 0


def test_a_decoded_reader_tells_what_is_wrong_below_it() -> None:
    room = memoryview(bytearray(1 << 20))
    cut = decoded(BytesReader(GZIP[:9]), "gzip", "layer.tar")
    with pytest.raises(SourceError, match="cut short"):
        cut.readinto(room)
    below = BytesReader(GZIP[:9], error=SourceError("the disk is gone"))
    failing = decoded(below, "gzip", "layer.tar")
    with pytest.raises(SourceError, match="the disk is gone"):
        failing.readinto(room)


def test_random_bytes_never_come_out_as_data() -> None:
    for compression in ("gzip", "zstd"):
        with pytest.raises(SourceError):
            decode(os.urandom(5000), compression)
