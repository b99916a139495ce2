"""Slots: how much may go to each host at once; several hosts' slots are taken together or not.

Whoever waits holds nothing, so nobody waits for somebody who waits: there is no deadlock.
"""

from __future__ import annotations

import threading
from bisect import insort
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from towline.context import Cancel


class Claim:
    """One who waits for a slot of each of some hosts, or has them."""

    def __init__(self, slots: Slots, hosts: frozenset[str], size: int) -> None:
        self.slots = slots
        self.hosts = hosts
        self.size = size
        """Bytes to send. The largest comes first, so that none is left to run alone."""
        self.granted = threading.Event()
        self.held: set[str] = set()
        """Hosts whose slot it has taken and not yet given back."""


class Slots:
    """`limit` slots for each host, whatever hosts there are. Safe from many threads."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"a host needs at least one slot, not {limit}")
        self._limit = limit
        self._lock = threading.Lock()
        self._fewer: dict[str, int] = {}
        """Limits of hosts that have failed."""
        self._taken: Counter[str] = Counter()
        self._waiting: list[Claim] = []

    def claim(self, hosts: Iterable[str], size: int) -> Claim:
        """Queue for a slot of each host: `granted` is set once all of them are taken."""
        claim = Claim(self, frozenset(hosts), size)
        with self._lock:
            insort(self._waiting, claim, key=lambda one: -one.size)
            self._grant()
        return claim

    @staticmethod
    def wait(claim: Claim, cancel: Cancel) -> None:
        """Wait until the slots are taken. Raises `Cancelled`; give the claim back then."""
        with cancel.on_cancel(claim.granted.set):
            claim.granted.wait()
        cancel.check()

    @contextmanager
    def held(self, host: str, size: int, cancel: Cancel) -> Iterator[None]:
        """With a slot of that host. Raises `Cancelled`."""
        claim = self.claim([host], size)
        try:
            self.wait(claim, cancel)
            yield
        finally:
            self.give_back(claim)

    def give_back(self, claim: Claim, host: str | None = None) -> None:
        """Leave the queue, and give back the slot of one host or all that the claim holds."""
        with self._lock:
            if claim in self._waiting:
                self._waiting.remove(claim)
            given = claim.held & {host} if host else set(claim.held)
            claim.held -= given
            self._taken.subtract(given)
            self._taken += Counter()  # forgets hosts of which nothing is taken
            self._grant()

    def full(self, hosts: Iterable[str]) -> frozenset[str]:
        """Those of the hosts that have no free slot now."""
        return frozenset(host for host in hosts if self._taken[host] >= self._of(host))

    def fewer(self, host: str) -> None:
        """A host that seems to have too much to do has half as many slots, until it does well."""
        with self._lock:
            self._fewer[host] = max(self._of(host) // 2, 1)

    def more(self, host: str) -> None:
        """It does well: one slot more, until it has all of them."""
        with self._lock:
            self._fewer[host] = min(self._of(host) + 1, self._limit)
            self._grant()

    def has_fewer(self, host: str) -> bool:
        """Whether it still has to do better."""
        return self._of(host) < self._limit

    def _of(self, host: str) -> int:
        return self._fewer.get(host, self._limit)

    def _grant(self) -> None:
        """Give slots to all whose hosts have a free one each, the largest first. Lock held."""
        for claim in list(self._waiting):
            if not self.full(claim.hosts):
                self._waiting.remove(claim)
                self._taken.update(claim.hosts)
                claim.held |= claim.hosts
                claim.granted.set()
