"""`towline push`, `copy`, `tag` and `index`, which write tags, and `plan`, which says how."""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from towline.cli import options, output, wording, words
from towline.cli.options import Arguments, Command
from towline.cli.pusher import opened, push_options
from towline.errors import PartialFailure, TowlineError, TransferCancelled, UsageError
from towline.spec.digest import SHORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from towline.findings import PlannedLayer, PlanResult
    from towline.results import PushResult


def _push(args: Arguments) -> int:
    return _perform(args, *words.source_and_destinations(args))


def _copy(args: Arguments) -> int:
    if "tags" in args:
        args.all_tags = True  # `--tags` chooses among all of them
    return _perform(args, *words.copied(args))


def _tag(args: Arguments) -> int:
    if len(args.words) < 2:  # noqa: PLR2004 - what is tagged, and a tag
        what = "no tag is given" if args.words else "no image is named"
        raise UsageError(what, hint="towline tag REGISTRY/REPOSITORY:TAG NEW-TAG")
    reference, *tags = args.words
    return _perform(args, reference, tags)


def _index(args: Arguments) -> int:
    sources, destinations = args.words, getattr(args, "to", [])
    if not sources or not destinations:
        what = "no destination is named: give `--to`" if sources else "no image is named"
        raise UsageError(what, hint="towline index IMAGE IMAGE --to REGISTRY/REPOSITORY:TAG")
    return _perform(args, sources, destinations)


def _perform(args: Arguments, source: str | list[str], destinations: list[str]) -> int:
    """Call the method of the command's name, show its progress, and print the results."""
    planned = args.command == "plan" or "dry_run" in args
    if "check_push" in args and not planned:
        raise UsageError(
            "`--check-push` goes with `towline plan` or `--dry-run`: a push finds out by itself"
        )
    if args.command != "tag":  # whose words are never files
        words.check_files(args)
    output.check_digest_file(args)
    several = len(destinations) > 1 or "all_tags" in args
    try:
        with opened(args, layers=not planned) as (pusher, cancel):
            method = getattr(pusher, "plan" if planned else args.command)
            # A single destination is a text, and gives one result.
            to = destinations if several else destinations[0]
            results = method(source, to, **push_options(args), cancel=cancel)
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

    def told() -> Any:  # noqa: ANN401 - as JSON has it
        each = [_told(*pair) for pair in zip_longest(every, references, fillvalue="")]
        return each if isinstance(results, list) else each[0]

    try:
        output.write_digests(args, map(_digest, good))
    finally:  # a digest file that fails must not keep the results from standard output
        lines = chain.from_iterable(map(_table, good)) if planned else (one.pinned for one in good)
        output.write_as(args, told, lines)


def _told(result: Any, reference: str) -> dict[str, Any]:  # noqa: ANN401 - of any command
    """What `--output json` prints of a result, or of the error in its place."""
    if isinstance(result, BaseException):
        from towline.cli import exit_codes, report

        error = {"exit_code": exit_codes.of(result), "message": report.message_of(result)}
        return {"reference": reference, "error": error}
    shown: dict[str, Any] = result.as_dict()
    return {**shown, "warnings": [wording.spelled(warning) for warning in shown["warnings"]]}


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
    "NAME[:TAG] | SOURCE DESTINATION... [OPTION...]",
    """\
Show what a push of SOURCE to DESTINATION would do. The registry is only read (GET and HEAD).

It takes the words and options of `towline push`.""",
    options.PUSH,
)
