"""One connection: its requests answered one after the other, until either side ends it.

Decides when a connection goes on and how it ends: a body that was not read to its end, and
anything malformed, closes it, after the answer has had time to arrive.
"""

from __future__ import annotations

import socket
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from towline.server import refusals
from towline.server.framing import BadRequest, Cut, Framing
from towline.server.http import FilePart, Response, parse
from towline.server.log import LoggedRequest
from towline.spec import distribution

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from towline.server.api import Api
    from towline.server.faults import Faults
    from towline.server.framing import Body
    from towline.server.http import Request
    from towline.server.limits import Limits, PerClient
    from towline.server.log import RequestLog

_BLOCK = 256 << 10
"""Bytes that are read of a file and sent together: what stays in a processor's cache."""
_LINGER_SECONDS = 2.0
"""How long an answer given early stays readable for a client that is still sending."""
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_BODILESS = frozenset({204, 304})
_SECRET = frozenset({"authorization", "proxy-authorization", "cookie"})


@dataclass(frozen=True, slots=True)
class Shared:
    """What all connections of one server share."""

    api: Api
    limits: Limits
    log: RequestLog
    faults: Faults
    bodies: PerClient
    """Which clients have how many bodies under way."""


class Connection:
    """Serves one socket; made and run in its own thread."""

    def __init__(self, sock: socket.socket, server: Shared) -> None:
        self._socket = sock
        self._server = server
        self._framing = Framing(sock, server.limits)
        self.idle = True
        """Between two requests: ending it now loses nothing."""

    def serve(self) -> None:
        """Answer requests until the connection ends."""
        with suppress(Cut, OSError):
            while self._one():
                pass

    def end(self) -> None:
        """Let every blocked call of it return, from another thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _interrupt(self) -> None:
        """End the reading of it, from another thread; an answer can still go out."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def _one(self) -> bool:
        """One request; whether the connection goes on."""
        try:
            head = self._framing.head()
            if head is None:
                return False
            self.idle = False
            request = parse(head, self._framing)
        except BadRequest as bad:
            self._send(_bad(bad))
            self._linger()
            return False
        goes_on = self._answer(request)
        self.idle = True
        return goes_on

    def _answer(self, request: Request) -> bool:
        """Answer one request; whether the connection goes on."""
        begun = time.monotonic()
        counted: AbstractContextManager[bool] = nullcontext(enter_result=True)
        if not request.body.finished:
            counted = self._server.bodies.one(_client(self._socket))
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
            response.discard()
        if not drained:
            self._linger()
        return whole and not response.close

    def _response(self, request: Request, *, fits: bool) -> Response:
        server = self._server
        if not fits:
            return refusals.too_many_bodies().response()
        try:
            return server.faults.before(request) or server.api.answer(request, self._interrupt)
        except BadRequest as bad:  # its body is malformed
            return _bad(bad)

    def _note(self, request: Request, status: int, begun: float) -> None:
        """Log it before the answer goes out: who has the answer may look it up."""
        headers = {key: value for key, value in request.headers.items() if key not in _SECRET}
        seconds = time.monotonic() - begun
        received = request.body.received
        self._server.log.add(
            LoggedRequest(request.method, request.target, status, received, seconds, headers)
        )

    def _drained(self, body: Body) -> bool:
        """Read what is left of a body, if that is little: the next request begins behind it."""
        if body.finished:
            return True
        if body.is_held_back:
            return False  # it was not asked for: the client may send it, or not
        limit = body.received + self._server.limits.drain_bytes
        if body.length is not None and body.length > limit:
            return False
        with suppress(BadRequest):
            while body.received <= limit and body.read():
                pass
        return body.finished

    def _linger(self) -> None:
        """Let the client read its answer: closing on unread bytes resets it (RFC 9112, 9.6)."""
        deadline = time.monotonic() + _LINGER_SECONDS
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            view = bytearray(_BLOCK)
            while (left := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left)
                if not self._socket.recv_into(view):
                    return

    def _send(self, response: Response, *, head_only: bool = False) -> bool:
        """Send an answer; whether all of it."""
        head, content = _head(response), response.content
        if head_only or response.status in _BODILESS:
            self._socket.sendall(head)
        elif isinstance(content, FilePart):
            cut = self._server.faults.cut_of(content.length)
            self._send_file(head, content, content.length if cut is None else cut)
            return cut is None
        else:
            self._socket.sendall(head + content)
        return True

    def _send_file(self, head: bytes, part: FilePart, length: int) -> None:
        """Send a head and a piece of a file; Cut where the file is shorter than it was.

        By copying, not by sendfile, which is slower to a reader on the same machine: it would have
        to fetch from memory what is in the processor's cache now.
        """
        view = memoryview(bytearray(min(_BLOCK, length) or 1))
        part.file.seek(part.offset)
        left = length - (count := part.file.readinto(view[:length]))
        self._socket.sendall(head + view[:count])
        while left and (count := part.file.readinto(view[:left])):
            self._socket.sendall(view[:count])
            left -= count
        if left:
            raise Cut


def _client(sock: socket.socket) -> str:
    """The client's address; of IPv6 the first 64 bits, which belong to one household."""
    host = sock.getpeername()[0].partition("%")[0]
    return socket.inet_pton(socket.AF_INET6, host)[:8].hex() if ":" in host else host


def _bad(bad: BadRequest) -> Response:
    """The answer to what is no request, in the form of the specification's errors."""
    response = refusals.Refused(bad.status, distribution.UNSUPPORTED, str(bad)).response()
    response.close = True
    return response


def _head(response: Response) -> bytes:
    """Written by hand: h11 would take a third of a small request's time to check our own words."""
    content = response.content
    length = response.length
    if length is None:
        length = content.length if isinstance(content, FilePart) else len(content)
    lines = [f"HTTP/1.1 {response.status} {_PHRASES.get(response.status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    if response.status not in _BODILESS:
        lines.append(f"Content-Length: {length}")
    if response.close:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
