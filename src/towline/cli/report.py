"""Shows an error to the user: one sentence, a hint, and a caret under a wrong character.

`--debug` shows the traceback before it; with `--progress json` everything is JSON objects.
"""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING, NamedTuple

from towline.cli import exit_codes, wording
from towline.cli.wording import one_line, spelled
from towline.errors import InvalidReference, PartialFailure, TowlineError
from towline.events import Failed, Hinted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from towline.cli.options import Arguments

_NO_THREAD = "can't start new thread"
"""The message of Python's RuntimeError where the system refuses a thread."""
UNEXPECTED = "run it again with --debug and report what it shows: this should not have happened"


class Style(NamedTuple):
    """How errors are shown."""

    json: bool = False
    debug: bool = False
    reference: str = ""
    """The only destination, for the events of errors; empty where there are several."""
    account: str = "`creds`"
    """The option or variable that gave the account, which the library calls `creds`."""


def style_of(args: Arguments) -> Style:
    """The style by the options given."""
    from towline.cli import words

    json = getattr(args, "progress", None) == "json"
    account = "`creds`" if "creds" in args.typed else "TOWLINE_CREDS"
    if "username" in args:
        account = "TOWLINE_PASSWORD"
    if "password_stdin" in args:
        account = "`--password-stdin`"
    account = getattr(args, "account", account)
    return Style(json, "debug" in args, words.reference(args) if json else "", account)


def report(error: BaseException, style: Style) -> None:
    """Show an error on standard error."""
    for _, failure in _each(error):
        if isinstance(failure, TowlineError):
            # Name the option that gave the account: the library knows it only as `creds`.
            said = failure.message.replace("(from `creds`)", f"(from {style.account})")
            failure.args = (said, *failure.args[1:])
    if style.json:
        write_lines(_objects(error, style))
        return
    if style.debug:
        write_lines(traceback_of(error))
    write_lines(_text(error))


def warn(message: str) -> None:
    """Write a warning to standard error."""
    write_lines([f"towline: warning: {message}"])


def write_lines(lines: Iterable[str]) -> None:
    """Write lines to standard error; without effect where it is closed or its reader has gone."""
    if sys.stderr is None:
        return
    try:
        for line in lines:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # a closed pipe: there is no place left to say so


def _text(error: BaseException) -> Iterator[str]:
    hints: set[str] = set()
    for reference, failure in _each(error):
        message = message_of(failure)
        where = "" if not reference or reference in message else f"{reference}: "
        yield f"towline: error: {where}{message}"
        if isinstance(failure, InvalidReference):
            yield f"  {one_line(failure.text)}"
            yield f"  {_caret(failure.text, failure.position)}"
        hint = _hint(failure)
        if hint and hint not in hints:
            hints.add(hint)
            yield f"hint: {one_line(hint)}"
    if isinstance(error, PartialFailure):
        yield f"towline: error: {_count(error)}"


def _objects(error: BaseException, style: Style) -> Iterator[str]:
    import json

    if style.debug:
        for line in traceback_of(error):
            yield debug_object(line)
    events: list[Failed | Hinted] = []
    for named, failure in _each(error):
        reference, code = named or style.reference, exit_codes.of(failure)
        events.append(Failed(reference=reference, message=message_of(failure), exit_code=code))
        if hint := _hint(failure):
            events.append(Hinted(reference=reference, message=hint))
    if isinstance(error, PartialFailure):
        code = exit_codes.of(error)
        events.append(Failed(reference="", message=_count(error), exit_code=code))
    yield from (json.dumps(event.as_dict()) for event in events)


def debug_object(line: str) -> str:
    """A line of `--debug` among the objects of `--progress json`."""
    import json
    import time

    return json.dumps({"event": "debug", "reference": "", "time": time.time(), "message": line})


def _each(error: BaseException) -> Sequence[tuple[str, BaseException]]:
    """Each failure, with its reference where there were several pushes."""
    if not isinstance(error, PartialFailure):
        return [("", error)]
    outcomes = zip(error.references, error.results, strict=True)
    return [(name, outcome) for name, outcome in outcomes if isinstance(outcome, BaseException)]


def _count(failure: PartialFailure) -> str:
    """The last line after the failures: how many of how many pushes failed."""
    asked = wording.counted(len(failure.results), "push", "pushes")
    return f"{len(failure.exceptions)} of {asked} failed"


def message_of(error: BaseException) -> str:
    """The error as one line."""
    if isinstance(error, TowlineError):
        return one_line(spelled(error.message))
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if limit := _limit(error):
        return limit[0]
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return one_line(f"{place}{error.strerror}")
    return one_line(f"{type(error).__name__}: {error}")


def _caret(text: str, position: int) -> str:
    """A caret under the character, also after ones that take two columns."""
    before = text[:position]
    if not before.isascii():
        from unicodedata import east_asian_width

        before = "".join("  " if east_asian_width(c) in "WF" else " " for c in before)
    return " " * len(before) + "^"


def _hint(error: BaseException) -> str | None:
    if isinstance(error, TowlineError):
        return spelled(error.hint) if error.hint else None
    if limit := _limit(error):
        return spelled(limit[1])
    return None if isinstance(error, (KeyboardInterrupt, OSError)) else UNEXPECTED


def _limit(error: BaseException) -> tuple[str, str] | None:
    """The limit of this machine that the error met, and what to do; None for any other error."""
    if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
        return "this process may open no more files", "raise the limit of open files (ulimit -n)"
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        from towline.transfers.threads import no_thread

        refused = no_thread()
        return refused.message, refused.hint or ""
    if isinstance(error, MemoryError):
        return "there is no more memory", "give it more, or lower --jobs"
    return None


def traceback_of(error: BaseException) -> Iterator[str]:
    """The lines of a traceback."""
    import traceback

    for chunk in traceback.format_exception(error):
        yield from map(one_line, chunk.rstrip("\n").split("\n"))
