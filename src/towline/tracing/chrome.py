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
    from collections.abc import Callable, Iterator

    from towline.tracing.recording import Recording

    Event = dict[str, Any]

_THREADS, _LAYERS, _CONNECTIONS = 1, 2, 3
"""The numbers of the processes."""


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
    processes = {_THREADS: "threads", _LAYERS: "layers", _CONNECTIONS: "connections"}
    for process, name in processes.items():
        yield _names("process_name", process, 0, f"towline: {name}")
    # Tracks are numbered anew: viewers take no numbers above 32 bits, which threads have.
    threads = {thread: track for track, thread in enumerate(recording.threads, 1)}
    for thread, name in recording.threads.items():
        yield _names("thread_name", _THREADS, threads[thread], redact(name))
    for track, ((blob, repository), _) in enumerate(recording.layers.items(), 1):
        yield _names("thread_name", _LAYERS, track, f"{redact(blob)} {redact(repository)}")
    connections: dict[int, int] = {}
    for request in recording.requests:
        connections.setdefault(request.connection, len(connections) + 1)
    for track in connections.values():
        yield _names("thread_name", _CONNECTIONS, track, "connection")

    def event(
        process: int, track: int, name: str, interval: tuple[float, float], args: Event
    ) -> Event:
        """An event on one track, which shows one event at a time."""
        began, ended = interval
        return {
            "ph": "X",  # "complete": beginning and duration in one event
            "pid": process,
            "tid": track,
            "name": name,
            "ts": round((began - recording.began) * 1e6, 1),
            "dur": round((ended - began) * 1e6, 1),
            "args": args,
        }

    for span in recording.spans:
        blob, repository = map(redact, span.about)
        told = {"blob": blob, "repository": repository, "bytes": span.size}
        yield event(_THREADS, threads[span.thread], span.step, span.interval, told)
    for track, ((blob, _), layer) in enumerate(recording.layers.items(), 1):
        told = {"status": redact(layer.status), "bytes": layer.sent}
        yield event(_LAYERS, track, redact(blob), (layer.began, layer.ended), told)
    for request in recording.requests:
        asked, moments = redact(request.asked), (request.began, request.ended)
        told = {"status": request.status, "blob": redact(request.about[0])}
        yield event(_CONNECTIONS, connections[request.connection], asked, moments, told)


def _names(what: str, process: int, track: int, name: str) -> Event:
    # "M": metadata, the name of a process or of a track.
    return {"ph": "M", "pid": process, "tid": track, "name": what, "args": {"name": name}}
