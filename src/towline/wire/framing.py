"""One request and its answer as bytes on a channel (RFC 9112), framed by h11.

The bounds are ours: how long to wait, how large a head may be. This module knows bytes and frames;
what an answer means is for its reader to say.
"""

from __future__ import annotations

import time

import h11

from towline.wire.channel import RECEIVE_SIZE, Channel
from towline.wire.message import Headers

HEAD_MAX = 64 << 10
"""Bytes of a head, of a chunk's line or of trailers that are taken before their end has come."""
_FIELDS_MAX = 200
"""Header fields of an answer: h11 bounds the bytes of a head, not their number."""
_INTERIM_MAX = 20
"""Interim answers (1xx) before an answer: h11 would take them without end."""
_WHOLE = 2
"""Within so many times the allowed silence a head must be whole. Without that, a server that sends
a byte now and then would be read for ever."""
_SLOWEST = 1 << 10
"""Bytes a second that a small body must come with, after the time of `_WHOLE`."""
_STATUS = range(100, 600)
_INTERIM = range(100, 200)


class Broken(Exception):
    """Bytes that are no HTTP answer. `begun`: an answer had begun, and is torn or wrong."""

    def __init__(self, message: str, *, begun: bool = False, start: bytes = b"") -> None:
        super().__init__(message)
        self.begun = begun
        self.start = start
        """The first bytes, by which to guess what the other side speaks."""


class Gone(Broken):
    """The connection ended, before any byte of an answer unless `begun`."""


class Head:
    """Status line and header fields; the version is `1.0` or `1.1`."""

    def __init__(self, status: int, reason: str, headers: Headers, version: bytes) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.version = version

    @property
    def interim(self) -> bool:
        """Whether the answer proper is still to come (100, 103)."""
        return self.status in _INTERIM

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection may serve another request when this answer is read."""
        options = self.headers.tokens("Connection")
        # h11 keeps none of HTTP/1.0; older proxies speak it and say that they keep theirs.
        return "close" not in options and (self.version > b"1.0" or "keep-alive" in options)


class Framing:
    """A request, sent part by part, then its answer. Bytes behind it stay in the channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MAX)
        self._is_head = False
        self.done = False
        """Whether the answer's body was read to its end."""
        self.delimited = True
        """Whether the answer itself marks its end; False: it ends with the connection."""
        self._left = 0
        """Bytes still to come of a body with a `Content-Length`."""
        self._piece = memoryview(b"")
        """Bytes of the body that h11 has given and the caller has not taken yet."""

    def request(self, method: str, target: str, fields: list[tuple[str, str]]) -> bytes:
        """The head of the request. Raises ValueError for a field that cannot be sent."""
        self._is_head = method == "HEAD"
        headers = [
            (name.encode("latin-1", "replace"), value.strip().encode("latin-1", "replace"))
            for name, value in fields
        ]
        try:
            return self._http.send(h11.Request(method=method, target=target, headers=headers))
        except h11.LocalProtocolError:  # its words may hold the field
            raise ValueError("a header field that cannot be sent") from None

    def data(self, block: memoryview) -> list[memoryview]:
        """A block of the body with its framing, in parts: joining them would copy the block."""
        event = h11.Data(data=block)  # type: ignore[arg-type] # it takes all that has a length
        return [memoryview(part) for part in self._http.send_with_data_passthrough(event) or ()]

    def end(self) -> bytes:
        """The bytes that end the body."""
        return self._http.send(h11.EndOfMessage())

    def head(self, seconds: float) -> Head:
        """The final answer's head; interim answers (100, 103) are passed over.

        `seconds`: how long no byte may come. Raises Broken, OSError, Silence.
        """
        for _ in range(_INTERIM_MAX):
            head = self.any_head(seconds)
            if not head.interim:
                return head
        raise Broken("nothing but interim answers", begun=True)

    def any_head(self, seconds: float) -> Head:
        """The next head, interim or final."""
        channel = self._channel
        data, _ = self._http.trailing_data  # what has come behind an interim head
        whole_by: float | None = None
        while True:
            event = data and self._event("an answer whose head is malformed or too long")
            if isinstance(event, h11.Response | h11.InformationalResponse):
                head = _head(event)
                if self._is_head and not head.interim:
                    # h11 has an event for the end of no body, too: 3 % of such a request's cost.
                    self._over(self._http.trailing_data[0])
                # A length beside a transfer coding does not count (RFC 9112, section 6.3).
                elif "Transfer-Encoding" not in head.headers:
                    self._left = head.headers.number("Content-Length") or 0
                return head
            if whole_by and time.monotonic() > whole_by:
                raise Broken("header fields without end", begun=True)
            # A long wait is for a server that still works; with its first byte that is over.
            more = channel.receive(channel.timeout if data else seconds)
            if not more:
                raise Gone("the connection ended", begun=bool(data), start=data[:16])
            data += more
            whole_by = whole_by or time.monotonic() + _WHOLE * channel.timeout
            # Anything but HTTP is known by its first bytes. h11 would wait for an empty line, which
            # may never come.
            if not data.startswith(b"HTTP/"[: len(data)]):
                raise Broken("no HTTP answer", start=data[:16])
            self._http.receive_data(more)

    def read(self, room: memoryview, seconds: float) -> int:
        """Put the next bytes of the body at the front of `room`; how many, 0 at its end.

        Raises Broken, OSError, Silence.
        """
        while not self._piece and not self.done:
            event = self._event("a body that is malformed")
            if isinstance(event, h11.Data):
                self._left -= len(event.data)
                self._piece = memoryview(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._over(self._http.trailing_data[0])
            elif self._left > 0:
                # What is left of a known length is read as it is: h11 would copy it three times,
                # which took twice the processor time for a download.
                count = self._channel.receive_into(room[: self._left], seconds)
                if not count:
                    raise Gone("the connection ended in the middle of the answer", begun=True)
                self._left -= count
                if not self._left:
                    self._over(b"")
                return count
            else:
                data = self._channel.receive(seconds)
                # b"" tells h11 that the connection has ended; with it, so may the body.
                self.delimited = bool(data)
                self._http.receive_data(data)
        part, self._piece = self._piece[: len(room)], self._piece[len(room) :]
        room[: len(part)] = part
        return len(part)

    def _over(self, rest: bytes) -> None:
        self.done = True
        self._channel.give_back(rest)

    def read_all(self, seconds: float, limit: int) -> bytes:
        """The whole body, or a little more than `limit` bytes of it. Raises as `read` does."""
        if self.done:
            return b""
        content = bytearray()
        room = memoryview(bytearray(min(limit + 1, self._left or RECEIVE_SIZE)))
        began = time.monotonic()
        while len(content) <= limit and (count := self.read(room, seconds)):
            content += room[:count]
            if time.monotonic() - began > _WHOLE * self._channel.timeout + len(content) / _SLOWEST:
                raise Broken("a body without end", begun=True)
        return bytes(content)

    def _event(self, otherwise: str) -> object:
        """h11's next event. Raises Broken with `otherwise` where it finds an error."""
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError:
            # Not with h11's words: they quote what came, which may hold a secret.
            if self.delimited:
                raise Broken(otherwise, begun=True) from None
            raise Gone("the connection ended in the middle of the answer", begun=True) from None


def _head(event: h11.Response | h11.InformationalResponse) -> Head:
    """The head as our value, with the bounds that h11 has not. Raises Broken."""
    fields = event.headers.raw_items()
    if event.status_code not in _STATUS or event.http_version[:2] != b"1.":
        raise Broken("an answer that is no HTTP", begun=True)
    if len(fields) > _FIELDS_MAX:
        raise Broken("too many header fields", begun=True)
    headers = Headers((name.decode("ascii"), value.decode("latin-1")) for name, value in fields)
    return Head(event.status_code, event.reason.decode("latin-1"), headers, event.http_version)
