"""A channel's own ways, against sockets and TLS of the standard library."""

from __future__ import annotations

import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import make_authority
from towline.context import Cancel
from towline.errors import Cancelled
from towline.wire import tls
from towline.wire.channel import Channel

if TYPE_CHECKING:
    from pathlib import Path

RECORD = 16 << 10
"""Bytes of the largest record of TLS."""


def test_records_that_have_arrived_are_received_at_once_and_a_full_room_is_no_end(
    tmp_path: Path,
) -> None:
    authority = make_authority(tmp_path)
    certificate = authority.issue()
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(certificate.cert, certificate.key)
    near, far = socket.socketpair()
    said = threading.Event()

    def serve() -> None:
        with theirs.wrap_socket(far, server_side=True) as peer:
            peer.sendall(bytes(3 * RECORD) + b"rest")
            said.set()
            assert peer.recv(10) == b"enough"
            peer.shutdown(socket.SHUT_WR)
            peer.recv(1)  # what OpenSSL 3.6 complains of an end without a word

    serving = threading.Thread(target=serve)
    serving.start()
    channel = Channel(near, Cancel(), 10.0)
    channel.secure(tls.context(tls.Trust(authorities=(authority.ca,))), "localhost")
    assert said.wait(10)
    room = memoryview(bytearray(3 * RECORD))
    assert channel.receive_into(room, 10.0) == len(room)
    assert channel.receive() == b"rest"
    assert channel.idle, "it has said all, and lives"
    assert channel.send([memoryview(b"enough")])
    assert channel.receive_into(room, 10.0) == 0
    channel.close()
    serving.join(10)
    assert not serving.is_alive()


def test_once_it_is_cancelled_what_it_was_sending_may_be_written_over() -> None:
    """The sender has not returned yet, and need not be waiting for anything."""
    block = bytearray(16 << 20)  # more than the system takes before it is received
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for number in range(12):
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
            with near, far:
                block[:], cancel = bytes(len(block)), Cancel()
                sending = threading.Thread(target=send, args=(near, cancel, block))
                sending.start()
                for _ in range(1 + number):
                    assert far.recv(1 << 16)
                cancel.cancel()
                block[:] = b"x" * len(block)
                while data := far.recv(1 << 20):
                    assert not data.strip(b"\0")
                sending.join(10)
                assert not sending.is_alive()


def send(near: socket.socket, cancel: Cancel, block: bytearray) -> None:
    with near, pytest.raises(Cancelled):
        Channel(near, cancel, 10.0).send([memoryview(block)])
