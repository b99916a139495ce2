"""SIGTERM where nothing is there that could be cancelled (yet): it ends the command as SIGINT does.

Without that the process would be killed, its terminal left as it is at that moment, and whoever
has started it would see a signal instead of 143.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM has come."""


def catch() -> None:
    """Raise Terminated in the main thread, which is to call this, when SIGTERM comes."""
    signal.signal(signal.SIGTERM, _raise)


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise Terminated
