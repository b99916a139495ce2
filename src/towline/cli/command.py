"""What a command of towline is, to the parser and to what carries it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from towline.cli.options import Group


class Command(NamedTuple):
    """One command: what it takes, what `--help` says of it, and what carries it out."""

    run: Callable[[argparse.Namespace], int]
    """Gives the exit code."""
    usage: str
    about: str
    options: tuple[Group, ...] = ()
    words: int | None = None
    """How many words it takes that are no options; None: any number."""
    needs: str = ""
    """What the first word names, if there must be one."""
