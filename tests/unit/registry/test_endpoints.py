"""Where a registry is, and whether in https or http; real servers, names given by hand."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.scripted import scripted
from towline.context import Cancel, Context
from towline.errors import NetworkError
from towline.registry.endpoints import Endpoint

if TYPE_CHECKING:
    from towline.wire.connect import Address


def endpoint(host: str, **options: Any) -> Endpoint:
    return Endpoint(host, **{"plain_http": False, "loopback_http": True, "timeout": 2.0, **options})


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
            assert place.falls_back(Context())
            assert place.base(Context()).scheme == "http"
            assert not place.falls_back(Context())
            assert self.asked == 1

    def test_it_does_not_where_it_leads_to_another_machine(self) -> None:
        with scripted() as server:
            place = self.named(server.host, "10.0.0.1")
            place._base = place._url("https")
            assert not place.falls_back(Context())
            assert server.greeted == 0

    @pytest.mark.parametrize("options", [{"loopback_http": False}, {"plain_http": True}])
    def test_it_does_not_where_that_was_not_allowed_or_is_done(
        self, options: dict[str, bool]
    ) -> None:
        place = self.named("127.0.0.1:1", "127.0.0.1", **options)
        assert not place.falls_back(Context())
        assert self.asked == 0
