"""`towline completion`: scripts for shells, and the manual page, from the options as data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline._version import __version__
from towline.cli import help as guide
from towline.cli import output
from towline.cli.main import COMMANDS, load
from towline.cli.options import Arguments, Command
from towline.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


_SHELLS = ("bash", "zsh", "fish")
_CHOICES = {"cache": ("stats", "prune", "clear"), "completion": (*_SHELLS, "man")}
_FILES = frozenset({"push", "plan", "inspect", "digest", "index"})
"""Commands whose words a shell completes with names of files."""


def _completion(args: Arguments) -> int:
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


def _whole() -> argparse.ArgumentParser:
    """All commands and their options as one parser, which only shtab reads."""
    import argparse

    import shtab

    whole = argparse.ArgumentParser("towline")
    whole.add_argument("-V", "--version", action="store_true", help="which version this is")
    commands = whole.add_subparsers()
    for name, about in COMMANDS.items():
        one = commands.add_parser(name, help=about, description=about)
        words = one.add_argument("words", nargs="*", choices=_CHOICES.get(name))
        if name in _FILES:
            words.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's own way
        for option in load(name).every:
            if option.metavar is None:
                one.add_argument(*option.names, action="store_true", help=option.help)
                continue
            added = one.add_argument(*option.names, choices=option.choices, help=option.help)
            if option.metavar == "FILE":
                added.complete = shtab.FILE  # type: ignore[attr-defined]  # as above
    return whole


def _manual() -> Iterator[str]:
    """The lines of the manual page, in the macros of man(7)."""
    yield f'.TH TOWLINE 1 "" "towline {__version__}"'
    yield from (".SH NAME", rf"towline \- {_plain(guide.ABOUT)}", ".SH SYNOPSIS", r"\fBtowline\fR")
    yield r"\fICOMMAND\fR ..."
    yield ".SH COMMANDS"
    for name in COMMANDS:
        command = load(name)
        yield f".SS {_plain(guide.usage(name, command).removeprefix('usage: '))}"
        for line in _plain(command.about).split("\n"):
            yield line or ".PP"
        for option in command.every:
            value = rf" \fI{_plain(option.metavar)}\fR" if option.metavar else ""
            names = _plain(", ".join(option.spellings))
            yield from (".TP", rf"\fB{names}\fR{value}", _plain(option.help))
    for title, rows in (("ENVIRONMENT", guide.VARIABLES), ("EXIT STATUS", guide.CODES)):
        yield f".SH {title}"
        for name, text in rows:
            yield from (".TP", rf"\fB{_plain(name)}\fR", _plain(text))
    yield ".SH EXAMPLES"
    for example in guide.EXAMPLES:
        yield from (".PP", _plain(example))


def _plain(text: str) -> str:
    """The text with everything escaped that roff would take for a request or a hyphen."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-")
    return "\n".join(
        rf"\&{line}" if line.startswith((".", "'")) else line for line in escaped.split("\n")
    )


COMPLETION = Command(
    _completion,
    "bash|zsh|fish|man",
    """\
Print what completes the words of towline in a shell, or the manual page.

  source <(towline completion bash)
  towline completion zsh > ~/.zfunc/_towline
  towline completion fish > ~/.config/fish/completions/towline.fish
  towline completion man > ~/.local/share/man/man1/towline.1""",
    words=1,
)
