"""From the words after `towline` to an exit code.

Each command is a module with `USAGE`, `ABOUT`, `WORDS` (how many words it takes that are no
options; None: any number), `add_arguments(parser)` and `run(args) -> int`, loaded when asked for.
"""

from __future__ import annotations

import gc
import os
import sys

from towline._version import __version__

# As in towline/__init__.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from typing import Protocol

    from towline.cli.arguments import Parser

    class Command(Protocol):
        """What a command's module has."""

        USAGE: str
        ABOUT: str
        WORDS: int | None
        add_arguments: Callable[[Parser], None]
        run: Callable[[argparse.Namespace], int]


COMMANDS = {
    "push": "push an image to a registry",
    "copy": "copy an image from a registry to others",
    "plan": "show what a push would do, with nothing written",
    "inspect": "show what an image is, wherever it lies",
    "tag": "set further tags to what stands under one",
    "index": "build one index of several images",
    "tags": "list the tags of a repository",
    "digest": "print the digest that an image has, or would have",
    "login": "save a login for a registry",
    "logout": "forget it",
    "cache": "look after what is remembered of registries",
    "serve": "run a small registry",
    "demo": "push a real image to a registry of its own, and read it back",
    "completion": "print what completes these words in a shell, or the manual page",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code. Never raises for what a user can cause."""
    words = list(sys.argv[1:] if argv is None else argv)
    _keep_standard_descriptors()
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    elif words == ["version"]:
        words = ["--version"]
    args: list[argparse.Namespace] = []
    try:
        return _run(words, args.append, alone=argv is None)
    except SystemExit as end:  # argparse has printed help
        return end.code if isinstance(end.code, int) else 0
    except BaseException as error:  # noqa: BLE001 - the last place where anything can be said
        from towline.cli import exit_codes, report

        style = report.style_of(args[0]) if args else report.sniff(words, os.environ)
        report.report(error, style)
        return exit_codes.of(error)
    finally:
        _let_go_of_stderr()
        if argv is None:
            # The interpreter would look for garbage among all that is left before it lets go of it:
            # 15 ms of a push of nothing.
            gc.freeze()


def _keep_standard_descriptors() -> None:
    """Fill those that were closed when we started, or a socket of ours would be taken for one."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free: this one


def _let_go_of_stderr() -> None:
    """What a gone reader left unsaid must not fail again in the interpreter's last flush (120)."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        from towline.cli import output

        output.forget(sys.stderr.fileno())


def _run(words: Sequence[str], parsed: Callable[[argparse.Namespace], None], *, alone: bool) -> int:
    """Do what the words say; `parsed` hears of the options once they are understood.

    `alone`: the process is this command's, and so are its signals.
    """
    match words:
        case ["--version" | "-V"]:
            return _say([f"towline {__version__}"])
        case ["--help" | "-h"]:
            from towline.cli import help as guide

            return _say(guide.page(COMMANDS))
    if alone:
        from towline.cli import early

        early.catch(words, os.environ)
        # Imports make 30,000 objects that all stay; to look among them for garbage, forty times at
        # the usual 700, takes 6 ms of a push of nothing.
        gc.set_threshold(50_000)
    command, args = _parsed(words)
    parsed(args)
    return command.run(args)


def _say(lines: Sequence[str]) -> int:
    from towline.cli import output

    output.write(lines)
    return 0


def _parsed(words: Sequence[str]) -> tuple[Command, argparse.Namespace]:
    name = _command(words)
    from importlib import import_module

    from towline.cli import arguments

    command: Command = import_module(f"towline.cli.{name}")
    parser = arguments.Parser(name, usage=command.USAGE, description=command.ABOUT)
    command.add_arguments(parser)
    return command, arguments.parse(parser, words[1:], os.environ, most=command.WORDS)


def _command(words: Sequence[str]) -> str:
    """The command's name. Raises UsageError when there is none, or not yet."""
    from towline.cli import not_yet
    from towline.errors import UsageError

    name = words[0] if words else ""
    if name in COMMANDS:
        return name
    if not name:
        raise UsageError("no command is given", hint="towline --help lists them")
    if name in not_yet.COMMANDS:
        raise UsageError(f"`towline {name}` is not available yet")
    if name.startswith("-"):
        raise UsageError(
            f"`{name}` stands before the command", hint="options come after it: towline push …"
        )
    from towline.cli import guesses

    hint = guesses.COMMANDS.get(name)
    if not hint and (near := guesses.near(name, COMMANDS)):
        hint = f"did you mean `towline {near}`?"
    raise UsageError(f"no command is called `{name}`", hint=hint or "towline --help lists them")
