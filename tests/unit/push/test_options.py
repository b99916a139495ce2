"""Keywords of a push, read: sizes, rules, whose an account is."""

from __future__ import annotations

from typing import Any

import pytest

import towline
from towline.errors import UsageError
from towline.push.interface import destinations, options

MiB = 1 << 20


def test_what_is_not_asked_for_is_as_documented() -> None:
    limits = options.Limits()
    assert (limits.jobs, limits.retries, limits.timeout) == (5, 4, 30.0)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (1, 1),
        (16 * MiB, 16 * MiB),
        ("4096", 4096),
        ("16K", 16 << 10),
        ("16k", 16 << 10),
        ("16M", 16 * MiB),
        ("1.5M", 3 * MiB // 2),
        ("2G", 2 << 30),
        (" 5m ", 5 * MiB),
    ],
)
def test_a_size_is_a_number_with_a_unit_of_powers_of_1024(value: int | str, wanted: int) -> None:
    assert options.size(value, "chunk_size") == wanted


@pytest.mark.parametrize("value", ["", "M", "16T", "-1", "1e6", "16MB", "many", 0, -5, "0", "0.1"])
def test_what_is_no_size_is_named_with_its_option(value: int | str) -> None:
    with pytest.raises(UsageError, match=r"`chunk_size` must be a number of bytes"):
        options.size(value, "chunk_size")


def test_chunks_of_automatic_size_are_no_size() -> None:
    assert options.chunk_size("auto") is None


@pytest.mark.parametrize("given", [None, 5, b"reg/app", [None], ["reg/app", 5]])
def test_a_destination_that_is_no_text_is_a_usage_error(given: Any) -> None:
    with pytest.raises(UsageError, match="a destination is of type "):
        destinations.parse(given, options.wish({}), None)


@pytest.mark.parametrize(
    ("options_", "message"),
    [
        ({"jobs": "5"}, "`jobs` must be a whole number, at least 1, not '5'"),
        ({"jobs": 0}, "`jobs` must be a whole number, at least 1, not 0"),
        ({"jobs": 1.5}, "`jobs` must be a whole number"),
        ({"retries": None}, "`retries` must be a whole number, 0 or more, not None"),
        ({"timeout": "30"}, "`timeout` must be a number above 0 seconds, not '30'"),
        ({"timeout": float("nan")}, "`timeout` must be a number"),
        ({"timeout": float("inf")}, "`timeout` must be a number"),
        ({"creds": ("me",)}, "`creds` must be USER:PASSWORD"),
        ({"creds": ("me", None)}, "`creds` must be USER:PASSWORD"),
        ({"creds": "me"}, "`creds` must be USER:PASSWORD"),
        ({"creds": ("", "it")}, "`creds` must be USER:PASSWORD"),
    ],
)
def test_what_cannot_be_is_a_usage_error_whatever_its_type(
    options_: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        towline.Pusher(**options_)


@pytest.mark.parametrize("creds", ["me:i:t", ("me", "i:t"), ["me", "i:t"]])
def test_an_account_is_a_text_or_a_pair(creds: Any) -> None:
    assert options.pair(creds, "creds") == ("me", "i:t")


def test_a_keyword_that_there_is_not_is_refused_and_never_ignored() -> None:
    unknown: Any = {"anotation": "a=b"}
    calls: list[Any] = [towline.push, towline.plan, towline.Pusher().push, towline.Pusher().plan]
    for call in calls:
        with pytest.raises(UsageError, match="there is no option 'anotation'"):
            call("image.tar", "reg/app", **unknown)
    for call in (towline.inspect, towline.tags, towline.digest, towline.Pusher().digest):
        with pytest.raises(UsageError, match="there is no option 'anotation'"):
            call("reg/app", **unknown)
    with pytest.raises(UsageError, match="there is no option 'anotation'"):
        towline.Pusher(**unknown)


def test_an_empty_name_is_no_profile() -> None:
    with pytest.raises(UsageError, match="no compression profile is called ''"):
        options.wish({"compression": ""})


@pytest.mark.parametrize("look", [towline.inspect, towline.tags, towline.digest])
def test_looking_can_be_cancelled_too(look: Any) -> None:
    cancel = towline.Cancel()
    cancel.cancel()
    with pytest.raises(towline.TransferCancelled):
        look("127.0.0.1:1/app", cancel=cancel, cache="none")


@pytest.mark.parametrize(
    "settings",
    [
        {"creds": "me:word"},
        {"creds": ("me", "word")},
        {"environ": {"TOWLINE_USERNAME": "me", "TOWLINE_PASSWORD": "word"}},
    ],
)
def test_one_account_is_never_shown_to_several_registries(settings: dict[str, Any]) -> None:
    several = ["one.example/app", "two.example/app"]
    with towline.Pusher(cache="none", **settings) as pusher:
        for work in (pusher.push, pusher.plan):
            with pytest.raises(UsageError, match=r"one\.example, two\.example") as caught:
                work("image.tar", several)
            assert "towline login one.example" in str(caught.value.hint)


def test_several_repositories_of_one_registry_may_share_an_account() -> None:
    destinations.parse(["a.example/x", "a.example/y"], options.wish({}), "`creds`")
    destinations.parse(["a.example/x", "b.example/y"], options.wish({}), None)
