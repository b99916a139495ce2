"""A delivery that has to be carried out, and those that may share a pass with it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from towline.layers.lanes import Patience
    from towline.push.deliver import Delivered, Delivery
    from towline.push.dispatcher import Dispatcher, Ticket
    from towline.transfers.retry import Attempts
    from towline.transfers.shared import Transfer


@dataclass(eq=False, slots=True)
class Job:
    """A delivery that this push carries out, whoever else waits for it.

    It is in some queue or in somebody's hands, never both: whoever takes it out of the queue, be
    it the queue's own thread or the one that cancels it, is the only one to go on with it.
    """

    key: Hashable
    """Of its transfer."""
    delivery: Delivery
    transfer: Transfer[Delivered]
    attempts: Attempts
    patience: Patience
    """For how long its target may still make others wait."""
    group: Group | None = None
    """With whom it settles."""
    waiting: Queued | None = None
    """Its pass, while that waits for slots."""
    since: int = 0
    """When its slot was taken, as slots count."""
    followed: bool = False
    """It has waited for another repository of its host to have the blob."""
    _cancelling: ExitStack = field(default_factory=ExitStack, init=False)
    _followers: list[Job] = field(default_factory=list, init=False)
    _queued: bool = field(default=False, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    @property
    def host(self) -> str:
        """Whose slots and back-off it shares."""
        return self.delivery.repository.name.host

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return not self.transfer.wanted

    @property
    def queued(self) -> bool:
        """Whether it is in a queue."""
        return self._queued

    def enter_queue(self) -> None:
        """It is put into a queue, whichever."""
        with self._lock:
            self._queued = True

    def leave_queue(self) -> bool:
        """Take it out; False when somebody else has."""
        with self._lock:
            was, self._queued = self._queued, False
            return was

    def lead(self, follower: Job) -> bool:
        """Have another go on when this one's attempt has ended; False when it is too late."""
        with self._lock:
            if self._queued:
                self._followers.append(follower)
            return self._queued

    def dismiss(self) -> list[Job]:
        """Those who have followed, once an attempt has ended."""
        with self._lock:
            followers, self._followers = self._followers, []
            return followers

    def on_cancel(self, action: Callable[[], None]) -> None:
        """Have `action` called, until the job ends, when nobody waits for it any more."""
        self._cancelling.enter_context(self.transfer.context.cancel.on_cancel(action))

    def end(self, error: BaseException) -> None:
        """It is over, and has failed."""
        self._cancelling.close()
        self.transfer.failed(error)

    def done(self, delivered: Delivered) -> None:
        """It is over, and the blob is there."""
        self._cancelling.close()
        self.transfer.done(delivered)


class Group:
    """The deliveries of one blob that may share a pass. Safe from any thread."""

    def __init__(self, jobs: Iterable[Job], send: Callable[[list[Job]], None]) -> None:
        self._send = send
        self._lock = Lock()
        self._settling = set(jobs)
        self._ready: list[Job] = []

    def ready(self, job: Job) -> None:
        """It is settled and needs bytes."""
        with self._lock:
            self._settling.discard(job)
            self._ready.append(job)

    def gone(self, job: Job) -> None:
        """It is done, has failed, or goes its own way."""
        with self._lock:
            self._settling.discard(job)
            if job in self._ready:
                self._ready.remove(job)

    @property
    def over(self) -> bool:
        """Whether nobody waits, and nobody will."""
        with self._lock:
            return not self._settling

    def late(self) -> list[Job]:
        """Those for whom others wait."""
        with self._lock:
            return list(self._settling) if self._ready else []

    def go_on(self) -> None:
        """Send to those that are ready, if there is nobody to wait for."""
        with self._lock:
            if any(job.patience.left > 0 for job in self._settling):
                return
            taken, self._ready = self._ready, []
        self._send(taken)


class Queued:
    """A pass that waits for its slots."""

    def __init__(
        self, dispatcher: Dispatcher, ticket: Ticket, jobs: Sequence[Job], part: Callable[[], None]
    ) -> None:
        self.jobs = jobs
        self.go_on = part
        """Make other passes of it, if it has not begun."""
        self._dispatcher = dispatcher
        self._ticket = ticket

    @property
    def over(self) -> bool:
        """Whether it waits no more."""
        return not self._dispatcher.waits(self._ticket)

    def late(self) -> list[Job]:
        """Those whose host has no slot free while another's has."""
        full = self._dispatcher.full(self._ticket)
        return [job for job in self.jobs if job.host in full] if full < self._ticket.hosts else []
