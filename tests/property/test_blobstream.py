"""A blob's bytes depend on the layer and the profile alone."""

from __future__ import annotations

import gzip
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.support.layers import BytesReader, sample
from tests.support.raw_client import sha256
from towline.context import Cancel
from towline.errors import SourceError
from towline.layers import profile
from towline.layers.blobstream import BlobStream
from towline.layers.decoders import decoder_of
from towline.layers.encoders import GZIP_BLOCK, ZSTD_BLOCK
from towline.layers.pipelines import Spares
from towline.transfers.threads import Threads

if TYPE_CHECKING:
    from towline.layers.blobstream import Blob
    from towline.layers.pipelines import Lend
    from towline.spec.media_types import Compression

SAMPLE = sample(ZSTD_BLOCK + 2 * GZIP_BLOCK, "property")
POOLS = {threads: ThreadPoolExecutor(threads) for threads in (1, 2, 5)}

# Around every edge that a block can have, and anywhere.
sizes = st.one_of(
    st.integers(0, 5000),
    st.sampled_from([GZIP_BLOCK, 2 * GZIP_BLOCK, ZSTD_BLOCK]).flatmap(
        lambda edge: st.integers(edge - 2, edge + 2)
    ),
    st.integers(0, len(SAMPLE)),
)
profiles = st.sampled_from(["gzip", "gzip:best", "zstd:1", "none"])


class UnevenReader(BytesReader):
    """Gives as many bytes at once as chance says."""

    def __init__(self, data: bytes, seed: int) -> None:
        super().__init__(data)
        self._random = Random(seed)  # noqa: S311 - to be repeated, not secret

    def readinto(self, buffer: memoryview) -> int:
        return super().readinto(buffer[: self._random.choice((1, 511, 70_000, len(buffer)))])


LENT = Threads(1, "lent")


def lent_by_chance(seed: int) -> Lend:
    """Now and then somebody has the one thread that is lent."""
    random = Random(seed)  # noqa: S311 - to be repeated, not secret
    return lambda work: bool(seed) and random.random() < 0.7 and LENT.offer(work)


def made(data: bytes, name: str, threads: int, spares: int, seed: int) -> tuple[bytes, Blob]:
    stream = BlobStream(
        UnevenReader(data, seed),
        profile.parse(name),
        POOLS[threads],
        Cancel(),
        spares=Spares(spares << 21),
        lend=lent_by_chance(seed),
    )
    return b"".join(bytes(block) for block in stream), stream.blob


def unpacked(blob: bytes, name: str) -> bytes:
    match name:
        case "gzip" | "gzip:best":
            return gzip.decompress(blob)
        case "none":
            return blob
        case _:
            return zstandard.ZstdDecompressor().stream_reader(blob, read_across_frames=True).read()


@given(
    sizes,
    profiles,
    st.sampled_from(sorted(POOLS)),
    st.integers(0, 5),
    st.integers(0, 2**32),
)
def test_a_blob_is_the_same_whatever_the_threads_and_the_reader(
    size: int, name: str, threads: int, spares: int, seed: int
) -> None:
    data = SAMPLE[:size]
    blob, said = made(data, name, threads, spares, seed)
    assert blob == made(data, name, 1, 0, 0)[0]
    assert unpacked(blob, name) == data
    assert (said.digest, said.size) == (sha256(blob), len(blob))
    assert said.diff_id == sha256(data)


@given(
    st.lists(st.binary(max_size=3000), min_size=1, max_size=5),
    st.sampled_from(["gzip", "zstd"]),
    st.integers(1, 5000),
    st.integers(0, 10**6),
)
def test_a_stream_decodes_whole_and_is_never_taken_for_whole_when_it_is_not(
    parts: list[bytes], compression: Compression, at_once: int, cut: int
) -> None:
    pack = gzip.compress if compression == "gzip" else zstandard.compress
    packed = [pack(part) for part in parts]
    assert decode(b"".join(packed), compression, at_once) == b"".join(parts)
    # Cut inside the last one; between two it is whole.
    kept = b"".join(packed)[: -1 - cut % (len(packed[-1]) - 1)]
    with pytest.raises(SourceError, match="cut short"):
        decode(kept, compression, at_once)


@given(st.binary(max_size=200), st.sampled_from(["gzip", "zstd"]), st.integers(0, 10**6))
def test_damage_is_an_error_of_the_source_or_does_no_harm(
    plain: bytes, compression: Compression, where: int
) -> None:
    packed = bytearray(gzip.compress(plain, mtime=0) if compression == "gzip" else checked(plain))
    packed[where // 8 % len(packed)] ^= 1 << where % 8
    try:
        found = decode(bytes(packed), compression, 1000)
    except SourceError:
        return
    assert found == plain


def checked(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(plain)


def decode(data: bytes, compression: Compression, at_once: int) -> bytes:
    decoder, view = decoder_of(compression, "layer.tar"), memoryview(data)
    starts = range(0, len(view), at_once)
    found = b"".join(p for at in starts for p in decoder.feed(view[at : at + at_once]))
    decoder.finish()
    return found
