"""A blob as one body: sent as it comes, or held until its digest is known."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from towline.errors import NetworkError, RegistryError
from towline.registry import errors
from towline.registry.requests import blobs
from towline.registry.requests.blobs import BINARY
from towline.registry.upload import strategy
from towline.wire.message import Request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.errors import AuthError
    from towline.registry.capabilities import Shape
    from towline.registry.upload.session import Session
    from towline.wire.exchange import Exchange
    from towline.wire.message import Response

_BROKEN = frozenset({500, 502, 504})
"""Answers of a server that a shape of body may be too much for; 503 only says that it is busy."""


class OneBody:
    """A PATCH, or with the digest a PUT; it begins after what the session holds already."""

    def __init__(self, session: Session, length: int | None, digest: str | None = None) -> None:
        """`length`: bytes that will be written; None: not known."""
        self._session = session
        self._length = length
        self._shape: Shape = "put" if digest else "patch"
        self._failures = session.talk.facts.failures[self._shape]
        url = session.url.with_query("digest", digest) if digest else session.url
        # Every PATCH after a session's first one must say where it belongs: Gitea refuses it
        # otherwise, and Quay takes it for the beginning.
        start = session.acknowledged
        span = (blobs.content_range(start, length),) if start and length else ()
        headers = (BINARY, *span)
        request = Request(self._shape.upper(), url, headers, streamed=True, length=length)
        self._exchange: Exchange = session.talk.start(request)

    def write(self, block: memoryview) -> None:
        """Send a block. Raises AuthError, RegistryError, NetworkError."""
        self._session.sent += len(block)
        with self._noted():
            refused = self._exchange.write(block)
        if refused is not None:
            self.close()
            raise self._refusal(refused)

    def finish(self, digest: str) -> bool:
        """End the body; whether that has closed the session too."""
        with self._noted():
            response = self._exchange.finish()
        if not response.ok or errors.is_page(response):
            raise self._refusal(response)
        self._session.talk.facts.taken(self._shape)
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
        if response.status in _BROKEN:
            self._failed()
        return strategy.refusal(self._session, response, shape=self._shape, size=self._length)

    def _failed(self) -> None:
        self._session.talk.facts.failed(self._shape, self._failures)

    def close(self) -> None:
        """Break it off, if it is not at its end."""
        self._exchange.close()


def put(session: Session, content: memoryview, digest: str) -> bool:
    """All of a blob in one PUT, which closes the session."""
    body = OneBody(session, len(content), digest)
    body.write(content)
    return body.finish(digest)


class Held:
    """For a host that takes no blob without its digest: held while it is small.

    Of a larger one nothing is kept: once all of it was written its digest and size are known, and
    then it is written again.
    """

    def __init__(self, session: Session, most: int) -> None:
        """`most`: bytes that are held."""
        self.overflown = False
        """It was too much: nothing of it is kept, and nothing was sent."""
        self._session = session
        self._most = most
        self._content = bytearray()

    def write(self, block: memoryview) -> None:
        """Take a block."""
        if self.overflown or len(self._content) + len(block) > self._most:
            self.overflown, self._content = True, bytearray()
        else:
            self._content += block

    def finish(self, digest: str) -> bool:
        """Send all of it, and close the session."""
        return put(self._session, memoryview(self._content), digest)
