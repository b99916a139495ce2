"""Where the targets of a push wait for each other, no longer than the patience with each lasts."""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, wait
from typing import TYPE_CHECKING, TypeVar

from towline.push.holding import SLICE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from towline.push.run import Run

T = TypeVar("T")


def meet(
    coming: Mapping[Run, Future[T]], goes_on: Callable[[Run, T], bool]
) -> tuple[dict[Run, T], list[Run]]:
    """Those who have come, each with what its future gave, and those who are late.

    Late ones are waited for while the patience with them lasts; it is spent only where somebody
    is there who `goes_on`. Raises what a future raised.
    """
    while late := [run for run, future in coming.items() if not future.done()]:
        held = any(goes_on(run, future.result()) for run, future in coming.items() if future.done())
        patient = [run for run in late if run.target.patience.left > 0]
        if held and not patient:
            break
        began = time.monotonic()
        wait([coming[run] for run in late], SLICE if held else None, FIRST_COMPLETED)
        for run in patient if held else []:
            run.target.patience.spend(began)
    come = {run: future.result() for run, future in coming.items() if run not in late}
    return come, late
