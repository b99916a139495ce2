"""Waiting for late ones of several targets, while the patience with each of them lasts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from towline.layers.fan_out import SLICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from towline.layers.fan_out import Patience


class HasPatience(Protocol):
    """A target, or something of it."""

    @property
    def patience(self) -> Patience:
        """How much longer it may keep others waiting."""
        ...


def wait_patiently(
    wait: Callable[[float], object],
    late: Callable[[], Iterable[HasPatience]],
    held: Callable[[], bool],
) -> None:
    """Wait until nobody is late, but for those with whom the patience is spent.

    `wait` waits for a change, for that many seconds at most. Those who are late are charged for
    the time in which somebody is `held` by them.
    """
    while waited_for := [one for one in late() if not one.patience.spent]:
        began, charge = time.monotonic(), held()
        wait(SLICE)
        if charge:
            for one in waited_for:
                one.patience.charge(began)
