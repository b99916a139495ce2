"""`towline tags`: the tags of a repository, one a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.cli import looking, options, output
from towline.cli.arguments import add

if TYPE_CHECKING:
    import argparse

    from towline.cli.arguments import Parser

USAGE = "REPOSITORY [OPTION...]"
ABOUT = "List the tags of REGISTRY/REPOSITORY, one a line."
WORDS = 1


def add_arguments(parser: Parser) -> None:
    """Its options."""
    looking.add_reach(parser)
    add(parser, options.PRINTED)


def run(args: argparse.Namespace) -> int:
    """Ask, and print."""
    repository = looking.word(args, "repository")
    with looking.pusher(args) as (pusher, cancel):
        found = pusher.tags(repository, cancel=cancel)
    if getattr(args, "output", "text") == "json":
        output.write_json(found)
    else:
        output.write(found)
    return 0
