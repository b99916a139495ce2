"""Answers made to harm: secrets thrown back, words without end, patterns that never finish."""

from __future__ import annotations

import os
import time

import pytest

from tests.support.guards import Tokens
from tests.support.pushing import Client, client_of
from tests.support.scripted import CUT, Reply, Scripted, complaint
from towline.errors import AuthError, TowlineError
from towline.registry import errors
from towline.wire.message import Headers, Response, parse_url

DATA = os.urandom(1000)
JSON = {"Content-Type": "application/json"}
LONG = 60_000
"""Nearly all that is read of a head or of a refusal."""


def failing(client: Client) -> str:
    with pytest.raises(AuthError) as caught:
        client.push(DATA)
    return f"{caught.value!r} {caught.value.hint} {client.heard}"


@pytest.mark.parametrize("part", [b"X: v", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n "])
@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT"])
def test_an_answer_that_comes_a_byte_at_a_time_for_ever_is_no_answer(
    registry: Scripted, method: str, part: bytes
) -> None:
    start = part if part.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\n" + part
    if method == "HEAD":
        start = b"HTTP/1.1 200 OK\r\nX: v"
    registry.on(method, "", Reply(raw=start, drip=0.05))
    with client_of(registry, timeout=0.5) as client:
        began = time.monotonic()
        try:
            client.repository.has_blob("sha256:" + "0" * 64, client.context)
            client.push(DATA)
        except TowlineError as error:
            assert error.transient  # noqa: PT017 - a push would try again
        assert time.monotonic() - began < 4
    assert registry.drips


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_a_head_that_has_begun_is_not_waited_for_as_one_that_has_not(
    registry: Scripted, method: str
) -> None:
    registry.on(method, "uploads", Reply(raw=b"HTTP/1.1 202 Acc", drip=60))
    with client_of(registry, timeout=0.5) as client:
        began = time.monotonic()
        assert client.push(DATA) == 2
        assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    "body",
    ["<" * LONG, "<title" * (LONG // 6), "<title>" * (LONG // 7), "<script>" * (LONG // 8),
     "<Message>" * (LONG // 9), "<Message>x</Message>" + "<Code>" * (LONG // 6)],
    ids=["brackets", "titles", "open-titles", "scripts", "messages", "codes"],
)  # fmt: skip
def test_no_page_takes_long_to_read(body: str) -> None:
    url = parse_url("http://registry.test/v2/")
    response = Response(502, "Bad Gateway", Headers(), url, "PUT", body.encode())
    began = time.process_time()
    assert len(str(errors.refusal(response, "push"))) < 1000
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "value",
    ["Bearer" + " " * LONG + "x", "Bearer" + "\t" * LONG + "x", "," * LONG, 'a="' * (LONG // 3),
     "Bearer " + "=" * LONG + "!"],
    ids=["spaces", "tabs", "commas", "quotes", "equals"],
)  # fmt: skip
def test_no_header_field_takes_long_to_read(registry: Scripted, value: str) -> None:
    registry.guard = lambda _: Reply(401, {"WWW-Authenticate": value})
    began = time.process_time()
    with client_of(registry) as client:
        failing(client)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("link", ["<" * LONG, "<>;" * (LONG // 3)], ids=["brackets", "links"])
def test_no_link_takes_long_to_read(registry: Scripted, link: str) -> None:
    registry.on("GET", "tags", Reply(200, {**JSON, "Link": link}, '{"tags":["1"]}'))
    began = time.process_time()
    with client_of(registry) as client:
        assert client.repository.tags(client.context) == ["1"]
    assert time.process_time() - began < 2


@pytest.mark.parametrize("mark", ["?", "?a"])
def test_no_location_takes_long_to_log(registry: Scripted, mark: str) -> None:
    location = "/v2/team/app/blobs/uploads/x" + mark * (LONG // len(mark))
    registry.on("POST", "uploads", Reply(202, {"Location": location}))
    began = time.process_time()
    with client_of(registry) as client:
        client.push(DATA)
    assert time.process_time() - began < 2


def test_of_a_path_as_long_as_a_book_the_error_shows_the_beginning(registry: Scripted) -> None:
    registry.on("POST", "uploads", Reply(202, {"Location": "/v2/x" + "x" * LONG}), forever=True)
    registry.on("PATCH", "", complaint(403, "DENIED"))
    with client_of(registry) as client, pytest.raises(AuthError) as caught:
        client.push(DATA)
    assert len(str(caught.value)) < 1000
    assert "/v2/xxx" in str(caught.value)


@pytest.mark.parametrize(
    "torn", ['{"token":"t', '{"token":"t0","expi'], ids=["in-the-token", "after-it"]
)
def test_a_token_that_is_torn_is_asked_for_again(registry: Scripted, torn: str) -> None:
    tokens = Tokens(registry)
    registry.on("GET", "^/token", Reply(200, JSON, torn), tokens.grant)
    registry._rules.reverse()
    with client_of(registry) as client:
        client.push(DATA)
    assert len(tokens.valid) == 1


@pytest.mark.parametrize("life", ["NaN", "Infinity", "9" * 400, "-1", "true", '"x"', "[]"])
def test_a_token_of_any_life_is_used(registry: Scripted, life: str) -> None:
    tokens = Tokens(registry)
    tokens.valid["good"] = []
    body = f'{{"token":"good","expires_in":{life}}}'
    registry.on("GET", "^/token", Reply(200, JSON, body), CUT, forever=True)
    registry._rules.reverse()
    with client_of(registry) as client:
        client.push(DATA)
    assert len(registry.requests("GET", "^/token")) == 1
