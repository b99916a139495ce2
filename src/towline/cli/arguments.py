"""Reads a command's words and its `TOWLINE_…` variables into one namespace of what was given.

The command line wins over the environment. Everything that is wrong is a UsageError of one
sentence; argparse's own texts never reach the user.
"""

from __future__ import annotations

import argparse
import os
import re
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NoReturn

from towline.cli import not_yet, output
from towline.cli.options import COMMAND_ONLY, PUSHER, Group, Option
from towline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_RIVALS = {
    "creds": {"username"},
    "username": {"creds"},
    "insecure": {"tls_verify"},
    "tls_verify": {"insecure"},
}
"""Keywords that mean the same thing in two ways: the one that was typed silences the other."""


_NO_VALUE = "`{}` needs a value"
_Formatter = argparse.RawDescriptionHelpFormatter


class Parser(argparse.ArgumentParser):
    """One command's parser. Its `words` are the command's business."""

    def __init__(self, command: str, *, usage: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=f"towline {command}",
            usage=f"towline {command} {usage}".rstrip(),
            description=description,
            epilog=epilog or None,
            formatter_class=partial(_Formatter, width=80),
            allow_abbrev=False,
            add_help=False,
        )
        self.command = command
        self.table: list[Option] = []
        self.spreads: str | None = None
        """An option that takes all words up to the next one."""
        self.shown: list[Option] = []
        """Those that are in `--help`."""
        self.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)

    def error(self, message: str) -> NoReturn:
        """Say it our way. Raises UsageError."""
        hint = f"towline {self.command} --help lists the options"
        raise UsageError(self._plain(message), hint=hint)

    def print_help(self, _file: object = None) -> None:
        """Help that was asked for is a result. Raises TowlineError when it cannot be written."""
        output.write([self.format_help().rstrip()])

    def format_help(self) -> str:
        """With `--verify[=…]` as it must be written."""
        # A formatter is made for each option too. To look for the terminal's width, as this one
        # does, loads three compressors.
        self.formatter_class = _Formatter
        return super().format_help().replace(" [=", "[=")

    def _plain(self, message: str) -> str:
        """One sentence of ours for a message of argparse."""
        if match := re.match(r"argument (\S+): (expected one|ignored explicit) argument", message):
            names = match[1].split("/")
            name = next((o.name for o in self.table if names[0] in _names(o)), names[-1])
            return (
                _NO_VALUE.format(name) if match[2] == "expected one" else f"`{name}` takes no value"
            )
        return message


class _Give(argparse.Action):
    """Keeps what an option was given, converted."""

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
        """Convert and keep. Raises UsageError."""
        del parser
        written = values if isinstance(values, str) else "true"
        name = option_string or self.option.name
        if not written:
            raise UsageError(_NO_VALUE.format(name), hint="leave it out to have the default")
        _keep(namespace, self.option, written, name)


def add(parser: Parser, *groups: Group) -> None:
    """Let a command take these options; those that do not work yet are hidden and refused."""
    for group in groups:
        heading = parser.add_argument_group(group.title)
        for option in group.options:
            hidden = option.dest in not_yet.OPTIONS
            _add_option(heading, option, hidden=hidden)
            parser.table.append(option)
            parser.shown += [] if hidden else [option]


def _add_option(heading: argparse._ArgumentGroup, option: Option, *, hidden: bool) -> None:
    metavar = f"[={option.metavar}]" if option.bare else option.metavar
    heading.add_argument(
        *option.names,
        *option.aliases,
        action=_Give,
        option=option,
        dest=option.dest,
        default=argparse.SUPPRESS,
        nargs=None if option.metavar else 0,
        metavar=metavar,
        help=argparse.SUPPRESS if hidden else option.help.replace("%", "%%"),
    )


def parse(
    parser: Parser, words: Sequence[str], environ: Mapping[str, str], *, most: int | None = None
) -> argparse.Namespace:
    """What was given. `most` words that are no options are taken, into `words`.

    `typed` has the keywords of what does not come from the environment.

    Raises UsageError; prints help and raises SystemExit where that was asked for.
    """
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    bare = {name: option.bare for option in parser.table for name in _names(option) if option.bare}
    # argparse loses a `--` here and there; what comes after it is none of its business.
    end = words.index("--") if "--" in words else len(words)
    _check_values(words[:end], parser.table)
    given = _spread(_with_values(words[:end], bare), parser.spreads)
    space, unknown = parser.parse_known_intermixed_args(given)
    if unknown:
        raise _unknown(parser, unknown[0])
    space.words += words[end + 1 :]
    if most is not None and len(space.words) > most:
        message = f"`{space.words[most]}` is one word too many"
        raise UsageError(message, hint=f"towline {parser.command} --help shows how it goes")
    _from_environment(space, parser.table, environ)
    space.command = parser.command
    space.strangers = _strangers(environ)
    return space


def _check_values(words: Sequence[str], table: Sequence[Option]) -> None:
    """`--verify full` would push to a repository `full`. Raises UsageError."""
    for name, word in pairwise(words):
        option = next((one for one in table if one.bare and name in _names(one)), None)
        if option and not word.startswith("-") and not os.path.lexists(word):
            with suppress(ValueError):
                option.convert(word)
                hint = f"write it with `=`: {name}={word}"
                raise UsageError(f"`{name}` and its value `{word}` are two words", hint=hint)


def _names(option: Option) -> tuple[str, ...]:
    return (*option.names, *option.aliases)


def _with_values(words: Sequence[str], bare: Mapping[str, str | None]) -> list[str]:
    """`--verify` alone becomes `--verify=head`: argparse would take the next word for its value."""
    return [f"{word}={bare[word]}" if word in bare else word for word in words]


def _spread(words: Sequence[str], name: str | None) -> list[str]:
    """Each word after that option as another value of it, up to the next option."""
    found: list[str] = []
    follows = False
    for word in words:
        if word.startswith("-") and word != "-":
            follows = word.partition("=")[0] == name
        elif follows and found[-1] != name:
            found.append(str(name))
        found.append(word)
    return found


def _from_environment(
    space: argparse.Namespace, table: Sequence[Option], environ: Mapping[str, str]
) -> None:
    typed = set(vars(space))
    space.typed = typed
    for option in table:
        if option.dest in typed or _RIVALS.get(option.dest, set()) & typed:
            continue
        for variable in option.variables:
            written = environ.get(variable, "")
            if written:
                _keep_all(space, option, written, variable)
                break


def _strangers(environ: Mapping[str, str]) -> list[str]:
    """What to say of variables that are called as ours, and are none."""
    from towline.cli import options

    ours = {name for name in environ if name.startswith("TOWLINE_") and environ[name]}
    if ours <= options.VARIABLES:
        return []
    from towline.cli import cache, guesses, serve

    groups = (cache.WHICH, serve.SERVE)
    known = {name for group in groups for option in group.options for name in option.variables}
    known |= options.VARIABLES
    told = []
    for name in sorted(ours - known):
        near = guesses.near(name, sorted(known), "TOWLINE_")
        told.append(f"{name} is no variable of towline" + (f": is {near} meant?" if near else ""))
    return told


def _keep_all(space: argparse.Namespace, option: Option, written: str, name: str) -> None:
    for value in written.splitlines() if option.repeatable else [written]:
        _keep(space, option, value, name)


def _keep(space: argparse.Namespace, option: Option, written: str, name: str) -> None:
    value = _converted(option, written, name)
    if value is None or (value is False and option.metavar is None):
        return  # switched off by its variable: as if it were not there
    _refuse(option, written, name)
    if option.repeatable:
        value = [*getattr(space, option.dest, []), value]
    setattr(space, option.dest, value)


def _converted(option: Option, written: str, name: str) -> object:
    try:
        return option.convert(written)
    except ValueError as error:
        shown = "" if option.secret else f", not `{written}`"
        message = f"`{name}` {error}{shown}"
    raise UsageError(message)


def _refuse(option: Option, written: str, name: str) -> None:
    if option.dest in not_yet.OPTIONS:
        message = f"`{name}` is not available yet"
        raise UsageError(message)
    for start in not_yet.VALUES.get(option.dest, ()):
        if written.startswith(start):
            message = f"`{name}` with `{start.rstrip(':')}` is not available yet"
            raise UsageError(message)


def _unknown(parser: Parser, word: str) -> UsageError:
    from towline.cli import guesses

    name = word.partition("=")[0]
    there = [option for option in parser.table if option.dest not in not_yet.OPTIONS]
    known = [name for option in there for name in _names(option)]
    hint = guesses.OPTIONS.get(name)
    if not hint and name.startswith("--") and (near := guesses.near(name, known, "--")):
        hint = f"did you mean `{near}`?"
    return UsageError(
        f"`towline {parser.command}` has no option `{name}`",
        hint=hint or f"towline {parser.command} --help lists the options",
    )


def pusher_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was given of the keywords that a `Pusher` takes. Raises UsageError."""
    from towline.cli import password

    return {**dict(_library(args, pusher=True)), **password.creds(args)}


def push_options(args: argparse.Namespace) -> dict[str, Any]:
    """What was given of the keywords that `Pusher.push` takes."""
    return dict(_library(args, pusher=False))


def _library(args: argparse.Namespace, *, pusher: bool) -> Iterator[tuple[str, Any]]:
    for name, value in vars(args).items():
        if name not in COMMAND_ONLY and (name in PUSHER) == pusher:
            yield name, value
