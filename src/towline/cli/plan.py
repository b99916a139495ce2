"""`towline plan`: what a push would send, with nothing written (the same as `push --dry-run`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from towline.cli import options, output, words
from towline.cli.arguments import add, push_options
from towline.cli.progress import figures
from towline.errors import PartialFailure, TowlineError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from towline.cli.arguments import Parser
    from towline.push.result import PlannedLayer, PlanResult

USAGE = "SOURCE DESTINATION... [OPTION...]"
ABOUT = """\
Show what a push of SOURCE to DESTINATION would do. The registry is only read (GET and HEAD).

It takes the words and options of `towline push`."""
WORDS = None
_SHORT = 12


def add_arguments(parser: Parser) -> None:
    """Its options."""
    add(parser, *options.PUSH)


def run(args: argparse.Namespace) -> int:
    """Plan, and print a table or JSON."""
    source, destinations = words.source_and_destinations(args)
    several = len(destinations) > 1 or getattr(args, "all_tags", False)
    show(args, source, destinations, several=several)
    return 0


def show(args: argparse.Namespace, source: str, destinations: list[str], *, several: bool) -> None:
    """Plan a push whose words are known, and print what it would do."""
    from towline.cli import looking

    if hasattr(args, "digest_file"):
        output.check_digest_file(args.digest_file)
    wanted = destinations if several else destinations[0]
    try:
        with words.explained(args), looking.pusher(args) as (pusher, cancel):
            planned = pusher.plan(source, wanted, **push_options(args), cancel=cancel)
    except PartialFailure as failure:
        _print(args, failure.references, failure.results)
        raise
    results = planned if isinstance(planned, list) else [planned]
    _print(args, [result.reference for result in results] if several else None, results)
    if hasattr(args, "digest_file"):
        output.write_digests(args.digest_file, _digests(results))


def _print(args: argparse.Namespace, references: Sequence[str] | None, results: Any) -> None:  # noqa: ANN401 - results, and errors
    """`references` None: one was asked for, so that the JSON is no list."""
    if getattr(args, "output", "text") != "json":
        planned = [result for result in results if not isinstance(result, BaseException)]
        output.write(line for result in planned for line in _table(result))
        return
    from towline.cli import report

    if references is None:
        output.write_json(report.told(results[0]))
    else:
        output.write_json(report.listed(references, results))


def _digests(results: Sequence[PlanResult]) -> list[str]:
    """Raises TowlineError where one is not known yet."""
    for result in results:
        if result.digest is None:
            raise TowlineError(
                f"the digest of {result.reference} is not known before it is pushed",
                hint="towline digest computes that of a push to an empty registry",
            )
    return [result.digest for result in results if result.digest]


def _table(result: PlanResult) -> Iterator[str]:
    yield result.reference
    rows = [_row(layer) for layer in result.layers]
    head = ("layer", "outcome", "size", "as", "from")
    for row in (head, *rows):
        yield "  " + _line(row, [head, *rows])
    yield f"  {_last(result)}"


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


def _line(row: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
    return "  ".join(cells).rstrip()


def _last(result: PlanResult) -> str:
    if result.status == "unchanged":
        return f"unchanged: {result.digest}"
    bound = "" if result.digest else "at most "
    sent = f"to be sent: {bound}{figures.size(result.send_bytes)}"
    if result.seconds_estimate is None or not result.send_bytes:
        return sent
    return f"{sent}, which takes {bound}{figures.left(result.seconds_estimate)} at the last rate"
