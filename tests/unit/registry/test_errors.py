"""Refusals in any form become one sentence."""

from __future__ import annotations

import email.utils
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.errors import AuthError, RegistryError
from towline.registry import errors
from towline.wire.message import Headers, Response, parse_url

URL = parse_url("https://reg.example/v2/app/blobs/uploads/x?_state=secret")


def response(status: int, body: str | bytes = b"", **fields: str) -> Response:
    content = body.encode() if isinstance(body, str) else body
    headers = Headers((name.replace("_", "-"), value) for name, value in fields.items())
    return Response(status, "Reason", headers, URL, "PUT", content)


def errors_of(*found: object) -> str:
    return json.dumps({"errors": found})


FULL = {
    "code": "UNKNOWN",
    "message": "unknown error",
    "detail": f"write /var/lib/registry/{'folder/' * 20}data: no space left on device",
}
"""As docker-registry says it, the cause last."""


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (errors_of({"code": "DENIED", "message": "no"}), "DENIED: no"),
        (errors_of({"code": "DENIED", "message": "no", "detail": "why"}), "DENIED: no (why)"),
        (errors_of({"code": "A", "detail": {"b": [1]}}), 'A ({"b": [1]})'),
        (errors_of({"code": "A", "message": None, "detail": [1, 2]}), "A ([1, 2])"),
        (errors_of({"code": "A", "message": "m", "detail": None}), "A: m"),
        (errors_of({"message": "m"}), "m"),
        (errors_of({"code": "A"}, {"code": "B", "message": "b"}), "A; B: b"),
        (errors_of("text"), "text"),
        (errors_of(), ""),
        ('{"errors":null}', ""),
        ('{"errors":"text"}', "text"),
        ('{"details":"bad name"}', "bad name"),
        ('{"message":"m"}', "m"),
        ('{"error":"e"}', "e"),
        ('{"error":"invalid","error_description":"longer"}', "longer"),
        ("{}", ""),
        ("[1]", "[1]"),
        ("plain\n  text\x1b[31m", "plain text [31m"),
        ("<html><head><title> 413 Too\nLarge </title></head><body>x</body>", "413 Too Large"),
        ("<html><style>p{}</style><p>Sorry</p></html>", "Sorry"),
        (
            "<Error><Code>AccessDenied</Code><Message>No way</Message></Error>",
            "AccessDenied: No way",
        ),
        ("", ""),
        ("   ", ""),
        ("\udcff", "\ufffd"),
    ],
)
def test_any_body_is_read(body: str, words: str) -> None:
    said = errors.described(response(500, body.encode("utf-8", "surrogateescape")))
    assert said == (f"500 Reason: {words}" if words else "500 Reason")


def test_an_error_names_method_url_status_code_and_message_but_no_query() -> None:
    error = errors.refusal(
        response(400, errors_of({"code": "NAME_INVALID", "message": "bad"})), "push a blob to x/app"
    )
    assert str(error) == (
        "cannot push a blob to x/app: reg.example answered 400 Reason: NAME_INVALID: bad "
        "(PUT https://reg.example/v2/app/blobs/uploads/x)"
    )
    assert isinstance(error, RegistryError)
    assert (error.status, error.code) == (400, "NAME_INVALID")


def test_a_megabyte_of_text_is_cut() -> None:
    error = errors.refusal(response(500, "word " * 200_000), "x")
    assert len(str(error)) < 400
    assert "\n" not in str(error)


def test_what_the_challenge_says_comes_first() -> None:
    said = errors.described(
        response(
            401, errors_of({"code": "A"}), WWW_Authenticate='Bearer error_description="expired"'
        )
    )
    assert said == "401 Reason: expired; A"


@pytest.mark.parametrize(
    ("status", "code", "cls", "transient"),
    [
        (401, "UNAUTHORIZED", AuthError, False),
        (403, None, AuthError, False),
        (400, "DENIED", AuthError, False),
        (403, "immutable", RegistryError, False),
        (400, None, RegistryError, False),
        (404, "NAME_UNKNOWN", RegistryError, False),
        (404, "BLOB_UPLOAD_UNKNOWN", RegistryError, True),
        (404, "BLOB_UPLOAD_INVALID", RegistryError, True),
        (400, "BLOB_UPLOAD_INVALID", RegistryError, False),
        *((status, None, RegistryError, False) for status in (405, 411, 413, 415, 501, 507)),
        *(
            (status, None, RegistryError, True)
            for status in (408, 429, 499, 500, 502, 503, 504, 522)
        ),
        (418, "TOOMANYREQUESTS", RegistryError, True),
        (418, "UNAVAILABLE", RegistryError, True),
    ],
)
def test_a_refusal_has_the_class_of_who_must_act(
    status: int, code: str | None, cls: type[Exception], *, transient: bool
) -> None:
    error = errors.refusal(response(status, errors_of({"code": code}) if code else ""), "x")
    assert type(error) is cls
    assert error.transient is transient


def test_a_disk_without_room_is_no_passing_trouble() -> None:
    assert not errors.refusal(response(500, errors_of(FULL)), "x").transient
    assert not errors.refusal(response(500, "disk full"), "x").transient
    assert errors.refusal(response(500, errors_of({**FULL, "detail": ""})), "x").transient


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2.0),
        ("0", 0.0),
        ("3600", 60.0),
        ("99999999999999999999", 60.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 60.0),
        ("soon", None),
        ("-1", None),
        ("", None),
    ],
)
def test_the_time_to_wait_is_read_in_both_forms_and_capped(
    value: str, seconds: float | None
) -> None:
    assert errors.retry_after(response(429, Retry_After=value)) == seconds


def test_the_hub_says_when_instead_of_how_long() -> None:
    then = str(int(time.time()) + 20)
    assert errors.retry_after(response(429, Retry_After=then)) == pytest.approx(20, abs=3)


@pytest.mark.parametrize(
    ("left", "limit", "reset", "few"),
    [
        ("3", "100", "20", (3, 20.0)),
        ("3;w=20", "100;w=20", None, (3, 20.0)),
        ("30", "100", "20", None),
        ("3;w=21600", "100;w=21600", None, None),
        ("many", "100", "20", None),
        (None, "100", "20", None),
    ],
)
def test_few_requests_are_left_where_most_of_a_short_window_is_spent(
    left: str | None, limit: str, reset: str | None, few: tuple[int, float] | None
) -> None:
    fields = {"RateLimit_Remaining": left, "RateLimit_Limit": limit, "RateLimit_Reset": reset}
    said = {name: value for name, value in fields.items() if value}
    assert errors.few_left(response(200, **said)) == few


def test_a_date_soon_is_seconds_from_now() -> None:
    date = email.utils.formatdate(time.time() + 20, usegmt=True)
    assert errors.retry_after(response(503, Retry_After=date)) == pytest.approx(20, abs=3)


@pytest.mark.parametrize(
    ("status", "body", "hint"),
    [
        (404, errors_of({"code": "NAME_UNKNOWN"}), "create the repository"),
        (
            404,
            errors_of(
                {
                    "code": "RepositoryNotFoundException",
                    "message": "The repository with name 'app' does not exist in the registry "
                    "with id '123456789012'",
                }
            ),
            "create the repository",
        ),
        (401, errors_of({"code": "UNAUTHORIZED", "message": "project app not found"}), "project"),
        (403, errors_of({"message": "Your authorization token has expired"}), "log in again"),
        (403, errors_of({"message": "project library not found"}), "create the project"),
        (400, "Client sent an HTTP request to an HTTPS server.", "leave out `plain_http=True`"),
        (413, "<html>", "limits the size"),
        (429, "", "try again later"),
        (403, "", "may push"),
        (412, errors_of({"message": "immutable tag"}), "immutable"),
        (403, errors_of({"message": "quota exceeded"}), "quota"),
        (507, "", "no room"),
        (500, errors_of(FULL), "no room"),
        (401, "", "`creds="),
    ],
)
def test_a_hint_says_what_to_do(status: int, body: str, hint: str) -> None:
    found = errors.refusal(response(status, body), "x").hint
    assert found is not None
    assert hint in found


@pytest.mark.parametrize("status", [400, 418, 500])
def test_no_hint_is_better_than_a_wrong_one(status: int) -> None:
    assert errors.refusal(response(status), "x").hint is None


JSONS = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["errors", "code", "message", "detail", "details", "error"]), inner
        )
    ),
)


@given(
    st.binary() | st.text().map(str.encode) | JSONS.map(lambda value: json.dumps(value).encode())
)
def test_no_body_is_too_odd_to_be_one_line(body: bytes) -> None:
    error = errors.refusal(response(400, body), "x")
    assert str(error).isprintable()
    assert len(str(error)) < 2000


def test_json_nested_too_deep_is_only_text() -> None:
    assert "[[[" in str(errors.refusal(response(500, "[" * 100_000), "x"))
