"""Answers, read off a real socket pair: the bytes as a server might send them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.context import Cancel
from towline.wire import framing
from towline.wire.channel import Channel, Silence

if TYPE_CHECKING:
    from collections.abc import Sequence

OK = b"HTTP/1.1 200 OK\r\n"


class Read:
    """What was read off a connection that said these pieces and ended."""

    def __init__(self, *pieces: bytes, method: str = "GET", ends: bool = True) -> None:
        ours, theirs = socket.socketpair()
        channel = Channel(ours, Cancel(), 0.05)
        with theirs:
            for piece in pieces:
                theirs.sendall(piece)
            if ends:
                theirs.shutdown(socket.SHUT_WR)
            try:
                read = framing.Framing(channel)
                channel.send([memoryview(read.request(method, "/", [("Host", "x")]) + read.end())])
                self.head = read.head(0.05)
                room = memoryview(bytearray(7))
                counts = iter(lambda: read.read(room, 0.05), 0)
                self.content = b"".join(bytes(room[:count]) for count in counts)
                self.delimited = read.delimited
                self.left = b"" if not ends else b"".join(iter(channel.receive, b""))
            finally:
                channel.close()


def test_a_body_with_a_length_ends_where_it_says() -> None:
    read = Read(OK + b"Content-Length: 5\r\n\r\nhelloHTTP/1.1 204")
    assert (read.content, read.left) == (b"hello", b"HTTP/1.1 204")


def test_a_long_body_ends_where_it_says_though_it_comes_in_pieces() -> None:
    read = Read(OK + b"Content-Length: 100000\r\n\r\n", b"x" * 100_000 + b"HTTP/1.1 204")
    assert (read.content, read.left) == (b"x" * 100_000, b"HTTP/1.1 204")


def test_a_chunked_body_is_put_together() -> None:
    chunks = b"5;x=y\r\nhello\r\n1 \r\n!\r\n0\r\nTrailer: 1\r\n\r\nrest"
    read = Read(OK + b"Transfer-Encoding: Chunked\r\nContent-Length: 3\r\n\r\n" + chunks)
    assert (read.content, read.left) == (b"hello!", b"rest")


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    read = Read(OK + b"\r\nhello", b" you")
    assert read.content == b"hello you"
    assert not read.delimited


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_answers_that_have_no_body_have_none(status: bytes) -> None:
    assert Read(b"HTTP/1.1 " + status + b"\r\nContent-Length: 9\r\n\r\n").content == b""


def test_the_answer_to_a_head_has_no_body() -> None:
    assert Read(OK + b"Content-Length: 9\r\n\r\n", method="HEAD").content == b""


def test_interim_answers_are_passed_over() -> None:
    read = Read(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK + b"\r\n"
    )
    assert read.head.status == 200


def test_lines_may_end_without_a_return_and_go_on_folded() -> None:
    read = Read(b"HTTP/1.0 200\nA: 1\n two\nB:2\n\n")
    assert list(read.head.headers) == [("A", "1 two"), ("B", "2")]
    assert (read.head.reason, read.head.keeps_alive) == ("", False)


def test_header_names_have_no_case_and_values_are_all_kept() -> None:
    headers = Read(OK + b"X: 1\r\nx: 2, Three\r\nContent-Length: 0\r\n\r\n").head.headers
    assert headers.all("X") == ["1", "2, Three"]
    assert headers.tokens("x") == ["1", "2", "three"]
    assert "X" in headers
    assert headers.get("y") is None
    assert headers.number("Content-Length") == 0
    assert headers.number("x") == 1


@pytest.mark.parametrize(
    ("connection", "minor", "kept"),
    [(b"", 1, True), (b"close", 1, False), (b"", 0, False), (b"Keep-Alive", 0, True)],
)
def test_a_connection_is_kept_as_the_answer_says(
    connection: bytes, minor: int, *, kept: bool
) -> None:
    field = b"Connection: " + connection + b"\r\n" if connection else b""
    head = Read(b"HTTP/1.%d 200 OK\r\n" % minor + field + b"Content-Length: 0\r\n\r\n").head
    assert head.keeps_alive is kept


def test_a_block_is_framed_as_a_chunk_without_being_copied() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        request = framing.Framing(Channel(ours, Cancel(), 0.05))
        fields = [("Host", "x"), ("Transfer-Encoding", "chunked")]
        assert request.request("PATCH", "/", fields).startswith(b"PATCH / HTTP/1.1\r\nHost: x\r\n")
        block = bytearray(b"hello, you")
        parts = request.data(memoryview(block))
        block[:5] = b"HELLO"
        assert b"".join(parts) + request.end() == b"a\r\nHELLO, you\r\n0\r\n\r\n"


@pytest.mark.parametrize("value", ["a\r\nSecret: b", "a\nb", "a\rb", "a\0b"])
def test_what_would_be_a_line_of_its_own_is_not_sent(value: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        request = framing.Framing(Channel(ours, Cancel(), 0.05))
        with pytest.raises(ValueError, match="a header field that cannot be sent"):
            request.request("GET", "/", [("Host", "x"), ("Accept", value)])


BROKEN = [
    b"SSH-2.0-OpenSSH\r\n",
    b"\x15\x03\x01\x00\x02\x02\x46",
    b"<html>\r\n\r\n",
    b"HTTP/2 200\r\n\r\n",
    b"HTTP/1.1 999 No\r\n\r\n",
    b"HTTP/1.1 20 No\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\n\r\n",
    OK + b"no field\r\n\r\n",
    OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    OK + b"Content-Length: -5\r\n\r\n",
    OK + b"Content-Length: five\r\n\r\n",
    OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 70_000,
    OK + b"X: y\r\n" * 300 + b"\r\n",
    OK + b"X: " + b"y" * 70_000,
    b"HTTP/1.1 100 Continue\r\n\r\n" * 30,
]


@pytest.mark.parametrize("data", BROKEN, ids=[repr(data[:40]) for data in BROKEN])
def test_what_is_no_http_is_broken(data: bytes) -> None:
    with pytest.raises(framing.Broken) as caught:
        Read(data)
    assert not isinstance(caught.value, framing.Gone)


TORN = [
    (b"", False),
    (b"HTT", True),
    (OK + b"Content-Le", True),
    (OK + b"Content-Length: 9\r\n\r\nhello", True),
    (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel", True),
    (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", True),
    (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", True),
]


@pytest.mark.parametrize(("data", "begun"), TORN)
def test_a_torn_answer_says_whether_it_had_begun(data: bytes, *, begun: bool) -> None:
    with pytest.raises(framing.Gone) as caught:
        Read(data)
    assert caught.value.begun is begun


@pytest.mark.parametrize("data", [b"", OK, OK + b"Content-Length: 9\r\n\r\nhello"])
def test_an_answer_that_stops_coming_is_a_silence(data: bytes) -> None:
    with pytest.raises(Silence):
        Read(data, ends=False)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=6), st.data())
def test_any_chunking_in_any_pieces_gives_the_same_body(
    chunks: Sequence[bytes], data: st.DataObject
) -> None:
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    whole = OK + b"Transfer-Encoding: chunked\r\n\r\n" + body
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert Read(*pieces).content == b"".join(chunks)


@given(st.binary(max_size=400))
def test_no_bytes_do_anything_but_be_read_or_be_refused(data: bytes) -> None:
    for start in (b"", OK, OK + b"Transfer-Encoding: chunked\r\n\r\n"):
        try:
            Read(start + data)
        except framing.Broken:
            continue
