"""Threads at random against the promises of slots and of joining; a test's id is its seed."""

from __future__ import annotations

import random
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from towline.context import Cancel, Context
from towline.errors import Cancelled
from towline.transfers.shared import SharedTransfers
from towline.transfers.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable

HOSTS = ("a", "b", "c")
SEEDS = range(60)
PATIENCE = 20  # seconds; only a deadlock takes that long


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
        thread.join(PATIENCE)
        assert not thread.is_alive(), "deadlock"
    assert errors == []


class Takers:
    """Take slots of random hosts, some cancelled, trying or failing; count who holds what."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.limit = chance.randint(1, 3)
        self.slots = Slots(self.limit)
        self.lock = threading.Lock()
        self.held: Counter[str] = Counter()
        self.finished = 0

    def hold(self, hosts: list[str], seconds: float) -> None:
        with self.lock:
            self.held.update(hosts)
            assert max(self.held.values()) <= self.limit
        Cancel().wait(seconds)
        with self.lock:
            self.held.subtract(hosts)
            self.finished += 1

    def taker(self) -> Callable[[], None]:
        hosts = self.chance.sample(HOSTS, self.chance.randint(1, len(HOSTS)))
        seconds, cancelled = self.chance.random() / 500, self.chance.random() < 0.2
        cancel = Cancel()
        well = self.chance.random() < 0.6

        def held() -> None:
            begun = {host: self.slots.since(host) for host in hosts}
            self.hold(hosts, seconds)
            for host, since in begun.items():
                self.slots.ended(host, since, well=well)

        def take() -> None:
            timer = threading.Timer(seconds, cancel.cancel) if cancelled else None
            if timer:
                timer.start()
            try:
                with self.slots.take(hosts, cancel):
                    held()
            except Cancelled:
                assert cancelled
            if timer:
                timer.join()

        def try_to_take() -> None:
            if self.slots.try_take(hosts):
                held()
                self.slots.release(hosts)

        return take if self.chance.random() < 0.8 else try_to_take


@pytest.mark.parametrize("seed", SEEDS)
def test_slots_are_never_exceeded_and_everyone_gets_his(seed: int) -> None:
    takers = Takers(random.Random(seed))  # noqa: S311 - no secret
    run_all([takers.taker() for _ in range(takers.chance.randint(2, 20))])
    assert takers.slots.try_take(HOSTS)  # nothing was kept


class Sharers:
    """Join, wait and leave at random, doing the work when it falls to them."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.transfers: SharedTransfers[str] = SharedTransfers()
        self.lock = threading.Lock()
        self.running: Counter[str] = Counter()

    def sharer(self) -> Callable[[], None]:
        key, patience = self.chance.choice("xyz"), self.chance.random() / 200
        work, cancelled = self.chance.random() / 200, self.chance.random() < 0.5
        context = Context()

        def make(own: Context) -> str:
            with self.lock:
                self.running[key] += 1
                assert self.running[key] == 1, "two write the same at once"
            try:
                own.cancel.wait(work)
            finally:
                with self.lock:
                    self.running[key] -= 1
            return key

        def share() -> None:
            timer = threading.Timer(patience, context.cancel.cancel) if cancelled else None
            if timer:
                timer.start()
            try:
                assert self.transfers.start(key, make, context).result() == key
            except Cancelled:
                assert cancelled
            if timer:
                timer.join()

        return share


@pytest.mark.parametrize("seed", SEEDS)
def test_joining_gives_everyone_his_own_fate_and_never_two_transfers(seed: int) -> None:
    sharers = Sharers(random.Random(seed))  # noqa: S311 - no secret
    run_all([sharers.sharer() for _ in range(sharers.chance.randint(2, 20))])
    waiting = Cancel()
    for _ in range(2000):
        if not len(sharers.transfers):
            break
        waiting.wait(0.005)  # the last cancelled work has yet to notice
    assert len(sharers.transfers) == 0
