"""A blob that passes in a pipe: one thread puts its blocks, those of the targets take them.

What a target may still want is held in memory, so that its upload can begin anew. So the slowest
target sets the pace of all, and one that has to try again keeps the others waiting for a while.
"""

from __future__ import annotations

import time
from collections import deque
from threading import Condition
from typing import TYPE_CHECKING, Literal

from towline.sources.base import PassedBy

if TYPE_CHECKING:
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
PATIENCE = 20.0
"""Seconds that a target between two attempts may keep the others waiting in the middle of an
upload. Servers, and what stands before them, hang up after 30 to 60 seconds without a byte."""
_LOOK = 0.1
"""Seconds between two looks whether a wait is still wanted."""
HINT = "write it to a file, and push that: a file can be read again"
"""What to do where an upload fails for good and the pipe is gone."""


class Held:
    """What is held of all blobs that pass."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience
        """Seconds; see `PATIENCE`."""
        self.moved = Condition()
        """Notified of each change in one of them."""
        self.size = 0
        """Bytes."""
        self.blobs: list[PassingBlob] = []
        self.missed: set[Digest] = set()
        """Blobs of which a target wanted bytes that were not held any more."""

    def wait_for_room(self, size: int, cancel: Cancel) -> None:
        """Wait until so many more bytes may be held. Raises Cancelled."""
        with self.moved:
            while not self.has_room(size):
                self.moved.wait(_LOOK)
                cancel.check()

    def has_room(self, size: int) -> bool:
        """Whether so many more bytes may be held; what can be dropped for them is."""
        if self.size + size > ROOM:
            for blob in self.blobs:
                blob.drop()
        return self.size + size <= ROOM


class Share:
    """A target's part in a blob: the Reader of one attempt after the other to send it."""

    def __init__(self, blob: PassingBlob) -> None:
        self._blob = blob
        self.state: Literal["expected", "reading", "paused", "elsewhere"] = "expected"
        """Whether the target will read, reads, has stopped, or has the blob by another push."""
        self.taken = 0
        """Bytes that the present attempt has taken, or the last one had."""

    def open(self) -> Reader:
        """Begin at the first byte. Raises PassedBy where that is not held any more."""
        self._blob.begin(self)
        return self

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Reader`. Raises PassedBy, and the error of reading the pipe."""
        return self._blob.take(self, buffer)

    def close(self) -> None:
        """See `Reader`. The next attempt begins at the first byte."""
        self._blob.pause(self)

    def stand_aside(self) -> None:
        """Note that another push brings the blob to the target: it is read only if that fails."""
        self._blob.stand_aside(self)

    def release(self) -> None:
        """Note that the target wants no more of the blob."""
        self._blob.leave(self)


class PassingBlob:
    """The blob itself: what has come of it, and is held for the targets."""

    def __init__(
        self, digest: Digest, size: int, kind: Compression, source: str, held: Held
    ) -> None:
        self.digest = digest
        self.size = size
        """Bytes."""
        self.compression = kind
        self._source = source
        self._held = held
        self._moved = held.moved
        self._shares: list[Share] = []
        """Of the targets that may want more. Where there are none, what comes is dropped."""
        self._blocks: deque[bytes | bytearray] = deque()
        """The blocks that are held, of `BLOCK` bytes each but for the blob's last one."""
        self._dropped = 0
        """Bytes of the blob before those blocks."""
        self._put = 0
        """Bytes that have come."""
        self._error: BaseException | None = None

    # The thread that reads the pipe.

    def share(self) -> Share:
        """The share of one more target, to be had before the first block is put."""
        if not self._shares:
            self._held.blobs.append(self)
        self._shares.append(Share(self))
        return self._shares[-1]

    def await_targets(self, cancel: Cancel) -> None:
        """Wait until no target is expected any more: each reads, has failed, or is aside."""
        with self._moved:
            while any(share.state == "expected" for share in self._shares):
                self._moved.wait(_LOOK)
                cancel.check()

    def put(self, block: bytes | bytearray, cancel: Cancel) -> None:
        """Add the next block, once there is room for it. Raises Cancelled."""
        with self._moved:
            patient_until = time.monotonic() + self._held.patience
            while self._shares and not self._held.has_room(1):
                self._moved.wait(_LOOK)
                cancel.check()
                if time.monotonic() > patient_until:
                    self._leave_behind()
            if self._shares:
                self._blocks.append(block)
                self._put += len(block)
                self._held.size += len(block)
                self._moved.notify_all()

    def _leave_behind(self) -> None:
        """Hold nothing any more for targets that pause in the middle of another's upload."""
        if any(share.state == "reading" for share in self._shares):
            for share in [share for share in self._shares if share.state == "paused"]:
                self.leave(share)

    def end(self, error: BaseException) -> None:
        """Note that no more of it comes, though it is not whole."""
        with self._moved:
            self._error = error
            self._moved.notify_all()

    def drop(self) -> None:
        """Drop what all targets have sent, but for the last of it."""
        taken = [share.taken for share in self._shares if share.state != "elsewhere"]
        while taken and min(taken) - self._dropped > WINDOW:
            oldest = len(self._blocks.popleft())
            self._dropped += oldest
            self._held.size -= oldest

    # The threads of the targets.

    def begin(self, share: Share) -> None:
        """Begin an attempt. Raises PassedBy."""
        with self._moved:
            if self._dropped or share not in self._shares:
                raise self._gone()
            share.state, share.taken = "reading", 0
            self._moved.notify_all()

    def take(self, share: Share, buffer: memoryview) -> int:
        """The next bytes for a target."""
        with self._moved:
            while self._waits(share):
                if self._error is not None:
                    raise self._error
                self._moved.wait()
            if share.taken == self.size:
                return 0
            if share not in self._shares:
                raise self._gone()
            place, start = divmod(share.taken - self._dropped, BLOCK)
            block = self._blocks[place]
            count = min(len(buffer), len(block) - start)
            buffer[:count] = memoryview(block)[start : start + count]
            share.taken += count
            self._moved.notify_all()
            return count

    def pause(self, share: Share) -> None:
        """End an attempt. Where it could not begin anew, nothing more is held for the target."""
        with self._moved:
            if share.state == "reading":
                share.state = "paused"
            if self._dropped:
                self.leave(share)

    def stand_aside(self, share: Share) -> None:
        """Wait for a target no longer, and hold nothing for it that the others do not want."""
        with self._moved:
            share.state = "elsewhere"
            self._moved.notify_all()

    def _waits(self, share: Share) -> bool:
        """Whether there is nothing to take for now."""
        if self._put == self.size or share not in self._shares:
            return False
        # All begin together, or an upload would stand still until the others begin. Once the blob
        # is whole nobody waits for anybody: the slot that another waits for may be held here.
        expected = any(other.state == "expected" for other in self._shares)
        return expected or share.taken == self._put

    def leave(self, share: Share) -> None:
        """Hold nothing for a target any more, if anything was."""
        with self._moved:
            if share in self._shares:
                self._shares.remove(share)
                if not self._shares:
                    self._held.blobs.remove(self)
                    self._held.size -= sum(map(len, self._blocks))
                    self._blocks.clear()
            self._moved.notify_all()

    def _gone(self) -> PassedBy:
        self._held.missed.add(self.digest)
        return passed_by(self._source, f"the blob {self.digest}")


def passed_by(source: str, what: str) -> PassedBy:
    """The error for bytes that have passed and are not held any more."""
    return PassedBy(f"{what} has passed by in {source}, which can be read only once", hint=HINT)
