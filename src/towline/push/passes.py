"""From "needs bytes" to "confirmed": collects settled deliveries, takes slots, reads once, sends.

Deliveries of one blob to several targets that are settled together make one pass: one read, one
compression, a seat for each. Nothing is promised: a pass is built from the deliveries that need
bytes at that moment, and one that fails or falls behind gets passes of its own; the bytes are the
same. No thread waits for another's work while it holds a slot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

from towline.context import Cancel
from towline.errors import Cancelled, TowlineError
from towline.layers.blobstream import BlobStream
from towline.layers.feed import Feed
from towline.push.deliver import Delivered
from towline.transfers.retry import back_off

if TYPE_CHECKING:
    from collections.abc import Sequence

    from towline.layers.blobstream import Blob
    from towline.layers.lanes import Patience
    from towline.push.deliver import Delivery
    from towline.push.dispatcher import Release
    from towline.push.engine import Engine
    from towline.push.options import Wish
    from towline.transfers.retry import Attempts
    from towline.transfers.shared import Transfer


@dataclass(eq=False, slots=True)
class Job:
    """A delivery that this push carries out, whoever else waits for it."""

    delivery: Delivery
    transfer: Transfer[Delivered]
    attempts: Attempts
    patience: Patience
    """For how long its target may still make others wait."""

    @property
    def host(self) -> str:
        """Whose slots and back-off it shares."""
        return self.delivery.repository.name.host

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.transfer.context.cancel.cancelled


@dataclass(eq=False, slots=True)
class Group:
    """The deliveries of one blob that may share a pass."""

    settling: set[Job]
    ready: list[Job] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def settled(self, job: Job, *, needs_bytes: bool) -> list[Job]:
        """Note that a delivery is settled; the jobs to be sent now, if it was the last."""
        with self.lock:
            self.settling.discard(job)
            if needs_bytes:
                self.ready.append(job)
            if self.settling:
                return []
            taken, self.ready = self.ready, []
            return taken


class Passes:
    """Carries out the deliveries of one push."""

    def __init__(self, engine: Engine, wish: Wish) -> None:
        self._engine = engine
        self._wish = wish

    def start(self, jobs: Sequence[Job]) -> None:
        """Begin the deliveries of one blob to targets that were planned together."""
        group = Group(set(jobs))
        for job in jobs:
            self._engine.workers.submit(partial(self._settle, job, group))

    def _settle(self, job: Job, group: Group) -> None:
        wait = self._engine.gate.remaining(job.host)
        if wait and not job.cancelled:
            self._engine.workers.submit(partial(self._settle, job, group), due_in=wait)
            return
        needs_bytes = False
        try:
            job.transfer.context.cancel.check()
            answer = job.delivery.settle()
        except BaseException as error:  # noqa: BLE001 - a thread's end: someone waits for it
            self._failed(job, error)
        else:
            needs_bytes = not isinstance(answer, Delivered)
            if isinstance(answer, Delivered):
                job.transfer.done(answer)
        self._queue(group.settled(job, needs_bytes=needs_bytes))

    def _failed(self, job: Job, error: BaseException) -> None:
        job.delivery.drop()
        if job.cancelled or not isinstance(error, TowlineError):
            job.transfer.failed(Cancelled() if job.cancelled else error)
            return
        try:
            acknowledged = job.delivery.acknowledged
            seconds = back_off(error, job.attempts, self._engine.gate, job.host, acknowledged)
        except TowlineError as final:
            if not job.delivery.skip():
                job.transfer.failed(final)
                return
            seconds = 0.0
        else:
            job.delivery.tell(_retrying(seconds, error))
        alone = Group({job})
        self._engine.workers.submit(partial(self._settle, job, alone), due_in=seconds)

    def _queue(self, jobs: list[Job]) -> None:
        if jobs:
            hosts = frozenset(job.host for job in jobs)
            size = jobs[0].delivery.blob.size
            started = self._engine.dispatcher.submit(hosts, size, partial(self._send, jobs))
            if not started:
                for job in jobs:
                    job.delivery.tell("Waiting")

    def _send(self, jobs: list[Job], release: Release) -> None:
        """One pass; a slot of each host is held until its target is through."""
        try:
            blob, failed = self._read([job for job in jobs if not job.cancelled])
        except BaseException as error:  # noqa: BLE001 - a thread's end: someone waits for it
            blob, failed = None, dict.fromkeys(jobs, error)
        for job in jobs:
            finish = partial(self._finish, job, blob, failed.get(job), release)
            if len(jobs) == 1:
                finish()
            else:  # one registry's slow answer must not keep the others
                self._engine.dispatcher.beside(finish)

    def _finish(
        self, job: Job, blob: Blob | None, error: BaseException | None, release: Release
    ) -> None:
        delivered = None
        try:
            job.transfer.context.cancel.check()
            if error is None and blob is not None:
                delivered = job.delivery.finish(blob)
        except BaseException as raised:  # noqa: BLE001 - as above
            error = raised
        finally:
            release(job.host)
        if delivered is not None:
            job.transfer.done(delivered)
        else:
            self._failed(job, error or Cancelled())

    def _read(self, jobs: list[Job]) -> tuple[Blob | None, dict[Job, BaseException]]:
        """Read the blob once for all of these; what it came to, and the jobs that failed."""
        if not jobs:
            return None, {}
        blob = jobs[0].delivery.blob
        cancel = jobs[0].transfer.context.cancel if len(jobs) == 1 else Cancel()
        stream = BlobStream(
            blob.open(),
            None if blob.stored else self._wish.profile,
            self._engine.encoders,
            cancel,
            diff_id_of=blob.stored_compression if self._wish.check_diffids else None,
            spares=self._engine.spares,
        )
        for job in jobs:
            job.delivery.position = lambda: stream.position
        result = Feed(
            stream, [job.delivery for job in jobs], cancel, [job.patience for job in jobs]
        ).run()
        failed = result.failed
        return result.blob, {job: failed[job.delivery] for job in jobs if job.delivery in failed}


def _retrying(seconds: float, error: TowlineError) -> str:
    whole = max(1, round(seconds))
    unit = "second" if whole == 1 else "seconds"
    return f"Retrying in {whole} {unit} ({error.message})"
