"""The upload core: brings the blobs of a push to its targets, with one thread for each blob.

A `Task` is one blob's upload to one target. It ends once, with the blob delivered or with an error,
and whoever waits hears of it through its flight. `Uploads.start` is given all tasks of a blob.

To one target (`_push_alone`): ask for the blob, or mount it; else wait for a slot of the host, read
the layer and send it. After a failure the slot is given back, and the task is tried again after a
pause, from the step that failed.

To several targets (`_push_together`):

1. Ask at all of them side by side, each in a thread of its host.
2. Of several repositories of one host keep the first. The others are its siblings, and mount the
   blob when the first has it.
3. Take a slot of each host: all of them, or none.
4. Read the layer once. A thread of each host sends what is read to the host's target.

A task that fails, or is late, in any of these goes on alone. It is late when the others have waited
for its target for as long as their patience with it lasts (`context.Patience`).

Nothing here can deadlock. A blob's thread waits for answers, for slots and for pauses, and holds no
slot meanwhile. Whoever answers waits for its host alone; whoever has a slot waits for its host and
for the bytes of the layer.
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
    from towline.transfers.threads import Threads


@dataclass(eq=False, slots=True)
class Task:
    """A blob's upload to one target, which this push carries out, also for others who wait."""

    upload: BlobUpload
    flight: Flight[Delivered]
    attempts: Attempts
    patience: Patience
    """How long its target may still keep others waiting."""
    asked: Future[Delivered | None] | None = None
    """The answer to the questions, where a thread of the host asks them, until it is taken."""
    failure: TowlineError | None = None
    """The error of the last attempt."""
    claim: Claim | None = None
    """The slot that the present attempt has, or waits for."""
    siblings: list[Task] = field(default_factory=list)
    """Tasks of the same blob for other repositories of its host; they mount it once it is there."""

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

    def start(self, tasks: Sequence[Task]) -> None:
        """Begin the uploads of one blob, if there are any. Their flights tell how they end."""
        together = partial(self._push_together, tasks)
        if len(tasks) <= 1 or not_begun(self._threads(tasks).submit(together)):
            for task in tasks:
                self._start_alone(task)

    def _threads(self, tasks: Sequence[Task]) -> Threads:
        """The threads of which one brings a blob to its targets."""
        hosts, size = {task.host for task in tasks}, tasks[0].upload.blob.size
        return self._resources.blob_threads(hosts, size)

    def _claim(self, tasks: Sequence[Task]) -> Claim:
        """Queue for a slot of each host, and tell of it where that takes time."""
        hosts, size = {task.host for task in tasks}, tasks[0].upload.blob.size
        claim = self._resources.slots_for(hosts, size).claim(hosts, size)
        for task in tasks:
            task.claim = claim
        if not claim.granted.is_set():
            for task in tasks:
                task.upload.tell("Waiting")
        return claim

    # To one target.

    def _start_alone(self, task: Task, pause: float = 0.0) -> None:
        """Bring a blob to one target, after a pause of so many seconds."""
        alone = partial(self._push_alone, task, pause)
        if no_thread := not_begun(self._threads([task]).submit(alone)):
            self._failed(task, no_thread)

    def _push_alone(self, task: Task, pause: float | None) -> None:
        """Try until the blob is delivered, or the task has failed for good."""
        while pause is not None:
            try:
                with task.upload.context.span("waited"):
                    task.cancel.wait(pause)
                delivered = self._attempt(task)
            except BaseException as error:  # noqa: BLE001 - a thread's end: those who wait hear of it
                pause = self._after_failure(task, error)
            else:
                self._give_back(task)
                if delivered is not None:
                    self._arrived(task, delivered)
                    return
                pause = self._gate.remaining(task.host)

    def _attempt(self, task: Task) -> Delivered | None:
        """Ask or mount, else send. None: the host wants to be left alone for a while."""
        if (found := self._answer(task)) is not None:
            return found
        claim = self._claim([task])
        with task.upload.context.span("waited"):
            claim.slots.wait(claim, task.cancel)
        # The gate may have been shut while the slot was waited for. Nobody waits with a slot held.
        if self._gate.remaining(task.host):
            return None
        with closing(self._stream([task.upload], task.cancel)) as stream:
            return task.upload.receive(stream)

    def _answer(self, task: Task) -> Delivered | None:
        """The answer that is asked for already, else ask. Raises Cancelled, and as `_ask` does."""
        asked, task.asked = task.asked, None
        return result_of(asked, task.cancel) if asked else self._ask(task)

    def _ask(self, task: Task) -> Delivered | None:
        """Ask or mount. None: the bytes must be sent. Raises as `BlobUpload.ask_or_mount` does."""
        slots, size = self._resources.small_slots, task.upload.blob.size
        while task.upload.asks:
            self._gate.wait(task.host, task.cancel)
            with slots.held(task.host, size, task.cancel):
                # The gate may have been shut while the slot was waited for: then wait again.
                if not self._gate.remaining(task.host):
                    with task.upload.context.span("asked"):
                        return task.upload.ask_or_mount()
        return task.upload.ask_or_mount()  # no question is left, so no slot is needed

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

    def _after_failure(self, task: Task, error: BaseException) -> float | None:
        """After a failed attempt: give the slot back, and say what comes now.

        Returns the seconds to wait before the next attempt; None: the task has failed for good.
        """
        try:
            pause = self._pause(task, error)
        except BaseException as final:  # noqa: BLE001 - as above
            self._give_back(task)
            self._failed(task, final)
            return None
        # Only now that the gate is shut, if it is to be: whoever gets the slot looks at it.
        self._give_back(task)
        return pause

    def _pause(self, task: Task, error: BaseException) -> float:
        """Seconds to wait after a failed attempt. Raises the error that ends the task, if any."""
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
        if task.claim and speaks_of_strain(error):
            self._resources.slots.fewer(task.host, task.claim.granted_at)
        upload = task.upload
        try:
            seconds = back_off(error, task.attempts, self._gate, task.host, upload.acknowledged)
        except TowlineError as final:
            # A question that keeps failing is given up, and the next step is tried. Not where the
            # host cannot be reached: the bytes would not arrive either. A host that hangs up may
            # dislike the question alone.
            unreachable = isinstance(final, NetworkError) and not final.hung_up
            if task.claim or unreachable or not upload.skip():
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
        if delivered.sent_bytes:
            self._resources.slots.more(task.host)
        self._resources.remember(task.flight.key, delivered.made)
        task.flight.done(delivered)
        for sibling in task.siblings:
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
        ready = []
        for task in self._take_slots(firsts):
            # As in `_attempt`: the host may want to be left alone since. That costs no attempt.
            if self._gate.remaining(task.host):
                self._give_back(task)
                self._start_alone(task)
            else:
                ready.append(task)
        if ready:
            self._send_together(ready)

    def _ask_all(self, tasks: Sequence[Task]) -> list[Task]:
        """Ask for a blob at all targets, and return the tasks that need its bytes.

        The others have the blob, or go on alone because they have failed or are late.
        """
        from concurrent.futures import wait

        # In threads of the hosts: one that is late goes on asking, while the others go on.
        answers = {}
        for task in tasks:
            threads = self._resources.host_threads(task.host)
            answers[task] = task.asked = threads.submit(partial(self._ask, task))
        wait_patiently(
            wait=lambda seconds: wait(answers.values(), seconds),
            late=lambda: [task.patience for task, answer in answers.items() if not answer.done()],
            held=lambda: any(answer.done() for answer in answers.values()),
        )
        ready = []
        for task, answer in answers.items():
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
            if first is not task:
                task.upload.tell("Waiting")
                first.siblings.append(task)
        return list(firsts.values())

    def _take_slots(self, tasks: list[Task]) -> list[Task]:
        """Take a slot of each host, all or none. Tasks that are late go on alone.

        Returns the tasks that have their slots.
        """
        while len(tasks) > 1:
            claim = self._claim(tasks)
            with tasks[0].upload.context.span("waited"):
                self._wait_for_slots(claim, tasks)
            if claim.granted.is_set():
                return tasks
            for task in tasks:
                self._give_back(task)
            lost = [task for task in tasks if task.patience.spent or task.cancel.cancelled]
            for task in lost:
                self._start_alone(task)
            tasks = [task for task in tasks if task not in lost]
        for task in tasks:
            self._start_alone(task)
        return []

    @staticmethod
    def _wait_for_slots(claim: Claim, tasks: Sequence[Task]) -> None:
        """Wait for the slots, until the patience with a target whose host is full is spent."""

        def full() -> frozenset[str]:
            return claim.slots.full(claim.hosts)

        def late() -> Sequence[Patience]:
            if claim.granted.is_set() or any(task.cancel.cancelled for task in tasks):
                return ()
            return [task.patience for task in tasks if task.host in full()]

        wait_patiently(claim.granted.wait, late, lambda: 0 < len(full()) < len(claim.hosts))

    def _send_together(self, tasks: Sequence[Task]) -> None:
        """Read the blob once; each target's part is written, and ended, by a thread of its host."""
        reading = Cancel()
        try:
            stream = self._stream([task.upload for task in tasks], reading)
        except BaseException as error:  # noqa: BLE001 - each of them hears of it
            for task in tasks:
                self._try_again(task, error)
            return
        fan = FanOut(stream, reading)
        for task in tasks:
            lane = fan.lane(task.patience, task.upload.attempt().cancel)
            receive = partial(self._receive, task, lane)
            if no_thread := not_begun(self._resources.send_threads(task.host).submit(receive)):
                lane.leave()
                self._try_again(task, no_thread)
        fan.run()

    def _receive(self, task: Task, lane: Lane) -> None:
        """Send one target's part of a blob that is read for several."""
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
        if (pause := self._after_failure(task, error)) is not None:
            self._start_alone(task, pause)
