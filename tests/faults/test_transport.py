"""The way to a registry: https or http, names, connections, certificates, proxies."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import make_authority
from tests.support.guards import USER, basic
from tests.support.pushing import TIMEOUT, Client, client_of, send
from tests.support.scripted import Reply, Scripted, running, scripted
from towline.errors import Cancelled, NetworkError, RegistryError, UsageError
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.certificates import Authority

DATA = os.urandom(3 << 20)
DIGEST = Digest.of(DATA)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path, "Authority of this test")


@pytest.fixture
def secure(authority: Authority) -> Iterator[Scripted]:
    with scripted(authority.issue()) as server:
        yield server


def ask(client: Client) -> bool:
    return client.repository.has_blob(DIGEST, client.context)


def test_a_loopback_registry_that_speaks_plain_http_is_spoken_to_in_it(registry: Scripted) -> None:
    with client_of(registry, plain_http=False) as client:
        client.push(DATA)
        assert spoken_to(client) == registry.url
    assert registry.greeted == 1, "one greeting of TLS, and the decision stands"


def test_a_loopback_registry_that_speaks_tls_is_spoken_to_in_it(
    secure: Scripted, authority: Authority
) -> None:
    with client_of(secure, plain_http=False, ca=authority.ca) as client:
        client.push(DATA)
        client.push(DATA[:100], known=True)
        assert spoken_to(client) == secure.url
    assert secure.blobs[DIGEST] == DATA
    assert len({one.connection for one in secure.requests("P")}) == 1


def test_a_loopback_registry_that_is_silent_is_greeted_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        with (
            client_of(host, plain_http=False, timeout=0.3) as client,
            pytest.raises(NetworkError, match=f"{host} sent no byte for"),
        ):
            ask(client)
        listener.settimeout(0)
        listener.accept()[0].close()
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_plain_http_asks_for_no_tls_at_all(registry: Scripted) -> None:
    with client_of(registry, plain_http=True) as client:
        ask(client)
    assert registry.greeted == 0


def test_insecure_is_never_http(registry: Scripted) -> None:
    with (
        client_of(registry, plain_http=False, insecure=True) as client,
        pytest.raises(NetworkError, match="does not speak TLS") as caught,
    ):
        ask(client)
    assert "`plain_http=True`" in str(caught.value.hint)
    assert registry.asked == []


def test_insecure_takes_any_certificate(secure: Scripted) -> None:
    with client_of(secure, plain_http=False, insecure=True) as client:
        client.push(DATA)
    assert secure.blobs[DIGEST] == DATA


def test_an_unknown_issuer_is_named_with_the_option_that_helps(secure: Scripted) -> None:
    with (
        client_of(secure, plain_http=False) as client,
        pytest.raises(NetworkError, match=r"certificate of 127.0.0.1:.* is not trusted") as caught,
    ):
        ask(client)
    assert "Authority of this test" in str(caught.value.hint)
    assert "`ca`" in str(caught.value.hint)
    assert not caught.value.transient


def test_an_unknown_issuer_is_named_of_an_expired_certificate_too(authority: Authority) -> None:
    with (
        scripted(authority.issue(days=-1)) as server,
        client_of(server, plain_http=False) as client,
        pytest.raises(NetworkError, match=r"certificate of 127.0.0.1:.* is not trusted") as caught,
    ):
        ask(client)
    assert "Authority of this test" in str(caught.value.hint)


def test_a_certificate_for_another_host_is_refused(authority: Authority) -> None:
    with (
        scripted(authority.issue(), address="127.0.0.2") as server,
        client_of(server, plain_http=False, ca=authority.ca) as client,
        pytest.raises(NetworkError, match=r"is not trusted: .*mismatch.*'127.0.0.2'$"),
    ):
        ask(client)


def test_an_authority_from_the_environment_is_trusted(
    secure: Scripted, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    with client_of(secure, plain_http=False) as client:
        assert ask(client) is False


@pytest.mark.parametrize("name", ["none.pem", "empty.pem"])
def test_an_authority_that_cannot_be_read_is_a_usage_error(
    secure: Scripted, tmp_path: Path, name: str
) -> None:
    (tmp_path / "empty.pem").touch()
    with (
        pytest.raises(UsageError, match=name),
        client_of(secure, plain_http=False, ca=tmp_path / name) as client,
    ):
        ask(client)


def test_a_proxy_without_an_address_is_named_as_the_proxy() -> None:
    environ = {"HTTPS_PROXY": "http://nowhere.invalid:3128"}
    with (
        client_of("registry.example", plain_http=False, environ=environ) as client,
        pytest.raises(NetworkError, match=r"the proxy nowhere.invalid:3128: the name") as caught,
    ):
        ask(client)
    assert "HTTPS_PROXY" in str(caught.value.hint)


def spoken_to(client: Client) -> str:
    return client.repository.transport.endpoint.base(client.context).origin


NAME = "0x7f.1"
"""Leads to 127.0.0.1 without saying so, on whatever machine."""


def named(server: Scripted) -> str:
    return f"{NAME}:{server.host.rpartition(':')[2]}"


class TestNamesOfThisMachine:
    """They are asked in https; plain http is for those that turn out to speak nothing else."""

    def test_one_that_speaks_plain_http_is_spoken_to_in_it(self, registry: Scripted) -> None:
        with client_of(named(registry), plain_http=False) as client:
            client.push(DATA)
            assert spoken_to(client) == f"http://{named(registry)}"
        assert registry.blobs[DIGEST] == DATA

    def test_one_that_speaks_tls_is_never_asked_in_the_clear(self, secure: Scripted) -> None:
        with (
            client_of(named(secure), plain_http=False) as client,
            pytest.raises(NetworkError, match=r"certificate of .* is not trusted"),
        ):
            ask(client)
        assert spoken_to(client) == f"https://{named(secure)}"

    def test_one_that_has_spoken_tls_is_not_asked_in_the_clear_later(
        self, authority: Authority
    ) -> None:
        with (
            scripted(authority.issue("named", NAME)) as server,
            client_of(named(server), plain_http=False, ca=authority.ca) as client,
        ):
            server.on("HEAD", "blobs", Reply(404, close=True))
            assert ask(client) is False
            server._tls = None  # as if something else had taken its port
            with pytest.raises(NetworkError):
                ask(client)
            assert len(server.asked) == 1


ALERT = Reply(raw=b"\x15\x03\x01\x00\x02\x02\x46")
"""What TLS says to a greeting that is none (RFC 8446, "Alert Protocol")."""


def test_tls_spoken_to_in_http_says_so(registry: Scripted, client: Client) -> None:
    registry.on("HEAD", "", ALERT)
    with pytest.raises(NetworkError, match="speaks TLS") as caught:
        ask(client)
    assert "leave out `plain_http=True`" in str(caught.value.hint)


class TestWhereNobodySaidPlainHttp:
    """There is nothing to be left out."""

    @pytest.fixture
    def client(self, registry: Scripted) -> Iterator[Client]:
        with client_of(registry, plain_http=False) as made:
            yield made

    @pytest.mark.parametrize("at", ["PATCH", "PUT"])
    def test_a_session_in_http_at_a_place_that_speaks_tls(
        self, registry: Scripted, client: Client, at: str
    ) -> None:
        with scripted() as other:
            other.on(at, "", ALERT)
            location = {"Location": f"{other.url}/v2/x/blobs/uploads/s0"}
            registry.on("POST" if at == "PATCH" else "PATCH", "uploads", Reply(202, location))
            with pytest.raises(NetworkError, match="speaks TLS") as caught:
                client.push(DATA)
        assert caught.value.hint is None

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(400, (), "Client sent an HTTP request to an HTTPS server.\n"),
            Reply(301, {"Location": "https://elsewhere.example/v2/"}),
        ],
        ids=["words", "redirect"],
    )
    def test_a_server_that_wants_https(
        self, registry: Scripted, client: Client, reply: Reply
    ) -> None:
        registry.on("POST", "", reply)
        with pytest.raises(RegistryError) as caught:
            client.repository.start_upload(client.context)
        assert "`plain_http=True`" not in str(caught.value.hint)


def test_http_spoken_to_a_go_server_of_https_says_so(registry: Scripted, client: Client) -> None:
    words = "Client sent an HTTP request to an HTTPS server.\n"
    registry.on("POST", "", Reply(400, (), words))
    with pytest.raises(RegistryError, match="HTTP request to an HTTPS server") as caught:
        client.repository.start_upload(client.context)
    assert "`plain_http=True`" in str(caught.value.hint)


def test_a_refusal_in_the_middle_of_a_body_is_read_over_tls(
    secure: Scripted, authority: Authority
) -> None:
    refusal = Reply(409, {"Content-Type": "text/html"}, "<html>Not here</html>", early=100_000)
    secure.on("PATCH", "uploads", refusal, forever=True)
    with (
        client_of(secure, plain_http=False, ca=authority.ca) as client,
        pytest.raises(RegistryError, match=r"409.*Not here"),
    ):
        client.push(os.urandom(20 << 20))


def test_a_body_that_nobody_reads_over_tls_is_a_time_out(
    secure: Scripted, authority: Authority
) -> None:
    secure.on("PATCH", "uploads", Reply(early=1000, hang=True), forever=True)
    with (
        client_of(secure, plain_http=False, ca=authority.ca, timeout=0.4) as client,
        pytest.raises(NetworkError, match=r"took no byte for 0.4 s"),
    ):
        send(client.repository.start_upload(client.context), os.urandom(20 << 20))


class Shy(Scripted):
    """Hangs up on its first connection, whatever that says."""

    def _talk(self, connection: socket.socket, number: int) -> None:
        if number:
            super()._talk(connection, number)
        else:
            connection.recv(1 << 16)
            connection.close()


def test_a_greeting_that_is_hung_up_on_once_does_not_turn_https_into_http(
    authority: Authority,
) -> None:
    with running(Shy, authority.issue()) as registry:
        with client_of(registry, plain_http=False, ca=authority.ca) as client:
            client.retried(lambda: ask(client))
            assert spoken_to(client) == registry.url
        assert registry.requests("HEAD")


def test_a_registry_that_is_not_listening_is_named_with_what_to_check() -> None:
    with (
        client_of("127.0.0.1:1", plain_http=False) as client,
        pytest.raises(
            NetworkError, match=r"cannot connect to 127.0.0.1:1: connection refused"
        ) as e,
    ):
        ask(client)
    assert "check the address" in str(e.value.hint)
    assert e.value.transient


def test_a_name_that_nobody_knows_is_named() -> None:
    with (
        client_of("nowhere.invalid:5000") as client,
        pytest.raises(NetworkError, match=r"the name nowhere.invalid cannot be resolved") as caught,
    ):
        ask(client)
    assert "spelled" in str(caught.value.hint)


def test_a_loopback_port_that_accepts_and_is_silent_is_a_time_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        with (
            client_of(host, plain_http=False, timeout=0.3) as client,
            pytest.raises(NetworkError, match=r"sent no byte for 0.3 s") as caught,
        ):
            ask(client)
        assert caught.value.transient


@pytest.mark.parametrize("insecure", [True, False])
def test_cancelling_ends_a_handshake_that_hangs(*, insecure: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        with client_of(host, plain_http=False, insecure=insecure) as client:
            timer = client.cancel_after(0.1)
            began = time.monotonic()
            with pytest.raises(Cancelled):
                ask(client)
            assert time.monotonic() - began < TIMEOUT / 2
            timer.join()


def test_cancelling_ends_a_connect_that_hangs() -> None:
    # A backlog that is full lets nobody in and refuses nobody.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.settimeout(0)
            one.connect_ex(address)
        with client_of(f"127.0.0.1:{address[1]}") as client:
            timer = client.cancel_after(0.1)
            began = time.monotonic()
            with pytest.raises(Cancelled):
                ask(client)
            assert time.monotonic() - began < TIMEOUT / 2
            timer.join()
        for one in waiting:
            one.close()


class TestProxies:
    """A real tunnel, and proxies that refuse."""

    @pytest.fixture
    def host(self, secure: Scripted) -> str:
        """A name that is no loopback by its text, so that a proxy is used for it."""
        return "registry.test:" + secure.host.rpartition(":")[2]

    def test_https_goes_through_a_tunnel_with_the_proxys_password(
        self, secure: Scripted, host: str, tmp_path: Path, authority: Authority
    ) -> None:
        with _proxy(secure.host, b"HTTP/1.1 200 Connection established\r\n\r\n") as proxy:
            environ = {"HTTPS_PROXY": f"http://me:word@{proxy.host}"}
            with client_of(host, plain_http=False, insecure=True, environ=environ) as client:
                client.push(DATA)
        assert secure.blobs[DIGEST] == DATA
        assert proxy.heads[0].startswith(f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n")
        assert "Proxy-Authorization: Basic bWU6d29yZA==" in proxy.heads[0]
        assert all(one.header("Proxy-Authorization") is None for one in secure.asked)

    @pytest.mark.parametrize(
        ("answer", "words", "transient"),
        [
            (b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n", "it wants credentials", False),
            (b"HTTP/1.1 403 No\r\n\r\n<html>", "it answered 403", False),
            (b"HTTP/1.1 502 Bad\r\n\r\n", "it answered 502", True),
            (b"", "the connection ended", True),
            (b"SSH-2.0\r\n", "no HTTP answer", True),
        ],
    )
    def test_a_proxy_that_does_not_connect_is_named(
        self, secure: Scripted, host: str, answer: bytes, words: str, *, transient: bool
    ) -> None:
        with _proxy(secure.host, answer) as proxy:
            environ = {"https_proxy": f"http://{proxy.host}"}
            with (
                client_of(host, plain_http=False, environ=environ) as client,
                pytest.raises(NetworkError, match=f"the proxy http://{proxy.host} .*{words}") as e,
            ):
                ask(client)
        assert e.value.transient is transient
        assert "HTTPS_PROXY" in str(e.value.hint)

    def test_a_proxy_that_is_not_there_is_named(self, host: str) -> None:
        with (
            client_of(
                host, plain_http=False, environ={"https_proxy": "http://127.0.0.1:1"}
            ) as client,
            pytest.raises(NetworkError, match=r"cannot connect to the proxy 127.0.0.1:1"),
        ):
            ask(client)

    def test_http_is_asked_of_the_proxy_by_its_whole_url(self, registry: Scripted) -> None:
        environ = {"http_proxy": f"http://me:word@{registry.host}"}
        with client_of("registry.test", environ=environ) as client:
            ask(client)
        (asked,) = registry.asked
        assert asked.target.startswith("http://registry.test/v2/team/app/blobs/sha256:")
        assert asked.header("Host") == "registry.test"
        assert asked.header("Proxy-Authorization") == "Basic bWU6d29yZA=="


def test_a_redirect_of_a_read_goes_without_credentials_to_another_host(registry: Scripted) -> None:
    with scripted() as storage, client_of(registry, creds=(USER, "s3cret-word")) as client:
        storage.on("GET", "/bucket", Reply(200, (), DATA))
        registry.guard = lambda asked: (
            None
            if asked.header("Authorization") == basic()
            else Reply(401, {"WWW-Authenticate": "Basic"})
        )
        registry.on("GET", "blobs", Reply(307, {"Location": f"{storage.url}/bucket?sig=a%2Fb"}))
        content = client.repository.read_blob(DIGEST, client.context, len(DATA))
        assert content == DATA
        (asked,) = storage.asked
        assert asked.target == "/bucket?sig=a%2Fb"
        assert asked.header("Authorization") is None


def test_a_redirect_within_the_registry_keeps_the_credentials(registry: Scripted) -> None:
    """Also after https gave way to http: the place counts, not how it was first meant."""
    registry.guard = lambda asked: (
        None
        if asked.header("Authorization") == basic()
        else Reply(401, {"WWW-Authenticate": "Basic"})
    )
    registry.blobs[DIGEST] = DATA
    with client_of(named(registry), plain_http=False, creds=(USER, "s3cret-word")) as client:
        ask(client)
        moved = f"http://{named(registry)}/v2/else/where/blobs/{DIGEST}"
        registry.on("GET", "team/app/blobs", Reply(307, {"Location": moved}))
        assert client.repository.read_blob(DIGEST, client.context, len(DATA)) == DATA
    assert registry.requests("GET")[-1].target.startswith("/v2/else/where")


def test_redirects_in_circles_are_given_up(registry: Scripted, client: Client) -> None:
    registry.on("GET", "", Reply(302, {"Location": "/v2/again"}), forever=True)
    with pytest.raises(RegistryError, match="redirects in circles"):
        client.repository.get_manifest("1", client.context)
    assert len(registry.asked) < 10


class _Proxy:
    def __init__(self, host: str) -> None:
        self.host = host
        self.heads: list[str] = []


@contextmanager
def _proxy(target: str, answer: bytes) -> Iterator[_Proxy]:
    """Answers each CONNECT so, and where that is a success joins it to `target`."""
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = _Proxy(f"127.0.0.1:{listener.getsockname()[1]}")
    open_sockets: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            open_sockets.append(client)
            proxy.heads.append(client.recv(65536).decode())
            client.sendall(answer)
            if b" 200 " in answer:
                open_sockets.append(_join(client, target))
            else:
                client.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield proxy
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)
    for one in open_sockets:
        one.close()


def _join(client: socket.socket, target: str) -> socket.socket:
    host, _, port = target.rpartition(":")
    server = socket.create_connection((host, int(port)))
    for source, sink in ((client, server), (server, client)):
        threading.Thread(target=_copy, args=(source, sink), daemon=True).start()
    return server


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


def test_an_authority_in_the_folder_of_the_host_is_trusted(
    secure: Scripted, authority: Authority, tmp_path: Path
) -> None:
    folder = tmp_path / "containers/certs.d" / secure.host
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_bytes(authority.ca.read_bytes())
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    with client_of(secure, plain_http=False, environ=environ) as client:
        assert ask(client) is False
