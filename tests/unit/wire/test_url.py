from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.wire.message import Url, parse_url, quote

ASKED = parse_url("https://reg.example:5000/v2/app/blobs/uploads/?_state=1")


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://h", Url("http", "h", 80, "/")),
        ("HTTPS://Reg.Example/x?y#z", Url("https", "reg.example", 443, "/x?y")),
        ("http://[::1]:5000/v2/", Url("http", "::1", 5000, "/v2/")),
        ("http://user:word@h:81?q", Url("http", "h", 81, "/?q")),
        ("http://h:/a b\u00e9\n", Url("http", "h", 80, "/a%20b%C3%A9")),
    ],
)
def test_an_absolute_url_is_read(text: str, url: Url) -> None:
    assert parse_url(text) == url


@pytest.mark.parametrize("text", ["", "h/x", "ftp://h", "http://", "http://h:99999", "http://a b/"])
def test_what_is_no_http_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no (http address|port)"):
        parse_url(text)


@pytest.mark.parametrize(
    ("location", "meant"),
    [
        ("/v2/x?_state=a%2Bb%3D", "https://reg.example:5000/v2/x?_state=a%2Bb%3D"),
        ("https://other.example/x?", "https://other.example/x?"),
        ("//other.example:1/x", "https://other.example:1/x"),
        ("reg.example:5000/v2/x", "https://reg.example:5000/v2/x"),
        ("reg.example/v2/x", "https://reg.example/v2/x"),
        ("localhost:5000/v2/x", "https://localhost:5000/v2/x"),
        ("uuid?x=1", "https://reg.example:5000/v2/app/blobs/uploads/uuid?x=1"),
        ("../up/./x", "https://reg.example:5000/v2/app/blobs/up/x"),
        ("../../../../../../x", "https://reg.example:5000/x"),
        ("?x", "https://reg.example:5000/v2/app/blobs/uploads/?x"),
        ("", "https://reg.example:5000/v2/app/blobs/uploads/?_state=1"),
        ("/x#fragment", "https://reg.example:5000/x"),
        ("/to?next=http://x/", "https://reg.example:5000/to?next=http://x/"),
    ],
)
def test_a_location_of_any_form_means_one_url(location: str, meant: str) -> None:
    assert str(ASKED.join(location)) == meant


def test_a_location_of_another_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="is no http address"):
        ASKED.join("ftp://reg.example/x")


@pytest.mark.parametrize(
    ("target", "made"),
    [
        ("/x", "/x?digest=sha256:1"),
        ("/x?", "/x?digest=sha256:1"),
        ("/x?_state=a%2Bb%3D", "/x?_state=a%2Bb%3D&digest=sha256:1"),
        ("/x?a&", "/x?a&digest=sha256:1"),
    ],
)
def test_a_parameter_is_added_and_the_others_stay_as_they_are(target: str, made: str) -> None:
    assert ASKED.at(target).with_query("digest", "sha256:1").target == made


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://h:443/x", "https://h"),
        ("http://h:80", "http://h"),
        ("http://h:443", "http://h:443"),
        ("https://[2001:DB8::1]:443/", "https://[2001:db8::1]"),
    ],
)
def test_a_default_port_is_no_other_place(text: str, origin: str) -> None:
    assert parse_url(text).origin == origin


def test_a_redacted_url_has_no_query() -> None:
    assert ASKED.redacted == "https://reg.example:5000/v2/app/blobs/uploads/"


@given(st.text())
def test_whatever_is_joined_can_stand_in_a_request_line(location: str) -> None:
    try:
        target = ASKED.join(location).target
    except ValueError:
        return
    assert target.startswith("/")
    assert all("!" <= character <= "~" for character in target)


@given(st.text())
def test_a_quoted_value_comes_back_whole(value: str) -> None:
    from urllib.parse import unquote

    assert unquote(quote(value)) == value.encode("utf-8", "replace").decode()
