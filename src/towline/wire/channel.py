"""One connected socket, plain or TLS, with time-outs and a cancel switch; and those kept for later.

The socket never blocks. Every wait is one `poll`, which ends when bytes move, when the time is
over, or when the transfer is cancelled. While a channel sends it watches for an early answer: a
registry that refuses a body says so at once, and then resets the connection.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from towline.context import Cancel
    from towline.wire.tls_in_tls import TlsInTls

T = TypeVar("T")

RECEIVE_SIZE = 64 << 10
"""Bytes asked of the socket at once."""
TLS_PIECE = 64 << 10
"""Bytes given to TLS at once: it reports no progress before all of a piece is sent."""
IDLE_MAX = 55.0
"""Seconds that a connection is kept: load balancers commonly close theirs after 60."""
_DEAD_MAX = 3
"""Kept connections that die in a row before none is kept any more: some servers end each
connection after one answer, and do not say so."""


class Silence(Exception):
    """No byte moved for as long as was allowed."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no byte for {seconds:g} s")
        self.seconds = seconds
        """The time that was allowed."""


class Channel:
    """A connection while somebody uses it; not for two threads at once."""

    def __init__(self, sock: socket.socket, cancel: Cancel, timeout: float) -> None:
        sock.settimeout(0)
        self._socket = sock
        self._outer: ssl.SSLSocket | None = None
        self._tls: ssl.SSLSocket | TlsInTls | None = None
        """The innermost layer of TLS."""
        self._poll = select.poll()
        self._poll.register(sock.fileno(), select.POLLIN)
        self._inbox = b""
        self._ended = False
        self.cancel = cancel
        """Throwing this switch ends a wait; each user of the connection sets its own."""
        self.timeout = timeout
        """Seconds without a byte."""

    def secure(self, context: ssl.SSLContext, name: str) -> None:
        """Speak TLS from here on, inside the TLS of a proxy if there is one.

        Raises ssl.SSLError, OSError, Silence.
        """
        if self._outer is not None:
            from towline.wire.tls_in_tls import TlsInTls

            tls: ssl.SSLSocket | TlsInTls = TlsInTls(self._outer, context, name)
        else:
            tls = self._socket = self._outer = context.wrap_socket(
                self._socket, server_hostname=name, do_handshake_on_connect=False
            )
        self._tls = tls
        while (events := _tried(tls.do_handshake)) is not None:
            self._wait(events, self.timeout)

    def peer_certificate(self) -> bytes:
        """The other side's certificate (DER), checked or not; empty without TLS."""
        return (self._tls.getpeercert(binary_form=True) or b"") if self._tls else b""

    def connect(self, address: tuple[Any, ...]) -> None:
        """Connect the socket. Raises OSError, Silence."""
        try:
            self._socket.connect(address)
        except BlockingIOError:
            self._wait(select.POLLOUT, self.timeout)
            # The socket is writable too when it has failed; only SO_ERROR tells (connect(2)).
            if code := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(code, os.strerror(code)) from None

    def send(self, views: list[memoryview]) -> bool:
        """Send all of `views`; what was sent is taken off the list.

        Returns False as soon as the other side sends something: it may be refusing the rest. Once
        the switch is thrown nothing more is sent of them. Raises OSError, Silence, Cancelled.
        """
        try:
            # Not only while it waits: whoever throws the switch may then write over these bytes.
            with self.cancel.on_cancel(self.wake):
                while views:
                    if self.heard():
                        return False
                    if self._tls is None:
                        try:
                            # All parts in one system call: to join them would copy the block.
                            advance(views, self._socket.sendmsg(views))
                        except BlockingIOError:
                            self._wait(select.POLLOUT | select.POLLIN, self.timeout)
                        continue
                    # OpenSSL wants the same piece again until it is through, whatever arrives.
                    piece = views[0][:TLS_PIECE]
                    events = _tried(partial(self._tls.send, piece))
                    if events is None:
                        advance(views, len(piece))
                    else:
                        self._wait(events | select.POLLIN, self.timeout)
                return True
        finally:
            self.cancel.check()  # whatever came of it on a socket that was shut down

    def heard(self) -> bool:
        """Whether bytes of an answer, or its end, are there to be read."""
        if not self._inbox and not self._ended and self._poll.poll(0):
            self._pull()
        return bool(self._inbox) or self._ended

    def receive(self, seconds: float | None = None) -> bytes:
        """The next bytes, b"" at the end. Raises OSError, Silence."""
        while not self._inbox and not self._ended:
            if not self._pull():
                self._wait(select.POLLIN, self.timeout if seconds is None else seconds)
        data, self._inbox = self._inbox, b""
        return data

    def receive_into(self, room: memoryview, seconds: float) -> int:
        """Receive at the front of `room`. Returns the number of bytes, 0 at the end.

        That saves making bytes and copying them. Raises OSError, Silence.
        """
        # TLS in TLS has no `recv_into`: it returns what lies in its memory.
        if self._inbox or self._tls not in {None, self._socket}:
            data = self.receive(seconds)
            part = data[: len(room)]
            room[: len(part)] = part
            self.give_back(data[len(part) :])
            return len(part)
        take = self._socket.recv_into
        while (count := self._arrived(partial(take, room))) is None:
            self._wait(select.POLLIN, seconds)
        # TLS gives no more than a record at once, 16 KiB at most, and many may have arrived.
        more: int | None = count
        with suppress(OSError):  # the next call raises it
            while self._tls and more and (rest := room[count:]):
                more = self._arrived(partial(take, rest))
                count += more or 0
        return count

    def give_back(self, data: bytes) -> None:
        """Put back bytes that belong to the next message."""
        self._inbox = data + self._inbox

    def _pull(self) -> bool:
        """Put what has arrived into the inbox. False when nothing has."""
        data = self._arrived(partial((self._tls or self._socket).recv, RECEIVE_SIZE))
        self._inbox += data or b""
        return data is not None

    def _arrived(self, take: Callable[[], T]) -> T | None:
        """What `take` reads. None: nothing has arrived, or only TLS's own records."""
        try:
            taken = take()
        except BlockingIOError:
            return None
        except OSError as error:
            if self._tls is None or _wanted(error) is None:
                raise
            return None
        self._ended = not taken
        return taken

    def _wait(self, events: int, seconds: float) -> None:
        self.cancel.check()
        self._poll.modify(self._socket.fileno(), events)
        try:
            with self.cancel.on_cancel(self.wake):
                ready = self._poll.poll(max(0.0, seconds) * 1000)
        finally:
            # `heard` asks only whether there is something to read.
            self._poll.modify(self._socket.fileno(), select.POLLIN)
        self.cancel.check()
        if not ready:
            raise Silence(seconds)

    def wake(self) -> None:
        """End a wait in another thread. The connection is of no use afterwards."""
        # Not SSLSocket.shutdown, which drops its TLS object while the waiting thread uses it.
        with suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    @property
    def idle(self) -> bool:
        """Whether a kept connection can be used again: nothing, not even its end, has come."""
        try:
            return not self.heard()
        except OSError:
            return False

    @property
    def peer(self) -> str:
        """The address connected to; empty once it is lost, and for a socket in a file system."""
        try:
            name = self._socket.getpeername()
        except OSError:
            return ""
        return str(name[0]) if isinstance(name, tuple) else ""

    def close(self) -> None:
        """Close the socket; a second call does nothing."""
        self._socket.close()


class Kept:
    """Connections without an exchange, of all origins. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, list[tuple[float, Channel]]] = {}
        self._dead: dict[str, int] = {}
        """By origin: kept connections in a row that had died."""
        self._closed = False

    def take(self, origin: str, cancel: Cancel) -> Channel | None:
        """A connection that still lives; None: there is none."""
        # The one used last, which is most likely to live. The lock is not held while it is looked
        # at: that is a system call.
        while True:
            with self._lock:
                idle = self._idle.get(origin)
                if not idle:
                    return None
                since, channel = idle.pop()
            channel.cancel = cancel
            if time.monotonic() - since < IDLE_MAX and channel.idle:
                return channel
            channel.close()

    def keep(self, origin: str, channel: Channel, *, fresh: bool) -> None:
        """Keep a connection for the next request, unless kept ones keep dying at this origin.

        `fresh`: it has served no more than one request.
        """
        with self._lock:
            if not fresh:
                self._dead[origin] = 0
            if not self._closed and self._dead.get(origin, 0) < _DEAD_MAX:
                self._idle.setdefault(origin, []).append((time.monotonic(), channel))
                return
        channel.close()

    def close_lost(self) -> None:
        """Close connections of any host that were kept for too long, or that it has closed."""
        lost: list[Channel] = []
        with self._lock:
            since = time.monotonic() - IDLE_MAX
            for origin, kept in [*self._idle.items()]:
                lost += [channel for at, channel in kept if at < since or not channel.idle]
                self._idle[origin] = [each for each in kept if each[1] not in lost]
        for channel in lost:
            channel.close()

    def count_dead(self, origin: str) -> None:
        """Note that a kept connection had died."""
        with self._lock:
            self._dead[origin] = self._dead.get(origin, 0) + 1

    def close(self) -> None:
        """Close the kept connections; those in use are closed when they come back."""
        self._closed = True
        self.drop()

    def drop(self) -> bool:
        """Close the connections that nobody uses. Returns whether there were any."""
        with self._lock:
            idle = [channel for channels in self._idle.values() for _, channel in channels]
            self._idle.clear()
        for channel in idle:
            channel.close()
        return bool(idle)


def words(error: Exception) -> str:
    """What an error says, without numbers and in lower case."""
    if isinstance(error, Silence):
        return "no answer in time"
    if reason := getattr(error, "reason", None):  # of ssl: its errno is none of the system's
        return str(reason).replace("_", " ").lower()
    number = getattr(error, "errno", None)
    if number in {errno.EPIPE, errno.ECONNRESET}:
        return "connection reset"
    return os.strerror(number).lower() if number else str(error)


def _tried(action: Callable[[], object]) -> int | None:
    """Do it. Where TLS has to wait first, return the events of `poll` to wait for."""
    try:
        action()
    except OSError as error:
        events = _wanted(error)
        if events is None:
            raise
        return events
    return None


def _wanted(error: OSError) -> int | None:
    import ssl  # loaded already by whoever made the connection a TLS one

    if isinstance(error, ssl.SSLWantReadError):
        return select.POLLIN
    return select.POLLOUT if isinstance(error, ssl.SSLWantWriteError) else None


def advance(views: list[memoryview], sent: int) -> None:
    """Take the first `sent` bytes off the list."""
    while views and sent >= len(views[0]):
        sent -= len(views.pop(0))
    if sent:
        views[0] = views[0][sent:]
