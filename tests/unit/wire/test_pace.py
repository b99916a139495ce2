from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.context import Cancel
from towline.errors import Cancelled
from towline.wire.exchange import Pace


class Clock(Cancel):
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.check()
        self.now += seconds


@given(st.integers(1, 10**9), st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_bytes_go_at_the_rate_and_no_slower(rate: int, sizes: list[int]) -> None:
    clock = Clock()
    pace = Pace(rate, clock)
    for size in sizes:
        pace.take(size, clock)
    assert clock.now - 100.0 == pytest.approx(sum(sizes[:-1]) / rate)


def test_a_pause_is_no_credit() -> None:
    clock = Clock()
    pace = Pace(1000, clock)
    pace.take(1000, clock)
    clock.now += 60
    pace.take(1000, clock)
    pace.take(1000, clock)
    assert clock.now == pytest.approx(100 + 60 + 1)


@given(st.integers(1, 10**8), st.lists(st.binary(max_size=3000), max_size=4))
def test_pieces_are_the_same_bytes(rate: int, blocks: list[bytes]) -> None:
    clock = Clock()
    pieces = list(Pace(rate, clock).pieces([memoryview(block) for block in blocks], clock))
    assert b"".join(bytes(piece) for (piece,) in pieces) == b"".join(blocks)


def test_a_wait_ends_when_it_is_cancelled() -> None:
    clock = Clock()
    pace = Pace(1, clock)
    pace.take(1, clock)
    clock.cancel()
    with pytest.raises(Cancelled):
        pace.take(1, clock)
