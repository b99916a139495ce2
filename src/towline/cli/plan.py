"""`towline plan`: what a push would send, with nothing written (the same as `push --dry-run`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from towline.cli import figures, options, output, words
from towline.cli.command import Command
from towline.cli.pusher import opened, push_options, wanted
from towline.errors import PartialFailure, TowlineError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from towline.push.interface.result import PlannedLayer, PlanResult

_SHORT = 12


def _plan(args: argparse.Namespace) -> int:
    return show(args, *words.source_and_destinations(args))


def show(args: argparse.Namespace, source: str, destinations: list[str]) -> int:
    """Plan a push of `source`, and print what it would do as a table or JSON."""
    output.check_digest_file(args)
    try:
        with opened(args) as (pusher, cancel):
            to = wanted(args, destinations)
            planned = pusher.plan(source, to, **push_options(args), cancel=cancel)
    except PartialFailure as failure:
        _print(args, list(failure.results), failure.references)
        raise
    _print(args, planned)
    return 0


def _print(args: argparse.Namespace, results: Any, references: Sequence[str] = ()) -> None:  # noqa: ANN401 - one, or a list in which are errors
    every = results if isinstance(results, list) else [results]
    planned = [result for result in every if not isinstance(result, BaseException)]
    lines = (line for result in planned for line in _table(result))
    output.write_results(args, results, references, lines)
    if len(planned) == len(every):
        output.write_digests(args, _digests(planned))


def _digests(results: Sequence[PlanResult]) -> Iterator[str]:
    """The digests of the results; raises TowlineError where one is not known before the push."""
    for result in results:
        if result.digest is None:
            raise TowlineError(
                f"the digest of {result.reference} is not known before it is pushed",
                hint="towline digest computes that of a push to an empty registry",
            )
        yield result.digest


def _table(result: PlanResult) -> Iterator[str]:
    yield result.reference
    if result.status == "skipped":
        yield f"  left as it is: {result.digest}"
        return
    rows = [("layer", "outcome", "size", "as", "from"), *map(_row, result.layers)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        yield "  " + "  ".join(cells).rstrip()
    if result.status == "unchanged":
        yield f"  unchanged: {result.digest}"
        return
    bound = "" if result.digest else "at most "
    sent = f"  to be sent: {bound}{figures.size(result.send_bytes)}"
    if result.seconds_estimate is not None and result.send_bytes:
        sent += f", which takes {bound}{figures.left(result.seconds_estimate)} at the last rate"
    yield sent


def _row(layer: PlannedLayer) -> tuple[str, ...]:
    digest = layer.diff_id or layer.digest or ""
    size = figures.size(layer.size) if layer.size is not None else "-"
    if layer.plain_size is not None:
        size = f"{figures.size(layer.plain_size)} plain"
    return (
        digest.partition(":")[2][:_SHORT],
        "push" if layer.outcome == "pushed" else str(layer.outcome),
        size,
        layer.compression,
        layer.mounted_from or "",
    )


PLAN = Command(
    _plan,
    "SOURCE DESTINATION... [OPTION...]",
    """\
Show what a push of SOURCE to DESTINATION would do. The registry is only read (GET and HEAD).

It takes the words and options of `towline push`.""",
    options.PUSH,
)
