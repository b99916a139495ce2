"""One connection: its requests answered one after the other, until either side ends it."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from towline.server.http import BadRequest, Cut, FilePart, Input, Response, parse

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from towline.server.api import Api
    from towline.server.faults import Faults
    from towline.server.http import Body, Request
    from towline.server.limits import Limits

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SEND_BLOCK = 256 << 10
_DRAIN_BLOCK = 64 << 10
_LINGER_SECONDS = 1.0
"""How long an answer given early stays readable for a client that is still sending."""


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request as the registry saw it."""

    method: str
    path: str
    """With its query, as it came."""
    status: int
    """0 when the client was cut off before an answer."""
    received: int
    """Bytes of the body that were read."""
    seconds: float


class Connection:
    """Serves one socket; made and run in its own thread."""

    def __init__(
        self,
        sock: socket.socket,
        api: Api,
        limits: Limits,
        faults: Faults,
        log: Callable[[LoggedRequest], None],
    ) -> None:
        self._socket = sock
        self._api = api
        self._limits = limits
        self._faults = faults
        self._log = log
        self._input = Input(sock)

    def serve(self) -> None:
        """Answer requests until the connection ends."""
        with suppress(Cut, OSError):
            while self._one():
                pass

    def _one(self) -> bool:
        """One request; whether the connection goes on."""
        try:
            head = self._input.head(self._limits)
            if head is None:
                return False
            request = parse(head, self._input, self._limits, self._continue)
        except BadRequest as error:
            self._send(_plain(error), head=False)
            self._linger()
            return False
        return self._answer(request)

    def _answer(self, request: Request) -> bool:
        begun = time.monotonic()
        status = 0
        try:
            response = self._faults.before(request, self._interrupt) or self._api.answer(
                request, self._interrupt
            )
            drained = self._drained(request.body)
            response.close = response.close or not drained or not request.keep_alive
            status = response.status
            self._send(response, head=request.method == "HEAD")
        except BadRequest as error:
            status = error.status
            self._send(_plain(error), head=False)
            drained, response = False, Response(error.status, close=True)
        finally:
            seconds = time.monotonic() - begun
            received = request.body.received
            self._log(LoggedRequest(request.method, request.target, status, received, seconds))
        if not drained:
            self._linger()
        return not response.close

    def _interrupt(self) -> None:
        """End the reading of this connection, from another thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def _continue(self) -> None:
        self._socket.sendall(_CONTINUE)

    def _drained(self, body: Body) -> bool:
        """Read what is left of a body, if that is little: the next request begins behind it."""
        if body.finished:
            return True
        view = memoryview(bytearray(_DRAIN_BLOCK))
        limit = body.received + self._limits.drain_bytes
        if body.length is not None and body.length > limit:
            return False
        while body.received <= limit:
            if not body.readinto(view):
                return True
        return False

    def _linger(self) -> None:
        """Let the client read its answer: closing while it sends would reset the connection."""
        deadline = time.monotonic() + _LINGER_SECONDS
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
            view = bytearray(_DRAIN_BLOCK)
            while (left := deadline - time.monotonic()) > 0:
                self._socket.settimeout(left)
                if not self._socket.recv_into(view):
                    return

    def _send(self, response: Response, *, head: bool) -> None:
        try:
            content = response.content
            data = _head(response) if head or isinstance(content, FilePart) else None
            if data is None:
                self._socket.sendall(_head(response) + bytes(content))  # type: ignore[arg-type]
                return
            self._socket.sendall(data)
            if isinstance(content, FilePart) and not head:
                self._send_file(content)
        finally:
            response.discard()

    def _send_file(self, part: FilePart) -> None:
        if _is_plain(self._socket):
            part.file.seek(part.offset)
            self._socket.sendfile(part.file, part.offset, part.length)
            return
        offset, end = part.offset, part.offset + part.length
        while offset < end:
            block = os.pread(part.file.fileno(), min(_SEND_BLOCK, end - offset), offset)
            if not block:
                raise Cut
            self._socket.sendall(block)
            offset += len(block)


def _is_plain(sock: socket.socket | ssl.SSLSocket) -> bool:
    return type(sock) is socket.socket


def _plain(error: BadRequest) -> Response:
    """What cannot be parsed is answered in plain words."""
    return Response(error.status, {"Content-Type": "text/plain"}, f"{error}\n".encode(), close=True)


def _head(response: Response) -> bytes:
    content = response.content
    length = content.length if isinstance(content, FilePart) else len(content)
    headers = dict(response.headers)
    if response.status not in {204, 304}:
        headers["Content-Length"] = str(response.length if response.length is not None else length)
    if response.close:
        headers["Connection"] = "close"
    lines = [f"HTTP/1.1 {response.status} {_phrase(response.status)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
