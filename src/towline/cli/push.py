"""`towline push`, `copy`, `tag` and `index`, which write tags, and `plan`, which says how."""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from towline.cli import options, output, wording, words
from towline.cli.options import Command
from towline.cli.pusher import opened, push_options, wanted
from towline.errors import PartialFailure, TowlineError, TransferCancelled, UsageError
from towline.spec.digest import SHORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from towline.cli.options import Arguments
    from towline.context import Cancel
    from towline.push.interface.result import PlannedLayer, PlanResult, PushResult
    from towline.push.pusher import Pusher

    Brought = PushResult | PlanResult | Sequence[PushResult | PlanResult]


def _push(args: Arguments) -> int:
    return _bring_one(args, *words.source_and_destinations(args))


def _copy(args: Arguments) -> int:
    if "tags" in args:
        args.all_tags = True  # `--tags` chooses among all of them
    return _bring_one(args, *words.copied(args))


def _bring_one(args: Arguments, source: str, destinations: list[str]) -> int:
    """Push or copy one source, or tell what that would do."""
    planned = args.command == "plan" or "dry_run" in args
    if "check_push" in args and not planned:
        raise UsageError(
            "`--check-push` goes with `towline plan` or `--dry-run`: a push finds out by itself"
        )
    words.check_files(args)

    def bring(pusher: Pusher, cancel: Cancel) -> Brought:
        to, wishes = wanted(args, destinations), push_options(args)
        if planned:
            return pusher.plan(source, to, **wishes, cancel=cancel)
        carry = pusher.copy if args.command == "copy" else pusher.push
        return carry(source, to, **wishes, cancel=cancel)

    return _perform(args, bring, planned=planned)


def _tag(args: Arguments) -> int:
    if len(args.words) < 2:  # noqa: PLR2004 - what is tagged, and a tag
        what = "no tag is given" if args.words else "no image is named"
        raise UsageError(what, hint="towline tag REGISTRY/REPOSITORY:TAG NEW-TAG")
    reference, *tags = args.words

    def bring(pusher: Pusher, cancel: Cancel) -> Brought:
        return pusher.tag(reference, wanted(args, tags), cancel=cancel)

    return _perform(args, bring)


def _index(args: Arguments) -> int:
    sources, destinations = args.words, getattr(args, "to", [])
    if not sources or not destinations:
        what = "no destination is named: give `--to`" if sources else "no image is named"
        raise UsageError(what, hint="towline index IMAGE IMAGE --to REGISTRY/REPOSITORY:TAG")
    words.check_files(args)

    def bring(pusher: Pusher, cancel: Cancel) -> Brought:
        to = wanted(args, destinations)
        return pusher.index(sources, to, **push_options(args), cancel=cancel)

    return _perform(args, bring)


def _perform(
    args: Arguments, bring: Callable[[Pusher, Cancel], Brought], *, planned: bool = False
) -> int:
    """Call `bring` with a pusher, show its progress, and print the results."""
    output.check_digest_file(args)
    try:
        with opened(args, layers=not planned) as (pusher, cancel):
            results = bring(pusher, cancel)
    except (PartialFailure, TransferCancelled) as failure:
        if failure.results:
            try:
                # A tag that was not finished has None as its result: show the failure for it.
                some = [result or failure for result in failure.results]
                _print(args, some, failure.references, planned=planned)
            except TowlineError as error:  # the push's own failure is raised below
                from towline.cli import report

                report.report(error, report.style_of(args))
        raise
    _print(args, results, planned=planned)
    return 0


def _print(
    args: Arguments,
    results: Any,  # noqa: ANN401 - one, or a list in which are errors
    references: Sequence[str] = (),
    *,
    planned: bool,
) -> None:
    """Print the results, plans as tables, and write the digests of those that are no errors."""
    every = results if isinstance(results, list) else [results]
    good = [result for result in every if not isinstance(result, BaseException)]
    try:
        output.write_digests(args, map(_digest, good))
    finally:  # a digest file that fails must not keep the results from standard output
        lines = chain.from_iterable(map(_table, good)) if planned else (one.pinned for one in good)
        output.write_as(args, lambda: _told(results, references), lines)


def _told(results: Any, references: Sequence[str]) -> Any:  # noqa: ANN401 - as JSON has it
    from towline.cli import report

    if isinstance(results, list):
        pairs = zip_longest(results, references, fillvalue="")
        return [report.told(result, reference) for result, reference in pairs]
    return report.told(results)


def _digest(result: PushResult | PlanResult) -> str:
    """The digest of a result. Raises TowlineError where it is not known before the push."""
    if result.digest is None:
        raise TowlineError(
            f"the digest of {result.reference} is not known before it is pushed",
            hint="towline digest computes that of a push to an empty registry",
        )
    return result.digest


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
    sent = f"  to be sent: {bound}{wording.size(result.send_bytes)}"
    if result.seconds_estimate is not None and result.send_bytes:
        sent += f", which takes {bound}{wording.left(result.seconds_estimate)} at the last rate"
    yield sent


def _row(layer: PlannedLayer) -> tuple[str, ...]:
    digest = layer.diff_id or layer.digest or ""
    size = wording.size(layer.size) if layer.size is not None else "-"
    if layer.plain_size is not None:
        size = f"{wording.size(layer.plain_size)} plain"
    return (
        digest.partition(":")[2][:SHORT],
        "push" if layer.outcome == "pushed" else str(layer.outcome),
        size,
        layer.compression,
        layer.mounted_from or "",
    )


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
PLAN = Command(
    _push,
    "SOURCE DESTINATION... [OPTION...]",
    """\
Show what a push of SOURCE to DESTINATION would do. The registry is only read (GET and HEAD).

It takes the words and options of `towline push`.""",
    options.PUSH,
)
