"""Opens the Pusher of a command: its options, its signals, its progress on standard error."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from towline.cli import password, progress, report, words
from towline.cli.options import ALL, COMMAND_ONLY, PUSHER
from towline.cli.signals import cancel_on_signals

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from towline.context import Cancel
    from towline.push.pusher import Pusher


def pusher_options(args: argparse.Namespace) -> dict[str, Any]:
    """The given keywords that a `Pusher` takes; raises UsageError where they do not fit."""
    given = {name: value for name, value in vars(args).items() if name in PUSHER - COMMAND_ONLY}
    return {**given, **password.creds(args)}


def push_options(args: argparse.Namespace) -> dict[str, Any]:
    """The given keywords that `Pusher.push` takes."""
    library = ALL - PUSHER - COMMAND_ONLY
    return {name: value for name, value in vars(args).items() if name in library}


def wanted(args: argparse.Namespace, destinations: list[str]) -> str | list[str]:
    """The destinations as a `Pusher` takes them: a single one is a text and gives one result."""
    several = len(destinations) > 1 or "all_tags" in args
    return destinations if several else destinations[0]


@contextmanager
def opened(args: argparse.Namespace, *, layers: bool = False) -> Iterator[tuple[Pusher, Cancel]]:
    """While the block runs: a Pusher with the options, and the switch that signals throw.

    Its events are shown on standard error, those of layers only with `layers`.
    """
    shown = progress.start(getattr(args, "progress", "auto"), layers=layers, debug="debug" in args)
    last_words = shown.face.reset.encode() + report.last_words(report.style_of(args))
    with words.explained(args), shown, cancel_on_signals(last_words) as cancel:
        import towline

        for message in args.strangers:
            shown.emit(towline.Warned(reference="", message=message))
        settings = pusher_options(args)
        if "debug" in args:
            settings["log"] = shown.log
        with towline.Pusher(**settings, on_event=shown.emit) as pusher:
            yield pusher, cancel
