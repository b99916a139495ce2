"""Records in memory what a push spends its time on, from any thread.

A span is one step of one thread, from its beginning to its end. All moments are of
`time.monotonic`. Lists take what is appended from many threads without a lock.
"""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import contextmanager, suppress
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from towline.context import About, Trace
from towline.events import Emit, Event, Note, Retrying, Warned
from towline.push_events import LayerProgress, TagPushed
from towline.transfers.threads import processors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future


T = TypeVar("T")

STEPS = ("asked", "waited", "read", "encoded", "sent", "confirmed")
"""The steps of a blob, in their order."""
_TAG = r":[^/:]+$"


class Span(NamedTuple):
    """A step of one thread."""

    step: str
    about: About
    thread: int
    began: float
    ended: float
    cpu_began: float
    """Processor seconds that the thread had used when the span began."""
    cpu_ended: float
    size: int
    """Bytes read, sent, or put out by the encoder."""

    @property
    def interval(self) -> tuple[float, float]:
        """Its beginning and end."""
        return self.began, self.ended

    @property
    def stood(self) -> bool:
        """Whether the thread used the processor for less than half of the span: it waited."""
        return (self.cpu_ended - self.cpu_began) * 2 < self.ended - self.began


class Request(NamedTuple):
    """A request that was answered."""

    connection: int
    asked: str
    """Method and address, without its query."""
    about: About
    status: int
    began: float
    ended: float


class Progress:
    """The progress of one layer to one repository: its first and last event, and its status."""

    def __init__(self, moment: float) -> None:
        self.began = self.ended = moment
        self.status = ""
        self.sent = 0
        """Bytes on the wire."""


class Recording(Trace):
    """The trace of one push, which begins when this is made."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.requests: list[Request] = []
        self.threads: dict[int, str] = {}
        """Names of threads, by their idents."""
        self.layers: dict[About, Progress] = {}
        self.said: list[tuple[float, str]] = []
        """Retries, warnings and notes, each with its moment."""
        self.ends: list[str] = []
        """A sentence for each tag that is in place."""
        self.errors: list[str] = []
        """The errors of the tags that failed."""
        self.started = time.time()
        """Seconds since the epoch."""
        self.began = self.ended = time.monotonic()
        self.own_cpu, self.all_cpu = _used()
        """Processor seconds of this process and of the machine: at first those used so far.

        In what `end` gives, those used during the push.
        """

    def failed(self, error: BaseException) -> None:
        """Record that the push failed, or that of one tag."""
        self.errors.append(str(error))

    def end(self) -> Recording:
        """End the push: a copy of the recording that no longer changes.

        A thread that the push no longer waits for may go on for a while and add to the original.
        """
        over = copy(self)
        over.ended = time.monotonic()
        own, every = _used()
        over.own_cpu, over.all_cpu = own - self.own_cpu, every - self.all_cpu
        over.spans, over.requests, over.said = [*self.spans], [*self.requests], [*self.said]
        over.threads, over.layers = dict(self.threads), dict(self.layers)
        return over

    @contextmanager
    def span(self, step: str, about: About, size: int = 0) -> Iterator[_Size]:
        """Add a span for the block, of the size that is set in it."""
        sized, thread = _Size(size), threading.current_thread()
        cpu, began = time.thread_time(), time.monotonic()
        try:
            yield sized
        finally:
            moments = (began, time.monotonic(), cpu, time.thread_time())
            number = thread.ident or 0
            self.threads[number] = thread.name
            self.spans.append(Span(step, about, number, *moments, sized.size))

    def reading(self, reader: T, about: About) -> T:
        """The reader, wrapped so that each read is a span."""
        return cast("T", _Reading(self, reader, about))

    def encoding(self, pool: T, about: About) -> T:
        """The pool, wrapped so that each piece of work is a span."""
        return cast("T", _Encoding(self, pool, about))

    def answered(
        self, connection: int, asked: str, about: About, status: int, began: float
    ) -> None:
        """Add a request that has just been answered."""
        self.requests.append(Request(connection, asked, about, status, began, time.monotonic()))

    def came_to(self, outcomes: Iterable[object]) -> None:
        """Record the errors among the outcomes; results arrive as events."""
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                self.failed(outcome)

    def hearing(self, emit: Emit) -> Emit:
        """A listener that records each event and passes it on to `emit`."""

        def hear(event: Event) -> None:
            moment = time.monotonic()
            match event:
                case LayerProgress():
                    about = (event.id, re.sub(_TAG, "", event.reference.partition("@")[0]))
                    layer = self.layers.setdefault(about, Progress(moment))
                    layer.ended = moment
                    layer.sent = event.sent or layer.sent
                    layer.status = event.status
                    if event.status.startswith("Retrying"):
                        self.said.append((moment, f"{event.id}: {event.status}"))
                case Retrying():
                    again = f"{event.what}: again in {event.seconds:.1f} s ({event.reason})"
                    self.said.append((moment, again))
                case Warned() | Note():
                    self.said.append((moment, event.message))
                case TagPushed():
                    self.ends.append(f"{event.reference} is in place")
            emit(event)

        return hear


class _Size:
    """Bytes of a span."""

    def __init__(self, size: int) -> None:
        self.size = size


class _Reading:
    """A wrapper of a reader whose reads are spans."""

    def __init__(self, recording: Recording, reader: Any, about: About) -> None:  # noqa: ANN401 - as it is given
        self._around = partial(recording.span, "read", about)
        self._reader = reader

    def readinto(self, buffer: memoryview) -> int:
        with self._around() as span:
            span.size = self._reader.readinto(buffer)
        return span.size

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else it can do
        return getattr(self._reader, name)


class _Encoding:
    """A wrapper of a pool whose pieces of work are spans."""

    def __init__(self, recording: Recording, pool: Any, about: About) -> None:  # noqa: ANN401 - as it is given
        self._around = partial(recording.span, "encoded", about)
        self._pool = pool

    def submit(self, work: Callable[[], T]) -> Future[T]:
        def traced() -> T:
            with self._around() as span:
                done = work()
                span.size = len(done) if isinstance(done, bytes) else 0
            return done

        submitted: Future[T] = self._pool.submit(traced)
        return submitted


def _used() -> tuple[float, float]:
    """Processor seconds used so far by this process, and by all processes of the machine.

    The second is that of this process again where it may not use every processor (others' work
    on the rest is not in its way), or where there is no /proc/stat.
    """
    own = every = time.process_time()
    with suppress(OSError):
        if processors() == os.cpu_count():
            with open("/proc/stat", encoding="ascii") as stat:  # noqa: PTH123 - as in a start-up
                _, *ticks = stat.readline().split()[:9]
            idle = int(ticks[3]) + int(ticks[4])  # the second: idle, and waiting for a disk
            every = (sum(map(int, ticks)) - idle) / os.sysconf("SC_CLK_TCK")
    return own, every
