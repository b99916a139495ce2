"""What bounded a push: the share of its time for which each thing was in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from towline.transfers.threads import processors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from towline.tracing.recording import Recording, Span

_WORK = frozenset({"read", "encoded", "sent"})
_ANSWERS = frozenset({"asked", "confirmed", "learned", "looked", "tagged", "verified"})

Interval = tuple[float, float]
"""Two moments."""


class Share(NamedTuple):
    """One thing that may have been in the way."""

    name: str
    of_time: float
    """0 to 1."""
    why: str
    """What was measured."""


def shares(recording: Recording) -> list[Share]:
    """The largest first. They are no parts of a whole: two may be in the way at once."""
    seconds, cores = recording.ended - recording.began, processors()
    work = max(recording.own_cpu, recording.all_cpu)
    busiest, name = _busiest(recording)
    stalls = length(span.interval for span in recording.spans if span.step == "sent" and span.stood)
    at_work = [span.interval for span in recording.spans if span.step in _WORK]
    asking = [span.interval for span in recording.spans if span.step in _ANSWERS]
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
    """Seconds of the processor that one thread has had, and its name."""
    spans: dict[int, list[Span]] = {}
    for span in recording.spans:
        spans.setdefault(span.thread, []).append(span)
    worked = (
        (some[-1].cpu_ended - some[0].cpu_began, recording.threads[thread])
        for thread, some in spans.items()
    )
    return max(worked, default=(0.0, "none"))


def length(intervals: Iterable[Interval]) -> float:
    """Seconds in which there was at least one of them."""
    return sum(ended - began for began, ended in merged(intervals))


def merged(intervals: Iterable[Interval], gap: float = 0.0) -> list[Interval]:
    """The same, in order, those with no more than a gap of seconds between them made one."""
    found: list[Interval] = []
    for began, ended in sorted(intervals):
        if found and began <= found[-1][1] + gap:
            found[-1] = (found[-1][0], max(ended, found[-1][1]))
        else:
            found.append((began, ended))
    return found


def words(seconds: float) -> str:
    """A time for people."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
