"""Reads passwords from standard input or the terminal, where no list of processes shows them."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from towline.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from types import FrameType


def creds(args: argparse.Namespace) -> dict[str, tuple[str, str]]:
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


def origin(args: argparse.Namespace) -> str:
    """The option or variable by which the account came that the library gets as `creds`."""
    if "account" in args:
        return str(args.account)
    if "password_stdin" in args:
        return "`--password-stdin`"
    if "username" in args:
        return "TOWLINE_PASSWORD"
    return "`creds`" if "creds" in getattr(args, "typed", ()) else "TOWLINE_CREDS"


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


def asked(question: str, *, secret: bool = False) -> str:
    """Ask on the terminal, without echo for a secret, and give what is typed.

    Raises UsageError without a terminal, or when nothing is typed.
    """
    if sys.stdin is None or sys.stderr is None or not sys.stdin.isatty():
        raise UsageError(
            "there is no terminal to ask for user and password on",
            hint="give them: … | towline login … -u USER --password-stdin",
        )
    line = ""
    try:
        if secret:
            from getpass import getpass

            with _unwound_by_signals():
                return getpass(question)
        # Not `input`: its question would go to standard output, which is for the result.
        sys.stderr.write(question)
        sys.stderr.flush()
        line = sys.stdin.readline()
    except EOFError:
        pass
    except BaseException:
        sys.stderr.write("\n")  # the next message belongs on a line of its own
        raise
    if not line:
        sys.stderr.write("\n")
        raise UsageError("nothing was typed")
    return line.rstrip("\r\n")


@contextmanager
def _unwound_by_signals() -> Iterator[None]:
    """While the block runs, signals raise Interrupted, so that getpass turns the echo on again."""
    import signal

    from towline.cli.signals import Interrupted
    from towline.errors import TransferCancelled

    def end(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(TransferCancelled("interrupted"), 128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
