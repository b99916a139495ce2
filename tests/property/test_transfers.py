"""Threads at random against the promises of slots and of joining; a test's id is its seed."""

from __future__ import annotations

import random
import threading
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from towline.context import Cancel, Context
from towline.errors import Cancelled
from towline.transfers.single_flight import Restart, SingleFlight
from towline.transfers.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.transfers.single_flight import Flight

HOSTS = ("a", "b", "c")
SEEDS = range(60)
STUCK = 20
"""Seconds; only a deadlock takes that long."""


def run_all(jobs: list[Callable[[], None]]) -> None:
    """Run each job in a thread of its own; all must end, and none may raise."""
    errors: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - it is raised below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(STUCK)
        assert not thread.is_alive(), "deadlock"
    assert errors == []


def cancelled_after(cancel: Cancel, seconds: float, stack: ExitStack) -> None:
    timer = threading.Timer(seconds, cancel.cancel)
    timer.start()
    stack.callback(timer.join)


class Takers:
    """Take slots of random hosts, some of them giving up; count who holds what."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.limit = chance.randint(1, 3)
        self.slots = Slots(self.limit)
        self.lock = threading.Lock()
        self.held: Counter[str] = Counter()

    def taker(self) -> Callable[[], None]:
        chance = self.chance
        hosts = chance.sample(HOSTS, chance.randint(1, len(HOSTS)))
        size, seconds = chance.randint(1, 9), chance.random() / 500
        given_up, well = chance.random() < 0.2, chance.random() < 0.6

        def take() -> None:
            cancel = Cancel()
            with ExitStack() as stack:
                if given_up:
                    cancelled_after(cancel, seconds, stack)
                claim = self.slots.claim(hosts, size)
                stack.callback(self.slots.give_back, claim)
                try:
                    self.slots.wait(claim, cancel)
                except Cancelled:
                    assert given_up
                    return
                for host in hosts:
                    self.hold(host, seconds)
                    if well:
                        self.slots.more(host)
                    else:
                        self.slots.fewer(host, claim.granted_at)
                    self.slots.give_back(claim, host)

        return take

    def hold(self, host: str, seconds: float) -> None:
        with self.lock:
            self.held[host] += 1
            assert self.held[host] <= self.limit
        Cancel().wait(seconds)
        with self.lock:
            self.held[host] -= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_slots_are_never_exceeded_and_everyone_gets_his(seed: int) -> None:
    takers = Takers(random.Random(seed))  # noqa: S311 - no secret
    run_all([takers.taker() for _ in range(takers.chance.randint(2, 20))])
    assert takers.slots.claim(HOSTS, 1).granted.is_set(), "a slot was kept"


class Sharers:
    """Join, wait and leave at random, doing the work when it falls to them."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.flights: SingleFlight[str] = SingleFlight()
        self.lock = threading.Lock()
        self.running: Counter[str] = Counter()
        self.workers: list[threading.Thread] = []

    def sharer(self) -> Callable[[], None]:
        chance = self.chance
        key, work, patience = chance.choice("xyz"), chance.random() / 200, chance.random() / 200
        cancelled = chance.random() < 0.5

        def share() -> None:
            context = Context()
            with ExitStack() as stack:
                if cancelled:
                    cancelled_after(context.cancel, patience, stack)
                try:
                    assert self.join(key, context, work) == key
                except Cancelled:
                    assert cancelled

        return share

    def join(self, key: str, context: Context, work: float) -> str:
        while True:
            watch = self.flights.join(key, context)
            if watch.leads:
                worker = threading.Thread(target=self.work, args=(key, watch.flight, work))
                worker.start()
                self.workers.append(worker)
            try:
                return watch.result()
            except Restart:
                continue

    def work(self, key: str, flight: Flight[str], seconds: float) -> None:
        with self.lock:
            self.running[key] += 1
            twice = self.running[key] > 1
        try:
            flight.context.cancel.wait(seconds)
            ended: BaseException | None = AssertionError("two do the same") if twice else None
        except Cancelled as error:
            ended = error
        with self.lock:
            self.running[key] -= 1
        if ended:
            flight.failed(ended)
        else:
            flight.done(key)


@pytest.mark.parametrize("seed", SEEDS)
def test_joining_gives_everyone_his_own_fate_and_never_two_who_do_the_same(seed: int) -> None:
    sharers = Sharers(random.Random(seed))  # noqa: S311 - no secret
    run_all([sharers.sharer() for _ in range(sharers.chance.randint(2, 20))])
    for worker in sharers.workers:
        worker.join(STUCK)
        assert not worker.is_alive()
    assert len(sharers.flights) == 0
