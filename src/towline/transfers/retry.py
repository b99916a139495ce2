"""Trying again: how often, after how long, and when not at all.

Knows an attempt by its error alone: `transient` says whether the same work may succeed a little
later, `retry_after` how long the other side wants to be left alone. What the work remembers
between two attempts (an upload session, say) is the work's own matter.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from towline.errors import TowlineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.context import Cancel, Context
    from towline.errors import Side

T = TypeVar("T")

_WAYS_MAX = 8
"""Other ways that one piece of work may go before each costs a retry like any failure."""
_TOO_MANY = 429
_FIRST = 1 / 20
"""Seconds between two requests to a host that has had too many for the first time."""
_SHORTEST = 1 / 100
_LONGEST = 5.0
_EASED_AFTER = 15.0
"""Seconds after which twice as many are tried."""
_HOST_IS_BUSY = frozenset({429, 503})
"""Statuses that speak of the host as a whole, not of one request."""
_STRAINED = frozenset({408, 429, 499, *range(500, 600)})
"""Statuses of which the cause may be that too much is asked at once."""


def _random() -> float:
    # Nothing is imported for it: what failed may be that no more files can be opened.
    return int.from_bytes(os.urandom(4)) / 2**32


class Policy(NamedTuple):
    """How often to try again, and after how long."""

    retries: int = 4
    """Attempts in a row without progress, after the first."""
    base: float = 1.0
    """Seconds to wait after the first failure; doubled after each further one."""
    cap: float = 60.0
    """Seconds waited at most, also where the other side asks for more."""
    jitter: Callable[[], float] = _random
    """A number from 0 to 1: how much of the wait's second half is waited."""

    def pause(self, failures: int, retry_after: float | None = None) -> float:
        """Seconds to wait after that many failures in a row (1 or more).

        Never less than was asked for, except for the cap: who asks for a second each time gets
        the growing wait all the same.
        """
        # The exponent is bounded because `--retries 5000` must not overflow.
        grown = min(self.cap, self.base * 2.0 ** min(failures - 1, 64))
        return min(self.cap, max(grown * (0.5 + 0.5 * self.jitter()), retry_after or 0.0))


class Attempts:
    """The failures in a row of one piece of work at one target. Not safe from several threads."""

    def __init__(self, policy: Policy, side: Side = "destination") -> None:
        self._policy = policy
        self._side = side
        self._failures = 0
        self._ways = 0
        self._acknowledged = 0

    def after(self, error: TowlineError, acknowledged: int = 0) -> float:
        """Seconds to wait before the next attempt.

        `acknowledged` are the bytes that the other side has confirmed so far; more than ever
        before start the count anew. An attempt that will go another way is made at once. Raises
        `error` itself when it cannot heal, when the attempts are spent, and when it is the other
        end's: that has a count of its own.
        """
        if acknowledged > self._acknowledged:
            self._acknowledged = acknowledged
            self._failures = 0
        may_heal = error.transient and error.side in (None, self._side)
        if may_heal and error.another_way and self._ways < _WAYS_MAX:
            self._ways += 1
            return 0.0
        if not may_heal or self._failures >= self._policy.retries:
            raise error
        self._failures += 1
        return self._policy.pause(self._failures, error.retry_after)


class Budget:
    """So many attempts a second at a host that has asked for fewer; more again as time goes by."""

    def __init__(self) -> None:
        self.interval = 0.0
        """Seconds between two; 0: as many as one likes."""
        self.until = 0.0
        """When it is halved."""
        self._next = 0.0

    def turn(self, now: float) -> float:
        """Seconds until it is somebody's turn; who gets 0 has had it."""
        while self.interval and now >= self.until:
            self.interval = self.interval / 2 if self.interval > _SHORTEST else 0.0
            self.until += _EASED_AFTER
        if now < self._next:
            return self._next - now
        self._next = now + self.interval
        return 0.0


class Gate:
    """What all transfers of a host wait at before each attempt; shut while the host is busy.

    Where it was shut because of too many requests, they pass one by one from then on. Keys are
    opaque. Safe from many threads.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._opens_at: dict[str, float] = {}
        self._budgets: defaultdict[str, Budget] = defaultdict(Budget)

    def close(self, key: str, seconds: float, *, too_many: bool = False) -> None:
        """Let nobody pass for that long; a shorter time than is set already changes nothing.

        After `too_many` requests half as many go in a second as before; of several that were
        refused together one counts.
        """
        now = self._clock()
        opens_at = now + seconds
        with self._lock:
            if too_many and now >= self._opens_at.get(key, now):
                self._pace(key, 2 * self._budgets[key].interval or _FIRST, opens_at + _EASED_AFTER)
            self._opens_at[key] = max(opens_at, self._opens_at.get(key, opens_at))

    def follow(self, key: str, left: int, seconds: float) -> None:
        """The host has said how many requests it takes until that many seconds are over."""
        with self._lock:
            self._pace(key, seconds / max(left, 1), self._clock() + seconds)

    def _pace(self, key: str, interval: float, until: float) -> None:
        budget = self._budgets[key]
        budget.interval, budget.until = min(interval, _LONGEST), until

    def remaining(self, key: str) -> float:
        """Seconds until it opens; 0 when it is open."""
        with self._lock:
            opens_at = self._opens_at.get(key)
            if opens_at is None:
                return 0.0
            left = opens_at - self._clock()
            if left <= 0:
                del self._opens_at[key]
        return max(0.0, left)

    def wait(self, key: str, cancel: Cancel) -> None:
        """Wait until it is open, and one's turn. Raises `Cancelled`."""
        while left := self.remaining(key) or self._turn(key):
            cancel.wait(left)
        cancel.check()

    def _turn(self, key: str) -> float:
        with self._lock:
            return self._budgets[key].turn(self._clock())


def speaks_of_strain(error: TowlineError) -> bool:
    """Whether less at once may help the host: it has trouble, and not with what was sent."""
    if not error.transient or error.another_way or error.side == "source":
        return False
    return getattr(error, "status", None) in {None, *_STRAINED}


def back_off(
    error: TowlineError, attempts: Attempts, gate: Gate, key: str, acknowledged: int = 0
) -> float:
    """Seconds to wait before the next attempt; also shuts the gate where the host is busy.

    For work that returns to a queue instead of waiting; raises as `Attempts.after` does.
    """
    seconds = attempts.after(error, acknowledged)
    if error.retry_after is not None or getattr(error, "status", None) in _HOST_IS_BUSY:
        gate.close(key, seconds, too_many=getattr(error, "status", None) == _TOO_MANY)
    return seconds


def retry(  # noqa: PLR0917 - six parts, each of a type of its own: none can be mistaken
    work: Callable[[], T],
    attempts: Attempts,
    gate: Gate,
    key: str,
    context: Context,
    told: Callable[[float, str], None],
) -> T:
    """Call `work` until it succeeds; no slot may be held by the caller, for this waits.

    `told` hears of each wait before it begins: its seconds, and the reason. Raises the last error
    when it is not to be tried again, and `Cancelled` as soon as the context is.
    """
    while True:
        gate.wait(key, context.cancel)
        try:
            return work()
        except TowlineError as error:
            # A cancelled call fails in any way it likes: its socket was closed under it.
            context.cancel.check()
            seconds = back_off(error, attempts, gate, key)
            reason = error.message
        if seconds:
            told(seconds, reason)
            context.cancel.wait(seconds)
