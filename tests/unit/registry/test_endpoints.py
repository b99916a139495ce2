"""Where a registry is, and whether in https or http; real servers, names given by hand."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.scripted import scripted
from towline.context import Cancel, Context
from towline.errors import NetworkError
from towline.registry.endpoints import Endpoint
from towline.wire.message import Headers, Response
from towline.wire.url import parse

if TYPE_CHECKING:
    from towline.wire.connect import Address


def endpoint(host: str, **options: Any) -> Endpoint:
    return Endpoint(host, **{"plain_http": False, "loopback_http": True, "timeout": 2.0, **options})


def fails(place: Endpoint) -> bool:
    """Whether a call that had no answer is to be made again elsewhere."""
    return place.gives_way(place.base(Context()), NetworkError("no answer"), Context())


def answers(place: Endpoint, status: int, url: str = "") -> bool:
    """Whether a call that was answered so is to be made again elsewhere."""
    tried = place.base(Context())
    whence = parse(url) if url else tried.at("app/manifests/1")
    response = Response(status, "", Headers(), whence, "HEAD", b"")
    return place.gives_way(tried, response, Context())


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("docker.io", "https://registry-1.docker.io/v2/"),
        ("reg.example", "https://reg.example/v2/"),
        ("reg.example:5000", "https://reg.example:5000/v2/"),
        ("10.0.0.1", "https://10.0.0.1/v2/"),
        ("[2001:db8::1]:5000", "https://[2001:db8::1]:5000/v2/"),
    ],
)
def test_other_machines_are_spoken_to_in_https_without_being_asked(host: str, url: str) -> None:
    assert str(endpoint(host).base(Context())) == url


def test_plain_http_is_http_at_once() -> None:
    assert str(endpoint("reg.example", plain_http=True).base(Context())) == "http://reg.example/v2/"


def test_this_machine_is_asked_once() -> None:
    with scripted() as server:
        place = endpoint(server.host)
        assert place.key == server.host
        assert str(place.base(Context())) == f"http://{server.host}/v2/"
        assert place.key == f"http://{server.host}"
        place.base(Context())
        assert server.greeted == 1


def test_a_loopback_port_that_is_closed_is_an_error_and_asked_again_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
    place = endpoint(host)
    for _ in range(2):
        with pytest.raises(NetworkError, match="cannot connect"):
            place.base(Context())


class TestNames:
    """A name that leads to this machine without saying so."""

    def named(self, server_host: str, address: str, **options: Any) -> Endpoint:
        self.asked = 0
        port = int(server_host.rpartition(":")[2])

        def resolve(name: str, _port: int, _cancel: Cancel, _timeout: float) -> list[Address]:
            self.asked += 1
            return [(socket.AF_INET, (address, port))]

        return endpoint(f"localhost:{port}", resolve=resolve, **options)

    def test_it_falls_back_where_http_is_spoken_there(self) -> None:
        with scripted() as server:
            place = self.named(server.host, "127.0.0.1")
            place._base = place._url("https")  # as for a name that does not say so itself
            assert fails(place)
            assert place.base(Context()).scheme == "http"
            assert not fails(place)
            assert self.asked == 1

    def test_it_does_not_where_it_leads_to_another_machine(self) -> None:
        with scripted() as server:
            place = self.named(server.host, "10.0.0.1")
            place._base = place._url("https")
            assert not fails(place)
            assert server.greeted == 0

    @pytest.mark.parametrize("options", [{"loopback_http": False}, {"plain_http": True}])
    def test_it_does_not_where_that_was_not_allowed_or_is_done(
        self, options: dict[str, bool]
    ) -> None:
        place = self.named("127.0.0.1:1", "127.0.0.1", **options)
        assert not fails(place)
        assert self.asked == 0


class TestRecalled:
    """What an earlier run has found a place on this machine to speak."""

    @pytest.mark.parametrize("scheme", ["https", "http"])
    def test_it_is_used_without_asking(self, scheme: str) -> None:
        with scripted() as server:
            place = endpoint(server.host, recalled=scheme)
            assert str(place.base(Context())) == f"{scheme}://{server.host}/v2/"
            assert place.key == f"{scheme}://{server.host}"
            assert server.greeted == 0

    @pytest.mark.parametrize(
        "host", ["docker.io", "reg.example:5000", "10.0.0.1", "0x7f.1:5000", "[2001:db8::1]:5000"]
    )
    def test_it_counts_for_no_other_machine(self, host: str) -> None:
        place = endpoint(host, recalled="http")
        assert str(place.base(Context())) == str(endpoint(host).base(Context()))
        assert place.base(Context()).scheme == "https"
        assert not answers(place, 200)
        assert place.found_out is None

    @pytest.mark.parametrize(
        ("options", "recalled", "scheme"),
        [({"loopback_http": False}, "http", "https"), ({"plain_http": True}, "https", "http")],
    )
    def test_an_option_goes_before_it(
        self, options: dict[str, bool], recalled: str, scheme: str
    ) -> None:
        place = endpoint("127.0.0.1:1", recalled=recalled, **options)
        assert place.base(Context()).scheme == scheme
        assert not fails(place)
        assert place.base(Context()).scheme == scheme
        assert place.found_out is None

    @pytest.mark.parametrize("status", [200, 201, 401, 404])
    def test_an_answer_of_a_registry_settles_it(self, status: int) -> None:
        with scripted() as server:
            place = endpoint(server.host, recalled="http")
            assert not answers(place, status)
            assert not fails(place)
            assert server.greeted == 0

    @pytest.mark.parametrize("status", [301, 400, 403, 500])
    def test_an_answer_that_might_be_of_tls_has_the_place_asked_once(self, status: int) -> None:
        with scripted() as server:
            place = endpoint(server.host, recalled="http")
            assert not answers(place, status)
            assert not answers(place, status)
            assert place.base(Context()).scheme == "http"
            assert server.greeted == 1

    def test_an_answer_from_where_it_was_sent_on_to_says_nothing_of_it(self) -> None:
        with scripted() as server:
            place = endpoint(server.host, recalled="http")
            assert not answers(place, 200, f"https://{server.host}/v2/app/manifests/1")
            assert server.greeted == 1

    def test_of_https_any_answer_is_good(self) -> None:
        with scripted() as server:
            place = endpoint(server.host, recalled="https")
            assert not answers(place, 400)
            assert not fails(place)
            assert place.base(Context()).scheme == "https"
            assert server.greeted == 0

    def test_one_that_has_changed_gives_way_for_all_who_tried_it(self) -> None:
        with scripted() as server:
            place = endpoint(server.host, recalled="https")
            tried, failure = place.base(Context()), NetworkError("no answer")
            assert place.gives_way(tried, failure, Context())
            assert place.gives_way(tried, failure, Context()), "by another thread"
            assert str(place.base(Context())) == server.url + "/v2/"
            assert not answers(place, 404)
            assert place.gives_way(tried, failure, Context()), "by one that was slow"
            assert not fails(place)
            assert server.greeted == 1

    def test_where_nobody_is_there_it_is_forgotten(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            host = f"127.0.0.1:{listener.getsockname()[1]}"
        place = endpoint(host, recalled="http")
        assert not fails(place)
        assert place.key == host
        with pytest.raises(NetworkError, match="cannot connect"):
            place.base(Context())

    def test_only_what_was_found_out_in_this_run_is_news(self) -> None:
        with scripted() as server:
            silent, place = endpoint(server.host), endpoint(server.host)
            known = endpoint(server.host, recalled="http")
            silent.base(Context())
            answers(place, 404)
            answers(known, 404)
            found = [one.found_out for one in (silent, place, known)]
            assert found == [None, "http", None]
