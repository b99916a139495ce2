"""The embedded registry against clients that are wrong, slow, greedy or hostile; and its doors."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import certificates
from tests.support.docker_registry import HTPASSWD, PASSWORD, USER
from tests.support.raw_client import (
    RawClient,
    exchange,
    image,
    raw_socket,
    read_to_end,
    sha256,
    statuses,
)
from towline.errors import TowlineError, UsageError
from towline.server import Limits, Server, tls_context
from towline.server.auth import Guard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOST = b"Host: registry\r\n"
DATA = b"some bytes of a layer"
SMUGGLED = b"DELETE /v2/team/app/manifests/1 HTTP/1.1\r\n" + HOST + b"\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server, RawClient(server.host) as client:
        client.put_image("team/app", "1", DATA)
        yield server


def everything_below(server: Server) -> set[Path]:
    return {path for path in server.root.rglob("*") if "uploads" not in path.parts}


# Requests that could hide others


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"Content-Length: 5, 5\r\n\r\nhello", 400),
        (b"Content-Length: +5\r\n\r\nhello", 400),
        (b"Content-Length: -5\r\n\r\nhello", 400),
        (b"Content-Length: 0x5\r\n\r\nhello", 400),
        (b"Content-Length: 99999999999999999999\r\n\r\n", 400),
        (b"Content-Length : 5\r\n\r\nhello", 400),
        (b"Content-Length: 5\r\n folded\r\n\r\nhello", 400),
        (b"Content-Length:\t5\x00\r\n\r\nhello", 400),
        (b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 501),
        (b"X: y\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"no colon\r\n\r\n", 400),
        (b": no name\r\n\r\n", 400),
        (b"Host: another\r\n\r\n", 400),
    ],
)
def test_a_request_that_could_hide_another_ends_the_connection(
    server: Server, request_: bytes, status: int
) -> None:
    head = b"PATCH /v2/team/app/blobs/uploads/x HTTP/1.1\r\n" + HOST
    got = exchange(server.host, head + request_ + SMUGGLED)
    assert statuses(got) == [status]
    assert b"Connection: close" in got
    with RawClient(server.host) as client:
        assert client.tags("team/app") == ["1"], "what was smuggled was not done"


@pytest.mark.parametrize(
    "body",
    [
        b"xyz\r\n\r\n",
        b"-1\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\n0\n\n" + b"x" * 5000,
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello6\r\n0\r\n\r\n",
        b"1" * 5000 + b"\r\n",
        b"5\r\nhello\r\n0\r\n" + b"a: b\r\n" * 200_000 + b"\r\n",
    ],
)
def test_a_body_of_malformed_chunks_ends_the_connection(server: Server, body: bytes) -> None:
    with RawClient(server.host) as client:
        session = client.open_upload("team/app")
        head = f"PATCH {session} HTTP/1.1\r\n".encode() + HOST
        sent = head + b"Transfer-Encoding: chunked\r\n\r\n" + body
        assert statuses(exchange(server.host, sent + SMUGGLED)) in ([400], [431])
        assert client.ask("GET", session).headers["range"] in {"0-0", "0-4"}
        assert client.tags("team/app") == ["1"], "what was smuggled was not done"


@pytest.mark.parametrize(
    "line",
    [
        b"GET  /v2/ HTTP/1.1",
        b"GET /v2/ HTTP/1.1 x",
        b"GET /v2/",
        b"G\x01T /v2/ HTTP/1.1",
        b"GET /v2/\x7f HTTP/1.1",
        b"GET v2 HTTP/1.1",
        b"GET /v2/ HTTP/2.0",
        b"GET /v2/ http/1.1",
        b"PRI * HTTP/2.0",
    ],
)
def test_a_malformed_request_line_ends_the_connection(server: Server, line: bytes) -> None:
    got = exchange(server.host, line + b"\r\n" + HOST + b"\r\n" + SMUGGLED)
    assert statuses(got) in ([400], [505])


def test_a_request_without_a_host_is_refused(server: Server) -> None:
    assert statuses(exchange(server.host, b"GET /v2/ HTTP/1.1\r\n\r\n")) == [400]
    assert statuses(exchange(server.host, b"GET /v2/ HTTP/1.0\r\n\r\n")) == [200]


def test_the_body_of_a_read_is_not_the_next_request(server: Server) -> None:
    length = f"Content-Length: {len(SMUGGLED)}\r\n\r\n".encode()
    for method in (b"GET", b"HEAD", b"DELETE"):
        first = method + b" /v2/team/none/manifests/1 HTTP/1.1\r\n" + HOST + length + SMUGGLED
        last = b"GET /v2/ HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n"
        assert statuses(exchange(server.host, first + last)) == [404, 200]


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    paths = [b"/v2/", b"/v2/none/tags/list", b"/v2/team/app/tags/list", b"/nothing"]
    requests = [b"GET " + path + b" HTTP/1.1\r\n" + HOST for path in paths]
    sent = b"\r\n".join(requests) + b"Connection: close\r\n\r\n"
    assert statuses(exchange(server.host, sent)) == [200, 404, 200, 404]


def test_a_large_body_that_nobody_wants_ends_the_connection_after_the_answer(
    server: Server,
) -> None:
    head = b"PUT /v2/team/app/blobs/uploads/x HTTP/1.1\r\n" + HOST
    body = b"x" * 3_000_000
    got = exchange(server.host, head + b"Content-Length: 3000000\r\n\r\n", body + SMUGGLED)
    assert statuses(got) in ([400], [404])
    assert b"Connection: close" in got


def test_a_small_body_that_nobody_wants_is_read_over(server: Server) -> None:
    with RawClient(server.host) as client:
        before = server.log.count
        for _ in range(3):
            put = client.ask("PUT", "/v2/team/app/blobs/uploads/x", b"x" * 1000)
            assert "connection" not in put.headers
        assert server.log.count == before + 3


def test_extensions_and_trailers_of_chunks_are_read_over(server: Server) -> None:
    with RawClient(server.host) as client:
        session = client.open_upload("team/app")
        head = f"PATCH {session} HTTP/1.1\r\n".encode() + HOST + b"Connection: close\r\n"
        body = b"5;a=b\r\nhello\r\n6 \r\n world\r\n0\r\nTrailer: x\r\n\r\n"
        got = exchange(server.host, head + b"Transfer-Encoding: chunked\r\n\r\n" + body)
        assert statuses(got) == [202]
        assert client.ask("GET", session).headers["range"] == "0-10"


# Bounds


def test_long_headers_are_refused(server: Server) -> None:
    line = b"GET /v2/ HTTP/1.1\r\n" + HOST
    assert statuses(exchange(server.host, line + b"X: " + b"x" * 40_000 + b"\r\n\r\n")) == [431]
    assert statuses(exchange(server.host, line + b"X: y\r\n" * 200 + b"\r\n")) == [431]
    assert statuses(exchange(server.host, b"GET /" + b"x" * 40_000)) == [431]
    many = b"GET /v2/?" + b"a&" * 5000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"
    assert statuses(exchange(server.host, many))[0] in {200, 414}


@pytest.fixture(scope="module")
def strict() -> Iterator[Server]:
    limits = Limits(
        head_seconds=0.3, idle_seconds=0.4, connections=3, sessions=2, session_seconds=3600
    )
    with Server(limits=limits) as server:
        yield server


def test_headers_that_do_not_end_are_answered_and_ended(strict: Server) -> None:
    begun = time.monotonic()
    assert statuses(exchange(strict.host, b"GET /v2/ HTTP/1.1\r\nHost: x\r\n")) == [408]
    assert time.monotonic() - begun < 3


def test_a_silent_connection_is_ended(strict: Server) -> None:
    begun = time.monotonic()
    assert exchange(strict.host) == b""
    assert time.monotonic() - begun < 3


def test_a_body_that_stops_coming_is_ended_and_its_session_lives(strict: Server) -> None:
    with RawClient(strict.host) as client:
        session = client.open_upload("team/app")
        head = f"PATCH {session} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n".encode()
        client.close()
        exchange(strict.host, head + b"0123456789")
        assert client.ask("GET", session).headers["range"] == "0-9"
        assert client.ask("DELETE", session).status == 204


def test_more_connections_than_allowed_are_told_to_come_back(strict: Server) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            _let_in(stack.enter_context(RawClient(strict.host)))
        refused = exchange(strict.host)
        assert statuses(refused) == [503]
        assert b"Retry-After: " in refused
    with RawClient(strict.host) as client:
        _let_in(client)


def _let_in(client: RawClient) -> None:
    """Come back until those who were there have left."""
    deadline = time.monotonic() + 5
    while client.ask("GET", "/v2/").status != 200:
        assert time.monotonic() < deadline
        client.close()
        time.sleep(0.01)


def test_one_client_keeps_only_so_many_bodies_unfinished() -> None:
    with Server(limits=Limits(client_bodies=2)) as server, contextlib.ExitStack() as stack:
        client = stack.enter_context(RawClient(server.host))
        digest = client.put_blob("team/app", DATA)
        unfinished = []
        for _ in range(2):
            session = client.open_upload("team/app")
            sock = stack.enter_context(raw_socket(server.host))
            head = f"PATCH {session} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            sock.sendall(head.encode() + b"Content-Length: 3\r\n\r\nab")
            unfinished.append(sock)
            while client.ask("GET", session).headers["range"] != "0-1":
                time.sleep(0.01)
        refused = client.ask("POST", f"/v2/team/app/blobs/uploads/?digest={digest}", DATA)
        assert refused.refusal == (429, "TOOMANYREQUESTS")
        assert refused.headers["retry-after"]
        assert client.ask("GET", f"/v2/team/app/blobs/{digest}").body == DATA, "no body, no limit"
        other = http.client.HTTPConnection(server.host, source_address=("127.0.0.2", 0))
        stack.callback(other.close)
        other.request("POST", f"/v2/team/app/blobs/uploads/?digest={digest}", DATA)
        assert other.getresponse().status == 201, "another client has its own"
        unfinished[0].sendall(b"c")
        assert statuses(read_to_end(unfinished[0])) == [202]
        client.put_blob("team/app", b"more bytes of a layer")


def test_more_sessions_than_allowed_are_told_to_come_back(strict: Server) -> None:
    with RawClient(strict.host) as client:
        sessions = [client.open_upload("team/app") for _ in range(2)]
        refused = client.ask("POST", "/v2/team/app/blobs/uploads/", b"")
        assert refused.refusal == (429, "TOOMANYREQUESTS")
        assert refused.headers["retry-after"]
        assert client.ask("DELETE", sessions[0]).status == 204
        client.open_upload("team/app")


def test_one_slow_client_keeps_nobody(server: Server) -> None:
    with raw_socket(server.host) as slow, RawClient(server.host) as client:
        slow.sendall(b"PATCH /v2/team/app/blobs/uploads/ HTTP/1.1\r\nHost:")
        begun = time.monotonic()
        assert client.ask("GET", "/v2/").status == 200
        assert time.monotonic() - begun < 1


# Names become paths


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../x",
        "a/../b",
        "a//b",
        "a/",
        "/a",
        "A",
        "a/B",
        "a/_blobs",
        "a/_tags",
        "a/.hidden",
        "a%00b",
        "a%2f..%2f..%2fetc",
        "%2e%2e/%2e%2e/etc",
        "a%20b",
        "a:b",
        "a@b",
        "%C3%A4",
        "a" * 256,
        "a/" * 127 + "aa",
        "a.",
        "-a",
        "a..b",
        "a___b",
    ],
)
def test_what_is_no_name_reaches_no_file(server: Server, name: str) -> None:
    before = everything_below(server)
    config = b"{}"
    with RawClient(server.host) as client:
        answers = [
            client.ask("POST", f"/v2/{name}/blobs/uploads/?digest={sha256(DATA)}", DATA),
            client.ask("POST", f"/v2/{name}/blobs/uploads/", b""),
            client.ask("PUT", f"/v2/{name}/manifests/1", image(config)),
            client.ask("GET", f"/v2/{name}/tags/list"),
            client.ask("GET", f"/v2/{name}/referrers/{sha256(DATA)}"),
            client.ask("DELETE", f"/v2/{name}/manifests/1"),
        ]
    assert {answer.status for answer in answers} <= {400, 404}
    assert {answer.code for answer in answers} <= {"NAME_INVALID", "UNSUPPORTED"}
    assert everything_below(server) == before


@pytest.mark.parametrize("last", ["%2e%2e%2f1", "..%2f..%2f..%2flock", "%00", ".", "..", "a%0ab"])
def test_what_is_no_tag_digest_or_session_reaches_no_file(server: Server, last: str) -> None:
    before = everything_below(server)
    with RawClient(server.host) as client:
        for method, path in (
            ("GET", f"/v2/team/app/manifests/{last}"),
            ("PUT", f"/v2/team/app/manifests/{last}"),
            ("GET", f"/v2/team/app/blobs/{last}"),
            ("GET", f"/v2/team/app/blobs/uploads/{last}"),
            ("DELETE", f"/v2/team/app/blobs/uploads/{last}"),
        ):
            answer = client.ask(method, path, b"{}" if method == "PUT" else None)
            assert answer.status in {400, 404}, (method, path)
    assert everything_below(server) == before


def test_a_name_of_255_characters_is_one(server: Server) -> None:
    name = "a/" * 127 + "a"
    with RawClient(server.host) as client:
        client.put_image(name, "t" * 128, DATA)
        assert client.tags(name) == ["t" * 128]


def test_every_refusal_has_the_specifications_form(server: Server) -> None:
    with RawClient(server.host) as client:
        for method, path, status in (
            ("GET", "/", 404),
            ("GET", "/v1/", 404),
            ("GET", "/v2/x", 404),
            ("POST", "/v2/", 405),
            ("PUT", "/v2/team/app/tags/list", 405),
            ("PATCH", "/v2/team/app/manifests/1", 405),
            ("GET", "/v2/team/app/blobs/uploads/", 405),
            ("TRACE", "/v2/", 405),
        ):
            answer = client.ask(method, path)
            assert answer.status == status, (method, path)
            assert answer.headers["content-type"].startswith("application/json")
            assert answer.code == "UNSUPPORTED"
            assert ("allow" in answer.headers) == (status == 405)


# Doors


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Server]:
    users = tmp_path / "users"
    users.write_text("# people\n\n" + HTPASSWD)
    with Server(guard=Guard(users)) as server:
        yield server


def basic(user: str, password: str) -> dict[str, str]:
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


def test_nobody_comes_in_without_the_password(guarded: Server) -> None:
    with RawClient(guarded.host) as client:
        for headers in (
            {},
            basic(USER, "wrong"),
            basic("nobody", PASSWORD),
            basic(USER, PASSWORD + "\0x"),
            {"Authorization": "Basic"},
            {"Authorization": "Basic !!!"},
            {"Authorization": "Basic " + base64.b64encode(b"no colon").decode()},
            {"Authorization": "Bearer " + basic(USER, PASSWORD)["Authorization"][6:]},
        ):
            for method, path in (
                ("GET", "/v2/"),
                ("GET", "/v2/_catalog"),
                ("POST", "/v2/a/blobs/uploads/"),
                ("GET", "/nothing"),
            ):
                answer = client.ask(method, path, headers=headers)
                assert answer.refusal == (401, "UNAUTHORIZED"), headers
                assert answer.headers["www-authenticate"].startswith("Basic realm=")


def test_who_has_the_password_comes_in_and_is_not_asked_to_wait_twice(guarded: Server) -> None:
    with RawClient(guarded.host, basic(USER, PASSWORD)) as client:
        digest = client.put_image("team/app", "1", DATA)
        begun = time.monotonic()
        for _ in range(20):
            assert client.ask("HEAD", f"/v2/team/app/manifests/{digest}").status == 200
        assert time.monotonic() - begun < 1


@pytest.mark.parametrize("line", ["user:plain", "user:$apr1$x$y", "user", "user:{SHA}x"])
def test_an_htpasswd_file_of_other_hashes_is_refused_by_its_line(tmp_path: Path, line: str) -> None:
    users = tmp_path / "users"
    users.write_text(f"{HTPASSWD}{line}\n")
    with pytest.raises(UsageError, match=r"line 2 of .*users is no user with a bcrypt hash"):
        Guard(users)


def test_a_read_only_registry_refuses_what_writes_and_serves_the_rest(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with Server(root) as server, RawClient(server.host) as client:
        digest = client.put_image("team/app", "1", DATA)
    before = sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    with Server(root, read_only=True) as server, RawClient(server.host) as client:
        assert client.pull("team/app", "1")[2] == DATA
        for method, path in (
            ("POST", "/v2/team/app/blobs/uploads/"),
            ("PUT", "/v2/team/app/manifests/1"),
            ("DELETE", f"/v2/team/app/manifests/{digest}"),
            ("DELETE", f"/v2/team/app/blobs/{sha256(DATA)}"),
        ):
            answer = client.ask(method, path, b"")
            assert answer.refusal == (405, "UNSUPPORTED")
            assert answer.headers["allow"] == "GET, HEAD"
        assert client.pull("team/app", "1")[2] == DATA
    assert sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*")) == before


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> certificates.Authority:
    return certificates.make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(authority: certificates.Authority) -> Iterator[Server]:
    issued = authority.issue("registry")
    with Server(tls=tls_context(issued.cert, issued.key)) as server:
        yield server


def test_blobs_go_both_ways_over_tls(secure: Server, authority: certificates.Authority) -> None:
    assert secure.url.startswith("https://127.0.0.1:")
    trust = ssl.create_default_context(cafile=authority.ca)
    connection = http.client.HTTPSConnection(secure.host, context=trust, timeout=20)
    data = b"0123456789" * 300_000
    connection.request("POST", f"/v2/a/blobs/uploads/?digest={sha256(data)}", data)
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (201, b"")
    connection.request("GET", f"/v2/a/blobs/{sha256(data)}")
    assert connection.getresponse().read() == data
    connection.close()


def test_a_client_that_never_shakes_hands_keeps_nobody(
    secure: Server, authority: certificates.Authority
) -> None:
    trust = ssl.create_default_context(cafile=authority.ca)
    with raw_socket(secure.host), raw_socket(secure.host) as plain:
        plain.sendall(b"GET /v2/ HTTP/1.1\r\n" + HOST + b"\r\n")
        connection = http.client.HTTPSConnection(secure.host, context=trust, timeout=20)
        connection.request("GET", "/v2/")
        assert connection.getresponse().status == 200
        connection.close()
        read_to_end(plain)


def test_what_is_no_certificate_is_refused_in_one_sentence(
    tmp_path: Path, authority: certificates.Authority
) -> None:
    issued = authority.issue("other")
    (tmp_path / "text").write_text("nothing")
    for cert, key in (
        (tmp_path / "none", issued.key),
        (issued.cert, tmp_path / "none"),
        (tmp_path / "text", issued.key),
        (issued.cert, tmp_path / "text"),
        (issued.cert, authority.issue("third").key),
    ):
        with pytest.raises(UsageError):
            tls_context(cert, key)


# Starting and stopping


def test_an_address_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = Server(port=port)
        with pytest.raises(TowlineError, match=f"cannot listen on 127.0.0.1:{port}: Address"):
            server.start()
        server.stop()


def test_a_root_that_another_server_has_is_one_sentence(tmp_path: Path) -> None:
    with Server(tmp_path), pytest.raises(TowlineError, match=r"another server"):
        Server(tmp_path)
    with Server(tmp_path) as again, RawClient(again.host) as client:
        assert client.ask("GET", "/v2/").status == 200


def test_a_root_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TowlineError, match=r"cannot keep a registry in .*file"):
        Server(tmp_path / "file" / "root")


def test_stopping_ends_idle_connections_and_running_uploads_within_seconds() -> None:
    server = Server()
    server.start()
    root, threads = server.root, threading.active_count()
    with RawClient(server.host) as idle, RawClient(server.host) as client:
        assert idle.ask("GET", "/v2/").status == 200
        session = client.open_upload("a")
        with raw_socket(server.host) as uploading:
            head = f"PATCH {session} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
            uploading.sendall(head.encode() + b"0123456789")
            begun = time.monotonic()
            server.stop()
            assert time.monotonic() - begun < 3
            read_to_end(uploading)
    server.stop()
    assert not root.exists(), "a temporary root is removed"
    assert threading.active_count() < threads


def test_a_request_under_way_when_the_server_stops_is_answered() -> None:
    server = Server()
    server.start()
    with raw_socket(server.host) as sock:
        digest = sha256(b"abc")
        sock.sendall(f"POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\n".encode() + HOST)
        sock.sendall(b"Content-Length: 3\r\n\r\nab")
        time.sleep(0.1)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        sock.sendall(b"c")
        assert statuses(read_to_end(sock)) == [201]
        stopping.join()


def test_ipv6_is_spoken_where_there_is_any() -> None:
    try:
        server = Server(host="::1")
        server.start()
    except TowlineError:  # a machine without it says so
        return
    assert server.host.startswith("[::1]:")
    with raw_socket(server.host) as sock:
        sock.sendall(b"GET /v2/ HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n")
        assert statuses(read_to_end(sock)) == [200]
    server.stop()


def test_the_documents_of_errors_are_json(server: Server) -> None:
    got = exchange(server.host, b"GET / HTTP/3\r\n\r\n")
    assert json.loads(got.partition(b"\r\n\r\n")[2])["errors"][0]["code"] == "UNSUPPORTED"
