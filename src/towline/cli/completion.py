"""`towline completion`: what completes our words in a shell, and the manual page, from one data."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from towline._version import __version__
from towline.cli import help as guide
from towline.cli import output
from towline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.cli.arguments import Parser
    from towline.cli.options import Option

USAGE = "bash|zsh|fish|man"
ABOUT = """\
Print what completes the words of towline in a shell, or the manual page.

  source <(towline completion bash)
  towline completion zsh > ~/.zfunc/_towline
  towline completion fish > ~/.config/fish/completions/towline.fish
  towline completion man > ~/.local/share/man/man1/towline.1"""
WORDS = 1
_SHELLS = ("bash", "zsh", "fish")
_CHOICES = {"cache": ("stats", "prune", "clear"), "completion": (*_SHELLS, "man")}
_FILES = frozenset({"push", "plan", "inspect", "digest", "index"})
"""Commands whose words may be files."""


def add_arguments(parser: Parser) -> None:
    """It has no options."""
    del parser


def run(args: argparse.Namespace) -> int:
    """Print it."""
    word = args.words[0] if args.words else ""
    if word == "man":
        output.write(_manual())
    elif word in _SHELLS:
        import shtab

        output.write([shtab.complete(_whole(), word).rstrip()])
    else:
        message = f"no shell is known as `{word}`" if word else "no shell is named"
        raise UsageError(message, hint="towline completion bash, zsh, fish or man")
    return 0


def _parsers() -> Iterator[Parser]:
    """Each command's own."""
    from importlib import import_module

    from towline.cli import arguments
    from towline.cli.main import COMMANDS

    for name in COMMANDS:
        command = import_module(f"towline.cli.{name}")
        parser = arguments.Parser(name, usage=command.USAGE, description=command.ABOUT)
        command.add_arguments(parser)
        yield parser


def _whole() -> argparse.ArgumentParser:
    """All commands and their options, as one parser that is never run."""
    import shtab

    from towline.cli.main import COMMANDS

    whole = argparse.ArgumentParser("towline")
    whole.add_argument("-V", "--version", action="store_true", help="which version this is")
    commands = whole.add_subparsers()
    for parser in _parsers():
        name = parser.command
        one = commands.add_parser(name, help=COMMANDS[name], description=COMMANDS[name])
        words = one.add_argument("words", nargs="*", choices=_CHOICES.get(name))
        if name in _FILES:
            words.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's own way
        for option in parser.shown:
            _add(one, option)
    return whole


def _add(parser: argparse.ArgumentParser, option: Option) -> None:
    import shtab

    if option.metavar is None:
        parser.add_argument(*option.names, action="store_true", help=option.help)
        return
    words = option.metavar.split("|")
    choices = words if len(words) > 1 and all(map(str.islower, words)) else None
    added = parser.add_argument(*option.names, choices=choices, help=option.help)
    if option.metavar == "FILE":
        added.complete = shtab.FILE  # type: ignore[attr-defined]  # as above


def _manual() -> Iterator[str]:
    """The page in the macros of man(7)."""
    yield f'.TH TOWLINE 1 "" "towline {__version__}"'
    yield from (".SH NAME", rf"towline \- {_plain(guide.ABOUT)}", ".SH SYNOPSIS", r"\fBtowline\fR")
    yield r"\fICOMMAND\fR ..."
    yield ".SH COMMANDS"
    for parser in _parsers():
        yield f".SS {_plain(parser.format_usage().removeprefix('usage: ').strip())}"
        for line in _plain(parser.description or "").split("\n"):
            yield line or ".PP"
        for option in parser.shown:
            value = rf" \fI{_plain(option.metavar)}\fR" if option.metavar else ""
            names = ", ".join((*option.names, *option.aliases))
            yield from (".TP", rf"\fB{_plain(names)}\fR{value}", _plain(option.help))
    for title, rows in (("ENVIRONMENT", guide.VARIABLES), ("EXIT STATUS", guide.CODES)):
        yield f".SH {title}"
        for name, text in rows:
            yield from (".TP", rf"\fB{_plain(name)}\fR", _plain(text))
    yield ".SH EXAMPLES"
    for example in guide.EXAMPLES:
        yield from (".PP", _plain(example))


def _plain(text: str) -> str:
    """Without what roff would take for its own."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return "\n".join(
        rf"\&{line}" if line.startswith((".", "'")) else line for line in escaped.split("\n")
    )
