"""From the words after `towline` to an exit code; a command's module is loaded when asked for."""

from __future__ import annotations

import gc
import os
import sys
from itertools import pairwise

from towline._version import __version__

# As in towline/__init__.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from towline.cli.options import Arguments, Command


COMMANDS = {
    "push": "push an image to a registry",
    "copy": "copy an image to registries, layouts and archives",
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
_MODULES = {
    "copy": "push",
    "plan": "push",
    "tag": "push",
    "index": "push",
    "tags": "inspect",
    "digest": "inspect",
    "logout": "login",
}
"""The modules of commands that share one; any other command's module has the command's name."""
_WITHOUT_PROGRESS = frozenset(
    {"inspect", "tags", "digest", "login", "logout", "cache", "serve", "demo", "completion"}
)
"""Commands that have no `--progress`, so that its variable does not change their errors."""
_VERSION = ("--version", "-V", "version")


def load(name: str) -> Command:
    """The command of that name."""
    from importlib import import_module

    module = import_module(f"towline.cli.{_MODULES.get(name, name)}")
    command: Command = getattr(module, name.upper())
    return command


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code; raises nothing that a user can cause.

    Without `argv` the words are those of the process, whose signals and garbage collection are
    then set for this one command.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _keep_standard_descriptors()
    if words[:1] == ["help"]:
        words = [*words[1:2], "--help"]
    if len(words) > 1 and {*words} <= {"help", "version", "--help", "-h"}:
        words = ["--help"]
    args: Arguments | None = None
    try:
        if len(words) == 1 and words[0] in _VERSION:
            return _say([f"towline {__version__}"])
        if words in (["--help"], ["-h"]):
            from towline.cli import help as guide

            return _say(guide.page(COMMANDS))
        if argv is None:
            # Imports make 30,000 objects that all stay; to look among them for garbage, forty times
            # at the usual 700, takes 6 ms of a push of nothing.
            gc.set_threshold(50_000)
            from towline.cli import signals

            signals.end_at_once(json=wants_json(words, os.environ))
        _check_command(words[0] if words else "")
        from towline.cli.arguments import parse

        command = load(words[0])
        args = parse(words[0], command, words[1:], os.environ)
        if "help" in args:
            from towline.cli import help as guide

            return _say(guide.of(words[0], command))
        return command.run(args)
    except BaseException as error:  # noqa: BLE001 - the last place where anything can be said
        from towline.cli import exit_codes, report

        # What was typed may not be parsed.
        debug = "--debug" in words or os.environ.get("TOWLINE_DEBUG") in {"1", "true", "yes"}
        style = report.Style(wants_json(words, os.environ), debug)
        if args:
            from towline.cli.words import explain

            explain(error, args)
            style = report.style_of(args)
        report.report(error, style)
        return exit_codes.of(error)
    finally:
        _let_go_of_stderr()
        if argv is None:
            # The interpreter would look for garbage among all that is left before it lets go of it:
            # 15 ms of a push of nothing.
            gc.freeze()


def wants_json(words: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether errors are to be JSON objects, guessed from words that are not parsed yet."""
    if words and words[0] in _WITHOUT_PROGRESS:
        return False
    given = [word for word in words if word in {"-q", "--quiet"} or word.startswith("--progress")]
    if not given:
        return environ.get("TOWLINE_PROGRESS") == "json"
    return "--progress=json" in words or ("--progress", "json") in pairwise(words)


def _keep_standard_descriptors() -> None:
    """Open /dev/null for each of descriptors 0 to 2 that was closed at the start.

    Otherwise a socket would get that number, and messages would be written into it.
    """
    for descriptor in range(3):
        try:
            # What Node or ssh shares may be non-blocking: then a full pipe would fail.
            os.set_blocking(descriptor, True)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free: this one


def _let_go_of_stderr() -> None:
    """Flush standard error, and drop what its gone reader did not take.

    The interpreter's last flush would fail on it and end the process with 120.
    """
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        from towline.cli import output

        output.forget(sys.stderr.fileno())


def _say(lines: Iterable[str]) -> int:
    from towline.cli import output

    output.write(lines)
    return 0


def _check_command(name: str) -> None:
    """Raise UsageError unless `name` is a command."""
    if name in COMMANDS:
        return
    from towline.cli import guesses
    from towline.errors import UsageError

    if not name:
        raise UsageError("no command is given", hint="towline --help lists them")
    if name in _VERSION:
        raise UsageError(f"`towline {name}` takes no more words", hint="towline --version")
    if name in guesses.NOT_YET:
        raise UsageError(f"`towline {name}` is not available yet")
    if name.startswith("-"):
        raise UsageError(
            f"`{name}` stands before the command", hint="options come after it: towline push …"
        )
    hint = guesses.COMMANDS.get(name)
    if not hint and (near := guesses.near(name, COMMANDS)):
        hint = f"did you mean `towline {near}`?"
    raise UsageError(f"no command is called `{name}`", hint=hint or "towline --help lists them")
