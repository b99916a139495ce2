"""Writers that stall and fail at random: a read always ends, and each has all of it or an error."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tests.support.layers import BytesReader, Writer, sample
from towline.context import Cancel, Patience
from towline.errors import Cancelled, NetworkError, SourceError
from towline.layers import profile
from towline.layers.blobstream import BlobStream
from towline.layers.fan_out import FanOut, Outpaced

POOL = ThreadPoolExecutor(2)
SAMPLE = sample(5 << 20, "fan out")
STUCK = 30.0
"""Seconds after which a run counts as stuck."""
ENDED = (NetworkError, OSError, Outpaced, Cancelled, SourceError)
"""What an upload may end with."""


class Run:
    """One read for some writers; everything of it from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)  # noqa: S311 - to be repeated, not secret
        self.over = threading.Event()
        self.torn = self.random.random() < 0.1
        self.kinds: dict[Writer, str] = {}
        self.switches: list[Cancel] = []
        for _ in range(self.random.randrange(2, 6)):
            self._add_writer()

    def _add_writer(self) -> None:
        random = Random(self.random.random())  # noqa: S311 - as above
        kind = random.choice(("good", "good", "slow", "failing", "stalling"))
        last = random.randrange(8)
        written = [0]

        def before(writing: Cancel) -> None:
            written[0] += 1
            if kind == "slow":
                self.over.wait(random.random() * 0.004)
            elif kind == "failing" and written[0] > last:
                raise random.choice((NetworkError("cut", transient=True), OSError(5)))
            elif kind == "stalling" and written[0] > last:
                woken = threading.Event()
                with writing.on_cancel(woken.set):
                    woken.wait(random.choice((0.02, 0.02, 0.5)))
                writing.check()

        self.kinds[Writer(before)] = kind

    def carry_out(self) -> None:
        random, reading = self.random, Cancel()
        data = SAMPLE[: random.randrange(len(SAMPLE))]
        reader = BytesReader(data, error=SourceError("torn") if self.torn else None)
        chosen = profile.parse(random.choice(("gzip", "zstd:1", "none", "none")))
        fan = FanOut(BlobStream(reader, chosen, POOL, reading), reading)
        for writer in self.kinds:
            self.switches.append(Cancel())
            writer.start(fan.lane(Patience(random.choice((0.03, STUCK))), self.switches[-1]))
        runner = threading.Thread(target=fan.run, daemon=True)
        runner.start()
        if random.random() < 0.2:  # some of them, or all, are cancelled on the way
            runner.join(random.random() * 0.02)
            for switch in random.sample(self.switches, random.randint(1, len(self.switches))):
                switch.cancel()
        runner.join(STUCK)
        self.over.set()
        assert not runner.is_alive(), "stuck"
        for writer in self.kinds:
            writer.join()
        assert reader.closed

    def check(self) -> None:
        for writer, kind in self.kinds.items():
            if writer.error is None:
                assert writer.whole
                assert not self.torn
                continue
            assert isinstance(writer.error, ENDED)
            if kind == "good":
                # A busy machine may make any of them late.
                assert self.torn or isinstance(writer.error, Outpaced), "nothing was wrong with it"
        assert len({writer.blob for writer in self.kinds if writer.blob}) <= 1


@given(st.integers(0, 2**64))
def test_a_read_for_several_always_ends_and_each_has_all_of_it_or_an_error(seed: int) -> None:
    run = Run(seed)
    run.carry_out()
    run.check()
