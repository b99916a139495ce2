"""The order of the steps of a push: one plan and one read for all targets, an end for each.

A target that is late is waited for while the patience with it lasts. From then on it is planned and
sent to by itself.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

from towline.context import wait_patiently
from towline.events import Note
from towline.push.image import images
from towline.push.manifests import build
from towline.push.plan import Rules, common
from towline.push.reporting import announce
from towline.transfers.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future

    from towline.knowledge.base import Entry
    from towline.push.interface.options import Wish
    from towline.push.target_push import TargetPush
    from towline.push.upload.choice import Choice
    from towline.spec.media_types import Format

T = TypeVar("T")


class JointPush:
    """A push to all of its targets: `push` carries it out, `prepare` only plans it."""

    def __init__(self, runs: Sequence[TargetPush]) -> None:
        """`runs`: one for each target, at least one; all are of the same push."""
        self._runs = runs
        self._resources = runs[0].target.resources
        self._wish = runs[0].target.wish
        for run in runs:
            announce(run.target)
        self._blobs = dict.fromkeys(blob for run in runs for blob in run.blobs)
        self._known = self._resources.known(self._blobs)

    @cached_property
    def _choice(self) -> Choice:
        from towline.push.upload.choice import Choice  # an unchanged image needs none

        zstd = _formats(self._runs, self._wish) == {"oci"}
        return Choice(self._wish.profile, self._known, zstd=zstd)

    def push(self) -> None:
        """Carry out the runs. At the end each has an outcome for each of its tags.

        Raises Cancelled, and errors that do not belong to any one target.
        """
        if len(self._runs) == 1:
            run = self._runs[0]
            self._plan([run], run.learn(self._known))
            self._send(run, run.early())
        else:
            self._push_side_by_side()
        # If the link was the limit of the push, it is told once how `auto` would have helped.
        if "_choice" in vars(self) and (told := self._choice.told()):
            target = self._runs[0].target
            target.context.emit(Note(reference=target.reference, message=told))

    def prepare(self) -> None:
        """Let each target learn, plan for all together, and write nothing."""
        with Threads(len(self._runs), "towline-target") as threads:
            taught = [threads.submit(partial(run.learn, self._known)) for run in self._runs]
        self._plan(self._runs, [entry for one in taught for entry in one.result()])

    def bring_blobs(self) -> None:
        """Bring the blobs to the targets, and put no manifest. Raises Cancelled.

        `Target.passed` then has the blobs of each target, and `Target.failure` its error.
        """
        self.prepare()
        self._start(hopeful := [run for run in self._runs if not run.hopeless])
        with Threads(len(self._runs), "towline-target") as threads:
            ends = [threads.submit(run.bring) for run in hopeful]
        for end in ends:
            end.result()

    def _push_side_by_side(self) -> None:
        # Two threads for each: a late target's next step waits, in a second one, for its first.
        with Threads(2 * len(self._runs), "towline-target") as threads:
            try:
                for end in self._begin(threads):
                    end.result()
            except BaseException:
                # The threads of all are waited for at the end of the block: have them end, too.
                for run in self._runs:
                    run.target.context.cancel.cancel()
                raise

    def _begin(self, threads: Threads) -> list[Future[None]]:
        """Start each target's way to its end; the futures end with it."""
        learning = {run: threads.submit(partial(run.learn, self._known)) for run in self._runs}
        come, late = _meet(learning, lambda run, _: not run.hopeless)
        going = [threads.submit(partial(self._learned_late, run, learning[run])) for run in late]
        if come:
            self._plan(list(come), [entry for some in come.values() for entry in some])
        looking = {run: threads.submit(run.early) for run in come}
        looked, late = _meet(looking, lambda _, over: not over)
        going += [threads.submit(partial(self._looked_late, run, looking[run])) for run in late]
        left = [run for run, over in looked.items() if not over]
        self._start(left)
        going += [threads.submit(run.finish) for run in left]
        return going

    def _learned_late(self, run: TargetPush, learning: Future[list[Entry]]) -> None:
        self._plan([run], learning.result())
        self._send(run, run.early())

    def _looked_late(self, run: TargetPush, looking: Future[bool]) -> None:
        self._send(run, looking.result())

    def _send(self, run: TargetPush, over: bool) -> None:  # noqa: FBT001 - what `early` has returned
        """Carry out the rest of one target's push by itself, unless it is over."""
        if not over:
            self._start([run])
            run.finish()

    def _plan(self, runs: Sequence[TargetPush], taught: Sequence[Entry]) -> None:
        """Plan the steps of all blobs for targets that are planned together."""
        known = {identity: list(entries) for identity, entries in self._known.items()}
        for entry in taught:  # as the oldest: what was learned ranks last
            known.setdefault(entry.diff_id, []).insert(0, entry)
        hopeful = [run for run in runs if not run.hopeless] or runs
        hosts = frozenset(run.target.repository.name.host for run in hopeful)
        rules = Rules(
            profile=self._wish.profile,
            explicit=self._wish.explicit_profile,
            formats=_formats(hopeful, self._wish),
            trust_learned=self._wish.learn,
            everywhere=common(known.values(), hosts) if len(hopeful) > 1 else None,
        )
        siblings = [run.target.repository.name for run in self._runs]
        for run in runs:
            run.plan(known, rules, siblings)

    def _start(self, runs: Sequence[TargetPush]) -> None:
        """Begin the uploads of every blob to every target."""
        # First blobs that the source lacks: where one is nowhere, nothing is worth sending. Then
        # configs, which are small and tell whether small layers can go in one request each. Then
        # layers, the largest first, as they take the longest.
        from towline.push.upload.scheduler import Uploads  # an unchanged image needs none

        uploads = Uploads(self._resources, self._wish, self._choice)
        for run in runs:
            run.begin(uploads)
        for blob in sorted(self._blobs, key=lambda blob: (blob.held, blob.is_layer, -blob.size)):
            tasks = []
            try:
                for run in runs:
                    if blob in run.plans and blob.key not in run.delivered:
                        tasks.append(run.awaited.join(blob))  # noqa: PERF401 - see below
            finally:  # when a later one is cancelled too: others may have joined what was begun
                uploads.start([task for task in tasks if task])


def _meet(
    coming: Mapping[TargetPush, Future[T]], goes_on: Callable[[TargetPush, T], bool]
) -> tuple[dict[TargetPush, T], list[TargetPush]]:
    """The runs whose futures are done, with their results, and those that are late.

    A late run is waited for while the patience with it lasts, which is spent only while another
    run, of those that are done, `goes_on`. Raises the error of a future.
    """
    from concurrent.futures import wait

    def late() -> list[TargetPush]:
        return [run for run, future in coming.items() if not future.done()]

    wait_patiently(
        wait=lambda seconds: wait(coming.values(), seconds),
        late=lambda: [run.target for run in late()],
        held=lambda: any(f.done() and goes_on(run, f.result()) for run, f in coming.items()),
    )
    behind = late()
    return {run: future.result() for run, future in coming.items() if run not in behind}, behind


def _formats(runs: Sequence[TargetPush], wish: Wish) -> frozenset[Format]:
    trees = dict.fromkeys(tree for run in runs for _, tree in run.target.tags)
    return frozenset(
        build.preferred(image, wish.format, wish.profile)
        for tree in trees
        for image in images(tree)
    )
