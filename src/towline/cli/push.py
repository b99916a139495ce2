"""`towline push`: what it prints where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from towline.cli import options, output, words
from towline.cli.arguments import add, push_options, pusher_options
from towline.errors import PartialFailure, TowlineError, TransferCancelled, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from towline.cli.arguments import Parser
    from towline.context import Cancel
    from towline.push.pusher import Pusher
    from towline.push.result import PushResult

    Bring = Callable[[Pusher, Cancel], PushResult | list[PushResult]]

USAGE = "NAME[:TAG] | SOURCE DESTINATION... [OPTION...]"
ABOUT = """\
Push an image to REGISTRY/REPOSITORY[:TAG]; NAME alone, from the local Docker engine, goes to the
registry that it names, as with `docker push`.

SOURCE is a name or ID in that engine, what `docker save` wrote, an OCI layout (directory or tar),
or - for standard input; also docker-daemon:NAME, docker-archive:PATH[:REF], oci:DIR[:REF],
oci-archive:PATH[:REF]."""
WORDS = None


def add_arguments(parser: Parser) -> None:
    """Its options."""
    add(parser, *options.PUSH)


def run(args: argparse.Namespace) -> int:
    """Push, and print the result."""
    return carry_out(args, *words.source_and_destinations(args))


def carry_out(args: argparse.Namespace, source: str, destinations: list[str]) -> int:
    """Push or copy what the words say, and print the result."""
    if getattr(args, "dry_run", False):
        from towline.cli import plan

        several = len(destinations) > 1 or getattr(args, "all_tags", False)
        plan.show(args, source, destinations, several=several)
        return 0
    if hasattr(args, "check_push"):
        message = (
            "`--check-push` goes with `towline plan` or `--dry-run`: a push finds out by itself"
        )
        raise UsageError(message)
    if hasattr(args, "digest_file"):
        output.check_digest_file(args.digest_file)
    several = len(destinations) > 1 or getattr(args, "all_tags", False)

    def bring(pusher: Pusher, cancel: Cancel) -> PushResult | list[PushResult]:
        carry = pusher.copy if args.command == "copy" else pusher.push
        wanted = destinations if several else destinations[0]
        return carry(source, wanted, **push_options(args), cancel=cancel)

    return perform(args, bring, several=several)


def perform(args: argparse.Namespace, bring: Bring, *, several: bool) -> int:
    """Do what writes tags with a pusher, show how it goes, and print the results."""
    try:
        results: Sequence[Any] = _shown(args, bring)
    except (PartialFailure, TransferCancelled) as failure:
        if failure.results:
            _print_what_is(args, failure)
        raise
    _print(args, results, [result.reference for result in results] if several else None)
    return 0


def _shown(args: argparse.Namespace, bring: Bring) -> Sequence[PushResult]:
    from towline.cli import progress, report
    from towline.cli.signals import cancel_on_signals

    shown = progress.start(getattr(args, "progress", "auto"), debug=getattr(args, "debug", False))
    last_words = shown.face.reset.encode() + report.last_words(report.style_of(args))
    with words.explained(args), shown, cancel_on_signals(last_words) as cancel:
        import towline
        from towline import PushResult

        for message in args.strangers:
            shown.emit(towline.Warned(reference="", message=message))
        settings = pusher_options(args)
        if getattr(args, "debug", False):
            settings["log"] = shown.log
        with towline.Pusher(**settings, on_event=shown.emit) as pusher:
            pushed = bring(pusher, cancel)
    return [pushed] if isinstance(pushed, PushResult) else pushed


def _print(
    args: argparse.Namespace, results: Sequence[Any], references: Sequence[str] | None
) -> None:
    """Standard output and the digest file, of those that were pushed.

    `references` None: one was asked for, so that the JSON is no list.
    """
    pushed = [result for result in results if not isinstance(result, BaseException)]
    try:
        if hasattr(args, "digest_file"):
            output.write_digests(args.digest_file, [result.digest for result in pushed])
    finally:  # what has been pushed is told in one of the two places at least
        _print_results(args, results, pushed, references)


def _print_results(
    args: argparse.Namespace,
    results: Sequence[Any],
    pushed: Sequence[PushResult],
    references: Sequence[str] | None,
) -> None:
    if getattr(args, "output", "text") != "json":
        output.write(result.pinned for result in pushed)
        return
    from towline.cli import report

    if references is None:
        output.write_json(report.told(results[0]))
    else:
        output.write_json(report.listed(references, results))


def _print_what_is(args: argparse.Namespace, failure: PartialFailure | TransferCancelled) -> None:
    """The results among failures, which are still to be told: that of printing comes before."""
    try:
        _print(args, [result or failure for result in failure.results], failure.references)
    except TowlineError as error:
        from towline.cli import report

        report.report(error, report.style_of(args))
