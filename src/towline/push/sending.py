"""One pass: its slots are taken; the blob is read once, for a seat at each target."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from towline.context import Cancel
from towline.errors import Cancelled
from towline.layers.blobstream import BlobStream
from towline.layers.feed import Feed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from towline.layers.blobstream import Blob
    from towline.push.deliver import Delivered
    from towline.push.dispatcher import Release
    from towline.push.engine import Engine
    from towline.push.jobs import Job
    from towline.push.options import Wish
    from towline.push.seat import Seat


class Owner(Protocol):
    """Who hears what became of each job."""

    def done(self, job: Job, delivered: Delivered, /, *, release: Callable[[], None]) -> None:
        """It is at its target; `release` gives its slot back."""
        ...

    def failed(self, job: Job, error: BaseException, /, *, release: Callable[[], None]) -> None:
        """It is not; `release` gives its slot back."""
        ...


class Sending:
    """Ends with each of its jobs told to the owner, once, and its slot given back."""

    def __init__(
        self, engine: Engine, wish: Wish, owner: Owner, jobs: Sequence[Job], release: Release
    ) -> None:
        self._engine = engine
        self._wish = wish
        self._owner = owner
        self._release = release
        self._seats = {job.delivery.seat(): job for job in jobs}
        self._lock = Lock()
        self._open = set(self._seats)
        self._cancel = Cancel()

    def run(self) -> None:
        """Read, write, confirm."""
        try:
            with ExitStack() as stack:
                for job in self._seats.values():
                    stack.enter_context(job.transfer.context.cancel.on_cancel(self._look))
                blob, failed = self._read()
        except BaseException as error:  # noqa: BLE001 - a thread's end: someone waits for it
            blob, failed = None, dict.fromkeys(self._seats, error)
        for seat in self._seats:
            over = partial(self._over, seat, blob, failed.get(seat))
            if len(self._seats) == 1:
                over()
            else:  # one registry's slow answer must not keep the others
                self._engine.dispatcher.beside(over)

    def _look(self) -> None:
        """Stop reading when there is nobody left to read for."""
        if all(job.cancelled for job in self._seats.values()):
            self._cancel.cancel()

    def _read(self) -> tuple[Blob | None, dict[Seat, BaseException]]:
        jobs = list(self._seats.values())
        blob = jobs[0].delivery.blob
        stream = BlobStream(
            blob.open(),
            None if blob.stored else self._wish.profile,
            self._engine.encoders,
            self._cancel,
            diff_id_of=blob.stored_compression if self._wish.check_diffids else None,
            spares=self._engine.spares,
            name=f"layer {blob.id}",
        )
        for job in jobs:
            job.delivery.position = lambda: stream.position
        patience = [job.patience for job in jobs]
        feed = Feed(stream, list(self._seats), self._cancel, patience, on_lost=self._lost)
        result = feed.run()
        return result.blob, dict(result.failed)

    def _lost(self, seat: Seat, error: BaseException) -> None:
        """A seat is out while others may go on: it need not wait for them. Brief."""
        if len(self._seats) > 1:
            self._engine.dispatcher.beside(partial(self._over, seat, None, error))

    def _over(self, seat: Seat, blob: Blob | None, error: BaseException | None) -> None:
        """The pass is over for one seat, whoever says so first."""
        with self._lock:
            if seat not in self._open:
                return
            self._open.remove(seat)
        job = self._seats[seat]
        release = partial(self._release, job.host)
        try:
            delivered = _finished(job, seat, blob, error)
        except BaseException as raised:  # noqa: BLE001 - as above
            self._owner.failed(job, raised, release=release)
        else:
            self._owner.done(job, delivered, release=release)


def _finished(job: Job, seat: Seat, blob: Blob | None, error: BaseException | None) -> Delivered:
    if job.cancelled:
        raise Cancelled
    if error is not None or blob is None:
        raise error or Cancelled()
    return job.delivery.finish(seat, blob)
