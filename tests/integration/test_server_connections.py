"""How connections of the embedded registry go on and end, byte by byte."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import make_authority
from tests.support.raw_client import (
    RawClient,
    exchange,
    raw_socket,
    read_to_end,
    sha256,
    statuses,
)
from towline.errors import TowlineError, UsageError
from towline.server import Limits, Server
from towline.server.tls import tls_context

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GET = b"GET /v2/ HTTP/1.1\r\nHost: r\r\n\r\n"
LAST = b"GET /v2/ HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def test_requests_of_one_connection_are_answered_in_turn(server: Server) -> None:
    assert statuses(exchange(server.host, GET + GET + LAST)) == [200, 200, 200]


@pytest.mark.parametrize(
    "first",
    [
        b"GET /v2/ HTTP/1.1\r\nHost: r\r\nContent-Length: 3\r\n\r\nabc",
        b"PUT /nowhere HTTP/1.1\r\nHost: r\r\nContent-Length: 3\r\n\r\nabc",
        b"PUT /none HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ],
)
def test_the_body_of_a_refused_request_is_never_read_as_the_next_one(
    server: Server, first: bytes
) -> None:
    answers = statuses(exchange(server.host, first + LAST))
    assert len(answers) == 2
    assert answers[1] == 200


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 6\r\nTransfer-Encoding: chunked",
        b"Content-Length: 6\r\nContent-Length: 7",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding: xchunked",
    ],
)
def test_after_a_body_of_doubtful_length_nothing_more_is_read(
    server: Server, framing: bytes
) -> None:
    head = b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: r\r\n" + framing + b"\r\n\r\n"
    answers = statuses(exchange(server.host, head + b"0\r\n\r\n" + GET))
    assert len(answers) == 1
    assert answers[0] >= 400


def test_a_large_body_that_nobody_wants_is_answered_and_ends_the_connection(
    server: Server,
) -> None:
    head = b"PUT /v2/a/manifests/x HTTP/1.1\r\nHost: r\r\nContent-Length: 9000000\r\n\r\n"
    got = exchange(server.host, head, *[b"x" * (1 << 20)] * 4)
    assert statuses(got) == [413]
    assert b"connection: close" in got.lower()


def test_malformed_requests_get_an_error_in_the_specifications_form(server: Server) -> None:
    got = exchange(server.host, b"GET /v2/ HTTP/1.1\r\n\r\n")
    assert statuses(got) == [400]
    assert b'{"errors": [{"code": "UNSUPPORTED", "message": "the Host header is missing"}]}' in got


def test_http_1_0_is_answered_once(server: Server) -> None:
    assert statuses(exchange(server.host, b"GET /v2/ HTTP/1.0\r\n\r\n" + GET)) == [200]


def test_a_path_is_made_of_checked_names_alone(server: Server) -> None:
    with RawClient(server.host) as client:
        for path in (
            "/v2/../../etc/manifests/x",
            "/v2/a/manifests/..%2f..%2fx",
            "/v2/a%2f..%2fb/manifests/x",
            "/v2/A/manifests/x",
            "/v2/a/_tags/manifests/x",
            "/v2/a/blobs/sha256:..%2f",
            "/v2/a%00b/manifests/x",
            f"/v2/{'a' * 300}/manifests/x",
        ):
            assert client.ask("GET", path).status in {400, 404}, path
            assert client.ask("PUT", path, b"{}").status in {400, 404, 405}, path


def test_more_connections_than_allowed_are_told_to_come_back() -> None:
    with Server(limits=Limits(connections=2)) as server, raw_socket(server.host) as first:
        first.sendall(GET)
        assert b"200" in first.recv(1000)
        with raw_socket(server.host) as second:
            second.sendall(GET)
            assert b"200" in second.recv(1000)
            assert statuses(exchange(server.host, b"")) == [503]
        second.close()
        deadline = time.monotonic() + 10
        while statuses(exchange(server.host, LAST)) != [200]:
            assert time.monotonic() < deadline


def test_a_client_that_says_nothing_is_let_go() -> None:
    with Server(limits=Limits(idle_seconds=0.1)) as server, raw_socket(server.host) as sock:
        assert read_to_end(sock) == b""


def test_a_head_that_never_ends_is_408() -> None:
    limits = Limits(head_seconds=0.1)
    with Server(limits=limits) as server:
        assert statuses(exchange(server.host, b"GET /v2/ HTTP/1.1\r\n")) == [408]


def test_a_body_that_stalls_ends_its_connection_and_keeps_what_came() -> None:
    with Server(limits=Limits(idle_seconds=0.2)) as server:
        with RawClient(server.host) as client:
            session = client.open_upload("app")
        head = f"PATCH {session} HTTP/1.1\r\nHost: r\r\nContent-Length: 100\r\n\r\nabc".encode()
        assert exchange(server.host, head) == b""
        with RawClient(server.host) as client:
            assert client.ask("GET", session).headers["range"] == "0-2"


def test_too_many_open_uploads_are_429() -> None:
    with Server(limits=Limits(sessions=2)) as server, RawClient(server.host) as client:
        first = client.open_upload("app")
        client.open_upload("app")
        answer = client.ask("POST", "/v2/app/blobs/uploads/", b"")
        assert answer.refusal == (429, "TOOMANYREQUESTS")
        assert answer.headers["retry-after"]
        assert client.ask("DELETE", first).status == 204
        client.open_upload("app")


def test_stopping_ends_idle_connections_at_once_and_busy_ones_soon() -> None:
    server = Server()
    server.start()
    with RawClient(server.host) as client, raw_socket(server.host) as idle:
        session = client.open_upload("app")
        with raw_socket(server.host) as busy:
            busy.sendall(f"PATCH {session} HTTP/1.1\r\nHost: r\r\n".encode())
            busy.sendall(b"Content-Length: 9\r\n\r\nabc")
            begun = time.monotonic()
            server.stop()
            assert time.monotonic() - begun < 3
            assert read_to_end(busy) == b""
        assert read_to_end(idle) == b""


def test_a_request_under_way_when_the_server_stops_is_answered() -> None:
    server = Server()
    server.start()
    with raw_socket(server.host) as sock:
        digest = sha256(b"abc")
        sock.sendall(f"POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\n".encode())
        sock.sendall(b"Host: r\r\nContent-Length: 3\r\n\r\nab")
        time.sleep(0.1)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        sock.sendall(b"c")
        assert statuses(read_to_end(sock)) == [201]
        stopping.join()


def test_tls_is_spoken_with_the_certificate_that_was_given(tmp_path: Path) -> None:
    authority = make_authority(tmp_path)
    own = authority.issue()
    trust = ssl.create_default_context(cafile=authority.ca)
    data = bytes(range(256)) * 5000
    with Server(tls=tls_context(own.cert, own.key)) as server:
        assert server.url == f"https://{server.host}"
        host, _, port = server.host.partition(":")
        client = http.client.HTTPSConnection(host, int(port), context=trust, timeout=20)
        path = f"/v2/app/blobs/uploads/?digest={sha256(data)}"
        client.request("POST", path, data)
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (201, b"")
        client.request("GET", f"/v2/app/blobs/{sha256(data)}")
        assert client.getresponse().read() == data
        client.close()
        with raw_socket(server.host) as plain, raw_socket(server.host):  # the latter: no handshake
            plain.sendall(GET)
            assert b"200" not in read_to_end(plain)


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot use the certificate .*none with the key"):
        tls_context(tmp_path / "none", tmp_path / "none")


def test_a_port_that_is_taken_is_said() -> None:
    with Server() as server:
        port = int(server.host.rpartition(":")[2])
        with pytest.raises(TowlineError, match=r"cannot listen on 127\.0\.0\.1:\d+: Address alrea"):
            Server(port=port).start()


def test_a_root_has_one_server_at_a_time(tmp_path: Path) -> None:
    with Server(tmp_path), pytest.raises(TowlineError, match="another server uses"):
        Server(tmp_path)
    with Server(tmp_path) as server:
        assert statuses(exchange(server.host, LAST)) == [200]


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback")
def test_ipv6_is_a_host_in_brackets() -> None:
    with Server(host="::1") as server:
        assert server.url.startswith("http://[::1]:")
        assert statuses(exchange(server.host, LAST)) == [200]
        assert not server.reachable


def test_a_read_only_registry_is_read_and_not_written(tmp_path: Path) -> None:
    with Server(tmp_path) as server, RawClient(server.host) as client:
        client.put_image("app", "1", b"layer")
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    with Server(tmp_path, read_only=True) as server, RawClient(server.host) as client:
        client.pull("app", "1")
        assert client.tags("app") == ["1"]
        for method, path in (
            ("POST", "/v2/app/blobs/uploads/"),
            ("PUT", "/v2/app/manifests/2"),
            ("DELETE", "/v2/app/manifests/1"),
        ):
            answer = client.ask(method, path, b"")
            assert answer.refusal == (405, "UNSUPPORTED")
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before
