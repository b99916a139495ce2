"""Reads a command's words and the `TOWLINE_…` variables into one `Arguments`.

The command line wins over the environment. Every mistake is a UsageError of one sentence.
"""

from __future__ import annotations

import os
import re
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from towline.cli.options import Arguments, Command, Option, variables
from towline.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


_LISTS = "towline {} --help lists the options"
_RIVALS = {
    "creds": {"username", "password_stdin"},
    "username": {"creds"},
    "password_stdin": {"creds"},
    "insecure": {"tls_verify"},
    "tls_verify": {"insecure"},
}
"""Keywords that say the same thing in two ways: a typed one silences the variable of the other."""


def parse(
    name: str, command: Command, words: Sequence[str], environ: Mapping[str, str]
) -> Arguments:
    """The words that follow the command's name, and what variables add to them.

    With `-h` or `--help` the rest is not looked at. Raises UsageError.
    """
    args = Arguments(command=name, words=[], typed=set(), strangers=[])
    _read(args, command, words)
    if "help" in args:
        return args
    hint = f"towline {name} --help shows how it goes"
    if command.words is not None and len(args.words) > command.words:
        raise UsageError(f"`{args.words[command.words]}` is one word too many", hint=hint)
    if command.needs and not args.words:
        raise UsageError(f"no {command.needs} is named", hint=hint)
    args.typed = set(vars(args))
    ours = {name for name in environ if name.startswith("TOWLINE_") and environ[name]}
    for option in command.every if ours else ():
        # A typed option wins over the variable of its rival, which may be set for all commands.
        if option.dest in args.typed or _RIVALS.get(option.dest, set()) & args.typed:
            continue
        if variable := next((name for name in option.variables if name in ours), None):
            written = environ[variable]
            for value in written.splitlines() if option.repeatable else [written]:
                _keep(args, option, value, variable)
    args.strangers = _strangers(ours) if ours else []
    return args


def _read(args: Arguments, command: Command, words: Sequence[str]) -> None:
    """Read the words from left to right. Raises UsageError."""
    options = {spelling: option for option in command.every for spelling in option.spellings}
    rest = deque(words)
    spreading = ""  # the option that takes all words up to the next option
    while rest:
        word = rest.popleft()
        if word == "--":
            args.words += rest
            return
        if word == "-" or not word.startswith("-"):
            if spreading:
                _keep(args, options[spreading], word, spreading)
            else:
                args.words.append(word)
            continue
        name, equals, value = word.partition("=")
        if name not in options and word[:2] in options:  # `-j3`, or `-aq`
            name, equals, value = word[:2], "=", word[2:]
            if options[name].metavar is None and value[0] != "-":
                equals = ""
                rest.appendleft(f"-{value}")
        if name == "--help" or word.startswith("-h"):
            args.help = True
            return
        if name not in options:
            raise _unknown(args.command, word, options)
        option = options[name]
        if equals and option.metavar is None:
            raise UsageError(f"`{name}` takes no value", hint=_LISTS.format(args.command))
        _keep(args, option, value if equals else _next(args, option, name, rest), name)
        spreading = name if option.spreads else ""


def _next(args: Arguments, option: Option, name: str, rest: deque[str]) -> str:
    """The value of an option behind which no `=` stands: its own, or the next word."""
    if option.metavar is None:
        return "true"
    if option.bare:
        # `--verify full` would push to a repository `full`. An existing file is meant as a file.
        if rest and not rest[0].startswith("-") and not os.path.lexists(rest[0]):
            with suppress(ValueError):
                option.value_of(rest[0])
                message = f"`{name}` and its value `{rest[0]}` are two words"
                raise UsageError(message, hint=f"write it with `=`: {name}={rest[0]}")
        return option.bare
    if not rest or re.match("-[^0-9]", rest[0]):
        raise UsageError(f"`{name}` needs a value", hint=_LISTS.format(args.command))
    return rest.popleft()


def _strangers(ours: set[str]) -> list[str]:
    """Warnings about those of the variables that begin with `TOWLINE_` which do not exist."""
    if ours <= (known := variables()):
        return []
    from towline.cli import cache, guesses, serve

    groups = (*cache.CACHE.options, *serve.SERVE.options)
    known |= {name for group in groups for option in group.options for name in option.variables}
    told = []
    for name in sorted(ours - known):
        near = guesses.near(name, sorted(known), "TOWLINE_")
        told.append(f"{name} is no variable of towline" + (f": is {near} meant?" if near else ""))
    return told


def _keep(args: Arguments, option: Option, written: str, name: str) -> None:
    """Convert and keep the value of an option; raises UsageError where it has the wrong form.

    `name` is what the user wrote: the option's name, or its variable's.
    """
    if not written:
        raise UsageError(f"`{name}` needs a value", hint="leave it out to have the default")
    try:
        value = option.value_of(written)
    except ValueError as error:
        shown = "" if option.secret else f", not `{written}`"
        raise UsageError(f"`{name}` {error}{shown}") from None
    if value is None or (value is False and option.metavar is None):
        return  # switched off by its variable: the same as not given
    if option.repeatable:
        value = [*getattr(args, option.dest, []), value]
    setattr(args, option.dest, value)


def _unknown(command: str, word: str, options: Iterable[str]) -> UsageError:
    """An error for an option that is none of these."""
    from towline.cli import guesses

    # Never show what follows a short option, as in `-pSECRET`.
    name = word[:2] if word[:2] in guesses.OPTIONS else word.partition("=")[0]
    hint = guesses.OPTIONS.get(name)
    if not hint and name.startswith("--") and (near := guesses.near(name, options, "--")):
        hint = f"did you mean `{near}`?"
    message = f"`towline {command}` has no option `{name}`"
    return UsageError(message, hint=hint or _LISTS.format(command))
