"""Passwords that stand in no list of processes: by standard input, or asked for on the terminal."""

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
    """The keyword `creds` with user and password, if they were given so. Raises UsageError."""
    user, from_stdin = getattr(args, "username", None), getattr(args, "password_stdin", False)
    if user is None and not from_stdin:
        return {}
    password = os.environ.get("TOWLINE_PASSWORD", "")
    _check(args, user, known=from_stdin or bool(password))
    if from_stdin:
        password = piped(args.command)
    return {"creds": (user or "", password)}


def origin(args: argparse.Namespace) -> str:
    """By what the account came that the library is given as `creds`."""
    typed = getattr(args, "account", "")
    if typed or not hasattr(args, "username"):
        named = "`creds`" if "creds" in getattr(args, "typed", ()) else "TOWLINE_CREDS"
        return typed or named
    return "`--password-stdin`" if hasattr(args, "password_stdin") else "TOWLINE_PASSWORD"


def piped(command: str) -> str:
    """The password on standard input: all of it, but for the end of its last line.

    Raises UsageError when there is none.
    """
    content = sys.stdin.buffer.read() if sys.stdin else b""
    password = content.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "surrogateescape")
    if not password:
        message = "no password came by standard input"
        hint = f"pipe it in: … | towline {command} … -u USER --password-stdin"
        raise UsageError(message, hint=hint)
    return password


def _check(args: argparse.Namespace, user: str | None, *, known: bool) -> None:
    if hasattr(args, "creds"):
        message = "`--creds` and `-u` say the same thing twice"
    elif not user:
        message = "`--password-stdin` needs a user: `-u USER`"
    elif not known:
        message = "`-u` needs its password by standard input: `--password-stdin`"
    elif args.words[:1] == ["-"] and hasattr(args, "password_stdin"):
        message = "standard input cannot be both the image and the password"
    else:
        return
    raise UsageError(message)


def asked(question: str, *, secret: bool = False) -> str:
    """What is typed on the terminal; unseen if it is a secret. Raises UsageError without one."""
    if sys.stdin is None or sys.stderr is None or not sys.stdin.isatty():
        message = "there is no terminal to ask for user and password on"
        raise UsageError(message, hint="give them: … | towline login … -u USER --password-stdin")
    try:
        return _secretly(question) if secret else _openly(question)
    except BaseException as error:
        sys.stderr.write("\n")  # what is said next does not belong behind the question
        if not isinstance(error, EOFError):
            raise
        message = "nothing was typed"
    raise UsageError(message)


def _openly(question: str) -> str:
    # Not `input`: its question would go to standard output, which is for the result.
    sys.stderr.write(question)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n")


def _secretly(question: str) -> str:
    from getpass import getpass

    with _an_end_by_signal():
        return getpass(question)


@contextmanager
def _an_end_by_signal() -> Iterator[None]:
    """Signals unwind: a terminal left without its echo is of no use."""
    import signal

    from towline.cli.signals import Interrupted
    from towline.errors import TransferCancelled

    def end(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(TransferCancelled("interrupted"), 128 + number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
