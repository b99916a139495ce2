"""HTTP/1.1 on a socket: requests framed by h11, and answers. Knows nothing of registries.

h11 forgives what may let one request hide in another (RFC 9112, section 11.2); that is refused
here, and the connection ends. Knows how long to wait and how much to take; what a request means,
and when a connection is kept, is decided elsewhere.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote

import h11

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping
    from io import FileIO

    from towline.server.limits import Limits

_FORGIVEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n|\n[ \t]")
"""Control characters, a line feed or a carriage return alone, folded headers."""
_LENGTHS = re.compile(rb"\n(?:content-length|transfer-encoding):[ \t]*([^\r]*)", re.IGNORECASE)
_LENGTH = re.compile(rb"(?:[0-9]{1,18}|chunked)[ \t]*", re.IGNORECASE)
_MOST_HEADERS = 100
_RECEIVE = 16 << 10
"""Bytes taken at once of a head, and of what may follow it."""
_RECEIVE_BODY = 256 << 10
"""As much as stays in a processor's cache while it is hashed and written."""
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
BODILESS = frozenset({204, 304})
"""Statuses whose answers have no body (RFC 9110, section 6.4.1)."""


class BadRequest(Exception):
    """What arrived is no request that can be answered; the connection cannot go on."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Cut(Exception):
    """The client went away, or fell silent, in the middle of a request."""


@dataclass(slots=True)
class Request:
    """One request; its body is still on the way."""

    method: str
    path: str
    """Decoded; begins with a slash."""
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    """Names in lower case; several of one name are joined by commas."""
    body: Body
    target: str = ""
    """As it came, for the log."""
    keep_alive: bool = True


@dataclass(frozen=True, slots=True)
class FilePart:
    """A piece of an open file as the body of an answer; who sends it closes it."""

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
    """Content-Length where it differs from the content sent: answers to HEAD."""
    close: bool = False

    def head(self) -> bytes:
        """Its head, written by hand.

        h11 would take a third of a small request's time to check our own words.
        """
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
    """The requests of one socket, one after the other.

    `http` is h11's view of the last one: a new one for each, since what has come behind a request
    is kept here.
    """

    def __init__(self, sock: socket.socket, limits: Limits) -> None:
        self.http = h11.Connection(h11.SERVER)
        self.rest = b""
        """What has come behind the last head, or behind the last body in chunks."""
        self._socket = sock
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
        if target.startswith(("http://", "https://")):  # as proxies send it
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
        """The next request's head, as `request` says."""
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
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self._socket.recv(_RECEIVE)
            except TimeoutError:
                if head:
                    raise BadRequest(408, "the headers did not arrive in time") from None
                return None
            if not data:
                if head:
                    raise Cut
                return None
        self._socket.settimeout(limits.idle_seconds)
        self.rest, _ = self.http.trailing_data
        self._check(head[: len(head) - len(self.rest)])
        return event

    def _check(self, head: bytes) -> None:
        """Refuse what h11 forgives, and a head that came whole and is too long."""
        if len(head) > self._limits.head_bytes:
            raise BadRequest(431, f"the headers are longer than {self._limits.head_bytes} bytes")
        if _FORGIVEN.search(head):
            raise BadRequest(400, "a line of the head is malformed")
        lengths = _LENGTHS.findall(head)
        if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
            raise BadRequest(400, "one Content-Length or one Transfer-Encoding, and only one")

    def event(self) -> object:
        """What h11 makes of what has come. Raises BadRequest."""
        try:
            return self.http.next_event()
        except h11.RemoteProtocolError as error:
            raise BadRequest(error.error_status_hint, str(error)) from error

    def ask_to_go_on(self) -> None:
        """Tell a client to send its body if it waits for that (`Expect: 100-continue`)."""
        if self.http.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
            self._socket.sendall(self.http.send(go_on))

    def receive(self, most: int = _RECEIVE_BODY) -> bytes:
        """Some bytes of a body. Raises Cut where none come."""
        try:
            data = self._socket.recv(min(most, _RECEIVE_BODY))
        except OSError as error:
            raise Cut from error
        if not data:
            raise Cut
        return data


class Body:
    """The body of a request, read once from front to end; without a source it is empty."""

    def __init__(self, source: Framing | None, length: int | None) -> None:
        self.source = source
        self.length = length
        """Bytes that were announced; None when it comes in chunks."""
        self.received = 0
        """Bytes that were read."""
        self.finished = length == 0
        """Whether every byte was read."""

    @property
    def is_held_back(self) -> bool:
        """Whether the client waits to be told to send it (`Expect: 100-continue`)."""
        return bool(self.source and self.source.http.they_are_waiting_for_100_continue)

    def read(self) -> bytes | bytearray:
        """The bytes that have come, at least one; none at its end. Raises BadRequest and Cut."""
        if self.finished or self.source is None:
            return b""
        self.source.ask_to_go_on()
        if self.length is None:
            chunks = self._chunks(self.source)
            self.received += len(chunks)
            return chunks
        # Of a known length, just bytes: h11 would copy them twice, a fifth of an upload's cost.
        left = self.length - self.received
        block, self.source.rest = self.source.rest[:left], self.source.rest[left:]
        block = block or self.source.receive(left)
        self.received += len(block)
        self.finished = self.received == self.length
        return block

    def _chunks(self, source: Framing) -> bytearray:
        """Every chunk, or piece of one, that has come: some clients send crumbs."""
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
