"""SIGINT and SIGTERM: of a push the first cancels it, the second ends the process at once.

While a push runs, a thread of its own reads the signals from a pipe, into which Python's C handler
writes them. The main thread would not do: it may be in a call that cannot be interrupted, or hold a
lock that cancelling needs. Before a push begins, any signal ends the process.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from towline.errors import TransferCancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

    from towline.context import Cancel

GRACE = 0.75
"""Seconds from the first signal to the end of the process, whatever still runs.

It must be gone within a second, of which a busy machine takes the rest.
"""
_TICK = 0.05
"""Seconds between looks whether what is still printed is read."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(TransferCancelled):
    """A transfer that a signal cancelled, with the exit code of that signal."""

    exit_code: int

    def __init__(self, cut: TransferCancelled, exit_code: int) -> None:
        super().__init__(cut.message, hint=cut.hint, results=cut.results, references=cut.references)
        self.exit_code = exit_code


def end_at_once(*, json: bool) -> None:
    """From now on signals end the process, with an error line or, where wanted, an object.

    Raising an exception, as Python does for SIGINT, is not reliable here: it may arise in the
    middle of an import, which may swallow it or turn it into another one.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        code = 128 + number
        with suppress(OSError):  # standard error may be closed
            if _takes_more(2):
                os.write(2, interrupted(code, "" if json else None))
        os._exit(code)

    for number in _SIGNALS:
        signal.signal(number, end)


def interrupted(code: int, reference: str | None) -> bytes:
    """The last line of a process that a signal ends, or an object if there is a `reference`."""
    line = "towline: error: interrupted"
    if reference is not None:  # by hand: the signal may have come in the middle of an import
        line = (
            f'{{"event": "error", "reference": "{reference}", "time": {time.time()}, '
            f'"message": "interrupted", "exit_code": {code}}}'
        )
    return f"{line}\n".encode()


@contextmanager
def cancel_on_signals(last_words: Callable[[int], bytes] = lambda _code: b"") -> Iterator[Cancel]:
    """While the block runs, a signal throws the switch; its TransferCancelled becomes Interrupted.

    `last_words`, called with the exit code, gives what is written to standard error where the
    process is ended from here. In any other thread than the main one, where Python forbids
    handlers, signals are left alone.
    """
    from towline.context import Cancel

    cancel = Cancel()
    if threading.current_thread() is not threading.main_thread():
        yield cancel
        return
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writing, False)
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    # They do nothing, since the thread has read the signal; without them Python's would act.
    handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
    watch = _Watch(reading, cancel, last_words)
    with ExitStack() as installed:
        installed.callback(_restore, handlers, wakeup, writing)  # the thread reads the pipe's end
        try:
            watch.start()
        except RuntimeError:  # the system refuses a thread: signals do what they did before
            os.close(reading)
            installed.close()
        try:
            yield cancel
        except TransferCancelled as error:
            if watch.code is None:
                raise
            raise Interrupted(error, watch.code) from error


class _Watch(threading.Thread):
    """Waits for signals, and tells the exit code of the first."""

    def __init__(self, reading: int, cancel: Cancel, last_words: Callable[[int], bytes]) -> None:
        super().__init__(name="signals", daemon=True)
        self._reading = reading
        self._cancel = cancel
        self._last_words = last_words
        self.code: int | None = None

    def run(self) -> None:
        heard = _hear(self._reading, None)
        if heard:
            self.code = 128 + heard
            # In another thread: an action that blocks must not keep this one from a second signal.
            cancel = threading.Thread(target=self._cancel.cancel, name="cancel", daemon=True)
            with suppress(RuntimeError):  # the system refuses a thread: it ends after the grace
                cancel.start()
            self._end_soon(self.code)
        os.close(self._reading)

    def _end_soon(self, code: int) -> None:
        end = time.monotonic() + GRACE
        if _hear(self._reading, GRACE) == 0:
            # The block has ended in time. The interpreter may now wait at its end for a stuck
            # thread: that wait is cut short, what the main thread still prints only where nobody
            # reads it.
            time.sleep(max(0.0, end - time.monotonic()))
            main = threading.main_thread()
            if main.is_alive():
                while _takes_more(1) and _takes_more(2):
                    main.join(_TICK)
                    if not main.is_alive():
                        return
        with suppress(OSError, ValueError):  # standard error may be closed
            number = sys.__stderr__.fileno() if sys.__stderr__ else -1
            words = self._last_words(code)
            if words and _takes_more(number):
                os.write(number, words)
        os._exit(code)


def _takes_more(descriptor: int) -> bool:
    """Whether a line can be written at once: nobody may read, and a terminal may be stopped."""
    return bool(select.select([], [descriptor], [], 0)[1])


def _hear(reading: int, seconds: float | None) -> int | None:
    """The number of the next signal; 0 when the block has ended; None after `seconds`."""
    if not select.select([reading], [], [], seconds)[0]:
        return None
    found = os.read(reading, 64)
    return next((number for number in found if number in _SIGNALS), 0)


def _restore(handlers: Mapping[signal.Signals, Any], wakeup: int, writing: int) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.set_wakeup_fd(wakeup)
    os.close(writing)
