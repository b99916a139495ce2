from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from towline.context import Cancel
from towline.errors import Cancelled
from towline.transfers.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Takers:
    """Threads that take slots in the order in which they were asked to."""

    def __init__(self, slots: Slots) -> None:
        self.got: list[str] = []
        self._slots = slots
        self._cancel = Cancel()
        self._may_end: dict[str, threading.Event] = {}
        self._got: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    def take(self, name: str, *hosts: str, cancel: Cancel | None = None) -> None:
        """Begin to take; returns when the slots are taken, or are waited for."""
        decided = threading.Event()
        self._may_end[name], self._got[name] = threading.Event(), threading.Event()

        def run() -> None:
            try:
                with self._slots.take(hosts, cancel or self._cancel, waiting=decided.set):
                    self.got.append(name)
                    self._got[name].set()
                    decided.set()
                    self._may_end[name].wait(10)
            except Cancelled:
                self.got.append(f"{name} left")
                self._got[name].set()

        thread = threading.Thread(target=run)
        self._threads.append(thread)
        thread.start()
        assert decided.wait(10)

    def end(self, name: str) -> None:
        self._may_end[name].set()

    def wait_for(self, *names: str) -> None:
        for name in names:
            assert self._got[name].wait(10)

    def close(self) -> None:
        self._cancel.cancel()
        for event in self._may_end.values():
            event.set()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def takers() -> Iterator[Callable[[Slots], Takers]]:
    with ExitStack() as stack:

        def make(slots: Slots) -> Takers:
            made = Takers(slots)
            stack.callback(made.close)
            return made

        yield make


def test_of_eight_jobs_three_run_at_once() -> None:
    slots, cancel = Slots(3), Cancel()
    running, most = 0, 0
    lock, full = threading.Lock(), threading.Event()

    def job() -> None:
        nonlocal running, most
        with slots.take(["a"], cancel):
            with lock:
                running += 1
                most = max(most, running)
                if running == 3:
                    full.set()
            assert full.wait(10)
            time.sleep(0.005)
            with lock:
                running -= 1

    threads = [threading.Thread(target=job) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 3


def test_each_host_has_slots_of_its_own(takers: Callable[[Slots], Takers]) -> None:
    jobs = takers(Slots(1))
    for host in ("reg:5000", "reg:5001", "reg"):
        jobs.take(host, host)
    jobs.wait_for("reg:5000", "reg:5001", "reg")


def test_slots_go_to_those_who_came_first(takers: Callable[[Slots], Takers]) -> None:
    jobs = takers(Slots(1))
    for name in ("1", "2", "3", "4"):
        jobs.take(name, "a")
    for name in ("1", "2", "3", "4"):
        jobs.wait_for(name)
        jobs.end(name)
    assert jobs.got == ["1", "2", "3", "4"]


def test_several_hosts_are_taken_together_or_not_at_all(takers: Callable[[Slots], Takers]) -> None:
    slots = Slots(2)
    jobs = takers(slots)
    jobs.take("a1", "a")
    jobs.take("a2", "a")
    jobs.take("both", "a", "b")
    # Who waits for both holds none of b: one slot of it is taken, one is kept for who waits.
    jobs.take("b1", "b")
    assert jobs.got == ["a1", "a2", "b1"]
    jobs.end("a1")
    jobs.wait_for("both")


def test_whoever_waits_for_two_hosts_is_not_starved_by_a_stream_for_one(
    takers: Callable[[Slots], Takers],
) -> None:
    jobs = takers(Slots(1))
    jobs.take("a", "a")
    jobs.take("both", "a", "b")
    jobs.take("b1", "b")
    jobs.take("b2", "b")
    assert jobs.got == ["a"]
    jobs.end("a")
    jobs.wait_for("both")
    assert jobs.got == ["a", "both"]
    jobs.end("both")
    jobs.wait_for("b1")


def test_a_host_does_not_idle_because_someone_waits_for_it_and_a_busy_one(
    takers: Callable[[Slots], Takers],
) -> None:
    jobs = takers(Slots(3))
    for name in ("1", "2", "3"):
        jobs.take(name, "busy")
    jobs.take("both", "busy", "idle")
    jobs.take("x", "idle")
    jobs.take("y", "idle")
    jobs.wait_for("x", "y")  # the third slot is kept for the one who was first
    jobs.take("z", "idle")
    assert "z" not in jobs.got


def test_a_cancelled_one_leaves_the_queue_at_once(takers: Callable[[Slots], Takers]) -> None:
    jobs = takers(Slots(1))
    mine = Cancel()
    jobs.take("1", "a")
    jobs.take("2", "a", "b", cancel=mine)
    jobs.take("3", "b")
    assert jobs.got == ["1"]
    mine.cancel()
    jobs.wait_for("2", "3")
    assert sorted(jobs.got) == ["1", "2 left", "3"]


def test_a_cancelled_one_takes_nothing() -> None:
    slots, cancel = Slots(1), Cancel()
    cancel.cancel()
    with pytest.raises(Cancelled), slots.take(["a"], cancel):
        pytest.fail("it was cancelled before")
    assert slots.try_take(["a"])


def test_a_slot_granted_to_one_just_cancelled_is_given_back() -> None:
    slots, mine = Slots(1), Cancel()
    assert slots.try_take(["a"])

    def granted_while_cancelled() -> None:
        slots.release(["a"])
        mine.cancel()

    with pytest.raises(Cancelled), slots.take(["a"], mine, waiting=granted_while_cancelled):
        pytest.fail("it was cancelled")
    assert slots.try_take(["a"])


def test_waiting_is_told_only_to_those_who_wait() -> None:
    slots, cancel = Slots(1), Cancel()
    told: list[str] = []
    with slots.take(["a"], cancel, waiting=lambda: told.append("first")):
        threading.Timer(0.01, cancel.cancel).start()
        with (
            pytest.raises(Cancelled),
            slots.take(["a"], cancel, waiting=lambda: told.append("second")),
        ):
            pytest.fail("there was no slot")
    assert told == ["second"]


def test_a_failing_holder_gives_its_slots_back() -> None:
    slots = Slots(1)
    with pytest.raises(KeyboardInterrupt), slots.take(["a", "b"], Cancel()):
        raise KeyboardInterrupt
    assert slots.try_take(["a", "b"])


def test_the_same_host_twice_is_one_slot() -> None:
    slots = Slots(1)
    with slots.take(["a", "a"], Cancel()):
        assert not slots.try_take(["a"])
    assert slots.try_take(["a"])


def test_trying_takes_all_or_nothing_and_gives_back() -> None:
    slots = Slots(1)
    assert slots.try_take(["a"])
    assert not slots.try_take(["a", "b"])
    assert slots.try_take(["b"])
    slots.release(["a"])
    slots.release(["b"])
    assert slots.try_take(["a", "b"])


def test_trying_never_goes_before_one_who_waits(takers: Callable[[Slots], Takers]) -> None:
    slots = Slots(1)
    jobs = takers(slots)
    jobs.take("a", "a")
    jobs.take("both", "a", "b")
    assert not slots.try_take(["b"])
    jobs.end("a")
    jobs.wait_for("both")
    jobs.end("both")


def test_every_release_is_told_until_nobody_wants_to_hear() -> None:
    slots = Slots(1)
    told: list[bool] = []

    def retake() -> None:
        told.append(slots.try_take(["a"]))

    unsubscribe = slots.subscribe(retake)
    with slots.take(["a"], Cancel()):
        assert told == []
    assert told == [True]
    slots.release(["a"])
    assert told == [True, True]
    unsubscribe()
    unsubscribe()
    slots.release(["a"])
    assert told == [True, True]


def free(slots: Slots, host: str) -> int:
    """How many slots of a host can be taken now; they are given back."""
    taken = 0
    while slots.try_take([host]):
        taken += 1
    for _ in range(taken):
        slots.release([host])
    return taken


def fail(slots: Slots, host: str = "a") -> int:
    """Begin something and have it fail; how many slots are left."""
    slots.ended(host, slots.since(host), well=False)
    return free(slots, host)


def do_well(slots: Slots, host: str = "a") -> int:
    """Begin something and have it end well; how many slots there are then."""
    slots.ended(host, slots.since(host), well=True)
    return free(slots, host)


def test_a_host_that_keeps_failing_has_half_as_many_slots_each_time_and_never_none() -> None:
    slots = Slots(9)
    assert [fail(slots) for _ in range(5)] == [4, 2, 1, 1, 1]


def test_a_host_that_does_better_gets_its_slots_back_one_by_one() -> None:
    slots = Slots(5)
    assert [fail(slots), fail(slots)] == [2, 1]
    assert [do_well(slots) for _ in range(6)] == [2, 3, 4, 5, 5, 5]


def test_one_hosts_failures_take_nothing_from_another() -> None:
    slots = Slots(4)
    fail(slots)
    assert free(slots, "b") == 4


def test_failures_in_a_burst_count_once() -> None:
    slots = Slots(8)
    begun = [slots.since("a") for _ in range(8)]
    for since in begun:
        slots.ended("a", since, well=False)
    assert free(slots, "a") == 4


def test_a_success_from_before_a_failure_gives_nothing_back() -> None:
    slots = Slots(8)
    before = slots.since("a")
    assert fail(slots) == 4
    slots.ended("a", before, well=True)
    assert free(slots, "a") == 4


def test_a_host_with_more_taken_than_it_still_has_is_full_until_enough_is_given_back() -> None:
    slots = Slots(4)
    since = slots.since("a")
    for _ in range(4):
        assert slots.try_take(["a"])
    slots.ended("a", since, well=False)
    for _ in range(2):
        slots.release(["a"])
        assert slots.full(["a"]) == {"a"}
        assert not slots.try_take(["a"])
    slots.release(["a"])
    assert not slots.full(["a"])
    assert slots.try_take(["a"])


def test_a_slot_won_back_goes_to_the_one_who_waits(takers: Callable[[Slots], Takers]) -> None:
    slots = Slots(2)
    fail(slots)
    jobs = takers(slots)
    jobs.take("1", "a")
    jobs.take("2", "a")
    jobs.take("3", "a")
    assert jobs.got == ["1"]
    slots.ended("a", slots.since("a"), well=True)
    jobs.end("1")
    jobs.wait_for("2", "3")


def test_no_slots_at_all_make_no_sense() -> None:
    with pytest.raises(ValueError, match="at least one slot"):
        Slots(0)
