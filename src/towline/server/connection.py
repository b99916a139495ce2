"""One connection: answers its requests one after the other, until either side ends it.

Decides whether a connection goes on. It ends after a body that was not read to its end, and after
anything malformed, when the answer has had time to arrive.
"""

from __future__ import annotations

import socket
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import TYPE_CHECKING

from towline.server import api
from towline.server.call import LoggedRequest, Registry
from towline.server.http import BODILESS, BadRequest, Cut, FilePart, Framing, Response
from towline.server.refusals import Refused
from towline.spec import distribution

if TYPE_CHECKING:
    import ssl

    from towline.server.http import Body, Request

_BLOCK = 256 << 10
"""Bytes of a file that are read and sent at once: as many as stay in a processor's cache."""
_LINGER_SECONDS = 2.0
"""Seconds in which a client that is still sending can read an early answer."""
_SECRET = frozenset({"authorization", "proxy-authorization", "cookie"})


class Connection:
    """Serves one socket, with TLS if there is a context for it."""

    def __init__(self, sock: socket.socket, registry: Registry, tls: ssl.SSLContext | None) -> None:
        self._socket = sock
        self._registry = registry
        self._tls = tls
        self.idle = True
        """Whether it is between two requests, where ending it loses nothing."""

    def serve(self) -> None:
        """Answer requests until the connection ends, and close it. Needs a thread of its own."""
        try:
            with suppress(Cut, OSError):
                # Without it the end of a small answer waits for its beginning's acknowledgement.
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # In this thread: a slow handshake where connections are accepted would delay all.
                if self._tls:
                    self._socket.settimeout(self._registry.limits.head_seconds)
                    self._socket = self._tls.wrap_socket(self._socket, server_side=True)
                self._answer_all(Framing(self._socket, self._registry.limits))
        finally:
            self._socket.close()

    def _answer_all(self, framing: Framing) -> None:
        goes_on = True
        while goes_on:
            try:
                request = framing.request()
            except BadRequest as bad:
                self.idle = False
                self._send(_bad(bad))
                self._linger()
                return
            if request is None:
                return
            self.idle = False
            goes_on = self._answer(request)
            self.idle = True

    def end(self) -> None:
        """Shut the socket down, from another thread: calls that wait for it return."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _answer(self, request: Request) -> bool:
        """Answer one request. Returns whether the connection goes on. Raises Cut, OSError."""
        begun = time.monotonic()
        counted: AbstractContextManager[bool] = nullcontext(enter_result=True)
        if not request.body.finished:
            counted = self._registry.bodies.one(_client(self._socket))
        try:
            with counted as fits:
                response = self._response(request, fits=fits)
                drained = fits and self._drained(request.body)
        except Cut:
            self._note(request, 0, begun)
            raise
        response.close = response.close or not (drained and request.keep_alive)
        self._note(request, response.status, begun)
        try:
            whole = self._send(response, head_only=request.method == "HEAD")
        finally:
            if isinstance(response.content, FilePart):
                response.content.file.close()
        if not drained:
            self._linger()
        return whole and not response.close

    def _response(self, request: Request, *, fits: bool) -> Response:
        if not fits:
            message = "too many bodies of this client are under way"
            headers = {"Retry-After": "1"}
            return Refused(distribution.TOOMANYREQUESTS, message, headers=headers).response()
        try:
            return self._registry.faults.before(request) or api.answer(self._registry, request)
        except BadRequest as bad:  # the body is malformed
            return _bad(bad)

    def _note(self, request: Request, status: int, begun: float) -> None:
        """Log a request. Before its answer is sent: whoever has that may look the request up."""
        headers = {key: value for key, value in request.headers.items() if key not in _SECRET}
        seconds = time.monotonic() - begun
        received = request.body.received
        self._registry.log.add(
            LoggedRequest(request.method, request.target, status, received, seconds, headers)
        )

    def _drained(self, body: Body) -> bool:
        """Read the rest of a body if it is short, since the next request begins behind it.

        Returns whether the body was read to its end.
        """
        if body.finished:
            return True
        # The client was not told to send it, and may do so or not: no rest can be awaited.
        if body.is_held_back:
            return False
        limit = body.received + self._registry.limits.drain_bytes
        if body.length is not None and body.length > limit:
            return False
        with suppress(BadRequest):
            while body.received <= limit and body.read():
                pass
        return body.finished

    def _linger(self) -> None:
        """Let the client read its answer before the connection ends (RFC 9112, section 9.6)."""
        # A socket that is closed with unread bytes sends a reset, which may delete the answer.
        deadline = time.monotonic() + _LINGER_SECONDS
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            view = bytearray(_BLOCK)
            while (left := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left)
                if not self._socket.recv_into(view):
                    return

    def _send(self, response: Response, *, head_only: bool = False) -> bool:
        """Send an answer. Returns whether all of it was sent (faults cut some).

        Raises Cut where a file has become shorter, OSError.
        """
        # Files are read and sent, not by `sendfile`: to a reader on the same machine that is
        # slower, as it has to fetch from memory what is in the processor's cache after a copy.
        head, content = response.head(), response.content
        if head_only or response.status in BODILESS:
            self._socket.sendall(head)
            return True
        if not isinstance(content, FilePart):
            self._socket.sendall(head + content)
            return True
        cut = self._registry.faults.cut_of(content.length)
        length = content.length if cut is None else cut
        view = memoryview(bytearray(min(_BLOCK, length) or 1))
        content.file.seek(content.offset)
        left = length - (count := content.file.readinto(view[:length]))
        self._socket.sendall(head + view[:count])  # in one write: a small blob is one packet
        while left and (count := content.file.readinto(view[:left])):
            self._socket.sendall(view[:count])
            left -= count
        if left:
            raise Cut
        return cut is None


def _client(sock: socket.socket) -> str:
    """The client's address; of IPv6 the first 64 bits, which belong to one network."""
    host = sock.getpeername()[0].partition("%")[0]
    return socket.inet_pton(socket.AF_INET6, host)[:8].hex() if ":" in host else host


def _bad(bad: BadRequest) -> Response:
    """The answer to bytes that are no request, in the specification's form of errors."""
    response = Refused(distribution.UNSUPPORTED, str(bad), status=bad.status).response()
    response.close = True
    return response
