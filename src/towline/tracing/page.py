"""A trace as one page for people: what bounded the push, and a bar for each layer.

The page has no script and loads nothing; its content policy forbids both.
"""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from towline._version import __version__
from towline.context import NOTHING, About
from towline.tracing.recording import STEPS, Recording, Span
from towline.transfers.threads import processors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


_WORK = frozenset({"read", "encoded", "sent"})
"""Steps in which this machine works on a blob."""
_ANSWERS = frozenset({"asked", "confirmed", "learned", "looked", "tagged", "verified"})
"""Steps that wait for an answer of the registry."""

Interval = tuple[float, float]
"""The moments at which something began and ended."""
_MEGABYTE = 1_000_000
_SLIVERS = 500
"""Parts of a bar: spans closer than one part are drawn as one, which bounds the page's size."""
_STYLE = """\
:root { color-scheme: light dark; --page: #fff; --text: #1b1f24; --quiet: #57606a;
  --waited: #d8dee4; --asked: #8250df; --read: #0969da; --encoded: #9a6700; --sent: #1a7f37;
  --confirmed: #bf3989; }
@media (prefers-color-scheme: dark) { :root { --page: #0d1117; --text: #e6edf3; --quiet: #9aa4b0;
  --waited: #30363d; --asked: #b083f0; --read: #58a6ff; --encoded: #d29922; --sent: #3fb950;
  --confirmed: #f778ba; } }
body { background: var(--page); color: var(--text); font: 16px/1.5 system-ui, sans-serif;
  margin: 0 auto; max-width: 60rem; padding: 1rem; overflow-wrap: anywhere; }
h1, h2 { font-size: 1.2rem; line-height: 1.3; margin: 1.5rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; } p, ul { margin: .25rem 0; }
.quiet { color: var(--quiet); } .bar { height: 1.5rem; position: relative; }
.bar i { height: 100%; min-width: 1px; position: absolute; top: 0; } .bar.share { height: .5rem; }
.bar .read, .bar .encoded, .bar .sent { height: 34%; } .bar .encoded { top: 33%; }
.bar .sent { top: 66%; } .bar.share .sent { height: 100%; top: 0; }
.waited { background: var(--waited); outline: 1px solid var(--quiet); }
.asked { background: var(--asked); } .read { background: var(--read); }
.encoded { background: var(--encoded); } .sent { background: var(--sent); }
.confirmed { background: var(--confirmed); } .legend span { margin-right: .8rem; }
.legend i { display: inline-block; height: .8rem; margin-right: .3rem; width: .8rem; }"""


def lines(recording: Recording, redact: Callable[[str], str]) -> Iterator[str]:
    """The page, in pieces; `redact` takes secrets out of a text."""
    return _Page(recording, lambda text: escape(redact(text))).lines()


class _Page:
    def __init__(self, recording: Recording, text: Callable[[str], str]) -> None:
        """`text` redacts and escapes a text for the page."""
        self._recording = recording
        self._text = text
        self._began = recording.began
        self._seconds = recording.ended - recording.began

    def lines(self) -> Iterator[str]:
        recording, started = self._recording, datetime.fromtimestamp(self._recording.started, UTC)
        title = "A push that failed after" if recording.errors else "A push of"
        title = f"{title} {words(self._seconds)}, {started:%Y-%m-%d %H:%M:%S} UTC"
        yield f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><style>
{_STYLE}
</style></head><body>
<h1>{title}</h1>
"""
        yield _list(map(self._text, (*recording.errors, *recording.ends)))
        found = shares(recording)
        yield f"<h2>Bound by {found[0].name}</h2>\n"
        for share in found:
            why = self._text(share.why)
            yield f"<p><strong>{share.name}</strong> {share.of_time:.0%}: {why}</p>\n"
            yield f'<div class="bar share">{_piece("sent", 0, share.of_time)}</div>\n'
        yield from self._rows()
        if recording.said:
            yield "<h2>Also</h2>\n"
            moments = ((words(moment - self._began), said) for moment, said in recording.said)
            yield _list(f"after {moment}: {self._text(said)}" for moment, said in moments)
        yield f'<p class="quiet">towline {__version__}</p></body></html>\n'

    def _rows(self) -> Iterator[str]:
        legend = "".join(f'<span><i class="{step}"></i>{step}</span> ' for step in STEPS)
        yield f'<h2>Step by step</h2>\n<p class="legend">{legend}</p>\n'
        rows: dict[About, list[Span]] = {about: [] for about in self._recording.layers}
        for span in self._recording.spans:
            rows.setdefault(span.about, []).append(span)
        around = rows.pop(NOTHING, [])
        yield self._row("Around the layers", around, [], [])
        several = len({repository for _, repository in rows}) > 1
        for about, spans in rows.items():
            told = self._recording.layers.get(about)
            moments = [moment for span in spans for moment in span.interval]
            moments += (told.began, told.ended) if told else ()
            facts = [told.status] if told else []
            if sent := sum(span.size for span in spans if span.step == "sent"):
                facts.append(_size(sent))
            name = " to ".join(about) if several else about[0]
            yield self._row(name, spans, moments, facts)

    def _row(
        self, name: str, spans: Iterable[Span], moments: Sequence[float], facts: Sequence[str]
    ) -> str:
        """A heading, a bar on the scale of the whole push, and the seconds of each step.

        The time between the first and the last of `moments` in which no step ran is `waited`.
        """
        every: dict[str, list[Interval]] = {step: [] for step in STEPS}
        for span in spans:
            every.setdefault(span.step, []).append(span.interval)
        steps = {step: some for step, some in every.items() if some and step != "waited"}
        spent = {step: length(intervals) for step, intervals in steps.items()}
        pieces = ""
        if moments:
            life = (min(moments), max(moments))
            spent = {"waited": length([life]) - length(chain(*steps.values())), **spent}
            pieces = self._pieces("waited", [life])
        for step, intervals in steps.items():
            pieces += self._pieces(step if step in STEPS else "asked", intervals)
        times = ", ".join(f"{step} {words(seconds)}" for step, seconds in spent.items())
        said = f'{self._text(name)} <span class="quiet">{self._text(", ".join(facts))}</span>'
        return f"""<h3>{said}</h3>
<div class="bar">{pieces}</div>
<p>{times}</p>
"""

    def _pieces(self, kind: str, intervals: Iterable[Interval]) -> str:
        shown = merged(intervals, self._seconds / _SLIVERS)
        return "".join(
            _piece(kind, (began - self._began) / self._seconds, (ended - began) / self._seconds)
            for began, ended in shown
        )


def _piece(kind: str, left: float, width: float) -> str:
    return f'<i class="{kind}" style="left:{left:.2%};width:{min(width, 1):.2%}"></i>'


def _list(items: Iterable[str]) -> str:
    listed = "".join(f"<li>{item}</li>" for item in items)
    return f"<ul>{listed}</ul>\n" if listed else ""


def _size(number: int) -> str:
    return f"{number / 1e6:.1f} MB" if number >= _MEGABYTE else f"{number / 1e3:.1f} kB"


# What bounded the push.


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
        Share("one thread", busiest / seconds, f"the busiest, {name}, has worked {words(busiest)}"),
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
