"""One request and its answer as bytes on a channel (RFC 9112), framed by h11.

Ours are the bounds: how long is waited, how large a head may be. Knows bytes and frames; what an
answer means is its reader's affair.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import h11

from towline.wire.channel import RECEIVE_SIZE
from towline.wire.message import Headers

if TYPE_CHECKING:
    from towline.wire.channel import Channel

HEAD_MAX = 64 << 10
"""Bytes of a head, of a chunk's line or of trailers that are taken before their end has come."""
_FIELDS_MAX = 200
_INTERIM_MAX = 20
_WHOLE = 2
"""Times the allowed silence in which a head that has begun must be whole."""
_SLOWEST = 1 << 10
"""Bytes a second: a body that comes more slowly, after as long, has no end."""
_STATUS = range(100, 600)
_INTERIM = range(100, 200)


class Broken(Exception):
    """Bytes that are no HTTP answer; `begun` when there was one and it is torn or false."""

    def __init__(self, message: str, *, begun: bool = False, start: bytes = b"") -> None:
        super().__init__(message)
        self.begun = begun
        self.start = start
        """The first bytes, by which to guess what the other side speaks."""


class Gone(Broken):
    """The connection ended; before any byte of an answer unless `begun`."""


class Head(NamedTuple):
    """Status line and header fields."""

    status: int
    reason: str
    headers: Headers
    version: bytes
    """`1.0` or `1.1`."""

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
    """A request, sent part by part, then its answer; what comes behind it stays in the channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MAX)
        self.done = False
        """Whether the answer's body was read to its end."""
        self.delimited = True
        """Whether that end was known other than by the end of the connection."""
        self._left = 0
        """Bytes to come of a body whose length counts."""
        self._piece = memoryview(b"")
        """What h11 has given of the body and nobody has taken yet."""

    def request(self, method: str, target: str, fields: list[tuple[str, str]]) -> bytes:
        """The head of the request. ValueError for what cannot stand in one."""
        headers = [
            (name.encode("latin-1", "replace"), value.strip().encode("latin-1", "replace"))
            for name, value in fields
        ]
        try:
            return self._http.send(h11.Request(method=method, target=target, headers=headers))
        except h11.LocalProtocolError:  # its words may hold the field
            raise ValueError("a header field that cannot be sent") from None

    def data(self, block: memoryview) -> list[memoryview]:
        """A block of its body with what frames it, in parts: joining them would copy the block."""
        event = h11.Data(data=block)  # type: ignore[arg-type] # it takes all that has a length
        return [memoryview(part) for part in self._http.send_with_data_passthrough(event) or ()]

    def end(self) -> bytes:
        """The end of its body."""
        return self._http.send(h11.EndOfMessage())

    def head(self, seconds: float) -> Head:
        """The final answer's head; interim ones (100, 103) are passed over.

        `seconds` without a byte are allowed. Raises Broken, OSError, Silence.
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
            event = self._event("an answer whose head is malformed or too long")
            if isinstance(event, h11.Response | h11.InformationalResponse):
                head = _head(event)
                if "Transfer-Encoding" not in head.headers:
                    self._left = head.headers.number("Content-Length") or 0
                return head
            if whole_by and time.monotonic() > whole_by:
                raise Broken("header fields without end", begun=True)
            # A long pause is for who still has to think, and that is over with the first byte.
            more = channel.receive(channel.timeout if data else seconds)
            if not more:
                raise Gone("the connection ended", begun=bool(data), start=data[:16])
            data += more
            whole_by = whole_by or time.monotonic() + _WHOLE * channel.timeout
            # What is no HTTP is known by its first line; it may never send an empty one.
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
                return self._read_bare(room, seconds)
            else:
                data = self._channel.receive(seconds)
                self.delimited = bool(data)
                self._http.receive_data(data)
        part, self._piece = self._piece[: len(room)], self._piece[len(room) :]
        room[: len(part)] = part
        return len(part)

    def _read_bare(self, room: memoryview, seconds: float) -> int:
        """Of a known length, just bytes: h11 would copy them three times."""
        count = self._channel.receive_into(room[: self._left], seconds)
        if not count:
            raise Gone("the connection ended in the middle of the answer", begun=True)
        self._left -= count
        if not self._left:
            self._over(b"")
        return count

    def _over(self, rest: bytes) -> None:
        self.done = True
        self._channel.give_back(rest)

    def read_all(self, seconds: float, limit: int) -> bytes:
        """Whole, or some more than `limit` bytes of it. Raises as `read` does."""
        content = bytearray()
        room = memoryview(bytearray(min(limit + 1, self._left or RECEIVE_SIZE)))
        began = time.monotonic()
        while len(content) <= limit and (count := self.read(room, seconds)):
            content += room[:count]
            if time.monotonic() - began > _WHOLE * self._channel.timeout + len(content) / _SLOWEST:
                raise Broken("a body without end", begun=True)
        return bytes(content)

    def _event(self, otherwise: str) -> object:
        """What h11 makes of what has come. Its own words would quote what may be a secret."""
        try:
            return self._http.next_event()
        except h11.RemoteProtocolError:
            if self.delimited:
                raise Broken(otherwise, begun=True) from None
            raise Gone("the connection ended in the middle of the answer", begun=True) from None


def _head(event: h11.Response | h11.InformationalResponse) -> Head:
    """Bounded where h11 is not. Raises Broken."""
    fields = event.headers.raw_items()
    if event.status_code not in _STATUS or event.http_version[:2] != b"1.":
        raise Broken("an answer that is no HTTP", begun=True)
    if len(fields) > _FIELDS_MAX:
        raise Broken("too many header fields", begun=True)
    headers = Headers((name.decode("ascii"), value.decode("latin-1")) for name, value in fields)
    return Head(event.status_code, event.reason.decode("latin-1"), headers, event.http_version)
