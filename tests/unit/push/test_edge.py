from __future__ import annotations

import pytest

from towline.errors import NetworkError, TowlineError
from towline.push.edge import Edge
from towline.wire.secrets import Secrets

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
