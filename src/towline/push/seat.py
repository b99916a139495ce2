"""One attempt at sending one blob to one target: an upload session, and who may still use it.

A pass writes to it, in whatever thread; its owner may take it away at any moment, also while a
write is stuck in it. Whoever is the last to be inside gives the session back.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from towline.context import Cancel
from towline.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from towline.context import Context


class Session(Protocol):
    """What takes the bytes of a blob; `registry.upload.Upload` is one."""

    @property
    def sent(self) -> int:
        """Bytes of the blob that went out."""
        ...

    @property
    def resumed(self) -> bool:
        """Whether it went on where an earlier attempt was cut."""
        ...

    def write(self, block: bytes | memoryview, /) -> None:
        """Send a block."""
        ...

    def commit(self, digest: str, /) -> None:
        """Everything is written: have the blob checked and kept."""
        ...

    def rewind(self) -> bool:
        """After a failure: whether it goes on with what it holds, written from the first byte.

        What it raises is a failure like any other, after which it may be asked again.
        """
        ...

    @property
    def acknowledged(self) -> int:
        """Bytes that the other side is known to hold of an unfinished blob."""
        ...

    def cancel(self) -> None:
        """Give it back."""
        ...


class Seat:
    """Its calls are ended by `close`, and by the cancelling of the transfer that it serves."""

    def __init__(
        self,
        transfer: Context,
        start: Callable[[Context], Session],
        wrote: Callable[[], None],
    ) -> None:
        self._cancel = Cancel()
        self.context = transfer.with_cancel(self._cancel)
        """What everything that is done for this attempt is to use."""
        self.session: Session | None = None
        """Opened by a mount that was answered so, else by the first write."""
        self.failed = False
        """The session has seen a failure: it may be used again after `rewind` alone."""
        self._start = start
        self._wrote = wrote
        self._lock = Lock()
        self._inside = 0
        self._closed = False
        self._chained = ExitStack()
        self._chained.enter_context(transfer.cancel.on_cancel(self._cancel.cancel))

    def write(self, block: bytes | memoryview) -> None:
        """Send one block of the blob; the first one opens the session."""
        with self._using() as session:
            session.write(block)
        self._wrote()

    def commit(self, digest: str) -> None:
        """Every block is written."""
        with self._using() as session:  # an empty blob has no blocks
            session.commit(digest)

    def rewind(self) -> bool:
        """Whether the session is fit for a blob's first byte: new, or willing to go on."""
        if not self.failed or self.session is None:
            return True
        with self._using() as session:
            fit = session.rewind()
        self.failed = not fit
        return fit

    @contextmanager
    def _using(self) -> Iterator[Session]:
        with self._lock:
            if self._closed:
                raise Cancelled
            self._inside += 1
        try:
            if self.session is None:
                self.session = self._start(self.context)
            yield self.session
        except BaseException:
            self.failed = True
            raise
        finally:
            self._leave()

    def _leave(self) -> None:
        with self._lock:
            self._inside -= 1
            last = self._closed and not self._inside
        if last:
            self._give_back()

    @property
    def closed(self) -> bool:
        """Whether the attempt was ended."""
        return self._closed

    @property
    def sent(self) -> int:
        """Bytes of the blob that went out."""
        return self.session.sent if self.session else 0

    def close(self) -> None:
        """End the attempt; whoever is inside is woken, and not waited for."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            idle = not self._inside
        if idle:
            self._give_back()
        self._chained.close()
        self._cancel.cancel()

    def _give_back(self) -> None:
        if self.session is not None:
            self.session.cancel()
