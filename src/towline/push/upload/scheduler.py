"""Carries out the uploads of a push: one thread a blob; it asks, waits for a slot, and sends.

A blob that goes to one target is asked for, waits for a slot of its host, and is sent. After a
failure it is tried again from the step that failed, and holds no slot meanwhile. A blob that goes
to several targets is asked for at all of them side by side, and read once for those that need its
bytes. A target that is late is waited for while the patience with it lasts; from then on it is
served alone. Of several repositories of one host one is sent to, and the others mount from it.

Nothing here can deadlock: a blob's thread waits for answers, whose threads wait for nobody, and for
slots, whose holders wait for nobody.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from towline.context import Cancel, Patience, wait_patiently
from towline.errors import NetworkError, TowlineError
from towline.layers.blobstream import BlobStream
from towline.layers.fan_out import FanOut, Lane, Outpaced
from towline.layers.pipelines import nobody
from towline.sources.base import PassedBy
from towline.transfers.retry import Attempts, back_off, speaks_of_strain
from towline.transfers.threads import not_begun, result_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from towline.push.interface.options import Wish
    from towline.push.plan import Delivered
    from towline.push.resources import Resources
    from towline.push.upload.blob_upload import BlobUpload
    from towline.push.upload.choice import Choice
    from towline.transfers.single_flight import Flight
    from towline.transfers.slots import Claim


@dataclass(eq=False, slots=True)
class Task:
    """A blob's upload to one target, which this push carries out, also for others who wait."""

    upload: BlobUpload
    flight: Flight[Delivered]
    attempts: Attempts
    patience: Patience
    """How long its target may still keep others waiting."""
    asked: Future[Delivered | None] | None = None
    """The target's answer to the questions, until the blob's thread has taken it."""
    failure: TowlineError | None = None
    """The error of the last attempt."""
    sending: bool = False
    """Whether the present attempt sends bytes, or has sent some."""
    claim: Claim | None = None
    """The slot that it has, or waits for."""
    siblings: list[Task] = field(default_factory=list)
    """Tasks of the same blob for other repositories of its host; they mount it once it is there."""
    follows: bool = False
    """Whether it is a sibling whose first task has delivered the blob, so that it can mount it."""

    @property
    def host(self) -> str:
        """The host, whose slots, threads and pauses it shares with other tasks."""
        return self.upload.repository.name.host

    @property
    def cancel(self) -> Cancel:
        """The flight's switch: thrown when nobody waits for the blob any more."""
        return self.flight.context.cancel


class Uploads:
    """Carries out the uploads of one push."""

    def __init__(self, resources: Resources, wish: Wish, choice: Choice) -> None:
        self._resources = resources
        self._wish = wish
        self._choice = choice
        self._gate = resources.gate
        self._no_mounts: set[str] = set()
        """Hosts at which a sibling could not mount the blob: the next ones are not held back."""

    def start(self, tasks: Sequence[Task]) -> None:
        """Begin the uploads of one blob, if there are any. Their flights tell how they end."""
        if len(tasks) <= 1:
            for task in tasks:
                self._start_alone(task)
            return
        hosts, size = [task.host for task in tasks], tasks[0].upload.blob.size
        threads = self._resources.blob_threads(hosts, size)
        if not_begun(threads.submit(partial(self._push_together, tasks))):
            for task in tasks:
                self._start_alone(task)

    # To one target.

    def _start_alone(self, task: Task, pause: float = 0.0) -> None:
        push = partial(self._push_alone, task, pause)
        threads = self._resources.blob_threads([task.host], task.upload.blob.size)
        if no_thread := not_begun(threads.submit(push)):
            self._failed(task, no_thread)

    def _push_alone(self, task: Task, pause: float) -> None:
        """Bring a blob to one target, after a pause of `pause` seconds."""
        try:
            delivered = self._deliver(task, pause)
        except BaseException as error:  # noqa: BLE001 - a thread's end: those who wait hear of it
            self._failed(task, error)
        else:
            self._arrived(task, delivered)

    def _deliver(self, task: Task, pause: float) -> Delivered:
        """Try until the blob is delivered. Raises the error of the last attempt, and Cancelled."""
        while True:
            with task.upload.context.span("waited"):
                task.cancel.wait(pause)
            try:
                if (delivered := self._attempt(task)) is not None:
                    return delivered
                pause = self._gate.remaining(task.host)
            except TowlineError as error:
                pause = self._pause(task, error)
            finally:
                # Only now that the gate is shut, if it is to be: whoever gets the slot looks at it.
                self._give_back(task)

    def _attempt(self, task: Task) -> Delivered | None:
        """Ask or mount, else send. None: the host wants to be left alone for a while."""
        task.sending = False
        if (found := self._answer(task)) is not None:
            return found
        if task.follows:  # it could not mount what its sibling has delivered
            self._no_mounts.add(task.host)
        size = task.upload.blob.size
        task.claim = self._resources.slots_for([task.host], size).claim([task.host], size)
        if not task.claim.granted.is_set():
            task.upload.tell("Waiting")
            with task.upload.context.span("waited"):
                task.claim.slots.wait(task.claim, task.cancel)
        # The gate may have been shut while the slot was waited for. Nobody waits with a slot held.
        if self._gate.remaining(task.host):
            return None
        task.sending = True
        with closing(self._stream([task.upload], task.cancel)) as stream:
            return task.upload.receive(stream)

    def _ask(self, task: Task) -> Future[Delivered | None]:
        """Have a thread of the host ask for the blob, unless one does so already."""
        # Not in the blob's thread: with several targets it may have to go on without the answer.
        if task.asked is None:
            ask = partial(self._ask_or_mount, task)
            task.asked = self._resources.host_threads(task.host).submit(ask)
        return task.asked

    def _ask_or_mount(self, task: Task) -> Delivered | None:
        slots, size = self._resources.small_slots, task.upload.blob.size
        while task.upload.asks:
            self._gate.wait(task.host, task.cancel)
            with slots.held(task.host, size, task.cancel):
                # The gate may have been shut while the slot was waited for: then wait again.
                if not self._gate.remaining(task.host):
                    with task.upload.context.span("asked"):
                        return task.upload.ask_or_mount()
        return task.upload.ask_or_mount()  # no question is left, so no slot is needed

    def _answer(self, task: Task) -> Delivered | None:
        """The result of the questions. Raises what they raised, and Cancelled."""
        asked, task.asked = self._ask(task), None
        return result_of(asked, task.cancel)

    def _stream(self, uploads: Sequence[BlobUpload], cancel: Cancel) -> BlobStream:
        blob, context = uploads[0].blob, uploads[0].context
        trace, about = context.trace, context.about
        profile = None if blob.stored else self._choice.profile(blob, uploads, cancel)
        for upload in uploads:
            if profile:
                upload.make_by(profile)
        # Who reads stored bytes for several sends nothing itself, and can as well hash them.
        lend = nobody if blob.stored and len(uploads) > 1 else self._resources.lent.offer
        return BlobStream(
            trace.reading(blob.open(), about),
            profile,
            trace.encoding(self._resources.encoders, about),
            cancel,
            size=blob.size,
            diff_id_of=blob.stored_compression if self._wish.check_diffids else None,
            spares=self._resources.spares,
            lend=lend,
            look=self._choice.look,
            name=f"layer {blob.id}",
        )

    def _pause(self, task: Task, error: BaseException) -> float:
        """Seconds to wait after a failed attempt. Raises the error that ends the upload, if any."""
        task.cancel.check()  # a cancelled call may fail with any error
        if not isinstance(error, TowlineError):
            raise error
        if isinstance(error, Outpaced):  # it was only slow, which costs no attempt
            return 0.0
        # Bytes of a pipe cannot be read again: the failure before is what went wrong.
        if isinstance(error, PassedBy) and task.failure:
            task.failure.hint = error.hint
            raise task.failure from error
        task.failure = error
        if task.claim and task.sending and speaks_of_strain(error):
            self._resources.slots.fewer(task.host, task.claim.granted_at)
        upload = task.upload
        try:
            seconds = back_off(error, task.attempts, self._gate, task.host, upload.acknowledged)
        except TowlineError as final:
            # A question that keeps failing is given up, and the next step is tried. Not where the
            # host cannot be reached: the bytes would not arrive either. A host that hangs up may
            # dislike the question alone.
            unreachable = isinstance(final, NetworkError) and not final.hung_up
            if task.sending or unreachable or not upload.skip():
                raise
            task.attempts = Attempts(self._resources.policy)
            return 0.0
        upload.tell_retry(seconds, error.message)
        return seconds

    def _give_back(self, task: Task) -> None:
        """Give the task's slot back, or its place in the queue for one."""
        claim, task.claim = task.claim, None
        if claim is not None:
            claim.slots.give_back(claim, task.host)

    def _arrived(self, task: Task, delivered: Delivered) -> None:
        if task.sending:
            self._resources.slots.more(task.host)
        self._resources.remember(task.flight.key, delivered.made)
        task.flight.done(delivered)
        for sibling in task.siblings:
            sibling.follows = True
            sibling.upload.mount_first(delivered.made, task.upload.repository.name)
            self._start_alone(sibling)

    def _failed(self, task: Task, error: BaseException) -> None:
        # A caller's function that is told of it may raise anything: `error` is what is waited for.
        with suppress(BaseException):
            task.upload.leave(error)
        task.flight.failed(error)
        for sibling in task.siblings:
            self._start_alone(sibling)

    # To several targets.

    def _push_together(self, tasks: Sequence[Task]) -> None:
        """Ask for a blob at several targets, and read it once for those that need its bytes."""
        firsts = self._one_for_each_host(self._ask_all(tasks))
        ready = self._take_slots(firsts)
        if ready:
            self._send_together(ready)

    def _ask_all(self, tasks: Sequence[Task]) -> list[Task]:
        """Ask for a blob at all targets, and return the tasks that need its bytes.

        The others have the blob, or go on alone because they have failed or are late.
        """
        from concurrent.futures import wait

        asked = {task: self._ask(task) for task in tasks}
        wait_patiently(
            wait=lambda seconds: wait(asked.values(), seconds),
            late=lambda: [task.patience for task, answer in asked.items() if not answer.done()],
            held=lambda: any(answer.done() for answer in asked.values()),
        )
        ready = []
        for task, answer in asked.items():
            if not answer.done() or answer.exception() or task.patience.spent:
                self._start_alone(task)
            elif (found := self._answer(task)) is not None:
                self._arrived(task, found)
            else:
                ready.append(task)
        return ready

    def _one_for_each_host(self, tasks: Sequence[Task]) -> list[Task]:
        """The first task of each host. The others become its siblings, which mount from it."""
        # Siblings would share a host's slots and its line: sending twice is never better.
        firsts: dict[str, Task] = {}
        for task in tasks:
            first = firsts.setdefault(task.host, task)
            if first is task:
                continue
            if task.host in self._no_mounts:
                self._start_alone(task)
            else:
                task.upload.tell("Waiting")
                first.siblings.append(task)
        return list(firsts.values())

    def _take_slots(self, tasks: list[Task]) -> list[Task]:
        """Take a slot of each host, all or none. Tasks that are late go on alone.

        Returns the tasks that have their slots.
        """
        while len(tasks) > 1:
            hosts, size = {task.host for task in tasks}, tasks[0].upload.blob.size
            slots = self._resources.slots_for(hosts, size)
            claim = slots.claim(hosts, size)
            if not claim.granted.is_set():
                for task in tasks:
                    task.upload.tell("Waiting")
                with tasks[0].upload.context.span("waited"):
                    self._wait_for_slots(claim, tasks)
            if claim.granted.is_set():
                for task in tasks:
                    task.claim = claim
                return tasks
            slots.give_back(claim)
            lost = [task for task in tasks if task.patience.spent or task.cancel.cancelled]
            for task in lost:
                self._start_alone(task)
            tasks = [task for task in tasks if task not in lost]
        for task in tasks:
            self._start_alone(task)
        return []

    @staticmethod
    def _wait_for_slots(claim: Claim, tasks: Sequence[Task]) -> None:
        def late() -> Sequence[Patience]:
            if claim.granted.is_set() or any(task.cancel.cancelled for task in tasks):
                return ()
            full = claim.slots.full(claim.hosts)
            behind = [task for task in tasks if task.host in full] or tasks
            return [task.patience for task in behind]

        wait_patiently(
            wait=claim.granted.wait,
            late=late,
            held=lambda: 0 < len(claim.slots.full(claim.hosts)) < len(claim.hosts),
        )

    def _send_together(self, tasks: Sequence[Task]) -> None:
        """Read the blob once; each target's part is written, and ended, by a thread of its host."""
        reading = Cancel()
        # A host that has asked for a pause since: its task goes alone, which costs it no attempt.
        paused = [task for task in tasks if self._gate.remaining(task.host)]
        for task in paused:
            self._try_again(task, Outpaced())
        tasks = [task for task in tasks if task not in paused]
        if not tasks:
            return
        try:
            stream = self._stream([task.upload for task in tasks], reading)
        except BaseException as error:  # noqa: BLE001 - each of them hears of it
            for task in tasks:
                self._try_again(task, error)
            return
        fan = FanOut(stream, reading)
        for task in tasks:
            task.sending = True
            lane = fan.lane(task.patience, task.upload.attempt().cancel)
            receive = partial(self._receive, task, lane)
            if no_thread := not_begun(self._resources.send_threads(task.host).submit(receive)):
                lane.leave()
                self._try_again(task, no_thread)
        fan.run()

    def _receive(self, task: Task, lane: Lane) -> None:
        """One target's part of a blob that is read for several."""
        try:
            delivered = task.upload.receive(lane)
        except BaseException as error:  # noqa: BLE001 - a thread's end: those who wait hear of it
            lane.leave()
            self._try_again(task, lane.error or error)
        else:
            self._give_back(task)
            self._arrived(task, delivered)

    def _try_again(self, task: Task, error: BaseException) -> None:
        """A task has failed beside others, or was left behind: from here on it goes alone."""
        try:
            pause = self._pause(task, error)
        except BaseException as final:  # noqa: BLE001 - as above
            self._give_back(task)
            self._failed(task, final)
        else:
            self._give_back(task)
            self._start_alone(task, pause)
