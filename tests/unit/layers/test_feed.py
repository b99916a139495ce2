from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.layers import BytesReader, Seat, digest, sample
from towline.context import Cancel
from towline.errors import Cancelled, NetworkError, SourceError
from towline.layers import profile
from towline.layers.blobstream import BlobStream
from towline.layers.feed import Feed
from towline.layers.lanes import DEPTH, Outpaced, Patience
from towline.layers.pipelines import STORED_BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

SAMPLE = sample(40 * STORED_BLOCK)
# Long enough that no neighbour on the machine spends it, where it is not the point.
PATIENT = 60.0


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def stream(executor: Executor) -> BlobStream:
    return BlobStream(BytesReader(SAMPLE), None, executor, Cancel())


class Gate:
    """A seat's `before` that lets some blocks pass and then holds until it is opened."""

    def __init__(self, passing: int) -> None:
        self._passing = passing
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    def __call__(self) -> None:
        self._passing -= 1
        if self._passing < 0:
            assert self._opened.wait(30)


def failing_after(blocks: int, error: BaseException) -> Seat:
    left = [blocks]

    def before() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise error

    return Seat(before)


def test_one_seat_is_written_to_by_the_calling_thread(stream: BlobStream) -> None:
    threads: set[int] = set()
    seat = Seat(lambda: threads.add(threading.get_ident()))
    result = Feed(stream, [seat], Cancel()).run()
    assert threads == {threading.get_ident()}
    assert result.blob
    assert result.blob.digest == seat.digest == digest(SAMPLE)
    assert not result.failed


@pytest.mark.parametrize("name", ["gzip", "zstd:1", "none"])
def test_several_seats_get_the_same_bytes_from_one_read(name: str, executor: Executor) -> None:
    reader, seats = BytesReader(SAMPLE), [Seat(), Seat(), Seat()]
    stream = BlobStream(reader, profile.parse(name), executor, Cancel())
    result = Feed(stream, seats, Cancel()).run()
    assert result.blob
    assert {seat.digest for seat in seats} == {result.blob.digest}
    assert stream.position == len(SAMPLE)
    assert reader.closed


@pytest.mark.parametrize("others", [0, 1, 2])
@pytest.mark.parametrize("error", [NetworkError("cut", transient=True), Cancelled(), OSError(5)])
def test_a_seat_that_fails_leaves_the_others_whole(
    others: int, error: BaseException, stream: BlobStream
) -> None:
    good = [Seat() for _ in range(others)]
    bad = failing_after(2, error)
    told: list[tuple[Seat, BaseException]] = []
    cancel = Cancel()
    lost = Feed(stream, [bad, *good], cancel, on_lost=lambda *lost: told.append(lost)).run()
    assert lost.failed == {bad: error}
    assert told == [(bad, error)]
    assert (lost.blob is None) == (not good)
    assert all(seat.digest == digest(SAMPLE) for seat in good)


def test_when_every_seat_is_lost_no_more_is_read(stream: BlobStream) -> None:
    seats = [failing_after(1, OSError(5)), failing_after(3, OSError(5))]
    result = Feed(stream, seats, Cancel()).run()
    assert result.blob is None
    assert set(result.failed) == set(seats)
    assert stream.position < len(SAMPLE)


def test_a_stalled_seat_is_dropped_when_its_patience_is_spent(stream: BlobStream) -> None:
    gate, patience, told = Gate(3), Patience(0.3), threading.Event()
    stalled, good = Seat(gate), [Seat(), Seat()]
    feed = Feed(
        stream,
        [good[0], stalled, good[1]],
        Cancel(),
        [Patience(PATIENT), patience, Patience(PATIENT)],
        on_lost=lambda *_: told.set(),
    )
    start = time.monotonic()
    result = feed.run()
    assert 0.3 <= time.monotonic() - start < 5
    assert told.is_set()
    assert patience.left <= 0
    error = result.failed[stalled]
    assert isinstance(error, Outpaced)
    assert error.transient
    assert result.blob
    assert {seat.digest for seat in good} == {digest(SAMPLE)}
    gate.open()


def test_a_seat_that_stalls_at_the_end_holds_the_others_no_longer(stream: BlobStream) -> None:
    gate = Gate(39)
    stalled, good = Seat(gate), Seat()
    result = Feed(stream, [stalled, good], Cancel(), [Patience(0.2), Patience(PATIENT)]).run()
    assert isinstance(result.failed[stalled], Outpaced)
    assert good.digest == digest(SAMPLE)
    gate.open()


def test_patience_is_one_for_all_feeds_of_a_target(executor: Executor) -> None:
    patience, took = Patience(2.0), []
    for _ in range(2):
        gate = Gate(0)
        stalled, good = Seat(gate), Seat()
        stream = BlobStream(BytesReader(SAMPLE), None, executor, Cancel())
        start = time.monotonic()
        Feed(stream, [stalled, good], Cancel(), [patience, None]).run()
        took.append(time.monotonic() - start)
        assert good.digest == digest(SAMPLE)
        gate.open()
    assert took[0] > 1.9
    assert took[1] < 1.9, "it was spent by the first"


def test_feeds_that_are_held_side_by_side_wait_for_as_long_as_one(executor: Executor) -> None:
    patience, gate, start = Patience(1.0), Gate(0), time.monotonic()

    def feed(_: int) -> float:
        stream = BlobStream(BytesReader(SAMPLE), None, executor, Cancel())
        Feed(stream, [Seat(gate), Seat()], Cancel(), [patience, None]).run()
        return time.monotonic() - start

    with ThreadPoolExecutor(4) as threads:
        seconds = list(threads.map(feed, range(4)))
    gate.open()
    assert min(seconds) > 0.9, "none of them has waited for the time of another"
    assert max(seconds) < 5


def test_seats_of_like_rate_hold_nobody(stream: BlobStream) -> None:
    patience = [Patience(0.5), Patience(0.5)]
    seats = [Seat(lambda: time.sleep(0.02)), Seat(lambda: time.sleep(0.02))]
    result = Feed(stream, seats, Cancel(), patience).run()
    assert not result.failed


def test_a_slow_seat_without_an_other_that_waits_has_all_the_time(stream: BlobStream) -> None:
    seats = [Seat(lambda: time.sleep(0.02)), failing_after(0, OSError(5))]
    result = Feed(stream, seats, Cancel(), [Patience(0.01), Patience(0.01)]).run()
    assert list(result.failed) == [seats[1]]
    assert seats[0].digest == digest(SAMPLE)


def test_what_waits_for_a_stalled_seat_is_bounded(stream: BlobStream) -> None:
    gate = Gate(0)
    stalled, good = Seat(gate), Seat()
    feed = Feed(stream, [stalled, good], Cancel())
    runner = threading.Thread(target=feed.run)
    runner.start()
    while good.size < (DEPTH + 1) * STORED_BLOCK:
        time.sleep(0.01)
    time.sleep(0.1)
    assert stream.position <= (DEPTH + 2) * STORED_BLOCK
    gate.open()
    runner.join(30)
    assert good.digest == stalled.digest == digest(SAMPLE)


@pytest.mark.parametrize("seats", [1, 3])
def test_an_error_of_the_source_ends_the_feed(seats: int, executor: Executor) -> None:
    reader = BytesReader(SAMPLE, error=SourceError("layer 3 ends early"))
    stream = BlobStream(reader, None, executor, Cancel())
    before = threading.active_count()
    with pytest.raises(SourceError, match="layer 3"):
        Feed(stream, [Seat() for _ in range(seats)], Cancel()).run()
    assert reader.closed
    assert threading.active_count() == before


def test_cancelling_ends_a_feed_whose_seats_are_all_stalled(executor: Executor) -> None:
    cancel, reader = Cancel(), BytesReader(SAMPLE)
    gates = [Gate(0), Gate(0)]
    stream = BlobStream(reader, None, executor, cancel)
    threading.Timer(0.1, cancel.cancel).start()
    start = time.monotonic()
    with pytest.raises(Cancelled):
        Feed(stream, [Seat(gate) for gate in gates], cancel).run()
    assert time.monotonic() - start < 1
    assert reader.closed
    for gate in gates:
        gate.open()


def test_a_lone_seat_that_fails_because_of_the_cancel_is_a_cancel(executor: Executor) -> None:
    cancel = Cancel()

    def cut() -> None:
        cancel.cancel()
        raise NetworkError("the socket was closed")

    stream = BlobStream(BytesReader(SAMPLE), None, executor, cancel)
    with pytest.raises(Cancelled):
        Feed(stream, [Seat(cut)], cancel).run()
