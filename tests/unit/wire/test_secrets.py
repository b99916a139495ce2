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

from towline.wire.message import Headers, Request, Response
from towline.wire.secrets import Secrets
from towline.wire.url import parse

if TYPE_CHECKING:
    from collections.abc import Callable

URL = parse("https://registry.test/v2/")


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
        ("it was passw… (403)", "password1", "it was [hidden]… (403)"),
        ("it was pas… (403)", "password1", "it was pas… (403)"),
        ("%25%70assword1%22", "password1", "%25[hidden]%22"),
        ("a\\npassword1", "password1", "a\\n[hidden]"),
        ("DOMAIN\\new-password", "new-password", "DOMAIN\\[hidden]"),
        ("100%abcdefghi", "abcdefghi", "100%[hidden]"),
        ("my pass   word", "my  pass word", "[hidden]"),
        ("50% off & more", "unrelated", "50% off & more"),
    ],
)
def test_a_secret_is_hidden_and_nothing_else(text: str, secret: str, shown: str) -> None:
    assert redacted(text, secret) == shown


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


def test_of_addresses_the_last_are_looked_for_and_what_was_given_always() -> None:
    secrets = Secrets()
    secrets.add("given-for-good")
    for number in range(2000):
        link = f"/v2/x?_state=state-of-a-session-{number:05}"
        secrets.received(Response(202, "", Headers([("Location", link)]), URL))
    assert secrets.redact("given-for-good") == "[hidden]"
    assert secrets.redact("state-of-a-session-01999") == "[hidden]"
    assert secrets.redact("state-of-a-session-00000") == "state-of-a-session-00000"


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
    "cuts": "…aaaa" * 12_000,
}


@pytest.mark.parametrize("name", LONG)
def test_no_text_takes_long(name: str) -> None:
    secrets = Secrets()
    secrets.add(*(f"{'a' * n}-secret" for n in range(20)), "a" * 30)
    began = time.process_time()
    secrets.redact(LONG[name])
    assert time.process_time() - began < 1
