"""`towline push`, `copy`, `tag` and `index`: the commands that write tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from towline.cli import options, output, words
from towline.cli.command import Command
from towline.cli.pusher import opened, push_options, wanted
from towline.errors import PartialFailure, TowlineError, TransferCancelled, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from towline.context import Cancel
    from towline.push.interface.result import PushResult
    from towline.push.pusher import Pusher

    Bring = Callable[[Pusher, Cancel], PushResult | list[PushResult]]


def _push(args: argparse.Namespace) -> int:
    return _bring_one(args, *words.source_and_destinations(args))


def _copy(args: argparse.Namespace) -> int:
    if "tags" in args:
        args.all_tags = True  # `--tags` chooses among all of them
    return _bring_one(args, *words.copied(args))


def _bring_one(args: argparse.Namespace, source: str, destinations: list[str]) -> int:
    """Push or copy one source, or show with `--dry-run` what that would do."""
    if "dry_run" in args:
        from towline.cli import plan

        return plan.show(args, source, destinations)
    if "check_push" in args:
        raise UsageError(
            "`--check-push` goes with `towline plan` or `--dry-run`: a push finds out by itself"
        )

    def bring(pusher: Pusher, cancel: Cancel) -> PushResult | list[PushResult]:
        carry = pusher.copy if args.command == "copy" else pusher.push
        return carry(source, wanted(args, destinations), **push_options(args), cancel=cancel)

    return _perform(args, bring)


def _tag(args: argparse.Namespace) -> int:
    if len(args.words) < 2:  # noqa: PLR2004 - what is tagged, and a tag
        what = "no tag is given" if args.words else "no image is named"
        raise UsageError(what, hint="towline tag REGISTRY/REPOSITORY:TAG NEW-TAG")
    reference, *tags = args.words

    def bring(pusher: Pusher, cancel: Cancel) -> PushResult | list[PushResult]:
        return pusher.tag(reference, wanted(args, tags), cancel=cancel)

    return _perform(args, bring)


def _index(args: argparse.Namespace) -> int:
    sources, destinations = args.words, getattr(args, "to", [])
    if not sources or not destinations:
        what = "no destination is named: give `--to`" if sources else "no image is named"
        raise UsageError(what, hint="towline index IMAGE IMAGE --to REGISTRY/REPOSITORY:TAG")

    def bring(pusher: Pusher, cancel: Cancel) -> PushResult | list[PushResult]:
        to = wanted(args, destinations)
        return pusher.index(sources, to, **push_options(args), cancel=cancel)

    return _perform(args, bring)


def _perform(args: argparse.Namespace, bring: Bring) -> int:
    """Call `bring` with a pusher, show its progress, and print the results."""
    output.check_digest_file(args)
    try:
        with opened(args, layers=True) as (pusher, cancel):
            pushed = bring(pusher, cancel)
    except (PartialFailure, TransferCancelled) as failure:
        if failure.results:
            try:
                # A tag that was not finished has None as its result: show the failure for it.
                results = [result or failure for result in failure.results]
                _print(args, results, failure.references)
            except TowlineError as error:  # the push's own failure is raised below
                from towline.cli import report

                report.report(error, report.style_of(args))
        raise
    _print(args, pushed)
    return 0


def _print(args: argparse.Namespace, results: Any, references: Sequence[str] = ()) -> None:  # noqa: ANN401 - one, or a list in which are errors
    """Print the results, and write the digests of those that were pushed."""
    every = results if isinstance(results, list) else [results]
    pushed = [result for result in every if not isinstance(result, BaseException)]
    try:
        output.write_digests(args, (result.digest for result in pushed))
    finally:  # a digest file that fails must not keep the results from standard output
        output.write_results(args, results, references, (result.pinned for result in pushed))


PUSH = Command(
    _push,
    "NAME[:TAG] | SOURCE DESTINATION... [OPTION...]",
    """\
Push an image to REGISTRY/REPOSITORY[:TAG]; NAME alone, from the local Docker engine, goes to the
registry that it names, as with `docker push`.

SOURCE is a name or ID in that engine, what `docker save` wrote, an OCI layout (directory or tar),
or - for standard input; also docker://REGISTRY/REPOSITORY[:TAG], docker-daemon:NAME,
docker-archive:PATH[:REF], oci:DIR[:REF], oci-archive:PATH[:REF].""",
    options.PUSH,
)
COPY = Command(
    _copy,
    "SOURCE DESTINATION... [OPTION...]",
    """\
Copy an image to REGISTRY/REPOSITORY[:TAG], with all its platforms, byte for byte; or to a layout
or an archive: oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:REF].

SOURCE is REGISTRY/REPOSITORY[:TAG|@DIGEST], or any source of `towline push`, a path written as
./PATH. What is there already is not read again.""",
    options.COPY,
)
TAG = Command(
    _tag,
    "REF TAG... [OPTION...]",
    "Set further tags to what stands under REGISTRY/REPOSITORY[:TAG|@DIGEST]. No blob moves.",
    (*options.REACH, options.RESULT, options.STDERR),
)
INDEX = Command(
    _index,
    "SOURCE... --to DESTINATION... [OPTION...]",
    """\
Build one index of several images, each for a platform of its own, and push it.

SOURCE is as for `towline copy`; an index gives its children.""",
    options.INDEX,
)
