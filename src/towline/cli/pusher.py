"""Opens the Pusher of a command: its options, its signals, its progress on standard error."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from towline.cli import progress, words
from towline.cli.signals import cancel_on_signals, interrupted
from towline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.cli.options import Arguments
    from towline.context import Cancel
    from towline.push.pusher import Pusher


def pusher_options(args: Arguments) -> dict[str, Any]:
    """The given keywords that a `Pusher` takes; raises UsageError where they do not fit."""
    from towline.push.interface.options import PusherOptions

    taken = PusherOptions.__annotations__
    given = {name: value for name, value in vars(args).items() if name in taken}
    return {**given, **_creds(args)}


def push_options(args: Arguments) -> dict[str, Any]:
    """The given keywords that `Pusher.push` takes."""
    from towline.push.interface.options import PushOptions

    taken = {*PushOptions.__annotations__, "all_tags"}
    return {name: value for name, value in vars(args).items() if name in taken}


@contextmanager
def opened(args: Arguments, *, layers: bool = False) -> Iterator[tuple[Pusher, Cancel]]:
    """While the block runs: a Pusher with the options, and the switch that signals throw.

    Its events are shown on standard error, those of layers only with `layers`.
    """
    shown = progress.start(getattr(args, "progress", "auto"), layers=layers, debug="debug" in args)
    reference = words.reference(args) if getattr(args, "progress", "") == "json" else None

    def last_words(code: int) -> bytes:
        return shown.face.reset.encode() + interrupted(code, reference)

    with shown, cancel_on_signals(last_words) as cancel:
        import towline

        for message in args.strangers:
            shown.emit(towline.Warned(reference="", message=message))
        settings = pusher_options(args)
        if "debug" in args:
            settings["log"] = shown.log
        with towline.Pusher(**settings, on_event=shown.emit) as pusher:
            yield pusher, cancel


def _creds(args: Arguments) -> dict[str, tuple[str, str]]:
    """The keyword `creds` by `-u` and `--password-stdin` or the variables; empty without them.

    Raises UsageError where only one of user and password is given.
    """
    user, from_stdin = getattr(args, "username", None), "password_stdin" in args
    if user is None and not from_stdin:
        return {}
    user = user or os.environ.get("TOWLINE_USERNAME")
    password = os.environ.get("TOWLINE_PASSWORD", "")
    if "creds" in args:
        raise UsageError("`--creds` and `-u` say the same thing twice")
    if not user:
        raise UsageError("`--password-stdin` needs a user: `-u USER`")
    if ":" in user:
        raise UsageError("a user name has no colon: the password comes by standard input")
    if not (from_stdin or password):
        raise UsageError("`-u` needs its password by standard input: `--password-stdin`")
    if from_stdin and "-" in args.words:
        raise UsageError("standard input cannot be both the image and the password")
    return {"creds": (user, piped(args.command) if from_stdin else password)}


def piped(command: str) -> str:
    """The password on standard input: all of it, without the end of its last line.

    Raises UsageError when it is empty.
    """
    content = sys.stdin.buffer.read() if sys.stdin else b""
    password = content.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "surrogateescape")
    if not password:
        hint = f"pipe it in: … | towline {command} … -u USER --password-stdin"
        raise UsageError("no password came by standard input", hint=hint)
    return password
