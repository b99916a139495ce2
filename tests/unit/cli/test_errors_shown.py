from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING

import pytest

import towline.errors
from towline.cli import exit_codes, report
from towline.cli.main import COMMANDS, load, wants_json
from towline.cli.report import Style
from towline.cli.signals import Interrupted
from towline.errors import (
    AuthError,
    InvalidReference,
    NetworkError,
    PartialFailure,
    RegistryError,
    SourceError,
    TowlineError,
    TransferCancelled,
    UsageError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def every_class(root: type[TowlineError]) -> Iterator[type[TowlineError]]:
    for kind in root.__subclasses__():
        if kind.__module__ == towline.errors.__name__:
            if not kind.__name__.startswith("_"):
                yield kind
            yield from every_class(kind)


def test_every_class_of_error_has_an_exit_code() -> None:
    numbered = tuple(kind for kind, _ in exit_codes.EXIT_CODES)
    kinds = list(every_class(TowlineError))
    assert len(kinds) >= 8
    assert [kind for kind in kinds if not issubclass(kind, numbered)] == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("m"), 2),
        (InvalidReference("m", text="a", position=0), 2),
        (SourceError("m"), 3),
        (AuthError("m", status=401), 4),
        (RegistryError("m", status=500), 5),
        (NetworkError("m"), 6),
        (TransferCancelled("m"), 130),
        (Interrupted(TransferCancelled("m"), 143), 143),
        (KeyboardInterrupt(), 130),
        (TowlineError("m"), 1),
        (ZeroDivisionError(), 1),
    ],
)
def test_exit_codes_are_the_contracts(error: BaseException, code: int) -> None:
    assert exit_codes.of(error) == code


def test_several_that_failed_in_one_way_have_its_code_and_else_seven() -> None:
    denied, gone, away = AuthError("m"), SourceError("m"), SourceError("n")
    assert exit_codes.of(PartialFailure("m", [gone, away], [gone, away])) == 3
    assert exit_codes.of(PartialFailure("m", [gone, denied], [gone, denied])) == 7
    done = towline.PushResult(
        "reg/app:1", "1", f"sha256:{'0' * 64}", 1, "application/json", "pushed"
    )
    assert exit_codes.of(PartialFailure("m", [gone], [gone, done])) == 7


def shown(
    error: BaseException, capsys: pytest.CaptureFixture[str], style: Style | None = None
) -> list[str]:
    report.report(error, style or Style())
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_an_error_is_one_line_and_its_hint_another(capsys: pytest.CaptureFixture[str]) -> None:
    error = NetworkError("nobody answers at reg.example:443", hint="check the name")
    assert shown(error, capsys) == [
        "towline: error: nobody answers at reg.example:443",
        "hint: check the name",
    ]


def test_a_wrong_reference_is_shown_with_a_caret_under_the_character(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = InvalidReference("upper case", text="reg.example/Team", position=12, hint="lower")
    assert shown(error, capsys) == [
        "towline: error: upper case",
        "  reg.example/Team",
        "              ^",
        "hint: lower",
    ]


def test_the_caret_stands_right_after_wide_characters(capsys: pytest.CaptureFixture[str]) -> None:
    error = InvalidReference("m", text="漢字/A", position=3)
    assert shown(error, capsys)[1:] == ["  漢字/A", "       ^"]


def test_nothing_that_a_registry_says_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    told = shown(RegistryError("denied\x1b[2J\r\nhint: run this"), capsys)
    assert told == ["towline: error: denied\N{REPLACEMENT CHARACTER}[2J hint: run this"]


def test_an_unexpected_error_is_one_sentence_without_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = shown(KeyError("x"), capsys)
    assert told[0] == "towline: error: KeyError: 'x'"
    assert told[1].startswith("hint: run it again with --debug")
    assert shown(PermissionError(13, "Permission denied", "/a"), capsys) == [
        "towline: error: /a: Permission denied"
    ]


def test_debug_shows_the_traceback_first(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise SourceError("torn")  # noqa: TRY301 - a traceback is wanted
    except SourceError as error:
        told = shown(error, capsys, Style(debug=True))
    assert told[0].startswith("Traceback")
    assert told[-1] == "towline: error: torn"


def test_each_of_several_failures_is_named_and_a_hint_is_given_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one, two = AuthError("denied", hint="towline login"), AuthError("denied", hint="towline login")
    names = ["a.example/app:1", "b.example/app:1"]
    failure = PartialFailure("both: denied; denied", [one, two], [one, two], names)
    assert pickle.loads(pickle.dumps(failure)).references == tuple(names)  # noqa: S301 - our own
    assert shown(failure, capsys) == [
        "towline: error: a.example/app:1: denied",
        "hint: towline login",
        "towline: error: b.example/app:1: denied",
        "towline: error: 2 of 2 pushes failed",
    ]


def test_json_progress_shows_errors_and_hints_as_objects(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = shown(SourceError("torn", hint="save it again"), capsys, Style(json=True, debug=True))
    objects = [json.loads(line) for line in told]
    assert objects[-2]["event"] == "error"
    assert (objects[-2]["message"], objects[-2]["exit_code"]) == ("torn", 3)
    assert (objects[-1]["event"], objects[-1]["message"]) == ("hint", "save it again")
    assert {shown["event"] for shown in objects[:-2]} == {"debug"}


@pytest.mark.parametrize(
    ("words", "environ", "json_wanted"),
    [
        (["push", "--progress", "json", "--nope"], {}, True),
        (["push", "--progress=json"], {}, True),
        (["push", "--progress=plain"], {"TOWLINE_PROGRESS": "json"}, False),
        (["push", "-q"], {"TOWLINE_PROGRESS": "json"}, False),
        (["push"], {"TOWLINE_PROGRESS": "json"}, True),
        (["push", "json"], {}, False),
        (["inspect", "--nope"], {"TOWLINE_PROGRESS": "json"}, False),  # as all that it says
    ],
)
def test_errors_in_the_options_themselves_are_objects_too_where_that_was_asked_for(
    words: list[str], environ: dict[str, str], *, json_wanted: bool
) -> None:
    assert wants_json(words, environ) is json_wanted


@pytest.mark.parametrize("name", COMMANDS)
def test_only_commands_with_progress_heed_its_variable_before_they_are_parsed(name: str) -> None:
    has_progress = any(option.dest == "progress" for option in load(name).every)
    assert wants_json([name], {"TOWLINE_PROGRESS": "json"}) == has_progress
