"""A blob that passes in a pipe: one thread puts its blocks, those of the targets take them.

A pipe can be read once, and an upload may have to begin anew. So what has come of a blob stays in
memory, `Held`, until all targets have the blob. Where there is no room for more, what all of them
have taken of a large blob is dropped, and that blob cannot be begun anew any more. Each target, a
`Taker`, takes at a place of its own, its `Share` of the blob. The slowest one sets the pace of all.
One that takes nothing for a while, though others wait for it, is left behind.
"""

from __future__ import annotations

import time
from collections import deque
from threading import Condition
from typing import TYPE_CHECKING, Literal

from towline.context import SLICE
from towline.sources.base import PassedBy

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.context import Cancel
    from towline.layers.reader import Reader
    from towline.spec.digest import Digest
    from towline.spec.media_types import Compression

BLOCK = 256 << 10
"""Bytes of a blob that are passed on at once."""
WINDOW = 4 << 20
"""Bytes of one blob that are held in any case after they were sent."""
ROOM = 20 << 20
"""Bytes of all blobs together that are held. As long as all of a blob that has come is, its upload
can begin anew. Over 20 ms of round trip, 6 MB of 150 MB/s come before the upload is open."""
HINT = "write it to a file, and push that: a file can be read again"
"""What to do where an upload fails for good and the pipe is gone."""


class Held:
    """What is held of all blobs that pass, for whom, and who waits for whom."""

    def __init__(self, cancel: Cancel, patience: float) -> None:
        self.patience = patience
        """Seconds for which a target that takes nothing may keep the others waiting."""
        self.moved = Condition()
        """Notified of each change in a blob. Its lock is held by whoever looks at one."""
        self.size = 0
        """Bytes."""
        self.blobs: list[PassingBlob] = []
        """Those that a target may want bytes of."""
        self.takers: list[Taker] = []
        """The targets that want blobs."""
        self.missed: set[Digest] = set()
        """Blobs of which a target wanted bytes that were not held any more."""
        self.left_behind = False
        """Whether any target was, which may lack any of the blobs."""
        self._cancel = cancel

    def awaits_room(self, size: int) -> bool:
        """Whether there is no room for so many more bytes yet; then that was waited for a little.

        What can be dropped for them is. Raises Cancelled.
        """
        with self.moved:
            # First of blobs of which something was dropped: they cannot be begun anew in any case.
            for blob in sorted(self.blobs, key=lambda blob: not blob.dropped):
                if self.size + size > ROOM:
                    blob.drop()
            full = self.size + size > ROOM
            if full:
                self.wait()
            return full

    def wait(self) -> None:
        """Wait for a change, but not long; leave behind who has kept others waiting for too long.

        Raises Cancelled.
        """
        with self.moved:
            shares = [share for blob in self.blobs for share in blob.shares]
            late, began = {share.taker for share in shares if share.late}, time.monotonic()
            self.moved.wait(SLICE)
            self._cancel.check()
            if len(late) < len(self.takers):
                for taker in late:
                    taker.patience -= time.monotonic() - began
                    if taker.patience < 0:
                        taker.leave()
                        taker.left_behind = self.left_behind = True

    def wake(self) -> None:
        """End a wait that is under way."""
        with self.moved:
            self.moved.notify_all()


class Taker:
    """A target, as one of those that take what passes."""

    def __init__(self, held: Held, is_full: Callable[[int], bool] = lambda _: False) -> None:
        """`is_full`: whether an upload of so many bytes has to wait for others to end first."""
        self.is_full = is_full
        self.patience = held.patience
        """Seconds for which it may still keep others waiting, if it takes nothing meanwhile."""
        self.left_behind = False
        """Whether the others went on without it."""
        self.held = held
        held.takers.append(self)

    def leave(self) -> None:
        """Hold nothing for the target any more, and wait for it no longer."""
        with self.held.moved:
            if self in self.held.takers:
                self.held.takers.remove(self)
            shares = [share for blob in self.held.blobs for share in blob.shares]
            for share in shares:
                if share.taker is self:
                    share.release()


class Share:
    """A target's part in a blob: the Reader of one attempt after the other to send it."""

    def __init__(self, blob: PassingBlob, taker: Taker) -> None:
        self.taker = taker
        self.state: Literal["expected", "reading", "sent", "paused", "elsewhere"] = "expected"
        """What the target does: it has not begun (`expected`); it takes bytes (`reading`), or has
        taken all of a large blob for the first time (`sent`), and its registry may take its time to
        confirm that; it is between two attempts (`paused`); another push brings the blob there
        (`elsewhere`), and it takes bytes only if that fails."""
        self.taken = 0
        """Bytes that the present attempt has taken; 0 between two attempts that begin anew."""
        self._most = 0
        """Bytes that any attempt has taken: taking them once more is no progress."""
        self._blob = blob
        self._moved = blob.held.moved

    @property
    def late(self) -> bool:
        """Whether it is its target that others wait for, and not the pipe or us. Lock held."""
        blob = self._blob
        if self.state == "reading":
            return self.taken < blob.come or blob.come == blob.size
        return self.state in {"expected", "paused"} and not self.taker.is_full(blob.size)

    def open(self) -> Reader:
        """Begin at the first byte. Raises PassedBy where that is not held any more."""
        with self._moved:
            if self._blob.dropped or self not in self._blob.shares:
                raise self._blob.passed_by()
            self.state, self.taken = "reading", 0
            self._moved.notify_all()
        return self

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Reader`. Raises PassedBy, and the error of reading the pipe."""
        blob = self._blob
        with self._moved:
            while self._waits():
                if blob.error is not None:
                    raise blob.error
                self._moved.wait()
            if self.taken == blob.size:
                return 0
            if self not in blob.shares:
                raise blob.passed_by()
            place, start = divmod(self.taken - blob.dropped, BLOCK)
            block = blob.blocks[place]
            count = min(len(buffer), len(block) - start)
            buffer[:count] = memoryview(block)[start : start + count]
            self.taken += count
            if self.taken > self._most:
                self._most, self.taker.patience = self.taken, blob.held.patience
                if self.taken == blob.size > WINDOW:
                    self.state = "sent"
            self._moved.notify_all()
            return count

    def _waits(self) -> bool:
        """Whether there is nothing to take for now."""
        blob = self._blob
        if blob.come == blob.size or self not in blob.shares:
            return False
        # All begin together, or an upload would stand still until the others begin. Once the blob
        # is whole nobody waits for anybody: the slot that another waits for may be held here.
        return blob.is_expected or self.taken == blob.come

    def close(self) -> None:
        """See `Reader`. All that has come stays for the next attempt, unless some was dropped."""
        with self._moved:
            if self.state == "reading" and self._blob.dropped:
                self.release()
            elif self.state == "reading":
                self.state, self.taken = "paused", 0

    def stand_aside(self) -> None:
        """Note that another push brings the blob to the target: it is read only if that fails."""
        with self._moved:
            self.state = "elsewhere"
            self._moved.notify_all()

    def release(self) -> None:
        """Note that the target wants no more of the blob, if it still did."""
        blob, held = self._blob, self._blob.held
        with self._moved:
            if self in blob.shares:
                blob.shares.remove(self)
                self.taker.patience = held.patience
                if not blob.shares:
                    held.blobs.remove(blob)
                    held.size -= sum(map(len, blob.blocks))
                    blob.blocks.clear()
            self._moved.notify_all()


class PassingBlob:
    """The blob itself: what has come of it, and is held for the targets."""

    def __init__(
        self, digest: Digest, size: int, kind: Compression, source: str, held: Held
    ) -> None:
        self.digest = digest
        self.size = size
        """Bytes."""
        self.compression = kind
        self.held = held
        self.shares: list[Share] = []
        """Of the targets that may want more. Where there are none, what comes is dropped."""
        self.blocks: deque[bytes | bytearray] = deque()
        """The blocks that are held, of `BLOCK` bytes each but for the blob's last one."""
        self.dropped = 0
        """Bytes of the blob before those blocks."""
        self.come = 0
        """Bytes that have come."""
        self.error: BaseException | None = None
        """Why no more comes, if it is not whole."""
        self._source = source

    def share(self, taker: Taker) -> Share:
        """The share of one more target, to be had before the first block is put."""
        with self.held.moved:
            if not self.shares:
                self.held.blobs.append(self)
            self.shares.append(Share(self, taker))
            return self.shares[-1]

    @property
    def is_expected(self) -> bool:
        """Whether a target has not begun yet: the others wait for it with the first byte."""
        return any(share.state == "expected" for share in self.shares)

    def put(self, block: bytes | bytearray) -> bool:
        """Add the next block; False: there is no room for it yet, which was waited for a little.

        Raises Cancelled.
        """
        with self.held.moved:
            if self.shares and self.held.awaits_room(1):
                return False
            if self.shares:
                self.blocks.append(block)
                self.come += len(block)
                self.held.size += len(block)
                self.held.moved.notify_all()
            return True

    def end(self, error: BaseException) -> None:
        """Note that no more of it comes, though it is not whole."""
        with self.held.moved:
            self.error = error
            self.held.moved.notify_all()

    def drop(self) -> None:
        """Drop what all targets have sent, of a large blob. Lock held."""
        taken = [share.taken for share in self.shares if share.state != "elsewhere"]
        sent = min(taken, default=0)
        while sent > WINDOW and self.blocks and self.dropped + len(self.blocks[0]) <= sent:
            self.dropped += len(self.blocks[0])
            self.held.size -= len(self.blocks.popleft())

    def passed_by(self) -> PassedBy:
        """The error for whoever wants bytes that are not held any more."""
        self.held.missed.add(self.digest)
        return passed_by(self._source, f"the blob {self.digest}")


def passed_by(source: str, what: str) -> PassedBy:
    """The error for bytes that have passed and are not held any more."""
    return PassedBy(f"{what} has passed by in {source}, which can be read only once", hint=HINT)
