from __future__ import annotations

import json
import pickle
import subprocess
import traceback
from typing import TYPE_CHECKING

import pytest

from towline import events
from towline.errors import (
    Cancelled,
    NetworkError,
    PartialFailure,
    RegistryError,
    TowlineError,
    TransferCancelled,
)
from towline.push.interface.edge import Edge
from towline.push_events import LayerProgress
from towline.wire.secrets import Secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

WORD = "s3cret-word"


def left(error: BaseException) -> BaseException:
    """The error as it leaves the library."""
    secrets = Secrets()
    secrets.add(WORD)
    with pytest.raises(type(error)) as caught, Edge(secrets).crossed():
        raise error
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        OSError("gone"),
        OSError(5, "Input/output error"),
        FileNotFoundError(2, "No such file", "a", None, "b"),
        KeyError("a"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        TowlineError("it failed", hint="wait"),
    ],
    ids=repr,
)
def test_an_error_without_secrets_leaves_as_it_is(error: Exception) -> None:
    said = str(error), repr(error), error.args
    after = left(error)
    assert after is error
    assert (str(after), repr(after), after.args) == said


@pytest.mark.parametrize(
    "error",
    [
        OSError(f"no {WORD}"),
        OSError(5, f"no {WORD}"),
        FileNotFoundError(2, "No such file", f"/{WORD}", None, f"/{WORD}"),
        KeyError(WORD),
        UnicodeDecodeError("utf-8", WORD.encode(), 0, 1, f"in {WORD}"),
        NetworkError(f"no {WORD}", hint=f"not {WORD}"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_leaves_without_secrets(error: Exception) -> None:
    error.add_note(f"seen: {WORD}")
    left(error)
    hint = getattr(error, "hint", "")
    assert WORD not in f"{error} {error!r} {error.args} {hint} {error.__notes__}"


class Odd(Exception):
    """Keeps what it is given."""

    __slots__ = ("held",)

    def __init__(self, *args: object, **kept: object) -> None:
        super().__init__(*args)
        self.held = WORD
        vars(self).update(kept)


def everything_of(error: BaseException, seen: frozenset[int] = frozenset()) -> Iterator[str]:
    """All that can be had of it."""
    if id(error) in seen:
        return
    seen |= {id(error)}
    yield from (str(error), repr(error), repr(error.args), repr(vars(error)))
    yield from (
        repr(getattr(error, name, None)) for name in dir(error) if not name.startswith("__")
    )
    yield from traceback.format_exception(error)
    kept = [*error.args, *vars(error).values(), error.__cause__, error.__context__]
    for one in [*kept, *getattr(error, "exceptions", ()), *getattr(error, "results", ())]:
        if isinstance(one, BaseException):
            yield from everything_of(one, seen)


@pytest.mark.parametrize(
    "error",
    [
        Odd({"a": [(1, f"no {WORD}"), {WORD}], WORD: WORD.encode()}),
        Odd(url=f"http://h/{WORD}", deep={"list": [WORD]}, frozen=frozenset({WORD})),
        Odd(ValueError(WORD), inner=OSError(5, WORD)),
        json.JSONDecodeError("no", f'{{"token": "{WORD}"', 1),
        ImportError("no", name=WORD, path=WORD),
        AttributeError("no", name=WORD, obj=WORD),
        StopIteration(WORD),
        SyntaxError("no", (WORD, 1, 1, WORD)),
        subprocess.CalledProcessError(1, ["a", WORD], WORD, WORD.encode()),
        Odd(bytearray(WORD.encode())),
    ],
    ids=lambda error: type(error).__name__,
)
def test_nothing_that_an_error_keeps_has_any(error: Exception) -> None:
    error.add_note(f"seen: {WORD}")
    left(error)
    assert WORD not in "".join(everything_of(error))
    assert WORD.encode() not in pickle.dumps([error.args, vars(error)])


def test_parts_of_a_failure_have_none() -> None:
    one, other = RegistryError(f"no {WORD}", code=WORD, hint=WORD), NetworkError(WORD)
    one.__cause__ = json.JSONDecodeError("no", WORD, 0)
    other.add_note(WORD)
    edge = Edge(Secrets())
    edge.secrets.add(WORD)
    cleared = [edge.outcome(error) for error in (one, other)]
    failure = PartialFailure("both failed", cleared, cleared, ["reg/a", "reg/b"])
    left(failure)
    assert WORD not in "".join(everything_of(failure))
    assert WORD.encode() not in pickle.dumps(failure)
    assert failure.references == ("reg/a", "reg/b")


def test_an_error_that_keeps_itself_leaves_too() -> None:
    error = Odd(f"no {WORD}")
    error.args = (*error.args, error)
    error.__cause__ = other = ValueError(error)
    other.__context__ = error
    left(error)
    assert error.args == ("no [hidden]", error)


def test_what_is_data_stays_as_it_is() -> None:
    error = RegistryError("no", status=400, retry_after=1.5, side="source")
    kept = dict(vars(error))
    secrets = Secrets()
    secrets.add("source")
    with pytest.raises(RegistryError), Edge(secrets).crossed():
        raise error
    assert vars(error) == kept


def test_what_was_cancelled_brings_none_along() -> None:
    edge, cancelled = Edge(Secrets()), Cancelled()
    edge.secrets.add(WORD)
    cancelled.__cause__ = ValueError(WORD)
    with pytest.raises(TransferCancelled) as caught, edge.crossed():
        raise cancelled
    assert WORD not in "".join(everything_of(caught.value))


@pytest.mark.parametrize(
    "event",
    [
        events.Warned(reference="", message=WORD),
        events.Note(reference="", message=WORD),
        events.Failed(reference="", message=WORD, exit_code=1),
        events.Hinted(reference="", message=WORD),
        LayerProgress(reference="", id="a", status=f"Retrying in 1 second ({WORD})"),
        events.Retrying(reference="", what=WORD, seconds=1, reason=WORD),
        events.Working(reference="", what=f"spooling {WORD}", current=0),
    ],
    ids=lambda event: event.event,
)
def test_no_event_tells_one(event: events.Event) -> None:
    secrets = Secrets()
    secrets.add(WORD)
    told = Edge(secrets).event(event)
    assert WORD not in f"{told} {told.as_dict()}"
    assert WORD.encode() not in pickle.dumps(told)


def test_what_an_error_was_raised_from_has_none_either() -> None:
    first, second, group = ValueError(WORD), KeyError(WORD), ExceptionGroup("all", [OSError(WORD)])
    first.__cause__, second.__context__ = second, group
    error = TowlineError("it failed")
    error.__cause__ = first
    left(error)
    assert WORD not in f"{first!r} {second!r} {group!r} {group.exceptions}"


def test_what_nobody_was_to_see_is_not_brought_along() -> None:
    error = TowlineError("it failed")
    error.__context__ = UnicodeDecodeError("utf-8", WORD.encode(), 0, 1, "invalid")
    error.__suppress_context__ = True
    left(error)
    assert error.__context__ is None
