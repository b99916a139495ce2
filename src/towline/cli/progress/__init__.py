"""Progress on standard error: bars, plain lines in docker's words, JSON objects, or nothing.

Faces (`tty`, `plain`, `json`) turn events into text and write nothing themselves. They are fed from
a queue by a thread of its own: a push only appends to the queue, so it never waits for a terminal.
Of several byte counts of a layer the queue keeps the last. A face or a stream that fails is
switched off without the push hearing of it.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self, TextIO

    from towline.events import Event

INTERVAL = 0.1
"""Seconds between two writes of what is new."""


class Logged:
    """A line of `--debug`."""

    event = "log"
    reference = ""

    def __init__(self, line: str) -> None:
        self.line = line


# Events are known by their words here, since a class of theirs is loaded only when one is made.
NOTES = frozenset({"warning", "note", Logged.event})
"""The events that are shown for commands without progress."""
_MOVING = {"layer": "id", "work": "what"}
"""The events that may come a thousand times a second, and the field that says of what each is."""


class Face(Protocol):
    """Turns events into text."""

    reset: str = ""
    """What puts the terminal right when the face stops in the middle of a frame."""

    def show(self, told: Sequence[Event | Logged]) -> str:
        """The text for these events; without any, for the time that has passed (rate, bars)."""

    def end(self) -> str:
        """The last text."""
        return ""


class Quiet(Face):
    """Shows only warnings and the lines of `--debug`, and with `notes` notes as well."""

    def __init__(self, *, notes: bool = False) -> None:
        self._kept = NOTES if notes else NOTES - {"note"}

    def show(self, told: Sequence[Event | Logged]) -> str:
        """The lines of those events that are shown."""
        if not (kept := [event for event in told if event.event in self._kept]):
            return ""
        from towline.cli.progress.plain import line_of

        return "".join(f"{line_of(event)}\n" for event in kept)


def start(mode: str, *, layers: bool = True, debug: bool = False) -> Progress:
    """Progress on standard error in one of the modes of `--progress`.

    Commands that only read leave `layers` out: they show warnings and notes, and on a terminal a
    bar for what takes long (a pipe that is spooled, layers that are compressed).
    """
    face: Face
    if mode == "auto":
        terminal = sys.stderr is not None and sys.stderr.isatty()
        # No bars with `--debug`, whose lines scroll by too fast for rows below them.
        rows = terminal and os.environ.get("TERM") != "dumb" and not (debug and layers)
        mode = "tty" if rows else "plain"
    if mode == "tty":
        from towline.cli.progress.tty import Bars, size_of

        colour = not os.environ.get("NO_COLOR")
        face = Bars(lambda: size_of(sys.stderr), sys.stderr, colour=colour, layers=layers)
    elif mode == "json":
        from towline.cli.progress.json import Objects

        face = Objects(notes_only=not layers)
    elif mode == "plain" and layers:
        from towline.cli.progress.plain import Lines

        face = Lines()
    else:
        face = Quiet(notes=mode == "plain")
    return Progress(face, sys.stderr)


class Progress:
    """Shows events with a face on a stream; takes them from any thread.

    A context manager: at its end everything told has been shown.
    """

    def __init__(self, face: Face, stream: TextIO | None, interval: float = INTERVAL) -> None:
        self.face = face
        self._stream = stream
        self._interval = interval
        self._lock = threading.Condition()
        self._told: list[Event | Logged] = []
        """The events not shown yet."""
        self._places: dict[tuple[str, str], int] = {}
        """The index in `_told` of the last event of each layer and each piece of work."""
        self._closing = threading.Event()
        self._broken = stream is None
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def emit(self, told: Event | Logged) -> None:
        """Queue an event and return at once; a byte count replaces the one queued before it."""
        with self._lock:
            if self._broken and told.event != "warning":
                return
            self._lock.notify()
            if told.event in _MOVING:
                key = told.reference, getattr(told, _MOVING[told.event])
                place = self._places.get(key)
                if place is not None and _status(self._told[place]) == _status(told):
                    self._told[place] = told
                    return
                self._places[key] = len(self._told)
            self._told.append(told)

    def log(self, line: str) -> None:
        """Queue a line of `--debug` and return at once."""
        self.emit(Logged(line))

    def __enter__(self) -> Self:
        try:
            self._thread.start()
        except RuntimeError:  # the system refuses a thread: warnings alone, at the end
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
        """Write what the face makes of the events; where the face fails, warnings alone."""
        if not self._broken:
            try:
                self._write(self.face.end() if last else self.face.show(told))
            except Exception:  # noqa: BLE001 - no error of a face may end the push
                with self._lock:
                    self._broken = True
                with suppress(OSError, ValueError):
                    self._write(self.face.reset)
            else:
                return
        from towline.events import Warned

        for event in told:
            if isinstance(event, Warned):
                with suppress(OSError, ValueError):
                    self._write(f"towline: warning: {event.message}\n")

    def _write(self, text: str) -> None:
        if text and self._stream is not None:
            self._stream.write(text)
            self._stream.flush()


def _status(told: Event | Logged) -> str | None:
    return getattr(told, "status", None)
