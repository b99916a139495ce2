"""HTTP/1.1 on a socket: requests framed by h11, and answers. Knows nothing of registries.

h11 accepts some forms in which one request can hide in another (RFC 9112, section 11.2). They are
refused here, and the connection ends. This module knows how long to wait and how much to read; what
a request means, and whether a connection is kept, is decided elsewhere.
"""

from __future__ import annotations

import re
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

import h11

if TYPE_CHECKING:
    from collections.abc import Mapping
    from io import FileIO

    from towline.server.limits import Limits

_FORGIVEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n|\n[ \t]")
"""Control characters, line feeds or carriage returns alone, folded headers: h11 takes them."""
_LENGTHS = re.compile(rb"\n(?:content-length|transfer-encoding):[ \t]*([^\r]*)", re.IGNORECASE)
_LENGTH = re.compile(rb"(?:[0-9]{1,18}|chunked)[ \t]*", re.IGNORECASE)
_MOST_HEADERS = 100
"""Header fields of a request: h11 bounds the bytes of a head, not their number."""
_RECEIVE = 16 << 10
"""Bytes read at once for a head."""
_RECEIVE_BODY = 256 << 10
"""Bytes read at once of a body: as many as stay in a processor's cache while they are hashed and
written."""
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
BODILESS = frozenset({204, 304})
"""Statuses whose answers have no body (RFC 9110, section 6.4.1)."""


class BadRequest(Exception):
    """The bytes are no request that can be carried out. The connection cannot go on."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Cut(Exception):
    """The client has gone, or fallen silent, in the middle of a request."""


@dataclass(slots=True)
class Request:
    """One request; its body is still to be read."""

    method: str
    path: str
    """Decoded; begins with a slash."""
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    """Names in lower case; several of one name are joined by commas."""
    body: Body
    target: str = ""
    """The request target as it came, for the log."""
    keep_alive: bool = True


@dataclass(frozen=True, slots=True)
class FilePart:
    """A part of an open file as the body of an answer; whoever sends it closes the file."""

    file: FileIO
    offset: int
    length: int


@dataclass(slots=True)
class Response:
    """One answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | FilePart = b""
    length: int | None = None
    """The Content-Length, if it is not the content's: answers to HEAD."""
    close: bool = False

    def head(self) -> bytes:
        """The answer's head."""
        # By hand: h11 would check our own words, which takes a third of a small request's time.
        length = self.length
        if length is None:
            content = self.content
            length = content.length if isinstance(content, FilePart) else len(content)
        lines = [f"HTTP/1.1 {self.status} {_PHRASES.get(self.status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.status not in BODILESS:
            lines.append(f"Content-Length: {length}")
        if self.close:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


class Framing:
    """The requests of one socket, one after the other."""

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        self.http = h11.Connection(h11.SERVER)
        """h11's state of the present request; each request has a new one."""
        self.rest = b""
        """Bytes that have come behind the last head, or behind the last body in chunks."""
        self.socket = sock
        self._limits = limits

    def request(self) -> Request | None:
        """The next request; None where the client leaves, or is silent, between two.

        Waits `idle_seconds` for a first byte, then `head_seconds` for the rest of its head. Raises
        BadRequest with the status to answer, Cut or OSError where the client has gone.
        """
        head = self._head()
        if head is None:
            return None
        target, version = head.target.decode(), head.http_version
        if version not in {b"1.1", b"1.0"}:
            raise BadRequest(505, "only HTTP/1.1 is spoken here")
        if target.startswith(("http://", "https://")):  # as to a proxy (RFC 9112, section 3.2.2)
            target = "/" + target.partition("://")[2].partition("/")[2]
        if not target.startswith("/"):
            raise BadRequest(400, "the request target is malformed")
        headers = _headers(head)
        if version == b"1.0" and "transfer-encoding" in headers:
            raise BadRequest(400, "HTTP/1.0 has no Transfer-Encoding")
        path, _, query = target.partition("?")
        try:
            parameters = (
                parse_qs(query, keep_blank_values=True, max_num_fields=500) if query else {}
            )
        except ValueError:
            raise BadRequest(414, "too many query parameters") from None
        length = None if "transfer-encoding" in headers else int(headers.get("content-length", 0))
        return Request(
            method=head.method.decode(),
            path=unquote(path),
            query=parameters,
            headers=headers,
            body=Body(self, length),
            target=target,
            keep_alive=version == b"1.1" and "close" not in headers.get("connection", "").lower(),
        )

    def _head(self) -> h11.Request | None:
        """The next request's head; see `request`."""
        limits, data, head = self._limits, self.rest, b""
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_bytes)
        deadline = time.monotonic() + limits.idle_seconds
        while True:
            # Old clients send an empty line after a body (RFC 9112, section 2.2).
            if not head and (data := data.lstrip(b"\r\n")):
                deadline = time.monotonic() + limits.head_seconds
            if data:
                head += data
                self.http.receive_data(data)
                if isinstance(event := self.event(), h11.Request):
                    break
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self.socket.recv(_RECEIVE)
            except TimeoutError:
                if head:
                    raise BadRequest(408, "the headers did not arrive in time") from None
                return None
            if not data:
                if head:
                    raise Cut
                return None
        self.socket.settimeout(limits.idle_seconds)
        self.rest, _ = self.http.trailing_data
        self._check(head[: len(head) - len(self.rest)])
        return event

    def _check(self, head: bytes) -> None:
        """Refuse forms that h11 accepts, and a head that is too long. Raises BadRequest."""
        # h11 bounds only a head that has not come as a whole yet.
        if len(head) > self._limits.head_bytes:
            raise BadRequest(431, f"the headers are longer than {self._limits.head_bytes} bytes")
        if _FORGIVEN.search(head):
            raise BadRequest(400, "a line of the head is malformed")
        lengths = _LENGTHS.findall(head)
        if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
            raise BadRequest(400, "one Content-Length or one Transfer-Encoding, and only one")

    def event(self) -> object:
        """h11's next event. Raises BadRequest."""
        try:
            return self.http.next_event()
        except h11.RemoteProtocolError as error:
            raise BadRequest(error.error_status_hint, str(error)) from error

    def receive(self, most: int = _RECEIVE_BODY) -> bytes:
        """Some bytes of a body. Raises Cut if none come."""
        try:
            data = self.socket.recv(min(most, _RECEIVE_BODY))
        except OSError as error:
            raise Cut from error
        if not data:
            raise Cut
        return data


class Body:
    """The body of a request, read once, from front to end; without a source it is empty."""

    def __init__(self, source: Framing | None, length: int | None) -> None:
        self.source = source
        self.length = length
        """Bytes, by the Content-Length; None: it comes in chunks."""
        self.received = 0
        """Bytes read so far."""
        self.finished = length == 0
        """Whether all of it was read."""

    @property
    def is_held_back(self) -> bool:
        """Whether the client waits until it is told to send it (`Expect: 100-continue`)."""
        return bool(self.source and self.source.http.they_are_waiting_for_100_continue)

    def interrupt(self) -> None:
        """End the reading of it, from another thread: `read` raises Cut, and can be answered."""
        if self.source:
            with suppress(OSError):
                self.source.socket.shutdown(socket.SHUT_RD)

    def read(self) -> bytes | bytearray:
        """The bytes that have come, at least one; b"" at the end. Raises BadRequest, Cut."""
        if self.finished or self.source is None:
            return b""
        if self.is_held_back:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
            self.source.socket.sendall(self.source.http.send(go_on))
        if self.length is None:
            chunks = self._chunks(self.source)
            self.received += len(chunks)
            return chunks
        # A body of a known length is taken as it is: h11 would copy it twice, which is a fifth of
        # an upload's processor time.
        left = self.length - self.received
        block, self.source.rest = self.source.rest[:left], self.source.rest[left:]
        block = block or self.source.receive(left)
        self.received += len(block)
        self.finished = self.received == self.length
        return block

    def _chunks(self, source: Framing) -> bytearray:
        """All chunks, and parts of one, that have come."""
        # Gathered, because some clients send chunks of a few bytes: each would be a write.
        gathered = bytearray()
        while not self.finished:
            event = source.event()
            if isinstance(event, h11.Data):
                gathered += event.data
            elif isinstance(event, h11.EndOfMessage):
                source.rest, _ = source.http.trailing_data
                self.finished = True
            elif gathered:
                break
            else:
                source.http.receive_data(source.receive())
        return gathered


def _headers(head: h11.Request) -> dict[str, str]:
    if len(head.headers) > _MOST_HEADERS:
        raise BadRequest(431, f"more than {_MOST_HEADERS} headers")
    headers: dict[str, str] = {}
    for raw_name, raw_value in head.headers.raw_items():
        name, value = raw_name.decode().lower(), raw_value.decode("latin-1")
        if name == "authorization" and name in headers:
            raise BadRequest(400, "there are two Authorization headers")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers
