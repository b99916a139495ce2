"""A blob as several PATCHes, each acknowledged before the next is sent.

For bodies that something on the way limits, for hosts that want a length, and for layers that are
to survive a cut. A chunk is held until it is acknowledged; an answer that was lost is settled by
asking the session, never by sending blindly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.errors import NetworkError
from towline.registry import errors
from towline.registry.requests import blobs
from towline.registry.upload import strategy
from towline.registry.upload.bodies import put
from towline.registry.upload.session import range_end

if TYPE_CHECKING:
    from towline.errors import AuthError, RegistryError
    from towline.registry.upload.session import Session
    from towline.wire.message import Response

CORRECTIONS_MAX = 10
"""Times that a session may say something else than we counted."""
_UNAUTHORIZED = 401


class Chunks:
    """Sends what it is given in chunks of at most `size` bytes, each held until acknowledged."""

    def __init__(self, session: Session, size: int) -> None:
        self._session = session
        self._buffer = bytearray(size)
        self._filled = 0
        self._corrections = 0
        self._failures = session.talk.facts.failures["chunk"]
        self._taken = 0
        """Chunks that were acknowledged."""

    @property
    def several(self) -> bool:
        """Whether more than one was acknowledged."""
        return self._taken > 1

    def write(self, block: memoryview) -> None:
        """Take a block. Raises AuthError, RegistryError, NetworkError."""
        while len(block):
            part = block[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            block = block[len(part) :]
            if self._filled == len(self._buffer):
                self._flush()

    def finish(self, digest: str) -> bool:
        """Send what is held; whether that has closed the session too.

        A blob of which nothing was sent before fits into one PUT.
        """
        if not self._session.acknowledged and strategy.puts(self._session.talk.facts):
            return put(self._session, memoryview(self._buffer)[: self._filled], digest)
        self._flush()
        return False

    def _flush(self) -> None:
        at = 0
        while at < self._filled:
            limit = self._session.talk.facts.chunk(len(self._buffer))
            size = min(limit, self._filled - at)
            taken = self._send(memoryview(self._buffer)[at : at + size])
            at += taken
            self._session.acknowledged += taken
            self._taken += taken > 0
        self._filled = 0

    def _send(self, chunk: memoryview) -> int:
        """PATCH one chunk; how many of its bytes the registry holds now."""
        session = self._session
        call = blobs.send_chunk(session.url, chunk, session.acknowledged, session.action)
        session.sent += len(chunk)
        try:
            response = session.talk.call(call)
        except NetworkError as error:
            return self._asked(len(chunk), error)
        if response.ok and not errors.is_page(response):
            # After a success our own count is the truth: some never move their `Range`.
            session.moved(response)
            session.talk.context.meter.add(sent_bytes=len(chunk))
            return len(chunk)
        return self._corrected(response, len(chunk))

    def _corrected(self, response: Response, size: int) -> int:
        """What of a refused chunk is held all the same, if there is a way on."""
        self._corrections += 1
        in_vain = self._corrections > CORRECTIONS_MAX
        # With the same bytes once more: in a smaller body, or with another token.
        again = response.status == _UNAUTHORIZED or strategy.is_too_large(response)
        held = range_end(response)
        placed = held and response.headers.get("Location") and self._is_possible(held, size)
        if placed and not again and not in_vain:
            self._session.moved(response)
            return held - self._session.acknowledged
        error = strategy.refusal(self._session, response, shape="chunk", size=size)
        if self._taken and error.code in strategy.LOST:
            # Google's registries: 404 BLOB_UPLOAD_INVALID to every second PATCH of a session.
            self.came_to_nothing(error)
        error.transient = error.transient and (error.learned or not in_vain)
        if error.transient and again and not in_vain:
            return 0
        raise error

    def came_to_nothing(self, error: AuthError | RegistryError) -> None:
        """Note that the blob is not kept; after two, chunks may be the cause, and one body goes."""
        facts = self._session.talk.facts
        if facts.chunks_kept:
            return  # then only this session is gone
        facts.failed("chunk", self._failures)
        self._session.spoil()
        error.transient = error.learned = True

    def _asked(self, size: int, error: NetworkError) -> int:
        """What of a chunk is held whose answer was lost; where that is not said, nothing."""
        self._corrections += 1
        held = self._session.held() if self._corrections <= CORRECTIONS_MAX else None
        if held is None:
            raise error
        acknowledged = self._session.acknowledged
        if held >= acknowledged > 0:
            self._session.talk.facts.went_on(in_chunks=True)
        if held and not self._is_possible(held, size):
            raise error
        return held - acknowledged if held else 0

    def _is_possible(self, held: int, size: int) -> bool:
        acknowledged = self._session.acknowledged
        return acknowledged <= held <= acknowledged + size
