from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

import pytest

from towline.cli import help as guide
from towline.cli import options
from towline.cli.arguments import parse
from towline.cli.main import load
from towline.cli.pusher import push_options, pusher_options
from towline.errors import UsageError

if TYPE_CHECKING:
    from towline.cli.options import Arguments


def read(*words: str, **environ: str) -> Arguments:
    return parse("push", load("push"), words, environ)


def given(*words: str, **environ: str) -> dict[str, Any]:
    """What the library would get."""
    args = read(*words, **environ)
    return {**pusher_options(args), **push_options(args)}


def refusal(*words: str, **environ: str) -> str:
    with pytest.raises(UsageError) as caught:
        read(*words, **environ)
    return caught.value.message


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["-j", "7"], {"jobs": 7}),
        (["--jobs=7"], {"jobs": 7}),
        (["-j7"], {"jobs": 7}),
        (["-j=7"], {"jobs": 7}),
        (["-aqj7"], {"all_tags": True, "jobs": 7}),
        (["--retries", "0"], {"retries": 0}),
        (["--retry-times", "2"], {"retries": 2}),
        (["--timeout", "2.5"], {"timeout": 2.5}),
        (["--plain-http"], {"plain_http": True}),
        (["--insecure"], {"insecure": True}),
        (["--tls-verify=false"], {"tls_verify": False}),
        (["--dest-tls-verify=false"], {"tls_verify": False}),
        (["--tls-verify"], {"tls_verify": True}),
        (["--creds", "me:it"], {"creds": "me:it"}),
        (["--dest-creds", "me:it"], {"creds": "me:it"}),
        (["--authfile", "a.json"], {"authfile": "a.json"}),
        (["--ca", "ca.pem"], {"ca": "ca.pem"}),
        (["-f", "oci"], {"format": "oci"}),
        (["--compression", "zstd:7"], {"compression": "zstd:7"}),
        (["--verify"], {"verify": "head"}),
        (["--verify=full"], {"verify": "full"}),
        (["--check-diffids"], {"check_diffids": True}),
        (["-a"], {"all_tags": True}),
        (["--no-learn"], {"no_learn": True}),
        (["--cache-from", "a/b", "--cache-from=a/c"], {"cache_from": ["a/b", "a/c"]}),
        (["--cert", "c.pem", "--key", "k.pem"], {"cert": "c.pem", "key": "k.pem"}),
        (["--cache", "none"], {"cache": "none"}),
        (["--output", "json", "-q", "--digestfile", "f", "--debug"], {}),
    ],
)
def test_options_become_the_librarys_keywords(words: list[str], wanted: dict[str, Any]) -> None:
    assert given("image.tar", *words, "reg/app") == wanted


def test_an_option_that_is_not_given_is_absent_so_that_the_library_has_every_default() -> None:
    assert given("image.tar", "reg/app") == {}


def test_words_and_options_stand_in_any_order() -> None:
    args = read("--verify", "image.tar", "--jobs", "2", "reg/app", "--", "-odd-")
    assert args.words == ["image.tar", "reg/app", "-odd-"]
    assert read("-", "reg/app").words == ["-", "reg/app"]


@pytest.mark.parametrize(
    "words", [["-odd.tar", "reg/app"], ["--verify", "reg/app"], ["--", "reg/app"], ["-", "--jobs"]]
)
def test_what_comes_after_two_dashes_is_a_word_however_it_looks(words: list[str]) -> None:
    assert read("-q", "--", *words).words == words
    assert read("image.tar", "-q", "--", *words).words == ["image.tar", *words]


def test_quiet_is_progress_none_and_the_later_one_wins() -> None:
    assert read("-q").progress == "none"
    assert read("-q", "--progress", "json").progress == "json"
    assert read("--progress", "json", "--quiet").progress == "none"


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("TOWLINE_JOBS", "9", {"jobs": 9}),
        ("TOWLINE_RETRY_TIMES", "9", {"retries": 9}),
        ("TOWLINE_PLAIN_HTTP", "1", {"plain_http": True}),
        ("TOWLINE_PLAIN_HTTP", "True", {"plain_http": True}),
        ("TOWLINE_PLAIN_HTTP", "0", {}),
        ("TOWLINE_PLAIN_HTTP", "", {}),
        ("TOWLINE_TLS_VERIFY", "false", {"tls_verify": False}),
        ("TOWLINE_VERIFY", "1", {"verify": "head"}),
        ("TOWLINE_VERIFY", "full", {"verify": "full"}),
        ("TOWLINE_VERIFY", "no", {}),
        ("TOWLINE_CHECK_DIFFIDS", "yes", {"check_diffids": True}),
        ("TOWLINE_CREDS", "me:it", {"creds": "me:it"}),
        ("TOWLINE_CACHE", "/some/where", {"cache": "/some/where"}),
    ],
)
def test_options_are_read_from_the_environment(
    name: str, value: str, wanted: dict[str, Any]
) -> None:
    assert given("image.tar", "reg/app", **{name: value}) == wanted


def test_every_option_of_a_push_can_come_from_the_environment() -> None:
    for group in options.PUSH:
        for option in group.options:
            value = {"format": "oci", "if_exists": "same", "progress": "json", "output": "json"}
            value["attestations"] = "drop"
            text = "1" if option.metavar is None else value.get(option.dest, "3")
            if option.dest in {"verify", "insecure", "tls_verify"}:
                text = "1"
            variable = "TOWLINE_" + option.name[2:].upper().replace("-", "_")
            if option.typed_only:
                continue  # TOWLINE_USERNAME and TOWLINE_PASSWORD are the library's own
            assert option.dest in vars(read("a", "b", **{variable: text}))


def test_a_repeatable_option_has_a_line_for_each_in_its_variable() -> None:
    environ = {"TOWLINE_CACHE_FROM": "a/b\na/c\n"}
    assert given("a", "b", **environ) == {"cache_from": ["a/b", "a/c"]}
    assert given("a", "b", "--cache-from", "a/d", **environ) == {"cache_from": ["a/d"]}


def test_a_user_on_the_command_line_goes_with_the_password_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOWLINE_PASSWORD", "it")
    assert given("-", "b", "-u", "me", TOWLINE_CREDS="x:y") == {"creds": ("me", "it")}


def test_a_password_by_standard_input_goes_with_the_user_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOWLINE_USERNAME", "me")
    for environ in ({"TOWLINE_CREDS": "x:y"}, {"TOWLINE_PASSWORD_STDIN": "1"}):
        words = ["--password-stdin"] if "TOWLINE_CREDS" in environ else []
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"secret\n")))
        assert given("a", "b", *words, **environ) == {"creds": ("me", "secret")}
    assert given("a", "b", "--creds", "x:y", TOWLINE_PASSWORD_STDIN="1") == {"creds": "x:y"}


def test_where_an_index_goes_can_come_from_the_environment() -> None:
    args = parse("index", load("index"), ["a/b", "a/c"], {"TOWLINE_TO": "r/d\nr/e"})
    assert (args.words, args.to, args.strangers) == (["a/b", "a/c"], ["r/d", "r/e"], [])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b", "-u", "me"], "`-u` needs its password by standard input: `--password-stdin`"),
        (["a", "b", "--password-stdin"], "`--password-stdin` needs a user: `-u USER`"),
        (["a", "-u", "me", "--creds", "x:y"], "`--creds` and `-u` say the same thing twice"),
        (
            ["-", "b", "-u", "me", "--password-stdin"],
            "standard input cannot be both the image and the password",
        ),
    ],
)
def test_a_password_by_standard_input_that_cannot_be_is_told(
    words: list[str], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        given(*words)
    assert caught.value.message == message


def test_the_command_line_wins_over_the_environment() -> None:
    environ = {"TOWLINE_JOBS": "9", "TOWLINE_PROGRESS": "json", "TOWLINE_INSECURE": "1"}
    args = read("a", "b", "-j", "2", "-q", "--tls-verify=true", **environ)
    assert (args.jobs, args.progress, args.tls_verify) == (2, "none", True)
    assert not hasattr(args, "insecure")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jobs", "0"], "`--jobs` takes a whole number, 1 or more, not `0`"),
        (["-j", "two"], "`-j` takes a whole number, 1 or more, not `two`"),
        (["--retries", "-1"], "`--retries` takes a whole number, 0 or more, not `-1`"),
        (["--timeout", "nan"], "`--timeout` takes a number of seconds above 0, not `nan`"),
        (["--timeout", "inf"], "`--timeout` takes a number of seconds above 0, not `inf`"),
        (["--format", "tar"], "`--format` takes one of auto, docker, oci, not `tar`"),
        (["--verify=some"], "`--verify` takes head or full, not `some`"),
        (["--tls-verify=maybe"], "`--tls-verify` takes true or false, not `maybe`"),
        (["--creds"], "`--creds` needs a value"),
        (["--jobs", "--", "a"], "`--jobs` needs a value"),
        (["--cache", ""], "`--cache` needs a value"),
        (["--compression="], "`--compression` needs a value"),
        (["--digest-file", ""], "`--digest-file` needs a value"),
        (["-u", ""], "`-u` needs a value"),
        (["--plain-http=1"], "`--plain-http` takes no value"),
        (["-a-"], "`-a` takes no value"),
        (["-aqz"], "`towline push` has no option `-z`"),
        (["-aqpSECRET"], "`towline push` has no option `-p`"),
        (["--job", "1"], "`towline push` has no option `--job`"),
        (["--password=secret"], "`towline push` has no option `--password`"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(words: list[str], message: str) -> None:
    assert refusal(*words) == message


def test_a_wrong_variable_is_told_by_its_name() -> None:
    assert refusal(TOWLINE_JOBS="x") == "`TOWLINE_JOBS` takes a whole number, 1 or more, not `x`"
    assert refusal(TOWLINE_DEBUG="x") == "`TOWLINE_DEBUG` takes true or false, not `x`"


@pytest.mark.parametrize(
    "option", [o for group in options.PUSH for o in group.options], ids=lambda o: o.name
)
def test_every_option_is_shown_by_the_help(option: options.Option) -> None:
    assert option.name in "\n".join(guide.of("push", load("push")))


def test_a_value_that_may_be_left_out_is_shown_as_it_is_written_in_colour_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "--verify[=head|full]" in "\n".join(guide.of("push", load("push")))
