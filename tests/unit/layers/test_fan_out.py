from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import pytest

from tests.support.layers import BytesReader, Writer, sample
from tests.support.processes import until
from towline.context import SLICE, Cancel, Patience
from towline.errors import Cancelled, NetworkError, SourceError
from towline.layers import profile
from towline.layers.blobstream import BlobStream
from towline.layers.fan_out import DEPTH, FanOut, Outpaced
from towline.layers.pipelines import STORED_BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor

    from towline.layers.profile import Profile

T = TypeVar("T")

SAMPLE = sample(40 * STORED_BLOCK)
# Long enough that no neighbour on the machine spends it, where it is not the point.
PATIENT = 60.0


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def spread(executor: Executor) -> Callable[..., BytesReader]:
    """Read once for all writers, each with its patience; returns when all of them have ended."""

    def spread(
        writers: Sequence[Writer],
        patience: Sequence[Patience] = (),
        encoding: Profile | None = None,
        error: Exception | None = None,
    ) -> BytesReader:
        reader, reading = BytesReader(SAMPLE, error=error), Cancel()
        fan = FanOut(BlobStream(reader, encoding, executor, reading), reading)
        left = [*patience, *(Patience(PATIENT) for _ in writers[len(patience) :])]
        lanes = [fan.lane(one, Cancel()) for one in left]
        for writer, lane in zip(writers, lanes, strict=True):
            writer.start(lane)
        fan.run()
        for writer in writers:
            writer.join()
        return reader

    return spread


class Gate:
    """Lets some blocks pass and then holds, as a socket does, until it is opened or closed."""

    def __init__(self, passing: int) -> None:
        self._passing = passing
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    def __call__(self, writing: Cancel) -> None:
        self._passing -= 1
        if self._passing < 0:
            with writing.on_cancel(self._opened.set):
                assert self._opened.wait(30)
            writing.check()


def failing_after(blocks: int, error: BaseException) -> Writer:
    left = [blocks]

    def before(_: Cancel) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise error

    return Writer(before)


@pytest.mark.parametrize("name", ["gzip", "zstd:1", "none"])
def test_all_get_the_same_bytes_from_one_read(
    name: str, spread: Callable[..., BytesReader]
) -> None:
    writers = [Writer(), Writer(), Writer()]
    reader = spread(writers, encoding=profile.parse(name))
    assert all(writer.whole for writer in writers)
    assert len({writer.blob for writer in writers}) == 1
    assert reader.given == len(SAMPLE)
    assert reader.closed


@pytest.mark.parametrize("others", [1, 2])
@pytest.mark.parametrize("error", [NetworkError("cut", transient=True), Cancelled(), OSError(5)])
def test_one_that_fails_leaves_the_others_whole(
    others: int, error: BaseException, spread: Callable[..., BytesReader]
) -> None:
    good, bad = [Writer() for _ in range(others)], failing_after(2, error)
    spread([bad, *good])
    assert bad.error is error
    assert all(writer.whole for writer in good)


def test_when_all_have_failed_no_more_is_read(spread: Callable[..., BytesReader]) -> None:
    reader = spread([failing_after(1, OSError(5)), failing_after(3, OSError(5))])
    assert reader.given < len(SAMPLE)
    assert reader.closed


def test_when_all_have_failed_no_block_is_waited_for() -> None:
    """The encoders may be busy for others for a long while."""

    class Busy:
        def submit(self, _work: Callable[[], T], /) -> Future[T]:
            return Future()

    reader, reading, writer = BytesReader(SAMPLE), Cancel(), failing_after(0, OSError(5))
    fan = FanOut(BlobStream(reader, profile.parse("gzip"), Busy(), reading), reading)
    writer.start(fan.lane(Patience(PATIENT), Cancel()))
    runner = threading.Thread(target=fan.run, daemon=True)
    runner.start()
    runner.join(5)
    assert not runner.is_alive()
    assert reader.closed
    writer.join()


def test_a_stalled_one_is_left_behind_when_its_patience_is_spent(
    spread: Callable[..., BytesReader],
) -> None:
    patience, stalled, good = Patience(0.3), Writer(Gate(3)), [Writer(), Writer()]
    start = time.monotonic()
    spread([good[0], stalled, good[1]], [Patience(PATIENT), patience])
    assert 0.3 <= time.monotonic() - start < 5
    assert patience.spent
    assert isinstance(stalled.error, Outpaced)
    assert stalled.error.transient
    assert all(writer.whole for writer in good)


def test_one_that_stalls_on_what_fits_into_its_queue_keeps_no_other(
    spread: Callable[..., BytesReader],
) -> None:
    good, left = Writer(), [40 - DEPTH]

    def wait_for_the_other(_: Cancel) -> None:
        left[0] -= 1
        if left[0] < 0:
            until(lambda: good.blob is not None)

    stalled = Writer(wait_for_the_other)
    spread([stalled, good])
    assert stalled.whole, "the other had nothing left to read for it"


def test_patience_is_one_for_all_reads_for_a_target(spread: Callable[..., BytesReader]) -> None:
    patience, took = Patience(2.0), []
    for _ in range(2):
        good, start = Writer(), time.monotonic()
        spread([Writer(Gate(0)), good], [patience])
        took.append(time.monotonic() - start)
        assert good.whole
    assert took[0] > 1.9
    assert took[1] < 1.9, "it was spent by the first"


def test_reads_that_are_held_side_by_side_wait_for_as_long_as_one(
    spread: Callable[..., BytesReader],
) -> None:
    patience, start = Patience(1.0), time.monotonic()

    def one(_: int) -> float:
        spread([Writer(Gate(0)), Writer()], [patience])
        return time.monotonic() - start

    with ThreadPoolExecutor(4) as threads:
        seconds = list(threads.map(one, range(4)))
    assert min(seconds) > 0.9, "none of them has waited for the time of another"
    assert max(seconds) < 5


def test_those_of_like_rate_hold_nobody(spread: Callable[..., BytesReader]) -> None:
    writers = [Writer(lambda _: time.sleep(0.02)) for _ in range(2)]
    spread(writers, [Patience(0.5), Patience(0.5)])
    assert all(writer.whole for writer in writers)


def test_a_slow_one_that_keeps_nobody_waiting_has_all_the_time(
    spread: Callable[..., BytesReader],
) -> None:
    slow, failed = Writer(lambda _: time.sleep(0.02)), failing_after(0, OSError(5))
    spread([slow, failed], [Patience(SLICE), Patience(SLICE)])
    assert slow.whole


def test_what_waits_for_a_stalled_one_is_bounded(executor: Executor) -> None:
    reader, reading, gate = BytesReader(SAMPLE), Cancel(), Gate(0)
    fan = FanOut(BlobStream(reader, None, executor, reading), reading)
    stalled, good = Writer(gate), Writer()
    for writer in (stalled, good):
        writer.start(fan.lane(Patience(PATIENT), Cancel()))
    runner = threading.Thread(target=fan.run)
    runner.start()
    while good.size < (DEPTH + 1) * STORED_BLOCK:
        time.sleep(0.01)
    time.sleep(0.1)
    assert reader.given <= (DEPTH + 2) * STORED_BLOCK
    gate.open()
    runner.join(30)
    for writer in (stalled, good):
        writer.join()
        assert writer.whole


def test_an_error_of_the_source_is_everyones(spread: Callable[..., BytesReader]) -> None:
    writers, torn = [Writer(), Writer()], SourceError("layer 3 ends early")
    reader = spread(writers, error=torn)
    assert [writer.error for writer in writers] == [torn, torn]
    assert reader.closed


def test_a_source_that_cannot_be_closed_keeps_nobody_waiting(executor: Executor) -> None:
    class Unclosable(BytesReader):
        def close(self) -> None:
            raise OSError(5, "Input/output error")

    reading, writers = Cancel(), [Writer(), Writer()]
    fan = FanOut(BlobStream(Unclosable(SAMPLE), None, executor, reading), reading)
    for writer in writers:
        writer.start(fan.lane(Patience(PATIENT), Cancel()))
    fan.run()
    for writer in writers:
        writer.join()
        assert isinstance(writer.error, OSError)


def test_cancelling_ends_it_though_all_are_stalled(executor: Executor) -> None:
    reader, reading, switches = BytesReader(SAMPLE), Cancel(), [Cancel(), Cancel()]
    fan = FanOut(BlobStream(reader, None, executor, reading), reading)
    writers = [Writer(Gate(0)), Writer(Gate(9))]
    for writer, switch in zip(writers, switches, strict=True):
        writer.start(fan.lane(Patience(PATIENT), switch))
        threading.Timer(0.1, switch.cancel).start()
    start = time.monotonic()
    fan.run()
    assert time.monotonic() - start < 2
    assert reader.closed
    for writer in writers:
        writer.join()
        assert isinstance(writer.error, Cancelled)


def test_who_comes_late_to_a_lane_he_was_thrown_out_of_hears_so(executor: Executor) -> None:
    """A thread that was busy elsewhere while the others went on."""
    reading, good, late = Cancel(), Writer(), Writer()
    fan = FanOut(BlobStream(BytesReader(SAMPLE), None, executor, reading), reading)
    lane = fan.lane(Patience(0.1), Cancel())
    good.start(fan.lane(Patience(PATIENT), Cancel()))
    fan.run()
    good.join()
    assert good.whole
    assert lane.writing.cancelled
    late.start(lane)
    late.join()
    assert isinstance(late.error, Outpaced)
