"""`towline login`: keep a login, once its registry has said that it is good."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from towline.cli import logins, looking, options, output, password
from towline.cli.arguments import add
from towline.errors import AuthError, UsageError

if TYPE_CHECKING:
    import argparse

    from towline.cli.arguments import Parser

USAGE = "REGISTRY [OPTION...]"
ABOUT = """\
Save a login for REGISTRY, HOST[:PORT], after asking it whether the login is good.

It is kept by the credential helper that Docker's config.json names for it, else in that file
(or in FILE), readable by its owner alone."""
WORDS = 1


def add_arguments(parser: Parser) -> None:
    """Its options."""
    add(parser, options.LOGIN, options.PATIENCE, options.TRANSPORT, options.MESSAGES)


def run(args: argparse.Namespace) -> int:
    """Ask the registry, then keep the login."""
    from towline.push.edge import Edge
    from towline.wire.secrets import Secrets

    named = hasattr(args, "authfile")  # a push has to be told of that file as well
    host, store = logins.host_and_store(args)
    user, secret = _account(args)
    args.account = _origin(args)
    looked_at = _check(args, host, (user, secret))
    secrets = Secrets()
    secrets.add_account(user, secret)
    with Edge(secrets).crossed():  # a helper may repeat what it was told
        kept = store.save(host, user, secret)
    output.write([f"logged in to {host} as {user}; the login is kept in {kept}"])
    if not looked_at:
        logins.warn(f"{host} let us in without asking for it: the login was not checked")
    if not named:
        logins.warn_of_another(host, store, (user, secret))
    return 0


def _account(args: argparse.Namespace) -> tuple[str, str]:
    """User and password, from wherever they come. Raises UsageError."""
    user = getattr(args, "username", None) or os.environ.get("TOWLINE_USERNAME", "")
    from_stdin = getattr(args, "password_stdin", False)
    if from_stdin and not user:
        message = "`--password-stdin` needs a user: `-u USER`"
        raise UsageError(message)
    user = user or password.asked("Username: ")
    if not user or ":" in user:
        message = f"{user!r} is no user name: it is empty or has a colon"
        raise UsageError(message)
    if from_stdin:
        return user, password.piped("login")
    secret = os.environ.get("TOWLINE_PASSWORD") or password.asked("Password: ", secret=True)
    if not secret:
        message = "the password is empty"
        raise UsageError(message)
    return user, secret


def _origin(args: argparse.Namespace) -> str:
    if hasattr(args, "password_stdin"):
        return "`--password-stdin`"
    return "TOWLINE_PASSWORD" if os.environ.get("TOWLINE_PASSWORD") else "the terminal"


def _check(args: argparse.Namespace, host: str, account: tuple[str, str]) -> bool:
    """Whether the registry has looked at the account.

    Raises AuthError when the registry does not let in whoever shows this account.
    """
    for name in ("username", "password_stdin", "authfile"):
        vars(args).pop(name, None)
    args.creds = account
    try:
        with looking.pusher(args) as (pusher, cancel):
            return pusher.check_login(host, cancel=cancel)
    except AuthError as error:
        error.hint = "check user and password; many registries want an access token for it"
        raise
