"""Slots: how much may go to each host at once; several hosts' slots are taken together or not.

Whoever waits holds nothing, so nobody waits for somebody who waits: there is no deadlock. Who
gets how many passes, and in which order, is the caller's to say.

A host that fails what it is asked has fewer slots until it does better: half as many after a
failure, one more after each success.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from towline.context import Cancel


class _Claim:
    """One who waits for a slot of each of these hosts."""

    def __init__(self, hosts: frozenset[str]) -> None:
        self.hosts = hosts
        self.granted = False
        self.wake = threading.Event()


class Slots:
    """`limit` slots for each host, whatever hosts there are; fewer for one that fails.

    First come, first served, with one refinement: a later one may go first where that leaves a
    free slot for each earlier one that waits for the same host. So a host does not stand idle
    because somebody waits for it and for another, busy one; and nobody is ever put back.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"a host needs at least one slot, not {limit}")
        self._limit = limit
        self._lock = threading.Lock()
        self._fewer: dict[str, int] = {}
        """Limits of hosts that have failed."""
        self._halvings: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()
        self._queue: list[_Claim] = []
        self._subscribers: dict[object, Callable[[], None]] = {}

    @contextmanager
    def take(
        self, hosts: Iterable[str], cancel: Cancel, waiting: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Hold a slot of each host while the block runs.

        `waiting` is called once if they are not free at once. Raises `Cancelled`, having left the
        queue, as soon as the switch is thrown.
        """
        cancel.check()
        claim = _Claim(frozenset(hosts))
        with self._lock:
            self._queue.append(claim)
            self._grant()
        try:
            self._await(claim, cancel, waiting)
            yield
        finally:
            self._give_back(claim)

    def _await(self, claim: _Claim, cancel: Cancel, waiting: Callable[[], None] | None) -> None:
        if claim.granted:
            return
        if waiting is not None:
            waiting()
        with cancel.on_cancel(claim.wake.set):
            claim.wake.wait()
        cancel.check()

    def _give_back(self, claim: _Claim) -> None:
        with self._lock:
            if claim.granted:
                self._taken.subtract(claim.hosts)
            else:
                self._queue.remove(claim)
            self._grant()
        self._tell()

    def try_take(self, hosts: Iterable[str]) -> bool:
        """Take a slot of each host if that is possible now; give them back with `release`.

        For a scheduler that would rather do something else than wait. It never goes before one
        that waits in `take`.
        """
        wanted = frozenset(hosts)
        with self._lock:
            reserved: Counter[str] = Counter()
            for claim in self._queue:
                reserved.update(claim.hosts)
            if not self._free(wanted, reserved):
                return False
            self._taken.update(wanted)
            return True

    def full(self, hosts: Iterable[str]) -> frozenset[str]:
        """Those of the hosts that have no free slot now."""
        with self._lock:
            return frozenset(host for host in hosts if self._taken[host] >= self._of(host))

    def since(self, host: str) -> int:
        """What to remember of the moment at which something begins; see `ended`."""
        with self._lock:
            return self._halvings[host]

    def ended(self, host: str, since: int, *, well: bool) -> None:
        """Say how something ended that began then; before its slot is given back.

        Not well: the host may have too much to do, and has half as many slots. Well: it has one
        more, until it has all of them. What began before the last halving says nothing of the
        slots that are left, so failures in a burst count once.
        """
        with self._lock:
            if since < self._halvings[host]:
                return
            if well:
                self._fewer[host] = min(self._of(host) + 1, self._limit)
            else:
                self._fewer[host] = max(self._of(host) // 2, 1)
                self._halvings[host] += 1

    def _of(self, host: str) -> int:
        return self._fewer.get(host, self._limit)

    def release(self, hosts: Iterable[str]) -> None:
        """Give back what `try_take` took."""
        with self._lock:
            self._taken.subtract(frozenset(hosts))
            self._grant()
        self._tell()

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called after each release, in the thread that released; it must be brief.

        Returns what ends that.
        """
        token = object()
        with self._lock:
            self._subscribers[token] = callback

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers.pop(token, None)

        return unsubscribe

    def _tell(self) -> None:
        with self._lock:
            callbacks = list(self._subscribers.values())
        for callback in callbacks:
            callback()

    def _free(self, hosts: frozenset[str], reserved: Counter[str]) -> bool:
        return all(self._of(host) - self._taken[host] > reserved[host] for host in hosts)

    def _grant(self) -> None:
        """Give slots to everyone in the queue whose turn it is. The lock is held."""
        reserved: Counter[str] = Counter()
        still_waiting: list[_Claim] = []
        for claim in self._queue:
            if self._free(claim.hosts, reserved):
                self._taken.update(claim.hosts)
                claim.granted = True
                claim.wake.set()
            else:
                reserved.update(claim.hosts)
                still_waiting.append(claim)
        self._queue = still_waiting
        self._taken += Counter()  # forgets hosts of which nothing is taken
