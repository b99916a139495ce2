"""One read of a layer for several uploads: a queue for each, and the rule for one that is slow.

The reading thread puts a block into every queue once all have room: it is shared, not copied for
each, and the uploads keep within a few blocks of each other, so memory is bounded. While it waits
for a full queue and another upload has nothing left to write, the full one is holding the other:
that time is charged to its target's patience, and when that is spent, the upload is left behind
with `Outpaced`. Uploads that are all equally slow hold nobody.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import closing
from threading import Condition
from typing import TYPE_CHECKING

from towline.context import SLICE
from towline.errors import Cancelled, NetworkError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.context import Cancel, Patience
    from towline.layers.blobstream import Blob, BlobStream

DEPTH = 3
"""Blocks that an upload may have waiting."""


class Outpaced(NetworkError):
    """The upload made others wait for too long; by itself it may well succeed."""

    def __init__(self) -> None:
        super().__init__(
            "it was so much slower than the other destinations that they went on without it",
            transient=True,
            side="destination",
        )


class Lane:
    """The blocks for one upload; iterated by the thread that writes them to its target.

    Raises `Outpaced` when the upload was left behind, and what reading the layer raised.
    """

    def __init__(self, fan: FanOut, patience: Patience, writing: Cancel) -> None:
        self.patience = patience
        self.writing = writing
        """Ends a write that is stuck, when the upload is left behind."""
        self.queue: deque[bytes] = deque()
        self.idle = False
        """Whether it waits for a block."""
        self.error: BaseException | None = None
        """Why there will be no more blocks, when that is not the end of the layer."""
        self._fan = fan

    @property
    def position(self) -> int:
        """Bytes of the layer read so far."""
        return self._fan.stream.position

    @property
    def blob(self) -> Blob:
        """What the layer came to, once every block was taken."""
        return self._fan.stream.blob

    def __iter__(self) -> Iterator[bytes]:
        """The blob's blocks in order."""
        while (block := self._fan.take(self)) is not None:
            yield block

    def leave(self) -> None:
        """No more blocks are taken: the upload has failed."""
        self._fan.leave(self)


class FanOut:
    """One read of a stream, for the lanes that were opened before `run`."""

    def __init__(self, stream: BlobStream, reading: Cancel) -> None:
        self.stream = stream
        self._reading = reading
        """The stream's own switch: thrown when there is nobody left to read for."""
        self._moved = Condition()
        self._lanes: list[Lane] = []
        self._ended = False

    def lane(self, patience: Patience, writing: Cancel) -> Lane:
        """The way of the blocks to one upload."""
        lane = Lane(self, patience, writing)
        self._lanes.append(lane)
        return lane

    def run(self) -> None:
        """Read to the end, or until nobody is left to read for; the stream is closed then.

        What reading raises reaches every upload through its lane.
        """
        error: BaseException | None = None
        try:
            with closing(self.stream):
                for block in self.stream:
                    self._give(bytes(block))
        except BaseException as raised:  # noqa: BLE001 - the uploads hear of it
            error = raised
        with self._moved:
            self._ended = True
            for lane in self._lanes:
                lane.error = error
            self._moved.notify_all()

    def _give(self, block: bytes) -> None:
        """Queue a block for every lane once all have room."""
        with self._moved:
            while slow := [lane for lane in self._lanes if len(lane.queue) >= DEPTH]:
                self._wait_for(slow)
            for lane in self._lanes:
                lane.queue.append(block)
            self._moved.notify_all()
        if not self._lanes:
            raise Cancelled

    def _wait_for(self, slow: list[Lane]) -> None:
        """Wait a little for slow lanes; leave those behind that hold others and had time enough."""
        if not any(lane.idle for lane in self._lanes):
            self._moved.wait()
            return
        for lane in slow:
            if lane.patience.spent:
                lane.error = Outpaced()
                lane.queue.clear()
                self._lanes.remove(lane)
                lane.writing.cancel()
                return
        began = time.monotonic()
        self._moved.wait(SLICE)
        for lane in slow:
            lane.patience.charge(began)

    def take(self, lane: Lane) -> bytes | None:
        """The next block for a lane; None at the end. Raises why there are no more before that."""
        with self._moved:
            lane.idle = not lane.queue
            self._moved.notify_all()
            while not lane.queue and not self._ended and lane.error is None:
                self._moved.wait()
            lane.idle = False
            if lane.queue:
                return lane.queue.popleft()
            if lane.error is not None:
                raise lane.error
            return None

    def leave(self, lane: Lane) -> None:
        """The upload has failed: nobody takes the lane's blocks any more."""
        with self._moved:
            if lane in self._lanes:
                self._lanes.remove(lane)
            lane.queue.clear()
            if not self._lanes:
                self._reading.cancel()
            self._moved.notify_all()
