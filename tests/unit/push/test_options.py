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
        ({"creds": 5}, "`creds` must be USER:PASSWORD"),
        ({"chunk_size": None}, "`chunk_size` must be a number of bytes, not None"),
        ({"limit_rate": float("nan")}, "`limit_rate` must be a number of bytes, not nan"),
    ],
)
def test_what_cannot_be_is_a_usage_error_whatever_its_type(
    options_: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        towline.Pusher(**options_)


EVERY_OPTION = [
    *towline.PusherOptions.__annotations__,
    *towline.PushOptions.__annotations__,
    "all_tags",
]


@pytest.mark.parametrize("option", EVERY_OPTION)
def test_a_value_of_another_type_is_refused_before_all_else(option: str) -> None:
    given: dict[str, Any] = {option: object()}
    # A source that is not there would be told of as soon as it is looked for.
    with pytest.raises(UsageError, match=option):
        towline.push("not-there.tar", "reg.example/app", **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"platform": 3}, "`platform` must be a text or a list of texts, and is of type int"),
        ({"tags": ["1", 2]}, "and is of type list with int and str in it"),
        ({"cache_from": b"reg/app"}, "and is of type bytes"),
        ({"annotation": 5}, "must be a text, a list of texts, or a mapping, and is of type int"),
        ({"compression": ["gzip"]}, "`compression` must be a text"),
        ({"insecure": "false"}, "`insecure` must be True or False, and is of type str"),
        ({"all_tags": "yes"}, "`all_tags` must be True or False, and is of type str"),
        ({"ca": 5}, "`ca` must be a path"),
        ({"ca": b"ca.pem"}, "`ca` must be a path"),
        ({"authfile": "a\0b"}, "`authfile` must be a path without a NUL"),
        ({"trace": ["a.json"]}, "`trace` must be a path"),
        ({"environ": {"A": 5}}, "`environ` must be a mapping of texts to texts"),
        ({"on_event": "print"}, "`on_event` must be a function, and is of type str"),
        ({"cancel": "now"}, r"`cancel` must be a towline\.Cancel, and is of type str"),
    ],
)
def test_it_is_said_what_an_option_takes_and_what_came(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        towline.push("not-there.tar", "reg.example/app", **given)


def test_a_secret_of_the_wrong_type_is_not_repeated() -> None:
    given: Any = {"creds": {"me": "hunter2"}, "cache": ["redis://:hunter2@host"]}
    for option in given:
        with pytest.raises(UsageError) as caught:
            towline.Pusher(**{option: given[option]})
        assert "hunter2" not in str(caught.value)


def test_nothing_may_be_given_as_none() -> None:
    words = {"jobs", "retries", "timeout", "chunk_size", "attestations", "format", "verify"}
    unsaid: Any = dict.fromkeys({*EVERY_OPTION} - words - {"if_exists", "check_push", "all_tags"})
    with pytest.raises(towline.SourceError, match=r"not-there\.tar does not exist"):
        towline.push("not-there.tar", "reg.example/app", **unsaid)


@pytest.mark.parametrize("given", [5, None, b"reg/app", ["reg/app"], {"reg/app": 1}])
def test_a_name_that_is_no_text_is_a_usage_error(given: Any) -> None:
    with towline.Pusher(cache="none") as pusher:
        for call in (pusher.tags, pusher.check_login, lambda name: pusher.tag(name, "1")):
            with pytest.raises(UsageError, match=f"is of type {type(given).__name__}"):
                call(given)


@pytest.mark.parametrize("given", [5, None, b"1", [1], {1: "1"}])
def test_a_tag_that_is_no_text_is_a_usage_error(given: Any) -> None:
    with pytest.raises(UsageError, match="a tag is of type"):
        towline.tag("127.0.0.1:1/app", given, cache="none")


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
    with pytest.raises(UsageError, match=r"`cancel` must be a towline\.Cancel"):
        look("127.0.0.1:1/app", cancel=0, cache="none")


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
