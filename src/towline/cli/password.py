"""`-u USER --password-stdin`: a password that stands in no list of processes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from towline.errors import UsageError

if TYPE_CHECKING:
    import argparse


def creds(args: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """The keyword `creds` with user and password, if they were given so. Raises UsageError."""
    user, from_stdin = getattr(args, "username", None), getattr(args, "password_stdin", False)
    if user is None and not from_stdin:
        return {}
    password = os.environ.get("TOWLINE_PASSWORD", "")
    _check(args, user, known=from_stdin or bool(password))
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n") if sys.stdin else ""
    if not password:
        message = "no password came by standard input"
        raise UsageError(message, hint="pipe it in: … | towline push … -u USER --password-stdin")
    return {"creds": (user or "", password)}


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
