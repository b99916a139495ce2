"""Pushers with short pauses: for tests of what comes after a pause, not of how long it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import towline

TIMES = 0.02
"""What is left of each pause."""


def quick(pusher: towline.Pusher) -> towline.Pusher:
    """The same pusher, which waits a fiftieth before it tries or looks again.

    What a registry asks for (`Retry-After`) it gets in full.
    """
    engine = pusher._resources
    engine.policy.base *= TIMES
    engine.look_again = tuple(pause * TIMES for pause in engine.look_again)
    return pusher
