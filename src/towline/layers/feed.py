"""One read of a layer for every seat that wants its bytes.

A seat is an upload that is open now. One seat is written to by the calling thread. Several get a
queue and a thread each; a block is shared, not copied for each, and is given out once every queue
has room, so memory is bounded and the seats keep within a few blocks of each other. A seat that
fails is lost and the others go on; so is one that makes others wait for longer than its target's
patience lasts. What becomes of a lost seat is its owner's business (`push/passes`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic

from towline.errors import Cancelled
from towline.layers.lanes import Lanes, Patience, S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from towline.context import Cancel
    from towline.layers.blobstream import Blob, BlobStream


@dataclass(frozen=True, slots=True)
class FeedResult(Generic[S]):
    """What a feed came to."""

    blob: Blob | None
    """None when no seat was left to read for."""
    failed: Mapping[S, BaseException]
    """The seats that did not get every byte, each with its error (Cancelled is possible)."""


def _told_nobody(_seat: object, _error: BaseException) -> None:
    pass


class Feed(Generic[S]):
    """One pass over a stream for the seats that it is given.

    `patience` has one entry for each seat, None for a seat that may hold others for ever; seats of
    one target share theirs, over all feeds of a push. `on_lost` is called as soon as a seat is
    lost, from any thread, so that its owner need not wait for the end of the pass.

    A seat that is lost while it is inside `write` stays there until that returns or raises; its
    thread ends then and nobody waits for it. Closing the seat brings that about.
    """

    def __init__(
        self,
        stream: BlobStream,
        seats: Sequence[S],
        cancel: Cancel,
        patience: Sequence[Patience | None] = (),
        *,
        on_lost: Callable[[S, BaseException], None] = _told_nobody,
    ) -> None:
        self._stream = stream
        self._seats = tuple(seats)
        self._cancel = cancel
        self._patience = tuple(patience) or (None,) * len(self._seats)
        self._on_lost = on_lost

    def run(self) -> FeedResult[S]:
        """Read to the end, or until no seat is left.

        Raises what the stream raises (SourceError), and Cancelled; a seat's error is in the
        result. The stream is closed afterwards.
        """
        try:
            if len(self._seats) == 1:
                return self._alone(self._seats[0])
            return self._together()
        finally:
            self._stream.close()

    def _alone(self, seat: S) -> FeedResult[S]:
        for block in self._stream:
            try:
                seat.write(block)
            except (Exception, Cancelled) as error:  # noqa: BLE001 - the owner decides
                self._cancel.check()
                self._on_lost(seat, error)
                return FeedResult(None, {seat: error})
        return FeedResult(self._stream.blob, {})

    def _together(self) -> FeedResult[S]:
        lanes = Lanes(self._seats, self._patience, self._cancel, self._on_lost)
        with lanes:
            for block in self._stream:
                if not lanes.hand_out(bytes(block)):
                    return FeedResult(None, lanes.failed)
            blob = self._stream.blob if lanes.finish() else None
        return FeedResult(blob, lanes.failed)
