"""What the commands that only look have in common: a pusher that can be interrupted."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from towline.cli import options
from towline.cli.arguments import add, pusher_options
from towline.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from towline.cli.arguments import Parser
    from towline.context import Cancel
    from towline.push.pusher import Pusher


def add_reach(parser: Parser) -> None:
    """The options of whatever talks to a registry and says little."""
    add(parser, *options.REACH, options.MESSAGES)


def word(args: argparse.Namespace, what: str) -> str:
    """The one word of the command. Raises UsageError when it is missing."""
    if not args.words:
        message = f"no {what} is named"
        raise UsageError(message, hint=f"towline {args.command} --help shows how it goes")
    return str(args.words[0])


@contextmanager
def pusher(args: argparse.Namespace) -> Iterator[tuple[Pusher, Cancel]]:
    """A pusher with these options, whose warnings and notes reach standard error."""
    from towline.cli import progress, report
    from towline.cli.signals import cancel_on_signals

    shown = progress.start_without(getattr(args, "progress", "auto"))
    with shown, cancel_on_signals(report.last_words(report.style_of(args))) as cancel:
        import towline

        for message in args.strangers:
            shown.emit(towline.Warned(reference="", message=message))
        settings = pusher_options(args)
        if getattr(args, "debug", False):
            settings["log"] = shown.log
        with towline.Pusher(**settings, on_event=shown.emit) as made:
            yield made, cancel
