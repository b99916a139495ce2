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

if TYPE_CHECKING:
    from towline.wire.connect import Address


def endpoint(host: str, **options: Any) -> Endpoint:
    return Endpoint(host, **{"plain_http": False, "loopback_http": True, "timeout": 2.0, **options})


def fails(place: Endpoint) -> bool:
    """Whether a call that had no answer is to be made again elsewhere."""
    return place.gives_way(place.base(Context()), NetworkError("no answer"), Context())


def answers(place: Endpoint, status: int) -> bool:
    """Whether a call that was answered so is to be made again elsewhere."""
    tried = place.base(Context())
    response = Response(status, "", Headers(), tried.at("app/manifests/1"), "HEAD", b"")
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
        assert server.greeted == 0
        assert str(place.base(Context())) == f"http://{server.host}/v2/"
        assert place.is_bound
        place.base(Context())
        assert server.greeted == 1


def test_a_loopback_port_that_is_closed_is_an_error_and_asked_again_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
    place = endpoint(host)
    for _ in range(2):
        with pytest.raises(NetworkError, match="cannot connect"):
            place.base(Context())


@pytest.mark.parametrize("status", [200, 401, 404, 500])
def test_any_answer_settles_it(status: int) -> None:
    with scripted() as server:
        place = endpoint(server.host)
        assert not answers(place, status)
        assert not fails(place)
        assert server.greeted == 1


def test_one_that_hung_up_on_the_greeting_and_on_http_is_greeted_again() -> None:
    with scripted() as server:
        place = endpoint(server.host)
        assert not fails(place)
        assert place.base(Context()).scheme == "http"
        assert server.greeted == 2


class TestNames:
    """A name that leads to this machine without saying so."""

    def named(
        self, server_host: str, address: str, name: str = "localhost", **options: Any
    ) -> Endpoint:
        self.asked = 0
        port = int(server_host.rpartition(":")[2])

        def resolve(name: str, _port: int, _cancel: Cancel, _timeout: float) -> list[Address]:
            self.asked += 1
            return [(socket.AF_INET, (address, port))]

        return endpoint(f"{name}:{port}", resolve=resolve, **options)

    def test_it_falls_back_where_http_is_spoken_there(self) -> None:
        with scripted() as server:
            place = self.named(server.host, "127.0.0.1")
            place._base = place._secure  # as for a name that does not say so itself
            assert fails(place)
            assert place.base(Context()).scheme == "http"
            assert not fails(place)
            assert self.asked == 1

    def test_it_does_not_where_it_leads_to_another_machine(self) -> None:
        with scripted() as server:
            place = self.named(server.host, "10.0.0.1")
            place._base = place._secure
            assert not fails(place)
            assert server.greeted == 0

    @pytest.mark.parametrize("name", ["localhost", "app.localhost"])
    def test_one_that_says_so_and_leads_to_another_machine_is_spoken_to_in_https(
        self, name: str
    ) -> None:
        with scripted() as server:
            place = self.named(server.host, "10.0.0.1", name)
            assert place.base(Context()).scheme == "https"
            assert not fails(place)
            assert place.base(Context()).scheme == "https"
            assert server.greeted == 0

    @pytest.mark.parametrize("name", ["localhost", "app.localhost", "app.test"])
    def test_what_is_in_the_clear_is_bound_to_this_machine(self, name: str) -> None:
        place = self.named("127.0.0.1:1", "127.0.0.1", name)
        place._base = place._plain
        assert place.is_bound

    @pytest.mark.parametrize("options", [{"loopback_http": False}, {"plain_http": True}])
    def test_it_does_not_where_that_was_not_allowed_or_is_done(
        self, options: dict[str, bool]
    ) -> None:
        place = self.named("127.0.0.1:1", "127.0.0.1", "localhost", **options)
        assert not fails(place)
        assert self.asked == 0
