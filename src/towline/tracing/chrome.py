"""Writes a trace in the format of Perfetto and `chrome://tracing` ("Trace Event Format").

It shows three processes: the threads and their steps, the layers and how long each took, and the
connections and their requests. Times are microseconds from the beginning of the push.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from towline._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from towline.tracing.recording import Recording

    Event = dict[str, Any]


def lines(recording: Recording, redact: Callable[[str], str]) -> Iterator[str]:
    """The JSON document, one event a line; `redact` takes secrets out of a text."""
    ends = [redact(text) for text in (*recording.ends, *recording.errors)]
    about = {"version": __version__, "ends": ends}
    yield f'{{"displayTimeUnit": "ms", "otherData": {json.dumps(about)}, "traceEvents": ['
    mark = "\n"
    for event in _events(recording, lru_cache(None)(redact)):
        yield f"{mark}{json.dumps(event)}"
        mark = ",\n"
    yield "\n]}\n"


def _events(recording: Recording, redact: Callable[[str], str]) -> Iterator[Event]:
    threads = _Process(1, "threads", recording.began)
    for number, name in recording.threads.items():
        yield from threads.track(number, redact(name))
    for span in recording.spans:
        blob, repository = map(redact, span.about)
        args = {"blob": blob, "repository": repository, "bytes": span.size}
        yield threads.event(span.thread, span.step, span.began, span.ended, args)
    layers = _Process(2, "layers", recording.began)
    for about, told in recording.layers.items():
        blob, repository = map(redact, about)
        yield from layers.track(about, f"{blob} {repository}")
        args = {"status": redact(told.status), "bytes": told.sent}
        yield layers.event(about, blob, told.began, told.ended, args)
    connections = _Process(3, "connections", recording.began)
    for request in recording.requests:
        yield from connections.track(request.connection, "connection")
        args = {"status": request.status, "blob": redact(request.about[0])}
        moments = (request.began, request.ended)
        yield connections.event(request.connection, redact(request.asked), *moments, args)


class _Process:
    """A process of the trace: its tracks, each of which shows one event at a time."""

    def __init__(self, number: int, name: str, began: float) -> None:
        self._number = number
        self._name = name
        self._began = began
        self._tracks: dict[Hashable, int] = {}

    def track(self, key: Hashable, name: str) -> Iterator[Event]:
        """The events that name the track of `key`, and with the first track the process.

        None where the track has its name already.
        """
        if key in self._tracks:
            return
        if not self._tracks:
            yield self._names("process_name", 0, f"towline: {self._name}")
        self._tracks[key] = number = len(self._tracks) + 1
        yield self._names("thread_name", number, name)

    def _names(self, what: str, track: int, name: str) -> Event:
        args = {"name": name}
        # "M": metadata, the names of a process or a track.
        return {"ph": "M", "pid": self._number, "tid": track, "name": what, "args": args}

    def event(self, key: Hashable, name: str, began: float, ended: float, args: Event) -> Event:
        """An event from `began` to `ended` on the track of `key`."""
        return {
            "ph": "X",  # "complete": beginning and duration in one event
            "pid": self._number,
            "tid": self._tracks[key],
            "name": name,
            "ts": round((began - self._began) * 1e6, 1),
            "dur": round((ended - began) * 1e6, 1),
            "args": args,
        }
