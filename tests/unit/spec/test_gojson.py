"""JSON as Go writes it: what is escaped, and what of a foreign text is kept as it was spelled."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.spec import gojson

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ('a"b\\c', rb'"a\"b\\c"'),
        ("\n\r\t", rb'"\n\r\t"'),
        ("\x00\x1f\x7f", b'"\\u0000\\u001f\x7f"'),
        ("\b\f", rb'"\b\f"'),
        ("<a>&", rb'"\u003ca\u003e\u0026"'),
        ("\u2028\u2029", rb'"\u2028\u2029"'),
        ("é😀/", '"é😀/"'.encode()),
        ("\ud800", '"\ufffd"'.encode()),
        (b"a\xff\xfeb".decode("utf-8", "surrogateescape"), '"a\ufffd\ufffdb"'.encode()),
    ],
)
def test_strings_are_escaped_as_go_does(text: str, encoded: bytes) -> None:
    assert gojson.encode(text) == encoded


def test_members_keep_their_spelling_and_their_own_order() -> None:
    text = """ { "n" : 1.50e+02 , "big": 12345678901234567890123, "esc": "\\u00e9\\/ <b> ",
        "list": [ 1, { "z": 1, "a": [ ] } ], "e": {} } """
    assert gojson.members(text) == {
        "n": "1.50e+02",
        "big": "12345678901234567890123",
        "esc": '"\\u00e9\\/ \\u003cb\\u003e "',
        "list": '[1,{"z":1,"a":[]}]',
        "e": "{}",
    }


def test_of_equal_keys_the_last_counts() -> None:
    assert gojson.members('{"a": 1, "b": 2, "a": 3}') == {"a": "3", "b": "2"}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "1", '{"a": NaN}', '{"a": Infinity}', '{"a": 1}x', '{"a": "\n"}', "[" * 200_000],
)
def test_what_is_no_object_is_refused_in_one_clause(text: str) -> None:
    with pytest.raises(ValueError, match="not "):
        gojson.members(text)


@given(st.dictionaries(st.text(), JSON), st.sampled_from([None, 1, 3]))
def test_members_and_their_values_are_the_objects(document: dict[str, object], indent: int) -> None:
    found = gojson.members(json.dumps(document, indent=indent))
    assert {key: json.loads(value) for key, value in found.items()} == document


@given(JSON)
def test_what_is_encoded_is_what_was_meant(value: object) -> None:
    encoded = gojson.encode(value)
    assert json.loads(encoded) == value or "\ufffd" in encoded.decode()
    assert not set(b"<>&") & set(encoded)
    assert gojson.compact(encoded.decode()) == encoded.decode()
