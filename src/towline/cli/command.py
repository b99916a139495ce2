"""The description of a command: its words and options, its help text, and its function."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from towline.cli.options import Group


class Command(NamedTuple):
    """One command: its function, its part of `--help`, and the words and options that it takes."""

    run: Callable[[argparse.Namespace], int]
    """Carries the command out and gives its exit code."""
    usage: str
    about: str
    options: tuple[Group, ...] = ()
    words: int | None = None
    """The most words besides options that it takes; None for any number."""
    needs: str = ""
    """What the first word names (for the error without one); empty where it needs none."""
