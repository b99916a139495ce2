"""Slots: how many uploads each host gets at once.

An upload to several hosts takes a slot of each, all at once or none. Whoever waits holds nothing,
so nobody waits for somebody who waits: there is no deadlock.
"""

from __future__ import annotations

import threading
import time
from bisect import insort
from collections import Counter, defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from towline.context import Cancel


class Claim:
    """An upload that waits for a slot of each of its hosts, or has them."""

    def __init__(self, slots: Slots, hosts: frozenset[str], size: int) -> None:
        self.slots = slots
        self.hosts = hosts
        self.size = size
        """Bytes to send. The largest goes first: last, it would run alone while all others are
        done."""
        self.granted = threading.Event()
        self.granted_at = 0.0
        """By `time.monotonic`."""
        self.held: set[str] = set()
        """Hosts whose slot it has, and has not given back yet."""


class Slots:
    """`limit` slots for each host. Safe from any thread."""

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"a host needs at least one slot, not {limit}")
        self._limit = limit
        self._lock = threading.Lock()
        self._limits: defaultdict[str, int] = defaultdict(lambda: limit)
        """By host: fewer than the limit where uploads have failed."""
        self._halved_at: defaultdict[str, float] = defaultdict(float)
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
        """Wait until the claim has its slots. Raises `Cancelled`; give the claim back then."""
        with cancel.on_cancel(claim.granted.set):
            claim.granted.wait()
        cancel.check()

    @contextmanager
    def held(self, host: str, size: int, cancel: Cancel) -> Iterator[None]:
        """Hold a slot of that host while the block runs. Raises `Cancelled`."""
        claim = self.claim([host], size)
        try:
            self.wait(claim, cancel)
            yield
        finally:
            self.give_back(claim)

    def give_back(self, claim: Claim, host: str | None = None) -> None:
        """Leave the queue, and give back the claim's slot of `host`, or all of its slots."""
        with self._lock:
            if claim in self._waiting:
                self._waiting.remove(claim)
            # Of several targets each gives its host's slot back when it has the blob itself.
            given = claim.held & {host} if host else set(claim.held)
            claim.held -= given
            self._taken.subtract(given)
            self._grant()

    def full(self, hosts: Iterable[str]) -> frozenset[str]:
        """The hosts among these that have no free slot now."""
        return frozenset(host for host in hosts if self._taken[host] >= self._limits[host])

    def fewer(self, host: str, granted_at: float) -> None:
        """Halve the slots of a host that seems to have too much to do; one stays at least.

        `granted_at` is when the upload that has failed got its slot. Those that ran side by side
        often fail together, which says no more than one failure.
        """
        with self._lock:
            if granted_at > self._halved_at[host]:
                self._halved_at[host] = time.monotonic()
                self._limits[host] = max(self._limits[host] // 2, 1)

    def more(self, host: str) -> None:
        """Give a host that does well one slot more, up to the limit."""
        with self._lock:
            self._limits[host] = min(self._limits[host] + 1, self._limit)
            self._grant()

    def has_fewer(self, host: str) -> bool:
        """Whether the host has fewer slots than the limit."""
        return self._limits[host] < self._limit

    def _grant(self) -> None:
        """Grant each claim whose hosts all have a free slot, the largest first. Lock held."""
        for claim in list(self._waiting):
            if not self.full(claim.hosts):
                self._waiting.remove(claim)
                self._taken.update(claim.hosts)
                claim.held |= claim.hosts
                claim.granted_at = time.monotonic()
                claim.granted.set()
