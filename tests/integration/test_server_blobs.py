"""The embedded registry, asked about blobs and uploads in raw HTTP (distribution-spec 1.1)."""

from __future__ import annotations

import os
import socket
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.support.raw_client import (
    RawClient,
    location,
    raw_socket,
    read_to_end,
    sha256,
    sha512,
    with_query,
)
from towline.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = b"some bytes of a layer\n" * 50
NONE = sha256(b"never pushed")


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with Server() as server:
        yield server.host


@pytest.fixture
def client(host: str) -> Iterator[RawClient]:
    with RawClient(host) as client:
        yield client


@pytest.fixture
def name() -> str:
    return f"team/{uuid.uuid4().hex}"


def blob(name: str, digest: str) -> str:
    return f"/v2/{name}/blobs/{digest}"


def test_the_base_says_that_the_api_is_spoken(client: RawClient) -> None:
    for path in ("/v2/", "/v2"):
        answer = client.ask("GET", path)
        assert answer.status == 200
        assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


def test_a_blob_goes_up_by_post_and_put(client: RawClient, name: str) -> None:
    session = client.open_upload(name)
    answer = client.ask("PUT", with_query(session, digest=sha256(DATA)), DATA)
    assert answer.status == 201
    assert location(answer) == blob(name, sha256(DATA))
    assert answer.headers["docker-content-digest"] == sha256(DATA)
    got = client.ask("GET", blob(name, sha256(DATA)))
    assert (got.status, got.body) == (200, DATA)
    assert got.headers["docker-content-digest"] == sha256(DATA)
    assert got.headers["content-length"] == str(len(DATA))


def test_a_blob_goes_up_in_one_stream_of_unknown_length(client: RawClient, name: str) -> None:
    session = client.open_upload(name)
    answer = client.ask("PATCH", session, (DATA[n : n + 100] for n in range(0, len(DATA), 100)))
    assert answer.status == 202
    assert answer.headers["range"] == f"0-{len(DATA) - 1}"
    done = client.ask("PUT", with_query(location(answer), digest=sha256(DATA)), b"")
    assert done.status == 201
    assert client.ask("GET", blob(name, sha256(DATA))).body == DATA


def test_a_blob_goes_up_in_chunks_whose_last_may_come_with_the_put(
    client: RawClient, name: str
) -> None:
    session, size = client.open_upload(name), 400
    for first in range(0, 800, size):
        chunk = DATA[first : first + size]
        headers = {"Content-Range": f"{first}-{first + len(chunk) - 1}"}
        answer = client.ask("PATCH", session, chunk, headers)
        assert (answer.status, answer.headers["range"]) == (202, f"0-{first + size - 1}")
        session = location(answer)
        status = client.ask("GET", session)
        assert (status.status, status.headers["range"]) == (204, f"0-{first + size - 1}")
    last = {"Content-Range": f"800-{len(DATA) - 1}"}
    done = client.ask("PUT", with_query(session, digest=sha256(DATA)), DATA[800:], last)
    assert done.status == 201
    assert client.ask("GET", blob(name, sha256(DATA))).body == DATA


@pytest.mark.parametrize("first", [0, 5, 11, 400])
def test_a_chunk_out_of_order_is_refused_and_the_session_goes_on(
    client: RawClient, name: str, first: int
) -> None:
    session = client.open_upload(name)
    client.ask("PATCH", session, DATA[:10], {"Content-Range": "0-9"})
    wrong = client.ask("PATCH", session, b"12345", {"Content-Range": f"{first}-{first + 4}"})
    assert wrong.refusal == (416, "BLOB_UPLOAD_INVALID")
    assert (wrong.headers["range"], location(wrong)) == ("0-9", session)
    assert client.ask("GET", session).headers["range"] == "0-9"
    last = {"Content-Range": f"10-{len(DATA) - 1}"}
    assert client.ask("PATCH", session, DATA[10:], last).status == 202
    done = client.ask("PUT", with_query(session, digest=sha256(DATA)), b"")
    assert done.status == 201


@pytest.mark.parametrize("said", ["bytes 1-2-3", "0", "-5", "a-b", "5-2", "0-99"])
def test_a_range_that_cannot_be_is_refused(client: RawClient, name: str, said: str) -> None:
    session = client.open_upload(name)
    answer = client.ask("PATCH", session, b"12345", {"Content-Range": said})
    assert answer.status in {400, 416}
    assert answer.code in {"BLOB_UPLOAD_INVALID", "SIZE_INVALID"}
    assert client.ask("PATCH", session, DATA, {"Content-Range": f"0-{len(DATA) - 1}"}).status == 202


def test_what_had_arrived_before_a_cut_is_kept_and_told(
    host: str, client: RawClient, name: str
) -> None:
    session = client.open_upload(name)
    with raw_socket(host) as sock:
        head = f"PATCH {session} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(DATA)}\r\n\r\n"
        sock.sendall(head.encode() + DATA[:700])
    _wait_for(client, session, "0-699")
    rest = {"Content-Range": f"700-{len(DATA) - 1}"}
    assert client.ask("PATCH", session, DATA[700:], rest).status == 202
    assert client.ask("PUT", with_query(session, digest=sha256(DATA)), b"").status == 201


def test_what_has_arrived_is_told_while_the_rest_is_on_its_way(
    host: str, client: RawClient, name: str
) -> None:
    session = client.open_upload(name)
    head = f"PATCH {session} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
    with raw_socket(host) as sock:
        sock.sendall(head.encode() + b"5\r\nhello\r\n")
        _wait_for(client, session, "0-4")
        sock.sendall(b"3\r\nyou\r\n4\r\nther")
        _wait_for(client, session, "0-11")


def _wait_for(client: RawClient, session: str, told: str) -> None:
    deadline = time.monotonic() + 5
    while (last := client.ask("GET", session).headers["range"]) != told:
        assert time.monotonic() < deadline, last
        time.sleep(0.01)


def test_who_comes_back_after_a_lost_connection_need_not_wait_for_the_old_one(
    host: str, client: RawClient, name: str
) -> None:
    session = client.open_upload(name)
    with raw_socket(host) as lost:
        head = f"PATCH {session} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(DATA)}\r\n\r\n"
        lost.sendall(head.encode() + DATA[:100])
        _wait_for(client, session, "0-99")
        rest = {"Content-Range": f"100-{len(DATA) - 1}"}
        assert client.ask("PATCH", session, DATA[100:], rest).status == 202
    assert client.ask("PUT", with_query(session, digest=sha256(DATA)), b"").status == 201


def test_a_cancelled_upload_is_gone(client: RawClient, name: str) -> None:
    session = client.open_upload(name)
    client.ask("PATCH", session, DATA)
    assert client.ask("DELETE", session).status == 204
    for method in ("GET", "PATCH", "DELETE"):
        assert client.ask(method, session, b"").refusal == (404, "BLOB_UPLOAD_UNKNOWN")
    put = client.ask("PUT", with_query(session, digest=sha256(DATA)), DATA)
    assert put.refusal == (404, "BLOB_UPLOAD_UNKNOWN")


def test_a_session_belongs_to_its_repository(client: RawClient, name: str) -> None:
    session = client.open_upload(name)
    elsewhere = session.replace(name, "team/other")
    assert client.ask("PATCH", elsewhere, DATA).refusal == (404, "BLOB_UPLOAD_UNKNOWN")
    assert client.ask("GET", session).status == 204


def test_a_blob_goes_up_in_a_single_post(client: RawClient, name: str) -> None:
    answer = client.ask("POST", f"/v2/{name}/blobs/uploads/?digest={sha256(DATA)}", DATA)
    assert (answer.status, location(answer)) == (201, blob(name, sha256(DATA)))
    assert client.ask("GET", blob(name, sha256(DATA))).body == DATA


def test_an_empty_blob_is_a_blob(client: RawClient, name: str) -> None:
    client.put_blob(name, b"")
    got = client.ask("GET", blob(name, sha256(b"")))
    assert (got.status, got.body, got.headers["content-length"]) == (200, b"", "0")
    assert client.ask("GET", "/v2/").status == 200, "the connection goes on"


@pytest.mark.parametrize("how", ["put", "post", "patch", "late"])
def test_sha512_names_a_blob_as_well(client: RawClient, name: str, how: str) -> None:
    digest = sha512(DATA)
    if how == "post":
        done = client.ask("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", DATA)
    else:
        asked = "?digest-algorithm=sha512" if how == "patch" else ""
        session = client.open_upload(name, asked)
        if how != "put":
            client.ask("PATCH", session, DATA)
        done = client.ask("PUT", with_query(session, digest=digest), DATA if how == "put" else b"")
    assert (done.status, done.headers["docker-content-digest"]) == (201, digest)
    got = client.ask("GET", blob(name, digest))
    assert (got.status, got.body) == (200, DATA)
    assert client.ask("HEAD", blob(name, sha256(DATA))).status == 404, "it was not pushed so"


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("how", ["put", "post"])
def test_a_wrong_digest_is_refused_and_nothing_is_kept(
    client: RawClient, name: str, algorithm: str, how: str
) -> None:
    wrong = (sha256 if algorithm == "sha256" else sha512)(b"other bytes")
    if how == "post":
        answer = client.ask("POST", f"/v2/{name}/blobs/uploads/?digest={wrong}", DATA)
    else:
        session = client.open_upload(name)
        answer = client.ask("PUT", with_query(session, digest=wrong), DATA)
    assert answer.refusal == (400, "DIGEST_INVALID")
    assert client.ask("HEAD", blob(name, wrong)).status == 404


@pytest.mark.parametrize(
    "digest",
    [
        "sha256",
        "sha256:",
        "sha256:abc",
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "0" * 63,
        "sha256:" + "0" * 65,
        "sha512:" + "0" * 64,
        "md5:" + "0" * 32,
        "sha384:" + "0" * 96,
        "latest",
        ":" + "0" * 64,
    ],
)
def test_a_malformed_digest_is_400_wherever_it_stands(
    client: RawClient, name: str, digest: str
) -> None:
    client.put_blob(name, DATA)
    session = client.open_upload(name)
    answers = [
        client.ask("GET", blob(name, digest)),
        client.ask("DELETE", blob(name, digest)),
        client.ask("PUT", f"{session}?digest={digest}", b""),
        client.ask("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", b""),
        client.ask("POST", f"/v2/{name}/blobs/uploads/?mount={digest}&from={name}", b""),
    ]
    if "/" not in digest and ":" in digest:
        answers.append(client.ask("GET", f"/v2/{name}/manifests/{digest}"))
        answers.append(client.ask("GET", f"/v2/{name}/referrers/{digest}"))
    for answer in answers:
        assert answer.refusal == (400, "DIGEST_INVALID")
    assert client.ask("HEAD", blob(name, digest)).status == 400


def test_an_unknown_algorithm_is_refused_when_the_session_is_opened(
    client: RawClient, name: str
) -> None:
    answer = client.ask("POST", f"/v2/{name}/blobs/uploads/?digest-algorithm=md5", b"")
    assert answer.refusal == (400, "DIGEST_INVALID")


def test_a_put_without_a_digest_is_refused(client: RawClient, name: str) -> None:
    session = client.open_upload(name)
    assert client.ask("PUT", session, DATA).refusal == (400, "DIGEST_INVALID")


def test_a_blob_is_mounted_from_a_repository_that_holds_it(client: RawClient, name: str) -> None:
    digest = client.put_blob(name, DATA)
    target = f"{name}/mounted"
    assert client.ask("HEAD", blob(target, digest)).status == 404
    answer = client.ask("POST", f"/v2/{target}/blobs/uploads/?mount={digest}&from={name}", b"")
    assert (answer.status, location(answer)) == (201, blob(target, digest))
    assert client.ask("GET", blob(target, digest)).body == DATA


def test_a_blob_is_mounted_without_a_from_wherever_it_is(client: RawClient, name: str) -> None:
    digest = client.put_blob(name, DATA + name.encode())
    answer = client.ask("POST", f"/v2/{name}/mounted/blobs/uploads/?mount={digest}", b"")
    assert (answer.status, location(answer)) == (201, blob(f"{name}/mounted", digest))


@pytest.mark.parametrize("origin", ["team/other", "No/Name", "", "../.."])
def test_a_mount_from_where_the_blob_is_not_opens_a_session(
    client: RawClient, name: str, origin: str
) -> None:
    data = DATA + name.encode()
    client.put_blob(f"{name}/holder", data)
    asked = f"?mount={sha256(data)}&from={origin}"
    session = client.open_upload(name, asked)
    assert client.ask("PUT", with_query(session, digest=sha256(data)), data).status == 201


def test_a_mount_of_what_is_nowhere_opens_a_session(client: RawClient, name: str) -> None:
    client.open_upload(name, f"?mount={NONE}")


def test_head_says_what_get_does(client: RawClient, name: str) -> None:
    digest = client.put_blob(name, DATA)
    head, got = client.ask("HEAD", blob(name, digest)), client.ask("GET", blob(name, digest))
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"] == str(len(DATA))
    assert dict(head.headers) == dict(got.headers)


@pytest.mark.parametrize(
    ("asked", "status", "first", "last"),
    [
        ("bytes=0-0", 206, 0, 0),
        ("bytes=0-99", 206, 0, 99),
        ("bytes=100-", 206, 100, len(DATA) - 1),
        ("bytes=-10", 206, len(DATA) - 10, len(DATA) - 1),
        ("bytes=-99999", 206, 0, len(DATA) - 1),
        ("bytes=0-99999", 206, 0, len(DATA) - 1),
        (f"bytes={len(DATA) - 1}-", 206, len(DATA) - 1, len(DATA) - 1),
        (f"bytes={len(DATA)}-", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
        ("lines=1-2", 200, 0, len(DATA) - 1),
        ("bytes=5-2", 416, 0, 0),
        ("bytes=x", 200, 0, len(DATA) - 1),
        ("bytes=0-1,4-5", 200, 0, len(DATA) - 1),
    ],
)
def test_a_part_of_a_blob_is_given(  # noqa: PLR0917 - a table
    client: RawClient, name: str, asked: str, status: int, first: int, last: int
) -> None:
    digest = client.put_blob(name, DATA)
    answer = client.ask("GET", blob(name, digest), headers={"Range": asked})
    assert answer.status == status
    if status == 416:
        assert answer.headers["content-range"] == f"bytes */{len(DATA)}"
        return
    assert answer.headers["content-length"] == str(last - first + 1)
    if status == 206:
        assert answer.headers["content-range"] == f"bytes {first}-{last}/{len(DATA)}"
    assert answer.body == DATA[first : last + 1]


def test_a_range_counts_for_get_alone(client: RawClient, name: str) -> None:
    digest = client.put_blob(name, DATA)
    for asked in ("bytes=0-9", "bytes=99999-"):
        answer = client.ask("HEAD", blob(name, digest), headers={"Range": asked})
        assert (answer.status, answer.headers["content-length"]) == (200, str(len(DATA)))
        assert "content-range" not in answer.headers


def test_a_range_counts_only_for_the_content_that_it_was_meant_for(
    client: RawClient, name: str
) -> None:
    digest = client.put_blob(name, DATA)
    part = {"Range": "bytes=0-9"}
    same = client.ask("GET", blob(name, digest), headers={**part, "If-Range": f'"{digest}"'})
    other = client.ask("GET", blob(name, digest), headers={**part, "If-Range": '"other"'})
    assert (same.status, other.status) == (206, 200)


def test_who_has_a_blob_already_is_told_so_without_it(client: RawClient, name: str) -> None:
    digest = client.put_blob(name, DATA)
    etag = client.ask("HEAD", blob(name, digest)).headers["etag"]
    answer = client.ask("GET", blob(name, digest), headers={"If-None-Match": etag})
    assert (answer.status, answer.body) == (304, b"")
    assert client.ask("GET", blob(name, digest), headers={"If-None-Match": '"x"'}).status == 200


def test_a_deleted_blob_is_gone_from_its_repository_alone(client: RawClient, name: str) -> None:
    digest = client.put_blob(name, DATA)
    client.put_blob(f"{name}/other", DATA)
    assert client.ask("DELETE", blob(name, digest)).status == 202
    for method in ("GET", "DELETE"):
        assert client.ask(method, blob(name, digest)).refusal == (404, "BLOB_UNKNOWN")
    assert client.ask("HEAD", blob(name, digest)).status == 404
    assert client.ask("GET", blob(f"{name}/other", digest)).body == DATA


def test_what_was_never_there_is_404_with_its_code(client: RawClient, name: str) -> None:
    client.put_blob(name, DATA)
    for method in ("GET", "DELETE"):
        answer = client.ask(method, blob(name, NONE))
        assert answer.refusal == (404, "BLOB_UNKNOWN")
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.json()["errors"][0].keys() >= {"code", "message"}


def test_a_blob_of_many_blocks_comes_back_as_it_went(client: RawClient, name: str) -> None:
    data = os.urandom(5_000_003)
    digest = client.put_blob(name, data)
    assert client.ask("GET", blob(name, digest)).body == data


def test_a_client_that_asks_first_is_told_to_go_on(host: str, client: RawClient, name: str) -> None:
    session = client.open_upload(name)
    with raw_socket(host) as sock:
        head = (
            f"PUT {session}?digest={sha256(DATA)} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n"
            f"Expect: 100-continue\r\nContent-Length: {len(DATA)}\r\n\r\n"
        )
        sock.sendall(head.encode())
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(DATA)
        assert read_to_end(sock).startswith(b"HTTP/1.1 201 ")


def test_a_client_that_asks_first_and_is_refused_need_not_send(host: str, name: str) -> None:
    with raw_socket(host) as sock:
        head = (
            f"PUT /v2/{name}/blobs/uploads/none?digest={NONE} HTTP/1.1\r\nHost: {host}\r\n"
            "Expect: 100-continue\r\nContent-Length: 1000000000\r\n\r\n"
        )
        sock.sendall(head.encode())
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 404 ")
        sock.shutdown(socket.SHUT_WR)
        read_to_end(sock)
