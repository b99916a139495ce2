from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.wire.message import Challenge, challenges


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        (["Basic"], [Challenge("basic")]),
        (['BASIC Realm="x"'], [Challenge("basic", {"realm": "x"})]),
        (["Basic realm=x"], [Challenge("basic", {"realm": "x"})]),
        (
            ['Bearer realm="https://a/t",service="s",scope="repository:a:pull,push"'],
            [
                Challenge(
                    "bearer",
                    {"realm": "https://a/t", "service": "s", "scope": "repository:a:pull,push"},
                )
            ],
        ),
        (
            ['Bearer realm="a, \\"b\\" \\\\ c" , scope = "x y"'],
            [Challenge("bearer", {"realm": 'a, "b" \\ c', "scope": "x y"})],
        ),
        (["Bearer realm=https://a/t?x=1&y"], [Challenge("bearer", {"realm": "https://a/t?x=1&y"})]),
        (
            ['Negotiate, Basic realm="x", Bearer realm="y"'],
            [
                Challenge("negotiate"),
                Challenge("basic", {"realm": "x"}),
                Challenge("bearer", {"realm": "y"}),
            ],
        ),
        (
            ["Negotiate YWJj==, Basic", 'Bearer realm="y"'],
            [Challenge("negotiate"), Challenge("basic"), Challenge("bearer", {"realm": "y"})],
        ),
        (['Bearer realm="torn'], [Challenge("bearer", {"realm": "torn"})]),
        (['Bearer realm="a",realm="b"'], [Challenge("bearer", {"realm": "a"})]),
        (["", " , ", "=;"], []),
    ],
)
def test_challenges_are_read_however_they_are_written(
    headers: list[str], found: list[Challenge]
) -> None:
    assert challenges(headers) == found


@given(st.lists(st.text()))
def test_no_header_is_too_odd_to_be_read(headers: list[str]) -> None:
    challenges(headers)


SCHEMES = st.sampled_from(["Bearer", "Basic", "Negotiate", "DPoP"])
NAMES = st.sampled_from(["realm", "service", "scope", "error"])
PARAMETERS = st.dictionaries(NAMES, st.text(st.characters(codec="latin-1")), max_size=4)


@given(st.lists(st.tuples(SCHEMES, PARAMETERS), max_size=4))
def test_what_is_written_by_the_grammar_is_read_back(
    written: list[tuple[str, dict[str, str]]],
) -> None:
    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in written
    )
    assert challenges([header]) == [
        Challenge(scheme.lower(), parameters) for scheme, parameters in written
    ]
