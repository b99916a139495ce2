"""`towline digest`: the digest an image has at a registry, or would have after a push."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.cli import looking, options, output
from towline.cli.arguments import add, push_options

if TYPE_CHECKING:
    import argparse

    from towline.cli.arguments import Parser

USAGE = "SOURCE [OPTION...]"
ABOUT = """\
Print the digest of an image: a path, docker-daemon:NAME, or else a reference at a registry.

Of an image here it is the digest that a push with these options to an empty registry would have."""
WORDS = 1


def add_arguments(parser: Parser) -> None:
    """Its options."""
    add(parser, options.WHICH, options.FORM, options.ENGINE)
    looking.add_reach(parser)


def run(args: argparse.Namespace) -> int:
    """Find out, and print."""
    source = looking.word(args, "image")
    with looking.pusher(args) as (pusher, cancel):
        found = pusher.digest(source, **push_options(args), cancel=cancel)
    output.write([found])
    return 0
