"""A blob as several PATCHes, each acknowledged before the next is sent.

For bodies that something on the way limits, for hosts that want a length, and for layers that are
to survive a cut. A chunk is held until it is acknowledged; an answer that was lost is settled by
asking the session, never by sending blindly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.errors import NetworkError
from towline.registry import answers, requests
from towline.registry.session import is_too_large, range_end

if TYPE_CHECKING:
    from towline.errors import AuthError, RegistryError
    from towline.registry.session import Session
    from towline.wire.message import Response

CORRECTIONS_MAX = 10
"""Times that a session may say something else than we counted."""
_TOO_LARGE, _UNAUTHORIZED = 413, 401


class Chunks:
    """Sends what it is given in chunks of at most `size` bytes, each held until acknowledged."""

    def __init__(self, session: Session, size: int, start: int = 0) -> None:
        self.acknowledged = start
        """Bytes that the registry holds."""
        self._session = session
        self._buffer = bytearray(size)
        self._filled = 0
        self._corrections = 0

    def write(self, block: memoryview) -> None:
        """Take a block. Raises AuthError, RegistryError, NetworkError."""
        while len(block):
            part = block[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            block = block[len(part) :]
            if self._filled == len(self._buffer):
                self.flush()

    def whole(self) -> memoryview | None:
        """All that was written, if nothing of it has been sent: it fits into one PUT."""
        return None if self.acknowledged else memoryview(self._buffer)[: self._filled]

    def flush(self) -> None:
        """Send what is held."""
        at = 0
        while at < self._filled:
            limit = self._session.talk.facts.chunk(len(self._buffer))
            size = min(limit, self._filled - at)
            taken = self._send(memoryview(self._buffer)[at : at + size])
            at += taken
            self.acknowledged += taken
        self._filled = 0

    def _send(self, chunk: memoryview) -> int:
        """PATCH one chunk; how many of its bytes the registry holds now."""
        session = self._session
        call = requests.send_chunk(session.url, chunk, self.acknowledged, session.action)
        try:
            response = session.talk.call(call)
        except NetworkError as error:
            return self._asked(len(chunk), error)
        if response.ok and not answers.is_page(response):
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
        again = response.status in {_TOO_LARGE, _UNAUTHORIZED} or is_too_large(response)
        held, certain = range_end(response)
        placed = certain and response.headers.get("Location") and self._is_possible(held, size)
        if placed and not again and not in_vain:
            self._session.moved(response)
            return held - self.acknowledged
        error = self._session.refusal(response, shape="chunk", size=size)
        error.transient = error.transient and (error.learned or not in_vain)
        if error.transient and again and not in_vain:
            return 0
        raise error

    def _asked(self, size: int, error: NetworkError) -> int:
        """What of a chunk is held whose answer was lost."""
        self._corrections += 1
        answer = self._session.held() if self._corrections <= CORRECTIONS_MAX else None
        if answer is None:
            raise error
        held, certain = answer
        if certain and held >= self.acknowledged > 0:
            self._session.talk.facts.went_on(in_chunks=True)
        return self._between(held, size, error) if certain or not self.acknowledged else 0

    def _between(
        self, held: int, size: int, error: AuthError | RegistryError | NetworkError
    ) -> int:
        if not self._is_possible(held, size):
            raise error
        return held - self.acknowledged

    def _is_possible(self, held: int, size: int) -> bool:
        return self.acknowledged <= held <= self.acknowledged + size
