from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import zstandard

from tests.support.layers import make_blob, sample
from tests.support.raw_client import sha256
from towline.layers import profile
from towline.layers.encoders import GZIP_BLOCK, ZSTD_BLOCK, GzipEncoder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Executor

SAMPLE = sample(9 << 20)
NOISE = hashlib.shake_128(b"dense").digest(2 << 20)
DENSE = sample(1 << 20) + NOISE + b"text " * 70_000 + NOISE[: 1 << 20]
"""Partly of blocks that would not shrink."""

# A digest here is never changed: other bytes are another version of the profile, under which the
# registries' blobs of the old one stay findable.
GZIP = {
    "x86-64": "sha256:cc8b362f9e3fdefce8b6df22abdf368cc036173543498ea4919c64115e011396",
}
GZIP_OF_DENSE = {
    "x86-64": "sha256:331c086dc3f0207723cdbf791864c96957e6a3de3edad3993dfc0cbe468d8719",
}
GZIP_BEST = "sha256:3e949f090e86c200c6a24f60e3af76e7b00cfb41a1e916527eddf5123f649144"
ZSTD = {
    1: "sha256:2b2760650e160e65e5e95684c5a07d53ca6ce44b209361a1fd30dfc6c739e337",
    3: "sha256:91ac1cd8f38eb7b7411bb101bdf0a608c505c1be1d4b4942cad86d6a53e8c11c",
    9: "sha256:9a31d1c7887c2b2b80ce4b5897b32832fdb282e7e66b3b2145ecd17fcefed080",
    19: "sha256:03d1658de1f58e28e4da6d0105746db99da82f181570043c0bb13a270e603c14",
}
EMPTY_GZIP = bytes.fromhex("1f8b08000000000000ff03000000000000000000")
SIZES = [0, 1, 1024, GZIP_BLOCK - 1, GZIP_BLOCK, GZIP_BLOCK + 1, ZSTD_BLOCK, ZSTD_BLOCK + 7]


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def tightest(executor: Executor) -> bytes:
    """SAMPLE at the level that takes longest, and most memory."""
    return make_blob(SAMPLE, profile.parse("zstd:19"), executor)[0]


def test_the_sample_is_the_one_that_the_digests_are_of() -> None:
    assert sha256(SAMPLE) == (
        "sha256:c47823e4beca69446e4adcc942e4e2df9a5e8d60fd651612775c499337dd0d5c"
    )


@pytest.mark.skipif(
    profile.family() not in GZIP, reason=f"no gzip digest is pinned for {profile.family()}"
)
def test_gzip_bytes_never_change_on_a_family_of_machines(executor: Executor) -> None:
    _, blob = make_blob(SAMPLE, profile.parse("gzip"), executor)
    assert blob.digest == GZIP[profile.family()]
    _, blob = make_blob(DENSE, profile.parse("gzip"), executor)
    assert blob.digest == GZIP_OF_DENSE[profile.family()]


def test_gzip_best_bytes_never_change_on_any_machine(executor: Executor) -> None:
    _, blob = make_blob(SAMPLE, profile.parse("gzip:best"), executor)
    assert blob.digest == GZIP_BEST


@pytest.mark.skipif(
    "+" in profile.parse("zstd").recorded, reason="zstd digests are pinned for the bundled libzstd"
)
@pytest.mark.parametrize("level", ZSTD)
def test_zstd_bytes_never_change(level: int, executor: Executor) -> None:
    _, blob = make_blob(SAMPLE, profile.parse(f"zstd:{level}"), executor)
    assert blob.digest == ZSTD[level]


@pytest.mark.parametrize("name", ["gzip", "gzip:best"])
@pytest.mark.parametrize("size", SIZES)
def test_gzip_is_read_back_whatever_the_size(size: int, name: str, executor: Executor) -> None:
    made, blob = make_blob(SAMPLE[:size], profile.parse(name), executor)
    assert gzip.decompress(made) == SAMPLE[:size]
    assert (blob.digest, blob.size) == (sha256(made), len(made))
    assert blob.diff_id == sha256(SAMPLE[:size])


@pytest.mark.parametrize("size", SIZES)
def test_zstd_is_read_back_whatever_the_size(size: int, executor: Executor) -> None:
    made, blob = make_blob(SAMPLE[:size], profile.parse("zstd:1"), executor)
    reader = zstandard.ZstdDecompressor().stream_reader(made, read_across_frames=True)
    assert reader.read() == SAMPLE[:size]
    assert (blob.digest, blob.size, blob.diff_id) == (
        sha256(made),
        len(made),
        sha256(SAMPLE[:size]),
    )


def test_none_leaves_the_bytes_alone_and_hashes_them_once(executor: Executor) -> None:
    made, blob = make_blob(SAMPLE, profile.parse("none"), executor)
    assert made == SAMPLE
    assert blob.digest == blob.diff_id == sha256(SAMPLE)


def test_an_empty_layer_is_a_whole_stream(executor: Executor) -> None:
    assert make_blob(b"", profile.parse("gzip"), executor)[0] == EMPTY_GZIP
    made, _ = make_blob(b"", profile.parse("gzip:best"), executor)
    assert gzip.decompress(made) == b""
    made, _ = make_blob(b"", profile.parse("zstd"), executor)
    assert zstandard.get_frame_parameters(made).content_size == 0


IGZIP = (sys.executable, "-m", "isal.igzip")


@pytest.mark.needs("gzip")
@pytest.mark.parametrize("tool", [("gzip",), IGZIP], ids=["gzip", "igzip"])
@pytest.mark.parametrize("name", ["gzip", "gzip:best"])
@pytest.mark.parametrize("plain", [SAMPLE, DENSE], ids=["sample", "dense"])
def test_other_tools_read_it(
    plain: bytes, name: str, tool: Sequence[str], executor: Executor
) -> None:
    made, _ = make_blob(plain, profile.parse(name), executor)
    read = subprocess.run([*tool, "-dc"], input=made, capture_output=True, check=True)
    assert (read.stdout, read.stderr) == (plain, b"")


def test_gzip_best_is_smaller(executor: Executor) -> None:
    best, usual = (
        len(make_blob(SAMPLE, profile.parse(name), executor)[0]) for name in ("gzip:best", "gzip")
    )
    assert best < usual


def test_a_gzip_block_that_would_not_shrink_is_stored_and_one_that_does_in_part_is_not(
    executor: Executor,
) -> None:
    made, _ = make_blob(NOISE, profile.parse("gzip"), executor)
    assert NOISE[:0xFFFF] in made
    assert len(made) == len(NOISE) + 2 * 17 * 5 + len(EMPTY_GZIP)
    part = NOISE[: 900 << 10] + bytes(124 << 10) + NOISE[: 1 << 20]
    made, _ = make_blob(part, profile.parse("gzip"), executor)
    assert len(made) < len(part) - (120 << 10)


@pytest.mark.needs("zstd")
def test_the_zstd_command_reads_it(tightest: bytes) -> None:
    read = subprocess.run(["zstd", "-dcq"], input=tightest, capture_output=True, check=True)
    assert read.stdout == SAMPLE


def test_gzip_blocks_refer_to_what_stands_before_them(executor: Executor) -> None:
    # Always the same noise: in one of some hundred a match is found late, and costs bytes.
    noise = hashlib.shake_128().digest(GZIP_BLOCK)
    # Each block but the first repeats the end of the one before it.
    data = noise + noise[-30_000:] * 2
    made, _ = make_blob(data, profile.parse("gzip"), executor)
    assert gzip.decompress(made) == data
    assert len(made) < GZIP_BLOCK + 20_000


def test_gzip_bytes_do_not_depend_on_where_in_memory_they_are_made(executor: Executor) -> None:
    names = [hashlib.sha256(b"%d" % n).digest()[:6] for n in range(20_000)]
    beginnings = [b"".join(name + b"/%03d" % n for n in range(30)) for name in names]
    encoder = GzipEncoder()

    def made() -> list[bytes]:
        return [encoder.encode(memoryview(b""), memoryview(one)) for one in beginnings]

    here, there = made(), executor.submit(made).result()  # a thread has memory of its own
    assert sum(one != other for one, other in zip(here, there, strict=True)) == 0


def test_zstd_frames_tell_their_size_and_ask_for_little_memory(tightest: bytes) -> None:
    frame = zstandard.get_frame_parameters(tightest)
    assert frame.content_size == ZSTD_BLOCK
    assert frame.window_size <= 8 << 20
