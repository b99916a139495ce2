"""What waits for slots or for late targets: in which order it goes on, and after how long."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, cast

from towline.layers.lanes import Patience
from towline.push.dispatcher import Dispatcher, Ticket
from towline.push.holding import SLICE, Holding
from towline.push.meeting import meet
from towline.push.settlers import Settlers
from towline.transfers.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from towline.push.dispatcher import Release
    from towline.push.jobs import Job
    from towline.push.run import Run


class Queue:
    """A dispatcher whose passes hold their slots until they are told to end."""

    def __init__(self, limit: int) -> None:
        self.dispatcher = Dispatcher(Slots(limit))
        self.begun: list[int] = []
        self._ends: dict[int, threading.Event] = {}
        self._began = threading.Condition()

    def ticket(self, size: int, *hosts: str) -> Ticket:
        self._ends[size] = threading.Event()

        def run(release: Release) -> None:
            with self._began:
                self.begun.append(size)
                self._began.notify_all()
            self._ends[size].wait(10)
            for host in hosts:
                release(host)

        return Ticket(frozenset(hosts), size, run)

    def submit(self, size: int, *hosts: str) -> Ticket:
        ticket = self.ticket(size, *hosts)
        self.dispatcher.submit(ticket)
        return ticket

    def end(self, size: int) -> None:
        self._ends[size].set()

    def await_begun(self, *sizes: int) -> None:
        with self._began:
            assert self._began.wait_for(lambda: self.begun == list(sizes), 10), self.begun

    def close(self) -> None:
        for end in self._ends.values():
            end.set()
        self.dispatcher.close()


def test_the_largest_goes_first_and_a_busy_host_keeps_no_other() -> None:
    queue = Queue(1)
    queue.submit(1, "a")
    queue.await_begun(1)
    queue.submit(2, "a")
    both = queue.submit(5, "a", "b")
    queue.submit(3, "a")
    assert queue.dispatcher.full(both) == {"a"}
    queue.submit(4, "b")
    queue.await_begun(1, 4)
    queue.end(1)
    queue.await_begun(1, 4, 3)
    queue.end(4)
    while queue.dispatcher.full(both) != {"a"}:
        time.sleep(0.005)
    queue.end(3)
    queue.await_begun(1, 4, 3, 5)
    queue.end(5)
    queue.await_begun(1, 4, 3, 5, 2)
    queue.close()


def test_what_is_withdrawn_is_never_run_and_what_runs_is_not_withdrawn() -> None:
    queue = Queue(1)
    first = queue.submit(1, "a")
    second = queue.submit(2, "a")
    assert queue.dispatcher.waits(second)
    assert not queue.dispatcher.withdraw(first)
    assert queue.dispatcher.withdraw(second)
    assert not queue.dispatcher.withdraw(second)
    queue.close()
    assert queue.begun == [1]


def test_what_is_run_beside_is_run_though_closed() -> None:
    queue, ran = Queue(1), threading.Event()
    queue.close()
    queue.dispatcher.beside(ran.set)
    assert ran.is_set()


def void(_: object) -> None:
    """Give nothing."""


def test_a_host_that_hangs_keeps_no_other_from_settling() -> None:
    settlers, end, other = Settlers(2), threading.Event(), threading.Event()
    for _ in range(9):
        settlers.submit("dead", lambda: void(end.wait(10)))
    settlers.submit("alive", other.set)
    assert other.wait(5)
    end.set()
    settlers.close()


class LateJob:
    def __init__(self, patience: Patience) -> None:
        self.patience = patience


class Held:
    """Waits for some jobs until it goes on."""

    def __init__(self, *patience: Patience) -> None:
        self.jobs = [LateJob(one) for one in patience]
        self.went_on = threading.Event()

    def late(self) -> Sequence[Job]:
        return cast("Sequence[Job]", self.jobs)

    @property
    def over(self) -> bool:
        return self.went_on.is_set()

    def go_on(self) -> None:
        self.went_on.set()


def test_what_is_held_goes_on_when_the_patience_is_spent_however_many_are_held() -> None:
    settlers, patience = Settlers(1), Patience(0.35)
    holding = Holding(settlers.after)
    began, all_held = time.monotonic(), [Held(patience) for _ in range(20)]
    for held in all_held:
        holding.watch(held)
    for held in all_held:
        assert held.went_on.wait(5)
    assert 0.35 - SLICE <= time.monotonic() - began < 2, "twenty wait no longer than one"
    again = Held(patience)
    holding.watch(again)
    assert again.went_on.wait(2 * SLICE + 1)
    settlers.close()


class Coming:
    """What `meet` wants to know of a run."""

    def __init__(self, seconds: float) -> None:
        self.target = self
        self.patience = Patience(seconds)


def coming(*seconds: float) -> dict[Run, Future[bool]]:
    return {cast("Run", Coming(one)): Future() for one in seconds}


def test_targets_meet_without_those_who_are_too_late() -> None:
    futures = coming(5.0, 0.2, 5.0)
    first, late, last = futures
    futures[first].set_result(True)
    threading.Timer(0.4, futures[last].set_result, [True]).start()
    began = time.monotonic()
    come, missing = meet(futures, lambda _, goes_on: goes_on)
    assert 0.3 < time.monotonic() - began < 3
    assert list(come) == [first, last]
    assert missing == [late]


def test_where_nobody_goes_on_nobody_is_late() -> None:
    futures = coming(0.0, 0.0)
    hopeless, slow = futures
    futures[hopeless].set_result(False)
    threading.Timer(0.2, futures[slow].set_result, [True]).start()
    come, missing = meet(futures, lambda _, goes_on: goes_on)
    assert list(come) == [hopeless, slow]
    assert not missing
