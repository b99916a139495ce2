from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.errors import InvalidReference
from towline.reference import parse

SHA = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "host", "path", "tag", "digest"),
    [
        ("app", "docker.io", "library/app", None, None),
        ("app:1", "docker.io", "library/app", "1", None),
        ("me/app", "docker.io", "me/app", None, None),
        ("docker.io/app", "docker.io", "library/app", None, None),
        ("index.docker.io/me/app:x", "docker.io", "me/app", "x", None),
        ("localhost/app", "localhost", "app", None, None),
        ("localhost:5000/app:1.2", "localhost:5000", "app", "1.2", None),
        ("reg.example/team/app", "reg.example", "team/app", None, None),
        ("[::1]:5000/app", "[::1]:5000", "app", None, None),
        ("[::1]/app:t", "[::1]", "app", "t", None),
        ("docker://reg.example:443/a/b/c:t", "reg.example:443", "a/b/c", "t", None),
        (f"reg.example/app@{SHA}", "reg.example", "app", None, SHA),
        (f"reg.example/app:1@{SHA}", "reg.example", "app", "1", SHA),
        ("Reg.example/app", "Reg.example", "app", None, None),
        ("a__b/c-d", "docker.io", "a__b/c-d", None, None),
    ],
)
def test_a_name_is_read_as_docker_reads_it(
    text: str, host: str, path: str, tag: str | None, digest: str | None
) -> None:
    reference = parse(text)
    assert (reference.repository.host, reference.repository.path) == (host, path)
    assert (reference.tag, reference.digest) == (tag, digest)


@pytest.mark.parametrize(
    ("text", "wrong", "hint"),
    [
        ("registry.example/Team/app", "T", "registry.example/team/app"),
        ("registry.example/team/app:", None, None),
        ("registry.example/team/app:.x", ".", None),
        ("registry.example//app", "/", None),
        ("registry.example/-app", "-", None),
        ("registry.example/app@sha256:12", "s", None),
        ("registry.example/ap p", " ", None),
        ("registry.example:port/app", "p", None),
        ("registry.example/app:1:2", ":", None),
        ("registry.example:99999/app", "9", None),
        ("registry.example:0/app", "0", None),
        ("[::1]:65536/app:1", "6", None),
        ("registry.example:" + "9" * 5000 + "/app", "9", None),
        ("registry.example/app:" + "t" * 129, "t", None),
        ("https://registry.example/app:1", "h", "registry.example/app:1"),
        ("registry.example/", None, None),
        ("", None, None),
    ],
)
def test_a_wrong_name_says_which_character_is_wrong(
    text: str, wrong: str | None, hint: str | None
) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse(text)
    error = caught.value
    assert error.text == text
    assert text[error.position : error.position + 1] == (wrong or "")
    assert hint is None or hint in str(error.hint)


@pytest.mark.parametrize(
    "text",
    [
        "reg.example/a/|/b",
        "reg.example/a/|-b",
        "reg.example/a.|.b",
        "reg.example/a__|_b",
        "reg.example/a-|.b",
        "reg.example/|.a",
        "reg.example/ab|-",
        "reg.example/ab|/",
        "a/|/b",
        "a|.:1",
    ],
)
def test_the_caret_stands_under_the_first_character_that_no_name_has_there(text: str) -> None:
    position = text.index("|")
    with pytest.raises(InvalidReference) as caught:
        parse(text.replace("|", ""))
    assert caught.value.position == position


def test_a_host_with_an_empty_label_is_none() -> None:
    with pytest.raises(InvalidReference, match="is no registry host"):
        parse("registry..example/app")


def test_the_caret_of_a_bad_port_stands_under_its_first_letter() -> None:
    with pytest.raises(InvalidReference) as caught:
        parse("registry.example:port/app")
    assert caught.value.position == len("registry.example:")


@pytest.mark.parametrize(
    ("text", "familiar", "full"),
    [
        ("app", "app", "docker.io/library/app"),
        ("me/app:1", "me/app:1", "docker.io/me/app:1"),
        ("reg.example/app:1", "reg.example/app:1", "reg.example/app:1"),
    ],
)
def test_familiar_and_full_forms(text: str, familiar: str, full: str) -> None:
    assert parse(text).familiar == familiar
    assert str(parse(text)) == full


@given(st.text(alphabet="aA0.:/@-_[]% ", max_size=40))
def test_any_text_is_read_or_refused_at_a_place_inside_it(text: str) -> None:
    shown, position, again = text, 0, None
    try:
        reference = parse(text)
        again = parse(str(reference)) == reference
    except InvalidReference as error:
        shown, position = error.text, error.position
    assert again is not False
    assert 0 <= position <= len(shown)
