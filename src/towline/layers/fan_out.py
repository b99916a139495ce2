"""One read of a layer for several uploads: a queue for each, and the rule for a slow one.

The reading thread puts a block into every queue once all have room. All share the block, and the
uploads stay within a few blocks of each other, so memory is bounded. While one queue is full and
another upload has nothing to write, the full one holds the other up. That time is charged to the
patience with its target; when that is spent, the upload is left behind with `Outpaced`. Uploads
that are all equally slow hold nobody up.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import closing
from threading import Condition
from typing import TYPE_CHECKING

from towline.context import SLICE, Cancel, Patience
from towline.errors import Cancelled, NetworkError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.layers.blobstream import Blob, BlobStream, Block

DEPTH = 3
"""Blocks that may wait in the queue of an upload."""


class Outpaced(NetworkError):
    """The upload kept others waiting for too long; alone it may well succeed."""

    def __init__(self) -> None:
        super().__init__(
            "it was so much slower than the other destinations that they went on without it",
            transient=True,
            side="destination",
        )


class Lane:
    """The queue of blocks for one upload; iterated by the thread that writes them to its target.

    Iterating raises `Outpaced` when the upload was left behind, and what reading the layer raised.
    """

    def __init__(self, fan: FanOut, patience: Patience, writing: Cancel) -> None:
        self.patience = patience
        self.writing = writing
        """The switch of its writes: thrown when the upload is left behind, to end a stuck one."""
        self.queue: deque[Block] = deque()
        self.idle = False
        """Whether its thread waits for a block."""
        self.error: BaseException | None = None
        """Why no more blocks come, if the layer is not at its end."""
        self._fan = fan

    @property
    def position(self) -> int:
        """Bytes of the layer read so far."""
        return self._fan.stream.position

    @property
    def blob(self) -> Blob:
        """Digest and size of the blob, once every block was taken."""
        return self._fan.stream.blob

    def __iter__(self) -> Iterator[Block]:
        """The blob's blocks in order."""
        while (block := self._next()) is not None:
            yield block

    def _next(self) -> Block | None:
        fan = self._fan
        with fan.moved:
            self.idle = not self.queue
            fan.moved.notify_all()
            while not self.queue and not fan.ended and self.error is None:
                fan.moved.wait()
            self.idle = False
            if self.queue:
                return self.queue.popleft()
            if self.error is not None:
                raise self.error
            return None

    def leave(self) -> None:
        """Take no more blocks: the upload has failed."""
        fan = self._fan
        with fan.moved:
            if self in fan.lanes:
                fan.lanes.remove(self)
            self.queue.clear()
            if not fan.lanes:
                fan.reading.cancel()
            fan.moved.notify_all()


class FanOut:
    """One read of a stream, for the lanes that were opened before `run`."""

    def __init__(self, stream: BlobStream, reading: Cancel) -> None:
        # An upload may be writing a block while its queue is full and one more is read.
        stream.kept = DEPTH + 1
        self.stream = stream
        self.reading = reading
        """The stream's own switch: thrown when no upload is left."""
        self.moved = Condition()
        self.lanes: list[Lane] = []
        self.ended = False

    def lane(self, patience: Patience, writing: Cancel) -> Lane:
        """The queue for one more upload; to be called before `run`."""
        lane = Lane(self, patience, writing)
        self.lanes.append(lane)
        return lane

    def run(self) -> None:
        """Read to the end, or until no upload is left, and close the stream.

        An error of reading reaches every upload through its lane.
        """
        error: BaseException | None = None
        try:
            with closing(self.stream):
                for block in self.stream:
                    self._give(block)
        except BaseException as raised:  # noqa: BLE001 - the uploads hear of it
            error = raised
        with self.moved:
            self.ended = True
            for lane in self.lanes:
                lane.error = error
            self.moved.notify_all()

    def _give(self, block: Block) -> None:
        """Queue a block for every lane once all have room."""
        with self.moved:
            while slow := [lane for lane in self.lanes if len(lane.queue) >= DEPTH]:
                self._wait_for(slow)
            for lane in self.lanes:
                lane.queue.append(block)
            self.moved.notify_all()
        if not self.lanes:
            raise Cancelled

    def _wait_for(self, slow: list[Lane]) -> None:
        """Wait a little for slow lanes; leave one behind that holds others up for too long."""
        # Nobody is kept waiting: all targets take blocks more slowly than they are made.
        if not any(lane.idle for lane in self.lanes):
            self.moved.wait()
            return
        # One at a time: with it gone, the other slow ones may hold nobody up any more.
        for lane in slow:
            if lane.patience.spent:
                lane.error = Outpaced()
                lane.queue.clear()
                self.lanes.remove(lane)
                # Its thread may still hold a block that is written over from here on. The switch
                # ends what it sends before it returns (`Channel.send`), so nothing of that goes
                # out: its session, also as a later process finds it, holds right bytes alone.
                lane.writing.cancel()
                return
        began = time.monotonic()
        self.moved.wait(SLICE)
        for lane in slow:
            lane.patience.charge(began)
