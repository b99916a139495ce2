"""Faults on demand: they strike what they were ordered for, as often as ordered, nothing else."""

from __future__ import annotations

import http.client
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.raw_client import RawClient, sha256, with_query
from towline.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOB = bytes(range(256)) * 1000


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[RawClient]:
    with RawClient(server.host) as client:
        yield client


@pytest.mark.parametrize(
    "path", ["/blobs/uploads/", "/v2/*/blobs/uploads/", r"/v2/.+/uploads/$", "/v2/app/blobs/"]
)
def test_a_failure_strikes_its_method_and_path_as_often_as_ordered(
    server: Server, client: RawClient, path: str
) -> None:
    server.faults.fail("POST", path, 503, times=2, headers={"Retry-After": "3"})
    assert client.ask("GET", "/v2/").status == 200
    for _ in range(2):
        answer = client.ask("POST", "/v2/app/blobs/uploads/", b"")
        assert answer.refusal == (503, "UNKNOWN")
        assert answer.headers["retry-after"] == "3"
    assert client.ask("POST", "/v2/app/blobs/uploads/", b"").status == 202
    assert [seen.status for seen in server.requests] == [200, 503, 503, 202]


def test_a_failure_may_be_of_any_method(server: Server, client: RawClient) -> None:
    server.faults.fail("*", "/v2/", 502)
    answer = client.ask("HEAD", "/v2/")
    assert (answer.status, answer.body) == (502, b"")
    server.faults.fail("*", "(", 502)  # no expression, and part of no path
    assert client.ask("GET", "/v2/").status == 200


def test_an_upload_is_cut_after_so_many_bytes_which_are_kept(
    server: Server, client: RawClient
) -> None:
    server.faults.cut(1000)
    client.put_blob("app", b"too short to be cut")
    session = client.open_upload("app")
    with pytest.raises((OSError, http.client.HTTPException)):
        client.ask("PATCH", session, BLOB)
    assert server.requests[-1].status == 0
    assert server.requests[-1].received == 1000
    assert client.ask("GET", session).headers["range"] == "0-999"
    path = with_query(session, digest=sha256(BLOB))
    assert client.ask("PUT", path, BLOB[1000:]).status == 201
    assert client.ask("GET", f"/v2/app/blobs/{sha256(BLOB)}").body == BLOB


def test_a_stream_of_unknown_length_is_cut_too(server: Server, client: RawClient) -> None:
    server.faults.cut(1000, times=2)
    for _ in range(2):
        session = client.open_upload("app")
        with pytest.raises((OSError, http.client.HTTPException)):
            client.ask("PATCH", session, iter([BLOB[:600], BLOB[600:]]))
        assert client.ask("GET", session).headers["range"] == "0-999"
    session = client.open_upload("app")
    assert client.ask("PATCH", session, iter([BLOB])).status == 202


def test_a_download_is_cut_too(server: Server, client: RawClient) -> None:
    client.put_blob("app", BLOB)
    server.faults.cut(1000)
    with pytest.raises(http.client.IncompleteRead) as cut:
        client.ask("GET", f"/v2/app/blobs/{sha256(BLOB)}")
    assert cut.value.partial == BLOB[:1000]
    client.close()
    assert client.ask("GET", f"/v2/app/blobs/{sha256(BLOB)}").body == BLOB


def test_silence_lasts_until_the_faults_are_cleared(server: Server, client: RawClient) -> None:
    server.faults.stall(60.0)
    begun = time.monotonic()
    threading.Timer(0.2, server.faults.clear).start()
    assert client.ask("GET", "/v2/").status == 200
    assert 0.2 <= time.monotonic() - begun < 30
    assert client.ask("GET", "/v2/").status == 200


def test_what_is_asked_from_within_meets_no_fault_and_no_log(
    server: Server, client: RawClient
) -> None:
    client.put_blob("app", BLOB)
    server.faults.fail("*", "", 500, times=9)
    before = server.log.count
    assert server.ask(f"/v2/app/blobs/{sha256(BLOB)}") == BLOB
    assert server.log.since(before) == []


def test_the_log_tells_what_was_asked_but_no_credentials(server: Server) -> None:
    with RawClient(server.host, {"Authorization": "Basic c2VjcmV0", "X-Why": "this"}) as client:
        client.ask("GET", "/v2/_catalog?n=3")
    (seen,) = server.requests
    assert (seen.method, seen.path, seen.status) == ("GET", "/v2/_catalog?n=3", 200)
    assert seen.headers["x-why"] == "this"
    assert "authorization" not in seen.headers


def test_the_log_forgets_the_oldest() -> None:
    with Server(kept_requests=2) as server, RawClient(server.host) as client:
        for number in range(4):
            client.ask("GET", f"/v2/?{number}")
        assert [seen.path for seen in server.requests] == ["/v2/?2", "/v2/?3"]
        assert [seen.path for seen in server.log.since(3)] == ["/v2/?3"]
        assert server.log.count == 4
