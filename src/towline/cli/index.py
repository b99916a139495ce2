"""`towline index`: one index out of several images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.cli import options, push
from towline.cli.arguments import add, push_options
from towline.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from towline.cli.arguments import Parser
    from towline.context import Cancel
    from towline.push.pusher import Pusher
    from towline.push.result import PushResult

USAGE = "SOURCE... --to DESTINATION... [OPTION...]"
ABOUT = """\
Build one index of several images, each for a platform of its own, and push it.

SOURCE is as for `towline copy`; an index gives its children."""
WORDS = None


def add_arguments(parser: Parser) -> None:
    """Its options."""
    parser.spreads = "--to"
    add(parser, *options.INDEX)


def run(args: argparse.Namespace) -> int:
    """Build and push it, and print the result."""
    sources, destinations = args.words, getattr(args, "to", [])
    if not sources or not destinations:
        what = "no destination is named: give `--to`" if sources else "no image is named"
        hint = "towline index IMAGE IMAGE --to REGISTRY/REPOSITORY:TAG"
        raise UsageError(what, hint=hint)
    if hasattr(args, "digest_file"):
        from towline.cli import output

        output.check_digest_file(args.digest_file)
    several = len(destinations) > 1

    def bring(pusher: Pusher, cancel: Cancel) -> PushResult | list[PushResult]:
        wanted = destinations if several else destinations[0]
        return pusher.index(sources, wanted, **push_options(args), cancel=cancel)

    return push.perform(args, bring, several=several)
