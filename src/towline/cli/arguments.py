"""Reads a command's words and the `TOWLINE_…` variables into one namespace.

The command line wins over the environment. Every mistake is a UsageError of one sentence;
argparse's own messages never reach the user.
"""

from __future__ import annotations

import argparse
import os
import re
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn

from towline.cli import output
from towline.cli.options import VARIABLES, Option
from towline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from towline.cli.options import Command

_RIVALS = {
    "creds": {"username", "password_stdin"},
    "username": {"creds"},
    "password_stdin": {"creds"},
    "insecure": {"tls_verify"},
    "tls_verify": {"insecure"},
}
"""Keywords that say the same thing in two ways: a typed one silences the variable of the other."""
_NO_VALUE = "`{}` needs a value"
_Formatter = argparse.RawDescriptionHelpFormatter


class Parser(argparse.ArgumentParser):
    """One command's parser, for its options; the command itself reads the other words."""

    def __init__(self, name: str, command: Command) -> None:
        super().__init__(
            prog=f"towline {name}",
            usage=f"towline {name} {command.usage}".rstrip(),
            description=command.about,
            formatter_class=partial(_Formatter, width=80),
            allow_abbrev=False,
            add_help=False,
        )
        self.color = False  # Python 3.14 colours help: `--verify[=…]` would not be found in it
        self.name = name
        self.command = command
        self.options = [option for group in command.options for option in group.options]
        self.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
        for group in command.options:
            heading = self.add_argument_group(group.title)
            for option in group.options:
                heading.add_argument(
                    *option.spellings,
                    action=_Give,
                    option=option,
                    dest=option.dest,
                    default=argparse.SUPPRESS,
                    nargs=None if option.metavar else 0,
                    metavar=f"[={option.metavar}]" if option.bare else option.metavar,
                    help=option.help.replace("%", "%%"),
                )

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with a sentence of ours in place of argparse's."""
        if match := re.match(r"argument (\S+): (expected one|ignored explicit) argument", message):
            names = match[1].split("/")
            name = next((o.name for o in self.options if names[0] in o.spellings), names[-1])
            without = match[2] == "expected one"
            message = _NO_VALUE.format(name) if without else f"`{name}` takes no value"
        raise UsageError(message, hint=f"towline {self.name} --help lists the options")

    def print_help(self, _file: object = None) -> None:
        """Print the help as a result; raises TowlineError when it cannot be written."""
        output.write([self.format_help().rstrip()])

    def format_help(self) -> str:
        """The help, with `--verify[=…]` in place of argparse's `--verify [=…]`."""
        # Only here, since argparse makes a formatter for each option it adds, too: asking for the
        # terminal's width, as this one does, imports shutil and with it three compressors.
        self.formatter_class = _Formatter
        return super().format_help().replace(" [=", "[=")


class _Give(argparse.Action):
    """Converts the value of an option and puts it into the namespace."""

    def __init__(self, *, option: Option, **more: Any) -> None:  # noqa: ANN401 - argparse's own
        super().__init__(**more)
        self.option = option

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Convert the value and keep it; raises UsageError where it has the wrong form."""
        del parser
        written = values if isinstance(values, str) else "true"
        name = option_string or self.option.name
        if not written:
            raise UsageError(_NO_VALUE.format(name), hint="leave it out to have the default")
        _keep(namespace, self.option, written, name)


def parse(parser: Parser, words: Sequence[str], environ: Mapping[str, str]) -> argparse.Namespace:
    """Read the words into a namespace: options by their keywords, all else in `words`.

    `typed` is the set of keywords that were typed rather than set by a variable; `strangers` are
    warnings about `TOWLINE_…` variables that do not exist.

    Raises UsageError. Prints help and raises SystemExit where help was asked for.
    """
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    # argparse drops a `--` in some places but not in others, so it never sees one.
    end = words.index("--") if "--" in words else len(words)
    _check_values(words[:end], parser.options)
    given = _written_out(words[:end], parser.options)
    space, unknown = parser.parse_known_intermixed_args(given)
    if unknown:
        raise _unknown(parser, unknown[0])
    space.words += words[end + 1 :]
    most, needs = parser.command.words, parser.command.needs
    hint = f"towline {parser.name} --help shows how it goes"
    if most is not None and len(space.words) > most:
        raise UsageError(f"`{space.words[most]}` is one word too many", hint=hint)
    if needs and not space.words:
        raise UsageError(f"no {needs} is named", hint=hint)
    space.typed = set(vars(space))
    for option in parser.options:
        # A typed option wins over the variable of its rival, which may be set for all commands.
        if option.dest in space.typed or _RIVALS.get(option.dest, set()) & space.typed:
            continue
        if variable := next((name for name in option.variables if environ.get(name)), None):
            written = environ[variable]
            for value in written.splitlines() if option.repeatable else [written]:
                _keep(space, option, value, variable)
    space.command = parser.name
    space.strangers = _strangers(environ)
    return space


def _check_values(words: Sequence[str], options: Sequence[Option]) -> None:
    """Raise UsageError for `--verify full`, which would push to a repository `full`.

    An existing file of that name is meant as a file.
    """
    for name, word in pairwise(words):
        option = next((one for one in options if one.bare and name in one.spellings), None)
        if option and not word.startswith("-") and not os.path.lexists(word):
            with suppress(ValueError):
                option.value_of(word)
                hint = f"write it with `=`: {name}={word}"
                raise UsageError(f"`{name}` and its value `{word}` are two words", hint=hint)


def _written_out(words: Sequence[str], options: Sequence[Option]) -> list[str]:
    """The words in a form that argparse can read.

    `--verify` alone becomes `--verify=head`, since argparse would take the next word for its value.
    Each word after `--to`, up to the next option, gets a `--to` of its own.
    """
    bare = {name: option.bare for option in options for name in option.spellings if option.bare}
    spreading = {name for option in options for name in option.spellings if option.spreads}
    found: list[str] = []
    spread = ""
    for word in words:
        if word.startswith("-") and word != "-":
            name = word.partition("=")[0]
            spread = name if name in spreading else ""
        elif spread and found[-1] != spread:
            found.append(spread)
        found.append(f"{word}={bare[word]}" if word in bare else word)
    return found


def _strangers(environ: Mapping[str, str]) -> list[str]:
    """Warnings about variables that begin with `TOWLINE_` but do not exist."""
    ours = {name for name in environ if name.startswith("TOWLINE_") and environ[name]}
    if ours <= VARIABLES:
        return []
    from towline.cli import cache, guesses, serve

    groups = (*cache.CACHE.options, *serve.SERVE.options)
    known = {name for group in groups for option in group.options for name in option.variables}
    known |= VARIABLES
    told = []
    for name in sorted(ours - known):
        near = guesses.near(name, sorted(known), "TOWLINE_")
        told.append(f"{name} is no variable of towline" + (f": is {near} meant?" if near else ""))
    return told


def _keep(space: argparse.Namespace, option: Option, written: str, name: str) -> None:
    """Convert and keep the value of an option; raises UsageError where it has the wrong form.

    `name` is what the user wrote: the option's name, or its variable's.
    """
    try:
        value = option.value_of(written)
    except ValueError as error:
        shown = "" if option.secret else f", not `{written}`"
        raise UsageError(f"`{name}` {error}{shown}") from None
    if value is None or (value is False and option.metavar is None):
        return  # switched off by its variable: the same as not given
    if option.repeatable:
        value = [*getattr(space, option.dest, []), value]
    setattr(space, option.dest, value)


def _unknown(parser: Parser, word: str) -> UsageError:
    from towline.cli import guesses

    # Never show what follows a short option, as in `-pSECRET`.
    name = word[:2] if word[:2] in guesses.OPTIONS else word.partition("=")[0]
    hint = guesses.OPTIONS.get(name)
    if not hint and name.startswith("--"):
        there = [one for option in parser.options for one in option.spellings]
        near = guesses.near(name, there, "--")
        hint = f"did you mean `{near}`?" if near else None
    return UsageError(
        f"`towline {parser.name}` has no option `{name}`",
        hint=hint or f"towline {parser.name} --help lists the options",
    )
