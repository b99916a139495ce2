"""The two layers of TLS on one connection, against a server with two layers of its own."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import make_authority
from towline.context import Cancel
from towline.wire import tls
from towline.wire.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.certificates import Authority

MiB = 1 << 20


class Peer:
    """The other end: both layers' server, in a thread of its own."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._outer = context.wrap_socket(sock, server_side=True)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._inner = context.wrap_bio(self._in, self._out, server_side=True)
        self._waiting_for_bytes(self._inner.do_handshake)
        self._flush()

    def read(self) -> bytes:
        return self._waiting_for_bytes(lambda: self._inner.read(MiB))

    def say(self, *records: bytes) -> None:
        """Each in a record of the inner layer, all of them in one of the outer."""
        for record in records:
            self._inner.write(record)
        self._flush()

    def end(self) -> None:
        """As many do it: TLS is not told."""
        with self._outer:
            self._outer.shutdown(socket.SHUT_WR)
            # OpenSSL 3.6 complains of that in an alert, and cannot once the socket is closed.
            self._outer.recv(1)

    def _waiting_for_bytes(self, action: Callable[[], object]) -> bytes:
        while True:
            try:
                done = action()
            except ssl.SSLWantReadError:
                self._flush()
                self._in.write(self._outer.recv(MiB))
            else:
                return done if isinstance(done, bytes) else b""

    def _flush(self) -> None:
        self._outer.sendall(self._out.read())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path)


@pytest.fixture
def connected(authority: Authority) -> Iterator[Callable[[Callable[[Peer], None]], Channel]]:
    """Gives a channel to a peer that behaves as it is told."""
    certificate = authority.issue()
    ours = tls.context(tls.Trust(authorities=(authority.ca,)))
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(certificate.cert, certificate.key)
    near, far = socket.socketpair()
    threads: list[threading.Thread] = []
    channel = Channel(near, Cancel(), 10.0)

    def connect(behave: Callable[[Peer], None]) -> Channel:
        threads.append(threading.Thread(target=lambda: behave(Peer(far, theirs))))
        threads[0].start()
        for _ in range(2):
            channel.secure(ours, "localhost")
        return channel

    yield connect
    channel.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    far.close()


def test_what_is_sent_faster_than_it_is_read_arrives_whole(
    connected: Callable[[Callable[[Peer], None]], Channel],
) -> None:
    data = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(MiB // 8))

    def behave(peer: Peer) -> None:
        got = bytearray()
        while len(got) < len(data):
            got += peer.read()
        peer.say(hashlib.sha256(got).digest())
        peer.end()

    channel = connected(behave)
    assert channel.send([memoryview(data)])
    assert channel.receive() == hashlib.sha256(data).digest()
    assert channel.receive() == b""


def test_an_answer_in_the_middle_of_what_is_sent_ends_the_sending(
    connected: Callable[[Callable[[Peer], None]], Channel],
) -> None:
    over = threading.Event()

    def behave(peer: Peer) -> None:
        peer.read()
        peer.say(b"no more")
        over.wait(10)
        peer.end()

    channel = connected(behave)
    assert not channel.send([memoryview(bytes(8 * MiB))])
    assert channel.receive() == b"no more"
    over.set()


def test_all_that_has_arrived_is_heard_of(
    connected: Callable[[Callable[[Peer], None]], Channel],
) -> None:
    def behave(peer: Peer) -> None:
        peer.say(b"one ", b"two ", b"three")
        peer.read()
        peer.end()

    channel = connected(behave)
    room = memoryview(bytearray(5))
    assert bytes(room[: channel.receive_into(room, 10.0)]) == b"one t"
    assert channel.receive() == b"wo three"
    assert channel.idle
    assert channel.send([memoryview(b"enough")])
    assert channel.receive() == b""
    assert not channel.idle


def test_the_certificate_of_the_inner_layer_is_the_one_that_counts(
    connected: Callable[[Callable[[Peer], None]], Channel], authority: Authority
) -> None:
    def behave(peer: Peer) -> None:
        peer.read()
        peer.end()

    channel = connected(behave)
    expected = ssl.PEM_cert_to_DER_cert((authority.folder / "localhost.crt").read_text())
    assert channel.peer_certificate() == expected
    assert channel.send([memoryview(b"enough")])
    assert channel.receive() == b""
