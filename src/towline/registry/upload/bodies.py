"""The bodies in which a blob is sent: one, one that is held until its digest is known, or chunks.

Chunks are for hosts, or proxies before them, that limit bodies or want a length, and for layers
that should survive a cut. Each chunk is held in memory until it is acknowledged. Where its answer
is lost the session is asked what it holds; a chunk is never sent again blindly.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from towline.errors import AuthError, NetworkError, RegistryError
from towline.registry import errors
from towline.registry.transport import Call
from towline.registry.upload import strategy
from towline.registry.upload.session import BINARY, Session, range_end
from towline.wire.message import Request, Response

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.registry.capabilities import Shape
    from towline.wire.exchange import Exchange

CORRECTIONS_MAX = 10
"""Times that a session may contradict our count, or lose an answer."""


class OneBody:
    """All that the session does not hold yet: one PATCH or, if the digest is known, one PUT."""

    def __init__(self, session: Session, length: int | None, digest: str | None = None) -> None:
        """`length`: bytes that will be written; None: not known."""
        self._session = session
        self._length = length
        self._shape: Shape = "put" if digest else "patch"
        self._failures = session.facts.failures[self._shape]
        url = session.url.with_query("digest", digest) if digest else session.url
        # Every PATCH after a session's first one must say where it belongs: Gitea refuses it
        # otherwise, and Quay takes it for the beginning.
        start = session.acknowledged
        span = (_content_range(start, length),) if start and length else ()
        headers = (BINARY, *span)
        request = Request(self._shape.upper(), url, headers, streamed=True, length=length)
        transport, scopes = session.access.transport, session.access.scopes
        self._exchange: Exchange = transport.start(request, scopes, session.context)

    def write(self, block: memoryview) -> None:
        """Send a block."""
        self._session.count(len(block))
        with self._noted():
            refused = self._exchange.write(block)
        if refused is not None:
            self.close()
            raise self._refusal(refused)

    def finish(self, digest: str) -> bool:
        """End the body. Returns whether that has closed the session, too."""
        with self._noted():
            response = self._exchange.finish()
        if not response.ok or errors.is_page(response):
            raise self._refusal(response)
        self._session.facts.taken(self._shape)
        if self._shape == "patch":
            self._session.moved(response)
        else:
            self._session.kept_instead = errors.named_instead(response, digest)
        return self._shape == "put"

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except (NetworkError, RegistryError):
            self._failed()
            raise

    def _refusal(self, response: Response) -> AuthError | RegistryError:
        # Older Artifactory and some proxies break down over one of the shapes, so these count
        # against it. 503 only says that the server is busy.
        if response.status in {500, 502, 504}:
            self._failed()
        return strategy.refusal(self._session, response, shape=self._shape, size=self._length)

    def _failed(self) -> None:
        self._session.facts.failed(self._shape, self._failures)

    def close(self) -> None:
        """Break the body off, if it is not at its end."""
        self._exchange.close()


def put(session: Session, content: memoryview, digest: str) -> bool:
    """Send all of a blob in one PUT, which closes the session (distribution-spec, end-6)."""
    body = OneBody(session, len(content), digest)
    body.write(content)
    return body.finish(digest)


def _content_range(start: int, length: int) -> tuple[str, str]:
    """The header that says which bytes of a blob a body has: no unit, the last one included."""
    return ("Content-Range", f"{start}-{start + length - 1}")


class Held:
    """Holds a blob until its digest is known, then sends it in one request.

    For small blobs, and for hosts that refuse PATCH. A blob of more than `most` bytes is dropped:
    once all of it was written, its digest and size are known, and it is written again.
    """

    def __init__(self, session: Session, most: int) -> None:
        """`most`: bytes that are held."""
        self.overflown = False
        """Whether the blob was too large: nothing of it is held, and nothing was sent."""
        self._session = session
        self._most = most
        self._content = bytearray()

    def write(self, block: memoryview) -> None:
        """Hold a block."""
        if self.overflown or len(self._content) + len(block) > self._most:
            self.overflown, self._content = True, bytearray()
        else:
            self._content += block

    def finish(self, digest: str) -> bool:
        """Send all of the blob, in one POST, or in the PUT that closes the session."""
        session, content = self._session, memoryview(self._content)
        if not session.is_open and session.post(content, digest):
            return True
        return put(session, content, digest)


class Chunks:
    """Sends a blob in chunks of at most `size` bytes, each held until it is acknowledged."""

    def __init__(self, session: Session, size: int) -> None:
        self._session = session
        self._buffer = bytearray(size)
        self._filled = 0
        self._corrections = 0
        self._failures = session.facts.failures["chunk"]
        self._taken = 0
        """Chunks that were acknowledged."""

    @property
    def several(self) -> bool:
        """Whether more than one chunk was acknowledged."""
        return self._taken > 1

    def write(self, block: memoryview) -> None:
        """Add a block, and send each chunk that is full. Raises as `finish` does."""
        while len(block):
            part = block[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            block = block[len(part) :]
            if self._filled == len(self._buffer):
                self._flush()

    def finish(self, digest: str) -> bool:
        """Send what is left. Returns whether that has closed the session, too."""
        # All of the blob fits into one chunk: one PUT is a request less than PATCH and PUT.
        if not self._session.acknowledged and self._session.facts.takes_puts:
            return put(self._session, memoryview(self._buffer)[: self._filled], digest)
        # The last bytes go by PATCH as well: distribution 3 would append the closing PUT's body
        # without a look at its range.
        self._flush()
        return False

    def _flush(self) -> None:
        at = 0
        while at < self._filled:
            # Asked anew each time: a refusal may have made chunks smaller meanwhile.
            limit = self._session.facts.chunk(len(self._buffer))
            size = min(limit, self._filled - at)
            taken = self._send(memoryview(self._buffer)[at : at + size])
            at += taken
            self._session.acknowledged += taken
            self._taken += taken > 0
        self._filled = 0

    def _send(self, chunk: memoryview) -> int:
        """PATCH one chunk (distribution-spec, end-5). Returns how many of its bytes are held."""
        session = self._session
        headers = (BINARY, _content_range(session.acknowledged, len(chunk)))
        call = Call("PATCH", session.url, session.action, headers, chunk)
        access = session.access
        try:
            response = access.transport.send(call, access.scopes, session.context)
        except NetworkError as error:
            session.count(len(chunk) if error.sent else 0)
            return self._asked(len(chunk), error)
        session.count(len(chunk))
        if response.ok and not errors.is_page(response):
            # After a success our own count is the truth: ECR never moves its `Range`.
            session.moved(response)
            return len(chunk)
        return self._corrected(response, len(chunk))

    def _corrected(self, response: Response, size: int) -> int:
        """How many bytes of a refused chunk are held all the same. Raises if there is no way on."""
        self._corrections += 1
        in_vain = self._corrections > CORRECTIONS_MAX
        # The same bytes go once more: with another token, or in a smaller body.
        again = response.status == 401 or strategy.is_too_large(response)
        # A refusal that names a place and an offset says where to go on.
        held = range_end(response)
        placed = held and response.headers.get("Location") and self._is_possible(held, size)
        if placed and not again and not in_vain:
            self._session.moved(response)
            return held - self._session.acknowledged
        error = strategy.refusal(self._session, response, shape="chunk", size=size)
        if self._taken and error.code in strategy.LOST:
            # Google's registries: 404 BLOB_UPLOAD_INVALID to every second PATCH of a session.
            self.came_to_nothing(error)
        error.transient = error.transient and (error.another_way or not in_vain)
        if error.transient and again and not in_vain:
            return 0
        raise error

    def came_to_nothing(self, error: AuthError | RegistryError) -> None:
        """Count a blob that failed in chunks. After two of them, one body is tried."""
        facts = self._session.facts
        if facts.chunks_kept:  # chunks are taken here: only this session is gone
            return
        facts.failed("chunk", self._failures)
        self._session.spoil()
        error.transient = error.another_way = True

    def _asked(self, size: int, error: NetworkError) -> int:
        """After a lost answer: how many bytes of the chunk the session says it holds.

        0 where it does not say. Raises `error` where the session is gone or says the impossible.
        """
        self._corrections += 1
        held = self._session.held() if self._corrections <= CORRECTIONS_MAX else None
        if held is None:
            raise error
        acknowledged = self._session.acknowledged
        if held >= acknowledged > 0:
            self._session.facts.note_cut(in_chunks=True, went_on=True)
        if held and not self._is_possible(held, size):
            raise error
        return held - acknowledged if held else 0

    def _is_possible(self, held: int, size: int) -> bool:
        acknowledged = self._session.acknowledged
        return acknowledged <= held <= acknowledged + size
