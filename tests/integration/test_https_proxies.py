"""Proxies that are themselves spoken to over TLS: a real one behind an end of TLS, and faults."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import proxies
from tests.support.certificates import make_authority
from tests.support.docker_registry import Options
from tests.support.pushing import Client, client_of
from tests.support.scripted import HANG, Reply, Scripted, scripted
from towline.errors import Cancelled, NetworkError
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import StartDockerRegistry
    from tests.support.certificates import Authority
    from tests.support.docker_registry import DockerRegistry

DATA = os.urandom(3 << 20)
DIGEST = Digest.of(DATA)
PROXY_USER = ("me", "word")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path, "Authority of this test")


class Proxy:
    """The real one; `url` is what a variable names it by."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self._log = log

    def asked(self) -> str:
        return self._log.read_text()


@pytest.fixture
def proxy(authority: Authority, tinyproxy_bin: Path, tmp_path: Path) -> Iterator[Proxy]:
    folder = tmp_path / "proxy"
    with (
        proxies.tinyproxy(tinyproxy_bin, folder, login=PROXY_USER) as inner,
        proxies.tls_in_front(inner, authority.issue("proxy")) as front,
    ):
        yield Proxy(f"https://{':'.join(PROXY_USER)}@{front}", folder / "tinyproxy.log")


@pytest.fixture
def secure(authority: Authority) -> Iterator[Scripted]:
    with scripted(authority.issue()) as server:
        yield server


def abroad(host: str) -> str:
    """An address that leads here without saying so: loopback is never reached by a proxy."""
    return "0.0.0.0:" + host.rpartition(":")[2]


@contextmanager
def client_by(proxy: str, host: str, authority: Authority, **settings: Any) -> Iterator[Client]:
    """Registries' certificates are unchecked (none is for that address), the proxy's is not."""
    environ = {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy}
    settings = {"plain_http": False, "insecure": True, "ca": authority.ca, **settings}
    with client_of(abroad(host), environ=environ, **settings) as client:
        yield client


def push_all(client: Client) -> None:
    client.push(DATA)
    client.push(DATA[:1000], known=True)
    assert client.repository.read_blob(DIGEST, client.context, len(DATA)) == DATA


def test_a_push_to_https_goes_through_it_in_tls_in_tls(
    start_docker_registry: StartDockerRegistry, authority: Authority, proxy: Proxy
) -> None:
    registry = start_docker_registry(Options(tls=authority.issue()))
    with client_by(proxy.url, registry.host, authority) as client:
        push_all(client)
    assert f"CONNECT {abroad(registry.host)}" in proxy.asked()


def test_a_push_to_plain_http_goes_through_it_without_a_tunnel(
    docker_registry: DockerRegistry, authority: Authority, proxy: Proxy
) -> None:
    with client_by(proxy.url, docker_registry.host, authority, plain_http=True) as client:
        client.repository = client.repo("proxied/app")
        push_all(client)
    host = abroad(docker_registry.host)
    assert f"POST http://{host}" in proxy.asked()
    assert f"CONNECT {host}" not in proxy.asked()


def test_an_answer_that_ends_with_the_connection_is_read_to_its_end(
    secure: Scripted, authority: Authority, proxy: Proxy
) -> None:
    secure.on("GET", "blobs", Reply(raw=b"HTTP/1.1 200 OK\r\n\r\n" + DATA))
    with client_by(proxy.url, secure.host, authority) as client:
        assert client.repository.read_blob(DIGEST, client.context, len(DATA)) == DATA


def test_a_push_that_waits_there_can_be_cancelled(
    secure: Scripted, authority: Authority, proxy: Proxy
) -> None:
    secure.on("PUT", "uploads", HANG)
    with client_by(proxy.url, secure.host, authority) as client:
        timer = client.cancel_after(0.5)
        began = time.monotonic()
        with pytest.raises(Cancelled):
            client.push(DATA)
        timer.join()
    assert time.monotonic() - began < 3


def test_a_registry_that_is_not_trusted_is_named_through_it(
    secure: Scripted, authority: Authority, proxy: Proxy, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = make_authority(tmp_path / "other", "Another authority")
    with (
        scripted(other.issue()) as server,
        client_by(proxy.url, server.host, authority, insecure=False) as client,
        pytest.raises(NetworkError, match=r"certificate of 0\.0\.0\.0:\d+ is not") as caught,
    ):
        client.push(DATA)
    assert "Another authority" in str(caught.value.hint)


def test_a_proxy_that_is_not_trusted_is_named_and_insecure_is_not_about_it(
    secure: Scripted, authority: Authority
) -> None:
    host = secure.host  # TLS comes first: what it would answer does not matter
    with (
        client_by(f"https://{host}", "x:1", authority, ca=None) as client,
        pytest.raises(NetworkError, match=f"certificate of the proxy {host} is not") as caught,
    ):
        client.push(DATA)
    assert "Authority of this test" in str(caught.value.hint)
    assert "`ca`" in str(caught.value.hint)
    assert not secure.asked


def test_a_proxy_of_plain_http_that_is_named_as_one_of_tls_is_said_to_be_none(
    authority: Authority,
) -> None:
    with (
        scripted() as plain,
        client_by(f"https://{plain.host}", "x:1", authority) as client,
        pytest.raises(NetworkError, match=f"the proxy {plain.host} does not speak TLS") as caught,
    ):
        client.push(DATA)
    assert f"http://{plain.host}" in str(caught.value.hint)


@pytest.mark.parametrize(("method", "status"), [("CONNECT", 407), ("CONNECT", 403), ("POST", 407)])
def test_a_proxy_that_refuses_is_named(
    secure: Scripted, authority: Authority, method: str, status: int
) -> None:
    secure.on(method, "", Reply(status), forever=True)
    url, http = f"https://{secure.host}", method == "POST"
    with (
        client_by(url, "x:1", authority, plain_http=http) as client,
        pytest.raises(NetworkError, match=f"the proxy {url} does not connect to 0.0.0.0:1") as told,
    ):
        client.push(DATA)
    assert "HTTPS_PROXY" in str(told.value.hint)
    assert not told.value.transient
