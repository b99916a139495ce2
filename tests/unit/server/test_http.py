"""Request heads and bodies, as a strict server reads them (RFC 9112)."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.server.http import BadRequest, Cut, Framing, Request
from towline.server.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

HOST = b"Host: registry\r\n"


class Fed:
    """Requests that are fed from the other end of a pair of sockets."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._theirs.settimeout(1)
        self.framing = Framing(self._ours, Limits())
        self._feeder = threading.Thread(target=self._feed, args=(list(pieces),))
        self._feeder.start()

    def _feed(self, pieces: list[bytes]) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                self._theirs.sendall(piece)
            self._theirs.shutdown(socket.SHUT_WR)

    def request(self) -> Request:
        request = self.framing.request()
        assert request is not None
        return request

    def answered(self) -> bytes:
        self._ours.shutdown(socket.SHUT_WR)
        return self._theirs.recv(1000)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.close()
        self._feeder.join()
        self._theirs.close()


def read(request: Request) -> bytes:
    return b"".join(iter(request.body.read, b""))


def test_a_head_is_taken_apart() -> None:
    with Fed(
        [b"PUT /v2/a%2Db?x=1&x=2&y= HTTP/1.1\r\n" + HOST + b"X-A: \tb c \r\nx-a: d\r\n\r\n"]
    ) as fed:
        request = fed.request()
    assert (request.method, request.path) == ("PUT", "/v2/a-b")
    assert request.query == {"x": ["1", "2"], "y": [""]}
    assert request.headers == {"host": "registry", "x-a": "b c, d"}
    assert request.keep_alive
    assert read(request) == b""


def test_requests_follow_each_other_and_a_closed_connection_ends_them() -> None:
    one = b"GET /v2/ HTTP/1.1\r\n" + HOST + b"\r\n"
    with Fed([one[:20], one[20:] + b"\r\n" + one]) as fed:
        assert fed.request().path == "/v2/"
        assert fed.request().path == "/v2/"
        assert fed.framing.request() is None


def test_a_target_with_a_host_is_its_path() -> None:
    with Fed([b"GET http://registry/v2/?n=1 HTTP/1.1\r\n" + HOST + b"\r\n"]) as fed:
        request = fed.request()
    assert (request.path, request.query) == ("/v2/", {"n": ["1"]})


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /v2/\r\n" + HOST, 400),
        (b"GET  /v2/ HTTP/1.1\r\n" + HOST, 400),
        (b"G\x00T /v2/ HTTP/1.1\r\n" + HOST, 400),
        (b"GET v2 HTTP/1.1\r\n" + HOST, 400),
        (b"GET /v2/ HTTP/2.0\r\n" + HOST, 505),
        (b"GET /v2/ HTTP/1.1\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\n" + HOST + HOST, 400),
        (b"GET /v2/ HTTP/1.1\r\n" + HOST + b"A b: c\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\n" + HOST + b"A : c\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\n" + HOST + b"A: c\r\n folded\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\n" + HOST + b"A: c\nB: d\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\n" + HOST + b"A: \x00\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\n" + HOST + b"A: \x1b[2J\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\n" + HOST + b"A: b\rc\r\n", 400),
        (b"GET /v2/\x9b HTTP/1.1\r\n" + HOST, 400),
        (b"GET /v2/ HTTP/1.1\r\n" + HOST + b"Authorization: a\r\nAuthorization: b\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\n" + HOST + b"\n", 400),
        (b"GET /v2/ HTTP/1.1\n" + HOST, 400),
        (b"PUT /v2/ HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 1\r\n", 400),
        (b"PUT /v2/ HTTP/1.1\r\n" + HOST + b"Content-Length: 1, 1\r\n", 400),
        (b"PUT /v2/ HTTP/1.1\r\n" + HOST + b"Content-Length: +1\r\n", 400),
        (b"PUT /v2/ HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n", 400),
        (b"PUT /v2/ HTTP/1.1\r\n" + HOST + b"Content-Length: 0x1\r\n", 400),
        (
            b"PUT /v2/ HTTP/1.1\r\n"
            + HOST
            + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            400,
        ),
        (b"PUT /v2/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", 400),
        (b"PUT /v2/ HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n", 501),
        (b"GET /v2/ HTTP/1.1\r\n" + HOST + b"A: b\r\n" * 100, 431),
        (b"GET /v2/ HTTP/1.1\r\n" + HOST + b"A: " + b"b" * 40_000 + b"\r\n", 431),
        (b"GET /v2/?" + b"a=&" * 600 + b" HTTP/1.1\r\n" + HOST, 414),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(head: bytes, status: int) -> None:
    with Fed([head + b"\r\n"]) as fed, pytest.raises(BadRequest) as refused:
        fed.request()
    assert refused.value.status == status


def test_a_head_that_takes_too_long_is_408() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b"GET /v2/ HTTP/1.1\r\n")
    with ours, theirs, pytest.raises(BadRequest) as refused:
        Framing(ours, Limits(head_seconds=0.05)).request()
    assert refused.value.status == 408


def test_a_connection_on_which_nothing_comes_ends_quietly() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert Framing(ours, Limits(idle_seconds=0.05)).request() is None


def test_a_head_that_breaks_off_is_a_cut() -> None:
    with Fed([b"GET /v2/ HTTP/1.1\r\nHost"]) as fed, pytest.raises(Cut):
        fed.request()


@given(
    body=st.binary(max_size=200),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=10),
    pieces=st.integers(1, 60),
)
def test_a_body_in_chunks_is_what_was_sent(body: bytes, sizes: list[int], pieces: int) -> None:
    sent, rest, turn = b"", body, 0
    while rest:
        size = sizes[turn % len(sizes)]
        chunk, rest, turn = rest[:size], rest[size:], turn + 1
        sent += b"%X;ext=1\r\n%b\r\n" % (len(chunk), chunk)
    head = b"PUT /v2/ HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: Chunked\r\n\r\n"
    whole = head + sent + b"0\r\nTrailer: x\r\n\r\n" + b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n"
    with Fed(whole[at : at + pieces] for at in range(0, len(whole), pieces)) as fed:
        request = fed.request()
        assert request.body.length is None
        assert read(request) == body
        assert request.body.finished
        assert request.body.received == len(body)
        assert fed.request().path == "/next"


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"0x1\r\na\r\n0\r\n\r\n",
        b"2\r\nabc\r\n0\r\n\r\n",
        b"1\r\na0\r\n\r\n",
        b"1" * 21 + b"\r\n",
        b"1;" + b"e" * 500_000 + b"\r\n",
        b"0\r\n" + b"T: x\r\n" * 100_000 + b"\r\n",
    ],
)
def test_chunks_that_are_none_are_refused(body: bytes) -> None:
    head = b"PUT /v2/ HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    with Fed([head + body]) as fed, pytest.raises(BadRequest):
        read(fed.request())


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 10\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nA\r\n"]
)
def test_a_body_that_breaks_off_is_a_cut_after_all_that_came(framing: bytes) -> None:
    with Fed([b"PUT /v2/ HTTP/1.1\r\n" + HOST + framing + b"seven b"]) as fed:
        request = fed.request()
        with pytest.raises(Cut):
            read(request)
        assert request.body.received == 7
        assert not request.body.finished


def test_who_asks_before_sending_is_told_to_go_on_once_and_only_when_the_body_is_read() -> None:
    head = b"PUT /v2/ HTTP/1.1\r\n" + HOST + b"Expect: 100-Continue\r\nContent-Length: 9\r\n\r\n"
    with Fed([head + b"some data"]) as fed:
        request = fed.request()
        assert read(request) == b"some data"
        assert fed.answered() == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_who_asks_before_sending_a_body_that_nobody_reads_is_told_nothing() -> None:
    head = b"PUT /v2/ HTTP/1.1\r\n" + HOST + b"Expect: 100-Continue\r\nContent-Length: 9\r\n\r\n"
    with Fed([head]) as fed:
        assert fed.request().body.is_held_back
        assert fed.answered() == b""
