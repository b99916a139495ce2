"""The order of the steps of a push: one plan and one read for all targets, an end for each.

A target that is late is waited for while the patience with it lasts. From then on it is planned and
sent to by itself.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeVar

from towline.context import wait_patiently
from towline.events import Note
from towline.push import plan
from towline.push.image import images
from towline.push.manifests import build
from towline.push.plan import Rules
from towline.push.reporting import announce
from towline.transfers.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future

    from towline.knowledge.base import Entry
    from towline.push.interface.options import Wish
    from towline.push.resources import Resources
    from towline.push.target_push import TargetPush
    from towline.push.upload.choice import Choice
    from towline.spec.digest import Digest
    from towline.spec.media_types import Format

    Known = Mapping[Digest, Sequence[Entry]]

T = TypeVar("T")


def push(resources: Resources, runs: Sequence[TargetPush], wish: Wish) -> None:
    """Carry out the runs of one push. At the end each has an outcome for each of its tags.

    Raises Cancelled, and errors that do not belong to any one target.
    """
    story = _Together(resources, runs, wish)
    if len(runs) == 1:
        story.alone(runs[0])
    elif runs:
        story.together()
    story.tell_what_bounded_it()


def prepare(resources: Resources, runs: Sequence[TargetPush], wish: Wish) -> None:
    """Announce the layers, learn and plan, and write nothing."""
    _Together(resources, runs, wish).prepare()


def bring_blobs(resources: Resources, runs: Sequence[TargetPush], wish: Wish) -> None:
    """Bring the blobs to the targets, and put no manifest. Raises Cancelled.

    `Target.passed` then has the blobs of each target, and `Target.failure` its error.
    """
    story = _Together(resources, runs, wish)
    story.prepare()
    story.start(hopeful := [run for run in runs if not run.hopeless])
    with Threads(len(runs), "towline-target") as threads:
        ends = [threads.submit(run.bring) for run in hopeful]
    for end in ends:
        end.result()


class _Together:
    """One push."""

    def __init__(self, resources: Resources, runs: Sequence[TargetPush], wish: Wish) -> None:
        self._resources = resources
        self._runs = runs
        self._wish = wish
        for run in runs:
            announce(run.target)
        self._blobs = dict.fromkeys(blob for run in runs for blob in run.blobs)
        self.known: Known = resources.known(self._blobs)

    @cached_property
    def _choice(self) -> Choice:
        from towline.push.upload.choice import Choice  # an unchanged image needs none

        zstd = _formats(self._runs, self._wish) == {"oci"}
        return Choice(self._wish.profile, self._resources.client.rates, self.known, zstd=zstd)

    def tell_what_bounded_it(self) -> None:
        """If the link was the limit of the push, tell once how `auto` would have helped."""
        if "_choice" in vars(self) and (told := self._choice.told()):
            target = self._runs[0].target
            target.context.emit(Note(reference=target.reference, message=told))

    def prepare(self) -> None:
        """Let each target learn, and plan for all together."""
        with Threads(len(self._runs), "towline-target") as threads:
            taught = [threads.submit(partial(run.learn, self.known)) for run in self._runs]
        if self._runs:
            self.plan(self._runs, [entry for one in taught for entry in one.result()])

    def alone(self, run: TargetPush) -> None:
        """Carry out a push that has one target."""
        self._plan_alone(run, partial(run.learn, self.known))

    def _plan_alone(self, run: TargetPush, learn: Callable[[], Sequence[Entry]]) -> None:
        self.plan([run], learn())
        self._send_alone(run, run.early)

    def _send_alone(self, run: TargetPush, early: Callable[[], bool]) -> None:
        if not early():
            self.start([run])
            run.finish()

    def together(self) -> None:
        """Carry out a push that has several targets, side by side."""
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
        learning = {run: threads.submit(partial(run.learn, self.known)) for run in self._runs}
        come, late = _meet(learning, lambda run, _: not run.hopeless)
        going = [
            threads.submit(partial(self._plan_alone, run, learning[run].result)) for run in late
        ]
        if come:
            self.plan(list(come), [entry for some in come.values() for entry in some])
        looking = {run: threads.submit(run.early) for run in come}
        looked, late = _meet(looking, lambda _, over: not over)
        going += [
            threads.submit(partial(self._send_alone, run, looking[run].result)) for run in late
        ]
        left = [run for run, over in looked.items() if not over]
        self.start(left)
        going += [threads.submit(run.finish) for run in left]
        return going

    def plan(self, runs: Sequence[TargetPush], taught: Sequence[Entry]) -> None:
        """Plan the steps of all blobs for targets that are planned together."""
        known = {identity: list(entries) for identity, entries in self.known.items()}
        for entry in taught:  # as the oldest: what was learned ranks last
            known.setdefault(entry.diff_id, []).insert(0, entry)
        hopeful = [run for run in runs if not run.hopeless] or runs
        rules = _rules(hopeful, known, self._wish)
        siblings = [run.target.repository.name for run in self._runs]
        for run in runs:
            run.plan(known, rules, siblings)

    def start(self, runs: Sequence[TargetPush]) -> None:
        """Begin the uploads of every blob to every target."""
        # First blobs that the source lacks: where one is nowhere, nothing is worth sending. Then
        # configs, which are small and tell whether small layers can go in one request each. Then
        # layers, the largest first, as they take the longest.
        from towline.push.upload.scheduler import Uploads  # an unchanged image needs none
        from towline.push.upload.target_blobs import start

        uploads = Uploads(self._resources, self._wish, self._choice)
        for run in runs:
            run.begin(uploads)
        for blob in sorted(self._blobs, key=lambda blob: (blob.held, blob.is_layer, -blob.size)):
            wanting = [run for run in runs if blob in run.plans and blob.key not in run.delivered]
            start(uploads, blob, [run.awaited for run in wanting])


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


def _rules(
    runs: Sequence[TargetPush], known: Mapping[Digest, Sequence[Entry]], wish: Wish
) -> Rules:
    hosts = frozenset(run.target.repository.name.host for run in runs)
    return Rules(
        profile=wish.profile,
        explicit=wish.explicit_profile,
        formats=_formats(runs, wish),
        trust_learned=wish.learn,
        everywhere=plan.common(known.values(), hosts) if len(runs) > 1 else None,
    )


def _formats(runs: Sequence[TargetPush], wish: Wish) -> frozenset[Format]:
    trees = dict.fromkeys(tree for run in runs for _, tree in run.target.tags)
    return frozenset(
        build.preferred(image, wish.format, wish.profile)
        for tree in trees
        for image in images(tree)
    )
