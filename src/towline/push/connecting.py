"""Connections that are opened while a push opens its source: neither waits for the other.

Nothing is asked: what the push does not need is not requested, and what fails here the first
question finds out once more, and tells.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING

from towline.context import SLICE, Cancel
from towline.errors import Cancelled, TowlineError
from towline.push.target import is_at_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from towline.context import Context
    from towline.push.resources import Resources
    from towline.reference import RepositoryName

_LONGEST = 1.0
"""Seconds to wait for a connection under way, rather than to open another."""


@contextmanager
def connecting(
    resources: Resources, names: Iterable[RepositoryName], context: Context
) -> Iterator[Callable[[], None]]:
    """Connect to each host; what is given waits for the connection to a single one.

    At the end of the block what is still under way is given up.
    """
    cancel = Cancel()
    threads = []
    for host in {name.host for name in names if is_at_registry(name)}:
        connect = partial(_connect, resources, host, context.but(cancel=cancel))
        thread = Thread(target=connect, name="towline-connecting", daemon=True)
        with suppress(RuntimeError):  # no thread is to be had
            thread.start()
            threads.append(thread)

    def wait() -> None:
        until = time.monotonic() + _LONGEST
        while len(threads) == 1 and threads[0].is_alive() and time.monotonic() < until:
            threads[0].join(SLICE)
            context.cancel.check()

    try:
        yield wait
    finally:
        cancel.cancel()
        for thread in threads:
            thread.join(_LONGEST)


def _connect(resources: Resources, host: str, context: Context) -> None:
    with suppress(TowlineError, Cancelled):
        resources.client.connect(host, context)
