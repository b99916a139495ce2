"""From "needs bytes" to "confirmed": collects settled deliveries, takes slots, starts passes.

Deliveries of one blob to several targets that are settled together make one pass: one read, one
compression, a seat for each. Nothing is promised: a pass is built from the deliveries that need
bytes at that moment, and one that fails or falls behind gets passes of its own; the bytes are the
same. Of several repositories of one host one is sent to, and the others mount from it. No thread
waits for another's work while it holds a slot.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from towline.errors import Cancelled, NetworkError, TowlineError
from towline.layers.lanes import Outpaced
from towline.push.deliver import Delivered, NeedsBytes
from towline.push.dispatcher import Ticket
from towline.push.holding import Holding
from towline.push.jobs import Group, Job, Queued
from towline.push.sending import Sending
from towline.transfers.retry import Attempts, back_off, speaks_of_strain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from towline.push.dispatcher import Release
    from towline.push.engine import Engine
    from towline.push.options import Wish


def _nothing() -> None:
    """No slot is held."""


class Passes:
    """Carries out the deliveries of one push."""

    def __init__(self, engine: Engine, wish: Wish) -> None:
        self._engine = engine
        self._wish = wish
        self._holding = Holding(engine.settlers.after)
        self._no_mounts: set[str] = set()
        """Hosts at which one repository's blob could not be had for another."""

    def start(self, jobs: Sequence[Job]) -> None:
        """Begin the deliveries of one blob to targets that were planned together."""
        group = Group(jobs, self._submit_all)
        for job in jobs:
            job.on_cancel(partial(self._cancelled, job))
            self._enqueue(job, group)
        if len(jobs) > 1:
            self._holding.watch(group)

    # Settling.

    def _alone(self, job: Job, due_in: float = 0.0) -> None:
        """Settle it, and make nobody wait for that."""
        self._enqueue(job, Group([job], self._submit_all), due_in)

    def _enqueue(self, job: Job, group: Group, due_in: float = 0.0) -> None:
        job.group, job.waiting = group, None
        self._enter_queue(job)
        if not job.queued:
            return
        try:
            settle = partial(self._settle, job, group)
            self._engine.settlers.submit(job.host, settle, due_in)
        except RuntimeError:  # everything is being closed
            if job.leave_queue():
                self._give_up(job, Cancelled())

    def _enter_queue(self, job: Job) -> None:
        job.enter_queue()
        if job.cancelled:  # before it was in there, where nobody could find it
            self._cancelled(job)

    def _settle(self, job: Job, group: Group) -> None:
        if not job.leave_queue():
            return
        if wait := self._engine.gate.remaining(job.host):
            self._enqueue(job, group, wait)
            return
        try:
            answer = self._answer(job)
        except BaseException as error:  # noqa: BLE001 - a thread's end: someone waits for it
            group.gone(job)
            self.failed(job, error, asked=True)
        else:
            self._settled(job, group, answer)
        group.go_on()

    @staticmethod
    def _answer(job: Job) -> Delivered | NeedsBytes:
        if job.cancelled:
            raise Cancelled
        return job.delivery.settle()

    def _settled(self, job: Job, group: Group, answer: Delivered | NeedsBytes) -> None:
        if isinstance(answer, Delivered):
            group.gone(job)
            self.done(job, answer)
            return
        if job.followed:
            self._no_mounts.add(job.host)
        group.ready(job)
        self._enter_queue(job)

    # Waiting for slots.

    def _submit_all(self, jobs: Sequence[Job]) -> None:
        """One pass for all that may share it, others apart; a host is in one pass once."""
        shared: dict[str, Job] = {}
        for job in jobs:
            if job.patience.left <= 0:
                self._submit([job])
            elif (leader := shared.setdefault(job.host, job)) is not job:
                self._follow(leader, job)
        if shared:
            self._submit(list(shared.values()))

    def _follow(self, leader: Job, job: Job) -> None:
        """Let it mount from the leader's repository once the blob is there."""
        if job.host in self._no_mounts or not leader.lead(job):
            self._submit([job])
        else:
            job.delivery.tell("Waiting")

    def _submit(self, jobs: Sequence[Job]) -> None:
        dispatcher = self._engine.dispatcher
        hosts = frozenset(job.host for job in jobs)
        ticket = Ticket(hosts, jobs[0].delivery.blob.size, partial(self._send, jobs))
        part = partial(self._part, ticket, jobs)
        waiting = Queued(dispatcher, ticket, jobs, part)
        for job in jobs:
            job.waiting = waiting
        if dispatcher.submit(ticket):
            return
        for job in jobs:
            job.delivery.tell("Waiting")
        if len(jobs) > 1:
            self._holding.watch(waiting)
        if not all(job.queued for job in jobs):  # cancelled before it could be found here
            part()

    def _part(self, ticket: Ticket, jobs: Sequence[Job]) -> None:
        """Make other passes of one that has not begun."""
        if self._engine.dispatcher.withdraw(ticket):
            self._submit_all([job for job in jobs if job.queued])

    def _send(self, jobs: Sequence[Job], release: Release) -> None:
        """The slots are taken; each is given back when its target is through."""
        mine = []
        for job in jobs:
            if not job.leave_queue():
                release(job.host)
            elif job.cancelled:
                self.failed(job, Cancelled(), release=partial(release, job.host))
            elif wait := self._engine.gate.remaining(job.host):
                release(job.host)
                self._alone(job, wait)
            else:
                job.since = self._engine.slots.since(job.host)
                mine.append(job)
        if mine:
            Sending(self._engine, self._wish, self, mine, release).run()

    # What becomes of them.

    def done(
        self, job: Job, delivered: Delivered, *, release: Callable[[], None] | None = None
    ) -> None:
        """It is at its target; those who followed can have it from there.

        `release` gives the slot back that it took to send it.
        """
        if release is not None:
            self._engine.slots.ended(job.host, job.since, well=True)
            release()
        self._engine.remember(job.key, delivered.candidate)
        job.done(delivered)
        for follower in job.dismiss():
            if follower.leave_queue():
                follower.followed = True
                follower.delivery.mount(delivered.candidate, job.delivery.repository.name)
                self._alone(follower)

    def failed(
        self,
        job: Job,
        error: BaseException,
        *,
        asked: bool = False,
        release: Callable[[], None] = _nothing,
    ) -> None:
        """An attempt failed, at a question (`asked`) or at the sending: try again, or give up.

        `release` gives the slot back: when the gate is shut, if it is to be, and before all else.
        """
        try:
            wait = self._wait(job, error, asked=asked)
        except BaseException as final:  # noqa: BLE001 - someone waits for it
            wait, error = None, final
        finally:
            release()
        self._submit_all([follower for follower in job.dismiss() if follower.queued])
        if wait is None:
            self._give_up(job, error)
            return
        if isinstance(error, Outpaced):
            job.delivery.drop()
        self._alone(job, wait)

    def _wait(self, job: Job, error: BaseException, *, asked: bool) -> float:
        """Seconds until the next attempt. Raises what the job ends with, if there is none."""
        if job.cancelled:
            raise Cancelled
        if not isinstance(error, TowlineError):
            raise error
        delivery, gate = job.delivery, self._engine.gate
        if isinstance(error, Outpaced):  # nothing is wrong with it
            return 0.0
        if not asked and speaks_of_strain(error):
            self._engine.slots.ended(job.host, job.since, well=False)
        try:
            seconds = back_off(error, job.attempts, gate, job.host, delivery.acknowledged)
        except TowlineError as final:
            if not asked or _is_out_of_reach(final) or not delivery.skip():
                raise
            job.attempts = Attempts(self._engine.policy)
            return 0.0
        delivery.tell_retry(seconds, error.message)
        return seconds

    @staticmethod
    def _give_up(job: Job, error: BaseException) -> None:
        try:
            job.delivery.drop()
        finally:
            job.end(error)

    def _cancelled(self, job: Job) -> None:
        """Nobody waits for it any more: out of whatever queue it is in. Brief."""
        if not job.leave_queue():
            return
        job.end(Cancelled())
        self._engine.dispatcher.beside(job.delivery.drop)
        self._submit_all([follower for follower in job.dismiss() if follower.queued])
        if job.group is not None:
            job.group.gone(job)
            job.group.go_on()
        if job.waiting is not None:
            job.waiting.go_on()


def _is_out_of_reach(error: TowlineError) -> bool:
    """Whether the host will not take the bytes either; one that hangs up may mind the question."""
    return isinstance(error, NetworkError) and not error.hung_up
