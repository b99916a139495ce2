"""What bounded a push: the processor, one thread, the link or the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from towline.transfers.threads import processors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from towline.tracing.recording import Recording, Span

_WORK = frozenset({"read", "encoded", "sent"})
"""Steps in which this machine works on a blob."""
_ANSWERS = frozenset({"asked", "confirmed", "learned", "looked", "tagged", "verified"})
"""Steps that wait for an answer of the registry."""

Interval = tuple[float, float]
"""The moments at which something began and ended."""


class Share(NamedTuple):
    """The share of a push's time in which one thing may have held it up."""

    name: str
    of_time: float
    """0 to 1."""
    why: str
    """The measured figures, for people."""


def shares(recording: Recording) -> list[Share]:
    """The shares, the largest first; they may sum to more than 1, since two may hold up at once."""
    seconds, cores = recording.ended - recording.began, processors()
    work = max(recording.own_cpu, recording.all_cpu)
    busiest, name = _busiest(recording)
    stalls = length(span.interval for span in recording.spans if span.step == "sent" and span.stood)
    at_work = [span.interval for span in recording.spans if span.step in _WORK]
    asking = [span.interval for span in recording.spans if span.step in _ANSWERS]
    # Only the time in which no thread worked: answers that come meanwhile hold nothing up.
    waiting = length([*asking, *at_work]) - length(at_work)
    found = (
        Share(
            "the processor",
            work / cores / seconds,
            f"{cores} of them have worked {words(work)}, {words(recording.own_cpu)} for this push",
        ),
        Share(
            "one thread",
            busiest / seconds,
            f"the busiest, {name}, has worked {words(busiest)}",
        ),
        Share(
            "the link",
            stalls / seconds,
            f"for {words(stalls)} what was to be sent was not taken: the link was full, the "
            "registry slow to read, or a limit was set",
        ),
        Share(
            "the registry",
            waiting / seconds,
            f"for {words(waiting)} there was nothing to do but to wait for its answers",
        ),
    )
    return sorted(found, key=lambda share: -share.of_time)


def _busiest(recording: Recording) -> tuple[float, str]:
    """The processor seconds of the thread that has used the most, and its name."""
    spans: dict[int, list[Span]] = {}
    for span in recording.spans:
        spans.setdefault(span.thread, []).append(span)
    # Between its first and last span: a thread of a pool may have worked for others before.
    worked = (
        (some[-1].cpu_ended - some[0].cpu_began, recording.threads[thread])
        for thread, some in spans.items()
    )
    return max(worked, default=(0.0, "none"))


def length(intervals: Iterable[Interval]) -> float:
    """Seconds that at least one of the intervals covers."""
    return sum(ended - began for began, ended in merged(intervals))


def merged(intervals: Iterable[Interval], gap: float = 0.0) -> list[Interval]:
    """The intervals in order; those that overlap or are at most `gap` seconds apart become one."""
    found: list[Interval] = []
    for began, ended in sorted(intervals):
        if found and began <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(ended, found[-1][1]))
        else:
            found.append((began, ended))
    return found


def words(seconds: float) -> str:
    """A duration for people: milliseconds below a second."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
