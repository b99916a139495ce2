"""SIGINT and SIGTERM: the first cancels, the second ends the process at once.

A thread of its own reads the signals from a pipe that the C handler fills: the main thread may
sit in a call that cannot be interrupted, or hold the very lock that cancelling needs.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from towline.context import Cancel
from towline.errors import TransferCancelled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GRACE = 0.75
"""Seconds between the first signal and the end, whatever still runs: with what a busy machine adds,
less than one."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(TransferCancelled):
    """A cancelled transfer, and the number with which its signal ends the command."""

    exit_code: int

    def __init__(self, cut: TransferCancelled, exit_code: int) -> None:
        super().__init__(cut.message, hint=cut.hint, results=cut.results, references=cut.references)
        self.exit_code = exit_code


@contextmanager
def cancel_on_signals(last_words: bytes = b"") -> Iterator[Cancel]:
    """While the block runs, a signal throws the switch; its TransferCancelled becomes Interrupted.

    `last_words` go to standard error when the process must be ended from here. Works in the main
    thread alone, where Python lets signals be handled; elsewhere nothing is caught.
    """
    cancel = Cancel()
    if threading.current_thread() is not threading.main_thread():
        yield cancel
        return
    watch = _Watch(cancel, last_words)
    with watch.installed():
        try:
            yield cancel
        except TransferCancelled as error:
            if watch.code is None:
                raise
            raise Interrupted(error, watch.code) from error


class _Watch:
    """The thread that hears signals, and what it has heard."""

    def __init__(self, cancel: Cancel, last_words: bytes) -> None:
        self._cancel = cancel
        self._last_words = last_words
        self.code: int | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Hear signals while the block runs."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(writing, False)
        wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        # Python calls them, and they do nothing: the thread has the signal already.
        handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        watch = threading.Thread(target=self._watch, args=(reading,), name="signals", daemon=True)
        try:
            watch.start()
        except RuntimeError:  # no thread is to be had: signals do what they did before
            os.close(reading)
            _restore(handlers, wakeup, writing)
            yield
            return
        try:
            yield
        finally:
            _restore(handlers, wakeup, writing)  # the thread reads the pipe's end

    def _watch(self, reading: int) -> None:
        heard = _hear(reading, None)
        if heard:
            self.code = 128 + heard
            # An action of the switch that blocks must not keep the second signal from being heard.
            cancel = threading.Thread(target=self._cancel.cancel, name="cancel", daemon=True)
            with suppress(RuntimeError):  # no thread is to be had: then it ends after the grace
                cancel.start()
            self._end_soon(reading, self.code)
        os.close(reading)

    def _end_soon(self, reading: int, code: int) -> None:
        end = time.monotonic() + GRACE
        if _hear(reading, GRACE) == 0:
            # The block has ended in time. What follows is the interpreter's own end, where a
            # stuck thread would be waited for: that, and nothing else, is cut short.
            time.sleep(max(0.0, end - time.monotonic()))
            if threading.main_thread().is_alive():
                return
        with suppress(OSError, ValueError):  # closed: nobody listens
            number = sys.__stderr__.fileno() if sys.__stderr__ else -1
            # Unless that would block: a terminal may have been stopped.
            if self._last_words and select.select([], [number], [], 0)[1]:
                os.write(number, self._last_words)
        os._exit(code)


def _hear(reading: int, seconds: float | None) -> int | None:
    """The next signal; 0 when the block has ended; None when the time has."""
    if not select.select([reading], [], [], seconds)[0]:
        return None
    found = os.read(reading, 64)
    return next((number for number in found if number in _SIGNALS), 0)


def _restore(handlers: Mapping[signal.Signals, Any], wakeup: int, writing: int) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
    signal.set_wakeup_fd(wakeup)
    os.close(writing)
