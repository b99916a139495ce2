"""One connection: its requests answered one after the other, until either side ends it.

Decides when a connection goes on and how it ends: a body that was not read to its end, and
anything malformed, closes it, after the answer has had time to arrive.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

from towline.server import refusals
from towline.server.http import BadRequest, Cut, FilePart, Input, Response, parse
from towline.server.log import LoggedRequest
from towline.spec import distribution

if TYPE_CHECKING:
    from towline.server.api import Api
    from towline.server.faults import Faults
    from towline.server.http import Request
    from towline.server.limits import Limits
    from towline.server.log import RequestLog

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BLOCK = 256 << 10
_SENDFILE = 16 << 20
_SMALL = 64 << 10
"""Bytes of a file that go out together with the head."""
_LINGER_SECONDS = 2.0
"""How long an answer given early stays readable for a client that is still sending."""
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_BODILESS = frozenset({204, 304})
_SECRET = frozenset({"authorization", "proxy-authorization", "cookie"})


class Connection:
    """Serves one socket; made and run in its own thread."""

    def __init__(
        self, sock: socket.socket, api: Api, limits: Limits, faults: Faults, *, log: RequestLog
    ) -> None:
        self._socket = sock
        self._api = api
        self._limits = limits
        self._faults = faults
        self._log = log
        self._input = Input(sock)
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
            head = self._input.head(self._limits)
            if head is None:
                return False
            self.idle = False
            request = parse(head, self._input, self._limits, self._continue)
        except BadRequest as bad:
            self._send(_bad(bad))
            self._linger()
            return False
        goes_on = self._answer(request)
        self.idle = True
        return goes_on

    def _answer(self, request: Request) -> bool:
        begun = time.monotonic()
        try:
            response = self._response(request)
            drained = self._drained(request)
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

    def _response(self, request: Request) -> Response:
        try:
            return self._faults.before(request) or self._api.answer(request, self._interrupt)
        except BadRequest as bad:  # its body is malformed
            return _bad(bad)

    def _note(self, request: Request, status: int, begun: float) -> None:
        """Log it before the answer goes out: who has the answer may look it up."""
        headers = {key: value for key, value in request.headers.items() if key not in _SECRET}
        seconds = time.monotonic() - begun
        received = request.body.received
        self._log.add(
            LoggedRequest(request.method, request.target, status, received, seconds, headers)
        )

    def _continue(self) -> None:
        self._socket.sendall(_CONTINUE)

    def _drained(self, request: Request) -> bool:
        """Read what is left of a body, if that is little: the next request begins behind it."""
        body = request.body
        if body.finished:
            return True
        if "expect" in request.headers and not body.received:
            return False  # it was not asked for: the client may send it, or not
        limit = body.received + self._limits.drain_bytes
        if body.length is not None and body.length > limit:
            return False
        view = memoryview(bytearray(_BLOCK))
        with suppress(BadRequest):
            while body.received <= limit and body.readinto(view):
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
            cut = self._faults.cut_of(content.length)
            self._send_file(head, content, content.length if cut is None else cut)
            return cut is None
        else:
            self._socket.sendall(head + content)
        return True

    def _send_file(self, head: bytes, part: FilePart, length: int) -> None:
        """Send a head and a piece of a file; Cut where the file is shorter than it was."""
        if length <= _SMALL:
            block = os.pread(part.file.fileno(), length, part.offset)
            self._socket.sendall(head + block)
            sent = len(block)
        elif type(self._socket) is socket.socket:
            self._socket.sendall(head, socket.MSG_MORE)
            sent = self._kernel_copy(part, length)
        else:  # TLS encrypts in this process: no short cut through the kernel
            self._socket.sendall(head)
            sent = self._copy_file(part, length)
        if sent < length:
            raise Cut

    def _kernel_copy(self, part: FilePart, length: int) -> int:
        """By sendfile, blocking: the kernel wakes us for megabytes and not for each free buffer."""
        self._socket.settimeout(None)
        seconds, fraction = divmod(self._limits.idle_seconds, 1)
        limit = struct.pack("ll", int(seconds), int(fraction * 1e6))  # struct timeval
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        to, source, sent = self._socket.fileno(), part.file.fileno(), 0
        while sent < length:
            wanted = min(_SENDFILE, length - sent)
            count = os.sendfile(to, source, part.offset + sent, wanted)
            if not count:
                break
            sent += count
        return sent

    def _copy_file(self, part: FilePart, length: int) -> int:
        sent = 0
        while sent < length:
            wanted = min(_BLOCK, length - sent)
            block = os.pread(part.file.fileno(), wanted, part.offset + sent)
            if not block:
                break
            self._socket.sendall(block)
            sent += len(block)
        return sent


def _bad(bad: BadRequest) -> Response:
    """What is no request, in the specification's form all the same."""
    response = refusals.Refused(bad.status, distribution.UNSUPPORTED, str(bad)).response()
    response.close = True
    return response


def _head(response: Response) -> bytes:
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
