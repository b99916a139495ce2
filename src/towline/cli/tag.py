"""`towline tag`: further tags for an image at a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.cli import options, push
from towline.cli.arguments import add
from towline.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from towline.cli.arguments import Parser
    from towline.context import Cancel
    from towline.push.pusher import Pusher
    from towline.push.result import PushResult

USAGE = "REF TAG... [OPTION...]"
ABOUT = """\
Set further tags to what stands under REGISTRY/REPOSITORY[:TAG|@DIGEST]. No blob moves."""
WORDS = None


def add_arguments(parser: Parser) -> None:
    """Its options."""
    add(parser, *options.REACH, options.RESULT, options.STDERR)


def run(args: argparse.Namespace) -> int:
    """Set them, and print the results."""
    if len(args.words) < 2:  # noqa: PLR2004 - what is tagged, and a tag
        what = "no tag is given" if args.words else "no image is named"
        raise UsageError(what, hint="towline tag REGISTRY/REPOSITORY:TAG NEW-TAG")
    reference, *tags = args.words

    def bring(pusher: Pusher, cancel: Cancel) -> list[PushResult]:
        return pusher.tag(reference, tags, cancel=cancel)

    return push.perform(args, bring, several=len(tags) > 1)
