"""Trying again: how often, after how long, and when not at all.

An attempt is judged by its error alone: `transient` says whether the same work may succeed a little
later, `retry_after` how many seconds the other side wants to be left alone. What the work keeps
between two attempts (an upload session, say) is its own matter.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar

from towline.errors import Side, TowlineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.context import Cancel, Context

T = TypeVar("T")

_WAYS_MAX = 8
"""Attempts that may go another way for nothing; each further one costs a retry, so that a host that
refuses every way in turn does not go on for ever."""
_TOO_MANY = 429
_FIRST = 1 / 20
"""Seconds between two requests to a host after its first 429."""
_SHORTEST = 1 / 100
"""Seconds: a shorter interval is no limit any more."""
_LONGEST = 5.0
"""Seconds between two requests at most, whatever the host's numbers come to."""
_EASED_AFTER = 15.0
"""Seconds without a 429 after which twice as many requests are tried."""
_HOST_IS_BUSY = frozenset({429, 503})
"""Statuses that speak of the host as a whole, not of one request."""
_STRAINED = frozenset({408, 429, 499, *range(500, 600)})
"""Statuses whose cause may be that too much is asked at once."""


class Policy:
    """How often to try again, and after how long."""

    def __init__(
        self,
        retries: int = 4,
        base: float = 1.0,
        cap: float = 60.0,
        # Not by `random`, whose import fails where no more files can be opened.
        jitter: Callable[[], float] = lambda: int.from_bytes(os.urandom(4)) / 2**32,
    ) -> None:
        self.retries = retries
        """Attempts in a row without progress, after the first."""
        self.base = base
        """Seconds to wait after the first failure; doubled after each further one."""
        self.cap = cap
        """Seconds to wait at most, even where the other side asks for more."""
        self.jitter = jitter
        """Gives a number from 0 to 1: the share of the wait's second half that is waited. It keeps
        many clients from coming back at the same moment."""

    def pause(self, failures: int, retry_after: float | None = None) -> float:
        """Seconds to wait after that many failures in a row (1 or more).

        Never less than `retry_after`, within the cap. A host that asks for one second each time
        still gets the growing wait.
        """
        # The exponent is bounded: `--retries 5000` must not overflow a float.
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
        """Seconds to wait before the next attempt; 0 for one that goes another way.

        `acknowledged`: bytes that the other side has confirmed so far. Raises `error` itself when
        it cannot heal, when the attempts are spent, and when it is of the other side, which has a
        count of its own.
        """
        # Progress starts the count anew: a large layer over a bad line may be cut many times.
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
    """How many attempts a second a host gets that has asked for fewer: more as time goes by."""

    def __init__(self) -> None:
        self.interval = 0.0
        """Seconds between two attempts; 0: no limit."""
        self.until = 0.0
        """The time at which the interval is halved."""
        self._next = 0.0

    def turn(self, now: float) -> float:
        """Seconds until the caller's turn. With 0 the caller has its turn, and others wait."""
        while self.interval and now >= self.until:
            self.interval = self.interval / 2 if self.interval > _SHORTEST else 0.0
            self.until += _EASED_AFTER
        if now < self._next:
            return self._next - now
        self._next = now + self.interval
        return 0.0


class Gate:
    """Holds back every attempt at a host while the host is busy.

    After too many requests (429) attempts pass one by one. A key stands for a host, and is opaque
    here. Safe from any thread.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._opens_at: dict[str, float] = {}
        self._budgets: defaultdict[str, Budget] = defaultdict(Budget)

    def close(self, key: str, seconds: float, *, too_many: bool = False) -> None:
        """Let nobody pass for so many seconds, or for longer if that was set before.

        `too_many`: the host said 429, so half as many attempts a second pass afterwards.
        """
        now = self._clock()
        opens_at = now + seconds
        with self._lock:
            # Of several requests that were refused together only the first, which shuts the gate,
            # counts.
            if too_many and now >= self._opens_at.get(key, now):
                self._pace(key, 2 * self._budgets[key].interval or _FIRST, opens_at + _EASED_AFTER)
            self._opens_at[key] = max(opens_at, self._opens_at.get(key, opens_at))

    def follow(self, key: str, left: int, seconds: float) -> None:
        """Spread the `left` requests that the host still takes over the next `seconds`."""
        with self._lock:
            self._pace(key, seconds / max(left, 1), self._clock() + seconds)

    def _pace(self, key: str, interval: float, until: float) -> None:
        budget = self._budgets[key]
        budget.interval, budget.until = min(interval, _LONGEST), until

    def remaining(self, key: str) -> float:
        """Seconds until the gate opens; 0: it is open."""
        with self._lock:
            opens_at = self._opens_at.get(key)
            if opens_at is None:
                return 0.0
            left = opens_at - self._clock()
            if left <= 0:
                del self._opens_at[key]
        return max(0.0, left)

    def wait(self, key: str, cancel: Cancel) -> None:
        """Wait until the gate is open and it is the caller's turn. Raises `Cancelled`."""
        while left := self.remaining(key) or self._turn(key):
            cancel.wait(left)
        cancel.check()

    def _turn(self, key: str) -> float:
        with self._lock:
            return self._budgets[key].turn(self._clock())


def speaks_of_strain(error: TowlineError) -> bool:
    """Whether the host may have too much to do: it has trouble, and not with what was sent."""
    if not error.transient or error.another_way or error.side == "source":
        return False
    return getattr(error, "status", None) in {None, *_STRAINED}


def back_off(
    error: TowlineError, attempts: Attempts, gate: Gate, key: str, acknowledged: int = 0
) -> float:
    """Seconds to wait before the next attempt; shuts the gate if the host is busy.

    Raises as `Attempts.after` does.
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
    """Call `work` until it succeeds. This waits, so the caller may hold no slot.

    `told` is called before each wait, with its seconds and the reason. Raises the last error when
    it is not to be tried again, and `Cancelled` as soon as the context is cancelled.
    """
    while True:
        gate.wait(key, context.cancel)
        try:
            return work()
        except TowlineError as error:
            # A cancelled call may fail with any error: its socket was shut down under it.
            context.cancel.check()
            seconds = back_off(error, attempts, gate, key)
            reason = error.message
        if seconds:
            told(seconds, reason)
            context.cancel.wait(seconds)
