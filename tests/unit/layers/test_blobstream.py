from __future__ import annotations

import gzip
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import pytest
import zstandard

from tests.support.layers import BytesReader, make_blob, sample
from tests.support.processes import until
from tests.support.raw_client import sha256
from towline.context import Cancel
from towline.errors import Cancelled, SourceError
from towline.layers import profile
from towline.layers.blobstream import BlobStream
from towline.layers.encoders import GZIP_BLOCK, GZIP_WINDOW
from towline.layers.pipelines import Buffers, Spares
from towline.transfers.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from towline.spec.media_types import Compression

T = TypeVar("T")

SAMPLE = sample(9 << 20)
GZIP = profile.parse("gzip")
BUFFER = GZIP_BLOCK + GZIP_WINDOW
PACKED: dict[Compression, bytes] = {
    "gzip": gzip.compress(SAMPLE, 1),
    "zstd": zstandard.compress(SAMPLE),
    "none": SAMPLE,
}


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_a_stored_blob_goes_as_it_is_and_is_looked_into(
    compression: Compression, executor: Executor
) -> None:
    packed = PACKED[compression]
    made, blob = make_blob(packed, None, executor, at_once=70_001, diff_id_of=compression)
    assert made == packed
    assert (blob.digest, blob.size) == (sha256(packed), len(packed))
    assert blob.diff_id == sha256(SAMPLE)


def test_a_stored_blob_that_is_not_looked_into_has_no_diff_id(executor: Executor) -> None:
    made, blob = make_blob(SAMPLE, None, executor)
    assert made == SAMPLE
    assert blob.diff_id is None


@pytest.mark.parametrize(
    ("packed", "words"),
    [(gzip.compress(SAMPLE)[:-9], "cut short"), (SAMPLE, "no gzip data"), (b"", "cut short")],
)
def test_a_stored_blob_that_does_not_decode_is_an_error_of_the_source(
    packed: bytes, words: str, executor: Executor
) -> None:
    with pytest.raises(SourceError, match=words):
        make_blob(packed, None, executor, diff_id_of="gzip")


def test_bytes_do_not_depend_on_threads_or_on_spares() -> None:
    def made(threads: int, spares: int, name: str) -> str:
        with ThreadPoolExecutor(threads) as pool:
            stream = BlobStream(
                BytesReader(SAMPLE),
                profile.parse(name),
                pool,
                Cancel(),
                spares=Spares(spares * BUFFER),
            )
            for _ in stream:
                pass
        return stream.blob.digest

    for name in ("gzip", "zstd:1"):
        assert len({made(t, s, name) for t, s in [(1, 0), (1, 9), (3, 0), (8, 9)]}) == 1


@pytest.mark.parametrize("size", [5, 300_000])
def test_stored_bytes_come_whole_however_many_there_should_be(
    executor: Executor, size: int
) -> None:
    data = SAMPLE[:300_000]
    stream = BlobStream(BytesReader(data), None, executor, Cancel(), size=size)
    assert b"".join(map(bytes, stream)) == data
    assert stream.blob.size == len(data)


def test_the_position_is_what_was_read(executor: Executor) -> None:
    stream = BlobStream(BytesReader(SAMPLE), None, executor, Cancel())
    assert stream.position == 0
    seen = 0
    for block in stream:
        seen += len(block)
        assert stream.position == seen
    assert stream.position == len(SAMPLE)


@pytest.mark.parametrize("name", ["gzip", "zstd:1", "none"])
def test_an_error_of_the_reader_passes_through_and_the_reader_is_closed(
    name: str, executor: Executor
) -> None:
    reader = BytesReader(SAMPLE, error=SourceError("layer 3 ends early"))
    stream = BlobStream(reader, profile.parse(name), executor, Cancel())
    with pytest.raises(SourceError, match="layer 3 ends early"):
        for _ in stream:
            pass
    assert reader.closed
    with pytest.raises(RuntimeError, match="not reached its end"):
        _ = stream.blob


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_closing_early_drops_what_waits_and_closes_the_reader(taken: int) -> None:
    reader, spares = BytesReader(SAMPLE), Spares(2 * BUFFER)
    with ThreadPoolExecutor(1) as pool:
        stream = BlobStream(reader, GZIP, pool, Cancel(), spares=spares)
        for _, _ in zip(range(taken), stream, strict=False):
            pass
        stream.close()
        stream.close()
    assert reader.closed
    assert stream.position < len(SAMPLE)
    assert [spares.take(BUFFER) for _ in range(3)] == [True, True, False]


def test_a_lent_thread_reads_while_a_block_is_sent(executor: Executor) -> None:
    reader = BytesReader(SAMPLE)
    with Threads(1, "lent") as lent:
        stream = BlobStream(
            reader, GZIP, executor, Cancel(), lend=lent.offer, spares=Spares(BUFFER)
        )
        blocks = iter(stream)
        next(blocks)  # the head
        until(lambda: reader.given == 2 * GZIP_BLOCK)
        next(blocks)  # one that gives its room back
        until(lambda: reader.given == 3 * GZIP_BLOCK)
        stream.close()
    assert reader.closed


def test_what_reading_raises_in_a_lent_thread_ends_the_stream(executor: Executor) -> None:
    reader = BytesReader(SAMPLE[: 2 * GZIP_BLOCK], error=SourceError("it is torn"))
    with Threads(1, "lent") as lent:
        stream = BlobStream(reader, GZIP, executor, Cancel(), lend=lent.offer)
        with pytest.raises(SourceError, match="it is torn"):
            list(stream)
        assert lent.offer(lambda: None), "it is free again"
    assert reader.closed


def test_a_stream_that_is_closed_waits_for_who_reads(executor: Executor) -> None:
    """Its file is closed then, and may be another's a moment later."""
    reading, go_on, order = threading.Event(), threading.Event(), []

    class Slow(BytesReader):
        def readinto(self, buffer: memoryview) -> int:
            reading.set()
            go_on.wait(10)
            order.append("read")
            return super().readinto(buffer)

        def close(self) -> None:
            order.append("closed")

    with Threads(1, "lent") as lent:
        stream = BlobStream(Slow(SAMPLE), GZIP, executor, Cancel(), lend=lent.offer)
        next(iter(stream))
        reading.wait(10)
        threading.Timer(0.1, go_on.set).start()
        stream.close()
    assert order[:2] == ["read", "closed"]


class Stuck(Executor):
    """An executor that never gets to anything."""

    def submit(self, _work: Callable[..., T], /, *_args: object, **_named: object) -> Future[T]:
        return Future()


def test_cancelling_wakes_a_stream_that_waits_for_a_block() -> None:
    cancel, reader = Cancel(), BytesReader(SAMPLE)
    stream = BlobStream(reader, GZIP, Stuck(), cancel)
    threading.Timer(0.05, cancel.cancel).start()
    start = time.monotonic()
    with pytest.raises(Cancelled):
        for _ in stream:
            pass
    assert time.monotonic() - start < 1
    assert reader.closed


def test_cancelling_stops_between_blocks(executor: Executor) -> None:
    cancel = Cancel()
    stream = BlobStream(BytesReader(SAMPLE), None, executor, cancel)
    blocks = iter(stream)
    next(blocks)
    cancel.cancel()
    with pytest.raises(Cancelled):
        next(blocks)


def test_a_stream_reads_no_further_than_its_own_and_the_spare_blocks() -> None:
    reader = BytesReader(SAMPLE)
    stream = BlobStream(reader, GZIP, Stuck(), Cancel(), spares=Spares(2 * BUFFER + 1))
    next(iter(stream))
    assert stream.position == 3 * GZIP_BLOCK
    stream.close()


def test_buffers_are_used_again_and_spare_memory_is_given_back() -> None:
    spares = Spares(10)
    ours, theirs = Buffers(10, spares), Buffers(10, spares)
    held = [ours.take(), ours.take()]
    assert ours.take() is None
    assert theirs.take()
    assert theirs.take() is None
    assert held[0]
    ours.give(held[0])
    assert ours.take() is held[0]
    ours.close()
    assert theirs.take()


def test_spare_memory_is_a_few_blocks_by_default() -> None:
    spares = Spares()
    taken = 0
    while spares.take(BUFFER):
        taken += 1
    assert 4 <= taken <= 20
