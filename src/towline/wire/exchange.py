"""One request and its answer on one connection; a streamed body is written block by block.

A connection belongs to one exchange at a time, and is kept for another once the answer was read to
its end. Whatever fails becomes an error with a sentence.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from towline.errors import NetworkError, RegistryError, TowlineError
from towline.push_events import nowhere
from towline.wire import framing, proxy
from towline.wire.channel import Channel, Kept, Silence, words
from towline.wire.connect import other_certificate
from towline.wire.message import ANSWER_MAX, Request, Response
from towline.wire.secrets import Secrets, field, query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from towline.context import Cancel, Context

ANSWER_TIMEOUTS = (60.0, 300.0)
"""Seconds allowed for the answer to a small body, and to a larger one: storage assembles that, and
hashes it all again."""
SMALL_BODY = 8 << 20
"""Bytes of the largest small body."""
BODY_RATE = 20 << 20
"""Bytes of a larger body for which one second more is allowed."""
_REFUSAL_SECONDS = 5.0
"""Seconds for the rest of an answer that came before the body's end."""
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")
"""How TLS answers plain http: with an alert, or a handshake (RFC 8446, section 5.1)."""
_PIECES_A_SECOND = 20
"""Pieces in which a limited rate goes out, so that the line is never still for long."""
_PIECE_LEAST, _PIECE_MOST = 1 << 10, 64 << 10
"""Bytes of a piece: few at a low rate, but never so few that the calls cost more than they send."""


class Died(Exception):
    """A kept connection ended before any byte of an answer: the request may be sent again."""


class Manner:
    """What all exchanges of a pool share."""

    def __init__(
        self,
        log: Callable[[str], None],
        secrets: Secrets,
        kept: Kept,
        pace: Pace | None = None,
        answer_timeouts: tuple[float, float] = ANSWER_TIMEOUTS,
    ) -> None:
        self.log = log
        """Takes the lines of the wire log (`--debug`), without their ends."""
        self.secrets = secrets
        self.kept = kept
        """Takes a connection that is fit for another request."""
        self.pace = pace
        """The limit on all bodies together."""
        self.answer_timeouts = answer_timeouts


class Exchange:
    """A request under way. Not for two threads at once; `close` may be called at any time."""

    def __init__(
        self,
        channel: Channel,
        request: Request,
        context: Context,
        manner: Manner,
        *,
        fresh: bool,
        via: str | None = None,
    ) -> None:
        """`fresh`: the connection has served no request before; `via`: the proxy on its way."""
        self.request = request
        self.sent = 0
        """Bytes of the body that went out."""
        self._channel = channel
        self._framing = framing.Framing(channel)
        self._context = context
        self._manner = manner
        self._fresh = fresh
        self._proxy = via
        # A request with a body may have been carried out. Whoever sent it can ask for its effect.
        self._replayable = not fresh and not request.body
        self._body_ended = False
        self._refusal: Response | None = None
        self._answered = False
        self._unread: framing.Head | None = None
        """That of an answer whose body is left to `readinto`."""
        self._over = False
        """Whether the connection was given back or closed."""
        self._began = time.monotonic()

    def begin(self, target: str, fields: list[tuple[str, str]]) -> None:
        """Send the head, and the body that came with the request.

        An answer that comes before the body's end is left for `finish`. Raises Died, NetworkError,
        and Cancelled before a byte of the request is sent.
        """
        self._context.cancel.check()
        self._context.meter.add(requests=1)
        self._manner.secrets.sent(self.request)
        log_request(self._manner.log, self.request)
        views = [memoryview(self._framing.request(self.request.method, target, fields))]
        if self.request.body:
            views += self._framing.data(memoryview(self.request.body))
        self._refusal = self._send(views, 0)
        self._replayable = self._replayable and not self.request.streamed

    def write(self, block: bytes | memoryview) -> Response | None:
        """Send a block of the body. Returns the answer, if the other side has answered already.

        Raises NetworkError.
        """
        if self._refusal is not None or not len(block):
            return self._refusal
        view = memoryview(block).cast("B")
        # A chunk's head, the block and the chunk's end: three parts, one system call.
        return self._send(self._framing.data(view), len(view))

    def _send(self, views: list[memoryview], size: int) -> Response | None:
        """Send the parts that hold `size` bytes of the body. Returns an early answer, if any."""
        pace = self._manner.pace if self.request.has_body else None
        batches = pace.pieces(views, self._context.cancel) if pace else (views,)
        try:
            for batch in batches:
                while not self._channel.send(batch):
                    # The other side speaks before the body's end. 100 only says: go on.
                    with self._reading():
                        head = self._framing.any_head(_REFUSAL_SECONDS)
                    if not head.interim:
                        return self._answer(head, _REFUSAL_SECONDS, ANSWER_MAX)
        except Silence:
            self.close()
            raise self._error(f"took no byte for {self._channel.timeout:g} s") from None
        except OSError as error:
            # Reset while sending: the refusal that explains it may have arrived before.
            try:
                head = self._framing.head(_REFUSAL_SECONDS)
            except (OSError, Silence, framing.Broken) as unread:
                self.close()
                raise self._failed(error, unread) from None
            return self._answer(head, _REFUSAL_SECONDS, ANSWER_MAX)
        except BaseException:
            self.close()
            raise
        self.sent += size
        return None

    def finish(self) -> Response:
        """End the body and read the answer. Raises Died, NetworkError, RegistryError."""
        if self._refusal is None and self.request.has_body and (end := self._framing.end()):
            self._refusal = self._send([memoryview(end)], 0)
        if self._refusal is not None:
            return self._refusal
        self._body_ended = True
        with self._reading():
            request = self.request
            head = self._framing.head(request.patience or self.patience(self.sent + request.extra))
        if request.in_pieces and head.status < 300:  # noqa: PLR2004 - a success
            self._answered, self._unread = True, head
            return self._response(head)._replace(unread=self)
        return self._answer(head, self._channel.timeout, request.limit)

    def patience(self, digested: int) -> float:
        """Seconds to wait for the answer after `digested` bytes, which the other side hashes."""
        timeout = self._channel.timeout
        if not self.request.has_body and not digested:
            return timeout
        small, large = self._manner.answer_timeouts
        if digested <= SMALL_BODY:
            return max(timeout, small)
        return max(timeout, large) + digested / BODY_RATE

    def readinto(self, room: memoryview, /) -> int:
        """Put bytes of the body at the front of `room`; how many, 0 at its end."""
        if self._unread is None:
            return 0
        with self._reading():
            count = self._framing.read(room, self._channel.timeout)
        if not count:
            self._end(self._unread)
        return count

    def _answer(self, head: framing.Head, seconds: float, limit: int) -> Response:
        self._answered = True
        try:
            with self._reading():
                content = self._framing.read_all(seconds, limit)
        except TowlineError:
            # Of a refusal the status was read; what is missing are only its words.
            if head.status < 400:  # noqa: PLR2004 - what is no refusal
                raise
            return self._response(head, truncated=True)
        self._end(head)
        return self._response(head, content[:limit], truncated=len(content) > limit)

    def _response(
        self, head: framing.Head, content: bytes = b"", *, truncated: bool = False
    ) -> Response:
        request = self.request
        response = Response(
            head.status, head.reason, head.headers, request.url, request.method, content, truncated
        )
        self._manner.secrets.received(response)
        log_answer(self._manner.log, response, time.monotonic() - self._began)
        asked, context = f"{request.method} {request.url.redacted}", self._context
        context.trace.answered(id(self._channel), asked, context.about, head.status, self._began)
        if self._proxy and request.url.scheme == "http" and head.status == proxy.WANTS_CREDENTIALS:
            self.close()
            raise proxy.failed(self._proxy, request.url, "it wants credentials")
        return response

    def _end(self, head: framing.Head) -> None:
        """The answer was read: keep the connection, if it is fit for another request."""
        # Not fit: an answer that ended with the connection, or that came before our body's end.
        way = self._framing
        if not (way.done and way.delimited and head.keeps_alive and self._body_ended):
            self.close()
        elif not self._over:
            self._over = True
            self._manner.kept.keep(self.request.url.origin, self._channel, fresh=self._fresh)

    def close(self) -> None:
        """Break off. A connection whose answer was read to its end stays kept."""
        if not self._over:
            self._over = True
            self._channel.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """What fails inside becomes an error with a sentence, and closes the exchange."""
        try:
            yield
        except Silence as silence:
            failure: Exception = self._error(f"sent no byte for {silence.seconds:g} s")
        except framing.Gone as gone:
            failure = self._lost("closed the connection without an answer", begun=gone.begun)
        except framing.Broken as broken:
            where = self.request.url.authority
            failure = RegistryError(f"{where} sent {broken}", transient=True)
            if broken.start.startswith(_TLS_RECORDS):
                failure = NetworkError(f"{where} speaks TLS, but was spoken to in plain http")
                failure.speaks_tls = True
        except OSError as error:
            failure = self._failed(error)
        except BaseException:
            self.close()
            raise
        else:
            return
        self.close()
        raise failure from None

    def _lost(self, what: str, *, begun: bool) -> Exception:
        """The error of a connection that ended; `begun`: in the middle of an answer."""
        if begun:
            return self._error("broke the connection in the middle of its answer")
        # A kept connection had most likely been closed before we used it.
        if not self._fresh:
            self._manner.kept.count_dead(self.request.url.origin)
        if self._replayable:
            self._manner.log("* the kept connection had died: once more on a new one")
            return Died()
        error = self._error(what)
        error.hung_up, error.stale = True, not self._fresh
        return error

    def _failed(self, error: OSError, unread: Exception | None = None) -> Exception:
        refused = other_certificate(self.request.url.authority, error, unread)
        lost = f"broke the connection ({words(error)})"
        return refused or self._lost(lost, begun=self._answered)

    def _error(self, what: str) -> NetworkError:
        """The error for `what` the other side did instead of answering."""
        by = f" (by the proxy {self._proxy})" if self._proxy else ""
        error = NetworkError(f"{self.request.url.authority}{by} {what}", transient=True)
        error.sent = True
        return error


class Pace:
    """A limit on how fast bodies go out, over all connections together (`--limit-rate`).

    A thread reserves the time for its bytes, and waits until they are due. Safe from any thread.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`rate`: bytes a second."""
        self.piece = int(min(max(rate / _PIECES_A_SECOND, _PIECE_LEAST), _PIECE_MOST))
        """Bytes to send at once: few enough for an even flow."""
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._due = clock()

    def take(self, size: int, cancel: Cancel) -> None:
        """Wait until that many bytes may go. Raises `Cancelled`."""
        with self._lock:
            now = self._clock()
            # Time in which nobody sent is lost: else a burst above the rate would follow.
            start = max(now, self._due)
            self._due = start + size / self._rate
        if start > now:  # outside the lock: others reserve their time meanwhile
            cancel.wait(start - now)

    def pieces(self, views: Sequence[memoryview], cancel: Cancel) -> Iterator[list[memoryview]]:
        """The same bytes in pieces; each is yielded when it is due."""
        for view in views:
            for at in range(0, len(view), self.piece):
                piece = view[at : at + self.piece]
                self.take(len(piece), cancel)
                yield [piece]


def log_request(log: Callable[[str], None], request: Request) -> None:
    """Log a request's head. Bodies are never written."""
    if log is nowhere:
        return
    log(f"> {request.method} {query(str(request.url))}")
    for name, value in request.headers:
        log(f">   {name}: {field(name, value)}")
    if request.body:
        log(f">   ({len(request.body)} bytes)")


def log_answer(log: Callable[[str], None], response: Response, seconds: float) -> None:
    """Log an answer's head; `seconds`: since the request began."""
    if log is nowhere:
        return
    log(f"< {response.status} {response.reason} ({seconds:.3f} s, to {response.method})")
    for name, value in response.headers:
        log(f"<   {name}: {field(name, value)}")
