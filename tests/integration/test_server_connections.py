"""How connections of the embedded registry go on and end, byte by byte."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.raw_client import (
    RawClient,
    exchange,
    raw_socket,
    read_to_end,
    sha256,
    statuses,
)
from towline.server import Server

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


def test_malformed_requests_get_an_error_in_the_specifications_form(server: Server) -> None:
    got = exchange(server.host, b"GET /v2/ HTTP/1.1\r\n\r\n")
    assert statuses(got) == [400]
    assert b'{"errors": [{"code": "UNSUPPORTED", "message": "the Host header is missing"}]}' in got


def test_http_1_0_is_answered_once(server: Server) -> None:
    assert statuses(exchange(server.host, b"GET /v2/ HTTP/1.0\r\n\r\n" + GET)) == [200]


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
