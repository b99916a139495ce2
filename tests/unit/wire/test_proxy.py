from __future__ import annotations

import base64

import pytest

from towline.errors import UsageError
from towline.wire.message import parse_url
from towline.wire.proxy import from_environment, is_loopback

PROXY = "http://proxy.example:3128"
TARGET = "https://reg.example:5000/v2/"


def chosen(url: str, **environ: str) -> str | None:
    proxy = from_environment(environ).of(parse_url(url))
    return str(proxy) if proxy else None


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_https_goes_through_the_proxy_for_https_in_either_case(name: str) -> None:
    assert chosen(TARGET, **{name: PROXY}) == PROXY
    assert chosen("http://reg.example/", **{name: PROXY}) is None


def test_http_goes_through_the_proxy_for_http_but_never_in_a_cgi_program() -> None:
    assert chosen("http://reg.example/", HTTP_PROXY=PROXY) == PROXY
    assert chosen("http://reg.example/", HTTP_PROXY=PROXY, REQUEST_METHOD="GET") is None
    assert chosen("http://reg.example/", http_proxy=PROXY, REQUEST_METHOD="GET") == PROXY


def test_a_proxy_may_be_spoken_to_over_tls() -> None:
    assert chosen(TARGET, HTTPS_PROXY="https://proxy.example") == "https://proxy.example"
    assert chosen("http://reg.example/", HTTP_PROXY="HTTPS://proxy.example:1") == (
        "https://proxy.example:1"
    )


def test_a_proxy_may_be_named_without_a_scheme() -> None:
    assert chosen(TARGET, HTTPS_PROXY="proxy.example:3128") == PROXY


@pytest.mark.parametrize(
    "url",
    [
        "https://localhost:5000/",
        "https://127.0.0.1/",
        "https://127.9.9.9:1/",
        "https://[::1]:5000/",
        "https://reg.localhost/",
    ],
)
def test_this_machine_is_never_reached_through_a_proxy(url: str) -> None:
    assert chosen(url, HTTPS_PROXY=PROXY) is None


@pytest.mark.parametrize("host", ["127.example.com", "localhost.example.com", "10.0.0.1"])
def test_other_machines_are_no_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("rule", "url", "direct"),
    [
        ("*", TARGET, True),
        ("reg.example", TARGET, True),
        ("REG.example", TARGET, True),
        ("example", TARGET, True),
        (".example", TARGET, True),
        ("*.example", TARGET, True),
        ("eg.example", TARGET, False),
        ("reg.example:5000", TARGET, True),
        ("reg.example:5001", TARGET, False),
        ("other, ,reg.example", TARGET, True),
        ("10.0.0.0/8", "https://10.1.2.3/", True),
        ("10.0.0.0/8", "https://11.1.2.3/", False),
        ("10.1.2.3", "https://10.1.2.3:99/", True),
        ("10.1.2.3:99", "https://10.1.2.3:99/", True),
        ("10.1.2.3:98", "https://10.1.2.3:99/", False),
        ("2001:db8::/32", "https://[2001:db8::5]/", True),
        ("2001:db8::5", "https://[2001:db8::5]/", True),
        ("[2001:db8::5]", "https://[2001:db8::5]/", True),
        ("[2001:db8::5]:443", "https://[2001:db8::5]/", True),
        ("[2001:db8::5]:444", "https://[2001:db8::5]/", False),
        ("10.0.0.0/8", TARGET, False),
        ("a/b/c", TARGET, False),
    ],
)
def test_no_proxy_excepts_names_suffixes_ports_and_networks(
    rule: str, url: str, *, direct: bool
) -> None:
    assert (chosen(url, HTTPS_PROXY=PROXY, NO_PROXY=rule) is None) is direct
    assert (chosen(url, HTTPS_PROXY=PROXY, no_proxy=rule) is None) is direct


def test_a_proxys_password_is_unquoted_and_kept_out_of_sight() -> None:
    environ = {"HTTPS_PROXY": "http://me:p%40ss%3A@proxy.example:3128"}
    proxy = from_environment(environ).of(parse_url(TARGET))
    assert proxy is not None
    assert proxy.authorization == "Basic " + base64.b64encode(b"me:p@ss:").decode()
    assert "ss" not in f"{proxy!r} {proxy}"


@pytest.mark.parametrize("text", ["socks5://proxy:1080", "ftp://proxy:1", "http://", "http://a b"])
def test_a_proxy_that_cannot_be_used_is_a_usage_error_naming_the_variable(text: str) -> None:
    with pytest.raises(UsageError, match="HTTPS_PROXY"):
        from_environment({"HTTPS_PROXY": text})
