"""`towline copy`: from a registry to others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.cli import options, push, words
from towline.cli.arguments import add

if TYPE_CHECKING:
    import argparse

    from towline.cli.arguments import Parser

USAGE = "SOURCE DESTINATION... [OPTION...]"
ABOUT = """\
Copy an image to REGISTRY/REPOSITORY[:TAG], with all its platforms, byte for byte.

SOURCE is REGISTRY/REPOSITORY[:TAG|@DIGEST], or any source of `towline push`, a path written as
./PATH. What is there already is not read, and nothing is kept on disk."""
WORDS = None


def add_arguments(parser: Parser) -> None:
    """Its options."""
    add(parser, *options.COPY)


def run(args: argparse.Namespace) -> int:
    """Copy, and print the result."""
    return push.carry_out(args, *words.copied(args))
