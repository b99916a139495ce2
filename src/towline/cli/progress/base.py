"""Between the push and a face: a queue in which the last byte count wins, and one thread.

The push only ever appends here; nothing it does waits for a terminal. A face or a stream that
fails is switched off, and the push never hears of it.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from towline.events import LayerProgress, Note, Warned, Working

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self, TextIO

    from towline.events import Event

INTERVAL = 0.1
"""Seconds between two looks at what is new."""


class Logged(NamedTuple):
    """A line of `--debug`."""

    line: str


NOTES = (Warned, Note, Logged)
"""What is told of work that has no progress."""


class Face(Protocol):
    """Turns what is told into text."""

    reset: str = ""
    """What puts the terminal right when the face is left in the middle."""

    def show(self, told: Sequence[Event | Logged]) -> str:
        """What is to be written for these, and for the time that has gone by."""
        ...

    def end(self) -> str:
        """What is to be written last."""
        return ""


class Progress:
    """A face on a stream, fed from any thread; a context manager that ends with all shown."""

    def __init__(self, face: Face, stream: TextIO | None, interval: float = INTERVAL) -> None:
        self.face = face
        self._stream = stream
        self._interval = interval
        self._lock = threading.Condition()
        self._told: list[Event | Logged] = []
        """What is not shown yet."""
        self._places: dict[tuple[str, str], int] = {}
        """Where in it each layer and each piece of work was last told of."""
        self._closing = threading.Event()
        self._broken = stream is None
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def emit(self, told: Event | Logged) -> None:
        """Tell an event; returns at once. A byte count replaces the one before it."""
        with self._lock:
            if self._broken and not isinstance(told, Warned):
                return
            self._lock.notify()
            if isinstance(told, LayerProgress | Working):
                key = told.reference, told.id if isinstance(told, LayerProgress) else told.what
                place = self._places.get(key)
                if place is not None and _only_moves(self._told[place], told):
                    self._told[place] = told
                    return
                self._places[key] = len(self._told)
            self._told.append(told)

    def log(self, line: str) -> None:
        """Tell a line of `--debug`; returns at once."""
        self.emit(Logged(line))

    def __enter__(self) -> Self:
        try:
            self._thread.start()
        except RuntimeError:  # no thread is to be had: no face then, and warnings at the end
            self._broken = True
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        with self._lock:
            self._lock.notify()
        if self._thread.ident is None:
            self._show(self._take())
        else:
            self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            with self._lock:
                if not self._told and not self._closing.is_set():
                    self._lock.wait(self._interval)
            self._show(self._take())
            self._closing.wait(self._interval)
        self._show(self._take())
        self._show((), last=True)

    def _take(self) -> list[Event | Logged]:
        with self._lock:
            told, self._told = self._told, []
            self._places.clear()
        return told

    def _show(self, told: Sequence[Event | Logged], *, last: bool = False) -> None:
        """Let the face write; without one, or where it fails, warnings still reach the user."""
        if not self._broken:
            try:
                self._write(self.face.end() if last else self.face.show(told))
            except Exception:  # noqa: BLE001 - whatever a face does wrong, the push goes on
                with self._lock:
                    self._broken = True
                with suppress(OSError, ValueError):
                    self._write(self.face.reset)
            else:
                return
        for event in told:
            if isinstance(event, Warned):
                with suppress(OSError, ValueError):
                    self._write(f"towline: warning: {event.message}\n")

    def _write(self, text: str) -> None:
        if text and self._stream is not None:
            self._stream.write(text)
            self._stream.flush()


def _only_moves(before: Event | Logged, now: LayerProgress | Working) -> bool:
    if isinstance(before, LayerProgress) and isinstance(now, LayerProgress):
        return before.status == now.status
    return isinstance(before, Working)
