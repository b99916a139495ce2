"""Feeds whose seats stall and fail at random: no deadlock, and every byte or an error."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tests.support.layers import BytesReader, Seat, sample
from towline.context import Cancel
from towline.errors import Cancelled, NetworkError, SourceError
from towline.layers import profile
from towline.layers.blobstream import BlobStream
from towline.layers.feed import Feed, FeedResult
from towline.layers.lanes import Outpaced, Patience

POOL = ThreadPoolExecutor(2)
SAMPLE = sample(5 << 20, "feed")
ENOUGH = 30.0
"""Seconds after which a run counts as stuck."""


@dataclass
class Plan:
    """What happens in one run; everything from one seed."""

    seed: int
    random: Random = field(init=False)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)  # noqa: S311 - to be repeated, not secret

    def seat(self) -> Seat:
        random = Random(self.random.random())  # noqa: S311 - as above
        kind = random.choice(("good", "good", "slow", "failing", "stalling"))
        last = random.randrange(8)
        written = [0]

        def before() -> None:
            written[0] += 1
            if kind == "slow":
                self.stop.wait(random.random() * 0.004)
            elif kind == "failing" and written[0] > last:
                raise random.choice((NetworkError("cut", transient=True), OSError(5)))
            elif kind == "stalling" and written[0] > last:
                self.stop.wait(random.choice((0.02, 0.02, ENOUGH)))

        return Seat(before)

    def reader(self, data: bytes) -> BytesReader:
        broken = self.random.random() < 0.1
        return BytesReader(data, error=SourceError("torn") if broken else None)


def run(plan: Plan) -> tuple[list[Seat], FeedResult[Seat] | BaseException]:
    random, cancel = plan.random, Cancel()
    seats = [plan.seat() for _ in range(random.randrange(1, 6))]
    data = SAMPLE[: random.randrange(len(SAMPLE))]
    chosen = profile.parse(random.choice(("gzip", "zstd:1", "none", "none")))
    stream = BlobStream(plan.reader(data), chosen, POOL, cancel)
    patience = [Patience(0.03) for _ in seats]
    feed = Feed(stream, seats, cancel, patience)
    outcome: list[FeedResult[Seat] | BaseException] = []

    def work() -> None:
        try:
            outcome.append(feed.run())
        except (SourceError, Cancelled) as error:
            outcome.append(error)

    runner = threading.Thread(target=work, daemon=True)
    runner.start()
    # Seats that are all stalled hold nobody, and nobody drops them: their own time-out would.
    if random.random() < 0.1:
        cancel_at = random.random() * 0.02
        runner.join(cancel_at)
        cancel.cancel()
    runner.join(0.5)
    plan.stop.set()
    runner.join(ENOUGH)
    assert outcome, f"stuck with seed {plan.seed}"
    return seats, outcome[0]


@given(st.integers(0, 2**64))
def test_a_feed_always_ends_and_every_seat_is_whole_or_named(seed: int) -> None:
    plan = Plan(seed)
    seats, outcome = run(plan)
    if isinstance(outcome, BaseException):
        return
    for seat in seats:
        if seat in outcome.failed:
            assert isinstance(outcome.failed[seat], NetworkError | OSError | Outpaced)
        else:
            assert outcome.blob
            assert (seat.digest, seat.size) == (outcome.blob.digest, outcome.blob.size)
    assert (outcome.blob is None) == (len(outcome.failed) == len(seats))
