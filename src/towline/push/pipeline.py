"""The steps of a push in their order: learn, plan, look at the tags, send the blobs, put the tags.

`TargetPush` has one target's part of each. `JointPush` takes the steps for all targets: one plan
and one read for all, an end for each. A target that is late is waited for while the patience with
it lasts; from then on it is planned and sent to by itself.
"""

from __future__ import annotations

from functools import cached_property, partial
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from towline.context import wait_patiently
from towline.errors import RegistryError, TowlineError, UsageError
from towline.push.image import Blob, Tree, images, tree_blobs
from towline.push.manifests import build, tagged
from towline.push.plan import Ask, Delivered, Mount, Rules, Step, common, own, steps, there
from towline.push.reporting import Outcomes, Placed, announce, tell_layer
from towline.push.target import Tag, Target
from towline.transfers.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Future

    from towline.knowledge.base import Entry
    from towline.push.manifests.build import Documents
    from towline.push.upload.choice import Choice
    from towline.push.upload.scheduler import Uploads
    from towline.push.upload.target_blobs import TargetBlobs
    from towline.reference import Reference, RepositoryName
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest
    from towline.spec.media_types import Format

T = TypeVar("T")


class TargetPush:
    """A push to one target. Its steps are called in the order in which they stand here."""

    def __init__(self, target: Target, outcomes: Outcomes) -> None:
        self.target = target
        self.kept: dict[Reference, Descriptor | RegistryError] = {}
        """Tags that are not written: the manifest under each, or the error of its push."""
        self.blobs = tree_blobs(self._trees)
        self._wish = target.wish
        self.plans: dict[Blob, tuple[Step, ...]] = {}
        """The steps of each blob."""
        self.delivered: dict[str, Delivered] = dict(target.passed or {})
        """The blobs that are at the target, by their keys."""
        self.awaited: TargetBlobs
        """The blobs whose uploads are awaited; set by `begin`."""
        self._rules: Rules
        self.outcomes = outcomes

    @property
    def left(self) -> tuple[tuple[Reference, Tree], ...]:
        """The tags that will be written."""
        return tuple(pair for pair in self.target.tags if pair[0] not in self.kept)

    @property
    def _trees(self) -> list[Tree]:
        """The trees of the tags that will be written, and of referrers."""
        return [tree for _, tree in self.left] + [each.tree for each in self.target.referrers]

    def learn(self, known: Mapping[Digest, Sequence[Entry]]) -> list[Entry]:
        """Entries that the registry itself teaches, of layers that nothing is known of."""
        try:
            with self.target.context.span("learned"):
                if not self.target.layout:
                    self.target.registry.find_login()  # here, where a slow one is waited for
                self._find_kept()
                if not (unknown := self._unknown(known)):
                    return []
                from towline.push import learning  # an unchanged image needs none

                entries = learning.learn(self.target, self.left, unknown)
        except TowlineError as error:  # retried already: the push itself would fail, too
            self.target.failure = error
            return []
        if entries and self.target.repository.may_teach:
            self.target.resources.knowledge.record(entries)
        return entries

    def _find_kept(self) -> None:
        """Find the tags that stay. Raises AuthError, NetworkError and UsageError."""
        self.kept = tagged.kept(self.target)
        layout, kept = self.target.layout, len(self.kept)
        if layout and layout.whole and 0 < kept < len(self.target.tags):
            raise UsageError(
                f"{layout.name} holds {kept} of these tags already, and is written whole",
                hint="write another file, or leave out `if_exists`",
            )
        self.blobs = tree_blobs(self._trees)

    def _unknown(self, known: Mapping[Digest, Sequence[Entry]]) -> set[Digest]:
        """DiffIDs of layers that are worth learning: nothing is known of them at that host."""
        # A stored blob has one digest, and only a repository to mount it from is worth learning,
        # where somebody names one. With a profile that the user has named no learned blob fits, as
        # nobody knows which profile made it.
        wish, host = self._wish, f"{self.target.repository.name.host}/"
        if not wish.learn:
            return set()
        somewhere = bool(wish.cache_from or self.target.origins)
        return {
            blob.identity
            for blob in tree_blobs(tree for _, tree in self.left)
            if (
                somewhere and blob.is_layer
                if blob.stored
                else not (wish.explicit_profile and blob.held)
            )
            if blob.key not in (self.target.passed or ())
            if not any(entry.repository.startswith(host) for entry in known.get(blob.identity, ()))
        }

    def plan(
        self,
        known: Mapping[Digest, Sequence[Entry]],
        rules: Rules,
        siblings: Iterable[RepositoryName],
    ) -> None:
        """Plan the steps of each blob; `siblings` are the other repositories of this push."""
        passed = self.target.passed or {}
        # What passed was sent before it was known which layers it is: that is recorded now.
        self.target.remember(
            (blob, passed[blob.key].made._replace(learned=own(blob).learned))
            for blob in self.blobs
            if blob.is_layer and blob.stored and blob.key in passed
        )
        place = self.target.as_planned(known)
        self._rules = rules
        self.plans = {
            blob: steps(blob, place, known.get(blob.identity, ()), rules) for blob in self.blobs
        }
        mounts = (step for plan in self.plans.values() for step in plan if isinstance(step, Mount))
        self.target.pull_from((*(mount.origin for mount in mounts), *siblings))

    def early(self) -> bool:
        """End the push before any blob is asked for, if all tags are right or all have failed."""
        try:
            with self.target.context.span("looked"):
                standing = self._standing()
        except TowlineError as error:  # retried already: no other request would succeed either
            self._fail(error)
            return True
        if standing is None:
            return False
        for blob in self.blobs:
            if blob.is_layer and blob.key not in (self.target.passed or ()):
                tell_layer(self.target, blob.id, "Layer already exists")
        self._keep()
        for tag, tree in self.left:
            self.outcomes.placed(tag, tree, Placed(standing[tag], "unchanged"), self.delivered)
        return True

    def _keep(self) -> None:
        for reference, standing in self.kept.items():
            self.outcomes.left_alone(reference, standing)

    def _fail(self, error: TowlineError) -> None:
        """Note that no tag was written."""
        self._keep()
        self.outcomes.failed((reference for reference, _ in self.left), error)

    def _standing(self) -> dict[Reference, Documents] | None:
        """The documents under the tags, if all are right; raises a registry's errors."""
        # With a digest for each blob the manifest can be made without asking for any of them. A
        # registry that has it under the tag has its blobs.
        if self.target.failure:
            raise self.target.failure
        found = {
            blob.key: there(blob, plan[0].candidate)
            for blob, plan in self.plans.items()
            if plan and isinstance(plan[0], Ask)
        }
        if len(found) < len(self.plans):
            return None
        standing = {}
        for reference, tree in self.left:
            tag = Tag(self.target, reference, tree, found)
            if (right := tagged.TaggedImage(tag).standing()) is None:
                return None
            standing[reference] = right
        # To verify, each blob is asked for, and one that is missing is sent again.
        if self._wish.verify or self._wish.check_diffids or self.target.referrers:
            return None
        self.delivered = {**found, **self.delivered}
        return standing

    def begin(self, uploads: Uploads) -> None:
        """Prepare to await the blobs that `uploads` brings."""
        from towline.push.upload.target_blobs import TargetBlobs  # an unchanged image needs none

        try:
            if self.target.layout:
                self.target.layout.begin()
        except TowlineError as error:
            self.target.failure, self.plans = error, {}
        rules, plans, delivered = self._rules, self.plans, self.delivered
        self.awaited = TargetBlobs(
            self.target, rules=rules, plans=plans, delivered=delivered, uploads=uploads
        )

    def bring(self) -> None:
        """Await the blobs, and put no manifest: it is not known yet. Raises Cancelled."""
        self._await_blobs()
        self.target.passed = self.delivered
        self.target.failure = next(iter(self.awaited.errors.values()), None)

    def finish(self) -> None:
        """Await the blobs, put the manifests, and give each tag an outcome. Raises Cancelled."""
        from towline.push.tag_push import TagPush  # an unchanged image needs none

        if self.target.failure:
            self._fail(self.target.failure)
            return
        self._await_blobs()
        if self._wish.check_diffids:
            self.awaited.check_unsent()
        self._keep()
        tags = TagPush(self.target, self.awaited, self.outcomes)
        tags.put_all(self.left)
        for each in self.target.referrers:
            tags.put_referrer(each)
        if self.target.layout:
            tags.publish(self.target.layout)
        self.outcomes.tell()

    def _await_blobs(self) -> None:
        context = self.target.context
        began = context.clock()
        self.awaited.wait(self._trees)
        seconds = context.clock() - began
        self.target.repository.facts.note_rate(context.meter.sent_bytes, seconds)


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
        self._choosing = Lock()
        """Two late targets may begin at once: they make one choice."""

    @cached_property
    def _choice(self) -> Choice:
        from towline.push.upload.choice import Choice  # an unchanged image needs none

        zstd = self._formats(self._runs) == {"oci"}
        return Choice(self._wish.profile, self._known, zstd=zstd)

    def push(self) -> None:
        """Carry out the runs. At the end each has an outcome for each of its tags.

        Raises Cancelled, and errors that do not belong to any one target.
        """
        if len(self._runs) == 1:
            run = self._runs[0]
            self._push_alone(run, partial(run.learn, self._known))
        else:
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
        # If the link was the limit of the push, it is told once how `auto` would have helped.
        if "_choice" in vars(self) and (told := self._choice.told()):
            self._runs[0].target.note(told)

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
        self._start(hopeful := [run for run in self._runs if not run.target.failure])
        with Threads(len(self._runs), "towline-target") as threads:
            ends = [threads.submit(run.bring) for run in hopeful]
        for end in ends:
            end.result()

    def _begin(self, threads: Threads) -> list[Future[None]]:
        """Start each target's way to its end; the futures end with it."""
        learning = {run: threads.submit(partial(run.learn, self._known)) for run in self._runs}
        come, late = _meet(learning, lambda run, _: not run.target.failure)
        alone = (partial(self._push_alone, run, learning[run].result) for run in late)
        ends = [*map(threads.submit, alone)]
        if come:
            self._plan(list(come), [entry for some in come.values() for entry in some])
        looking = {run: threads.submit(run.early) for run in come}
        looked, late = _meet(looking, lambda _, over: not over)
        alone = (partial(self._send_alone, run, looking[run].result) for run in late)
        ends += map(threads.submit, alone)
        left = [run for run, over in looked.items() if not over]
        self._start(left)
        ends += [threads.submit(run.finish) for run in left]
        return ends

    def _push_alone(self, run: TargetPush, learn: Callable[[], list[Entry]]) -> None:
        """Carry out one target's push by itself."""
        self._plan([run], learn())
        self._send_alone(run, run.early)

    def _send_alone(self, run: TargetPush, early: Callable[[], bool]) -> None:
        if not early():
            self._start([run])
            run.finish()

    def _plan(self, runs: Sequence[TargetPush], taught: Sequence[Entry]) -> None:
        """Plan the steps of all blobs for targets that are planned together."""
        known = {identity: list(entries) for identity, entries in self._known.items()}
        for entry in taught:  # as the oldest: what was learned ranks last
            known.setdefault(entry.diff_id, []).insert(0, entry)
        hopeful = [run for run in runs if not run.target.failure] or runs
        hosts = frozenset(run.target.repository.name.host for run in hopeful)
        rules = Rules(
            profile=self._wish.profile,
            explicit=self._wish.explicit_profile,
            formats=self._formats(hopeful),
            trust_learned=self._wish.learn,
            everywhere=common(known.values(), hosts) if len(hopeful) > 1 else None,
        )
        siblings = [run.target.repository.name for run in self._runs]
        for run in runs:
            run.plan(known, rules, siblings)

    def _formats(self, runs: Sequence[TargetPush]) -> frozenset[Format]:
        """The formats of the images' manifests, before any registry has refused one."""
        trees = dict.fromkeys(tree for run in runs for _, tree in run.target.tags)
        every = (image for tree in trees for image in images(tree))
        wish = self._wish
        return frozenset(build.preferred(image, wish.format, wish.profile) for image in every)

    def _start(self, runs: Sequence[TargetPush]) -> None:
        """Begin the uploads of every blob to every target."""
        # First blobs that the source lacks: where one is nowhere, nothing is worth sending. Then
        # configs, which are small and tell whether small layers can go in one request each. Then
        # layers, the largest first, as they take the longest.
        from towline.push.upload.scheduler import Uploads  # an unchanged image needs none

        with self._choosing:
            choice = self._choice
        uploads = Uploads(self._resources, self._wish, choice)
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
        late=lambda: [run.target.patience for run in late()],
        held=lambda: any(f.done() and goes_on(run, f.result()) for run, f in coming.items()),
    )
    behind = late()
    return {run: future.result() for run, future in coming.items() if run not in behind}, behind
