"""`towline logout`: forget a login."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.cli import logins, options, output
from towline.cli.arguments import add

if TYPE_CHECKING:
    import argparse

    from towline.cli.arguments import Parser

USAGE = "REGISTRY [OPTION...]"
ABOUT = """\
Forget the login for REGISTRY, HOST[:PORT], where `towline login` keeps it. Nobody is asked."""
WORDS = 1


def add_arguments(parser: Parser) -> None:
    """Its options."""
    add(parser, options.LOGOUT, options.MESSAGES)


def run(args: argparse.Namespace) -> int:
    """Forget it; that there was none is no failure."""
    named = hasattr(args, "authfile")  # a push has to be told of that file as well
    host, store = logins.host_and_store(args)
    erased = store.erase(host)
    words = f"logged out of {host}" if erased else f"there was no login for {host}"
    output.write([f"{words} in {store.path}"])
    if not named:
        logins.warn_of_another(host, store, None)
    return 0
