"""Waiting for those who are late, while the patience with each of them lasts."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from towline.context import SLICE, Patience, wait_patiently

LOADED = 2.0
"""Seconds that a busy machine may add."""


class Late:
    """Somebody who is waited for, and comes when `come` is called."""

    def __init__(self, seconds: float = 60.0, patience: Patience | None = None) -> None:
        self.patience = patience or Patience(seconds)
        self._came = threading.Event()
        self.come = self._came.set
        self.wait = self._came.wait

    @property
    def here(self) -> bool:
        return self._came.is_set()


def wait_for(*awaited: Late, held: bool = True) -> float:
    """Seconds that it took until nobody was waited for any more."""
    began = time.monotonic()
    wait_patiently(
        wait=awaited[0].wait,
        late=lambda: [one.patience for one in awaited if not one.here],
        held=lambda: held,
    )
    return time.monotonic() - began


def test_who_is_late_is_waited_for_until_he_comes() -> None:
    late = Late()
    threading.Timer(0.2, late.come).start()
    assert 0.15 < wait_for(late) < LOADED
    assert not late.patience.spent


def test_who_is_too_late_is_not_waited_for_and_no_second_time() -> None:
    late = Late(0.3)
    assert 0.25 < wait_for(late) < LOADED
    assert late.patience.spent
    assert wait_for(late) < SLICE


def test_where_nobody_is_held_there_is_all_the_time() -> None:
    late = Late(0.1)
    threading.Timer(0.5, late.come).start()
    assert 0.45 < wait_for(late, held=False) < LOADED
    assert not late.patience.spent


def test_who_is_given_up_does_not_end_the_waiting_for_others() -> None:
    hopeless, late = Late(0.1), Late()
    threading.Timer(0.5, late.come).start()
    assert 0.45 < wait_for(hopeless, late) < LOADED
    assert (hopeless.here, late.here) == (False, True)


def test_however_many_wait_for_one_at_a_moment_his_patience_is_spent_once() -> None:
    patience = Patience(0.5)
    with ThreadPoolExecutor(20) as threads:
        took = list(threads.map(lambda _: wait_for(Late(patience=patience)), range(20)))
    assert min(took) > 0.5 - 2 * SLICE, "none of them has waited for the time of another"
    assert max(took) < 0.5 + LOADED
