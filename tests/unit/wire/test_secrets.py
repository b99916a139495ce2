from __future__ import annotations

import base64
import html
import json
import time
import urllib.parse
from typing import TYPE_CHECKING

import hypothesis
import pytest
from hypothesis import strategies

from towline.wire.message import Headers, Request, Response, parse_url
from towline.wire.secrets import Secrets

if TYPE_CHECKING:
    from collections.abc import Callable

URL = parse_url("https://registry.test/v2/")


def redacted(text: str, *values: str) -> str:
    secrets = Secrets()
    secrets.add(*values)
    return secrets.redact(text)


@pytest.mark.parametrize(
    ("text", "secret", "shown"),
    [
        ("no secret", "", "no secret"),
        ("an abc", "abc", "an abc"),
        ("the latest test, test", "test", "the latest [hidden], [hidden]"),
        ("xxpassword1yy", "password1", "xx[hidden]yy"),
        ("PassWord1", "password1", "[hidden]"),
        ("password1password1 end", "password1", "[hidden] end"),
        ("aaaaaaaaaaaaa", "aaaaaaaa", "[hidden]"),
        ("ab" * 8 + "cdefgh it was", "ab" * 7 + "cdefgh", "[hidden] it was"),
        ("ab" * 8 + "cdef it was", "ab" * 7 + "cdefgh", "[hidden] it was"),
        ("xyz" * 40 + "end it was", "xyz" * 9 + "end", "[hidden] it was"),
        ("it was ababab", "abab", "it was [hidden]"),
        ("it was passw… (403)", "password1", "it was [hidden]… (403)"),
        ("it was pas… (403)", "password1", "it was pas… (403)"),
        ("%25%70assword1%22", "password1", "%25[hidden]%22"),
        ("a\\npassword1", "password1", "a\\n[hidden]"),
        ("DOMAIN\\new-password", "new-password", "DOMAIN\\[hidden]"),
        ("100%abcdefghi", "abcdefghi", "100%[hidden]"),
        ("my pass   word", "my  pass word", "[hidden]"),
        ("50% off & more", "unrelated", "50% off & more"),
        ("0x70617373776F726431", "password1", "0x[hidden]"),
        ("it was password", "password1", "it was [hidden]"),
        ("it was passwor", "password1", "it was passwor"),
        ("it was passi…", "password1", "it was passi…"),
        ('"a passphrase of m"! it said', 'a passphrase of m"ine', '"[hidden]! it said'),
        ("a passphrase it is", "a passphrase of mine, which is long", "a passphrase it is"),
    ],
)
def test_a_secret_is_hidden_and_nothing_else(text: str, secret: str, shown: str) -> None:
    assert redacted(text, secret) == shown


CUT_ESCAPES = {
    "percents": ("%%%02X", "p@ss:w/ord?"),
    "lower percents": ("%%%02x", "p@ss:w/ord?"),
    "percents twice": ("%%25%02x", "p@ss:w/ord?"),
    "units": ("\\u%04x", "p@ss:w/ord?"),
    "units in a text": ("\\\\u%04X", "p@ss:w/ord?"),
    "units of two": ("\\u%04x", "pass\N{SNOWMAN}w\N{MUSICAL SYMBOL G CLEF}rd"),
    "bytes": ("\\x%02x", "p@ss:w/ord?"),
    "numbers": ("&#%d;", "p@ss:w/ord?"),
}


@pytest.mark.parametrize("escape", CUT_ESCAPES)
@pytest.mark.parametrize("of", ["all", "some"])
def test_a_secret_is_hidden_that_is_cut_inside_of_an_escape(escape: str, of: str) -> None:
    form, secret = CUT_ESCAPES[escape]
    size = 2 if "u" in form else 1
    points = secret.encode("utf-16-be") if size == 2 else secret.encode()
    units = [int.from_bytes(points[at : at + size]) for at in range(0, len(points), size)]
    pieces = [chr(u) if of == "some" and chr(u).isalnum() and u < 128 else form % u for u in units]
    start = len("".join(pieces[:4]))
    whole = "".join(pieces)
    for end in range(start, len(whole) + 1):
        assert redacted(f"it was {whole[:end]}… (403)", secret) == "it was [hidden]… (403)"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_secret_is_hidden_that_is_cut_inside_of_a_character(encoding: str) -> None:
    secret = "pässwörd\N{SNOWMAN}\N{MUSICAL SYMBOL G CLEF}"
    content = secret.encode()
    for end in range(6, len(content) + 1):
        text = content[:end].decode(encoding, "replace")
        assert redacted(f"it was {text}… (403)", secret) == "it was [hidden]… (403)"
        quoted = urllib.parse.quote(content[:end])
        assert redacted(f"it was {quoted}… (403)", secret) == "it was [hidden]… (403)"


ENCODED: list[Callable[[str], str]] = [
    str,
    lambda text: urllib.parse.quote(text, safe=""),
    urllib.parse.quote_plus,
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: json.dumps(json.dumps(text)[1:-1])[1:-1],
    html.escape,
    lambda text: urllib.parse.quote(json.dumps(text)[1:-1]),
    lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
    lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    lambda text: text.encode().hex(),
    lambda text: text.encode().hex().upper(),
]
PASSWORDS = strategies.text(
    strategies.characters(exclude_categories=["C", "Z"]), min_size=8, max_size=40
)


@hypothesis.given(
    PASSWORDS, strategies.sampled_from(range(len(ENCODED))), strategies.text(max_size=5)
)
def test_whatever_is_around_it_an_encoded_secret_is_hidden(
    secret: str, way: int, around: str
) -> None:
    encoded = ENCODED[way](secret)
    text = f"{around} {encoded} {around}"
    assert encoded not in redacted(text, secret).replace(around, "")


def test_what_a_request_shows_and_an_answer_hands_out_is_hidden() -> None:
    secrets = Secrets()
    secrets.sent(Request("GET", URL, (("Authorization", "Bearer shown-token"),)))
    link = "/v2/x?_state=the-state-of-the-session&digest=sha256:0123456789abcdef&n=1"
    body = b'{"token": "new-token", "refresh_token": "refresh-me", "expires_in": 60}'
    secrets.received(Response(200, "OK", Headers([("Location", link)]), URL, "GET", body))
    text = f"shown-token new-token refresh-me {link}"
    shown = link.replace("the-state-of-the-session", "[hidden]")
    assert secrets.redact(text) == f"[hidden] [hidden] [hidden] {shown}"


def test_a_token_is_hidden_whose_answer_ended_early() -> None:
    secrets = Secrets()
    body = b'{"expires_in": 60, "access_token": "new-\\/token", "refresh_token": "refresh-me", "x'
    secrets.received(Response(200, "OK", Headers(), URL, "GET", body))
    assert secrets.redact("new-/token and new-\\/token and refresh-me") == (
        "[hidden] and [hidden] and [hidden]"
    )


def test_of_addresses_the_last_are_looked_for_and_what_was_given_always() -> None:
    secrets = Secrets()
    secrets.add("given-for-good")
    for number in range(2000):
        link = f"/v2/x?_state={number:05}-state-of-a-session"
        secrets.received(Response(202, "", Headers([("Location", link)]), URL))
    assert secrets.redact("given-for-good") == "[hidden]"
    assert secrets.redact("01999-state-of-a-session") == "[hidden]"
    assert secrets.redact("00000-state-of-a-session") == "00000-state-of-a-session"


@pytest.mark.parametrize(
    "address",
    [
        "redis://:pass%2Fword1@h:1/0",
        "redis://user:pass/word1@h/0?x=@y",
        "http://user:pass%2fword1@proxy",
        "user:pass%2Fword1@proxy:3128",
        "unix:///run/redis?password=pass%2Fword1",
    ],
)
def test_the_password_of_an_address_is_hidden(address: str) -> None:
    secrets = Secrets()
    secrets.add_address(address)
    assert secrets.redact("a pass/word1 and pass%2Fword1") == "a [hidden] and [hidden]"


LONG = {
    "percents": "%25" * 20_000,
    "nested percents": "%252525" * 8000,
    "one percent": "%" + "25" * 30_000,
    "backslashes": "\\" * 60_000,
    "units": "\\u0061" * 10_000,
    "entities": "&amp;" * 9000,
    "letters": "a" * 60_000,
    "letters in twos": "ab" * 30_000,
    "cuts": "…aaaa" * 12_000,
}


@pytest.mark.parametrize("name", LONG)
def test_no_text_takes_long(name: str) -> None:
    secrets = Secrets()
    secrets.add(*(f"{'a' * n}-secret" for n in range(20)), "a" * 30, "ab" * 200 + "c")
    began = time.process_time()
    secrets.redact(LONG[name])
    assert time.process_time() - began < 1
