"""The steps of a push in their order: learn, plan, look at the tags, send the blobs, put the tags.

The functions have one target's part of each. `JointPush` takes the steps for all targets: one plan
and one read for all, an end for each. A target that is late is waited for while the patience with
it lasts; from then on it is planned and sent to by itself.
"""

from __future__ import annotations

from functools import cached_property, partial
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from towline.context import wait_patiently
from towline.errors import TowlineError, UsageError
from towline.push.image import images, tree_blobs
from towline.push.manifests import build, tagged
from towline.push.manifests.put import TaggedImage
from towline.push.plan import Ask, Mount, Rules, common, own, steps, there
from towline.push.reporting import (
    Placed,
    announce,
    leave_staying,
    place_tag,
    tell_layer,
    tell_placed,
)
from towline.transfers.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from concurrent.futures import Future

    from towline.knowledge.base import Entry
    from towline.push.manifests.build import Documents
    from towline.push.plan import Delivered
    from towline.push.target import TargetPush
    from towline.push.upload.choice import Choice
    from towline.push.upload.scheduler import Uploads
    from towline.push.upload.target_blobs import TargetBlobs
    from towline.reference import Reference, RepositoryName
    from towline.spec.digest import Digest
    from towline.spec.media_types import Format

T = TypeVar("T")


# One target's part of each step. They are called in the order in which they stand here.


def learn(target: TargetPush, known: Mapping[Digest, Sequence[Entry]]) -> list[Entry]:
    """Entries that the registry itself teaches, of layers that nothing is known of."""
    try:
        with target.context.span("learned"):
            if not target.layout:
                target.registry.find_login()  # here, where a slow one is waited for
            target.staying = tagged.staying(target)
            layout, staying = target.layout, len(target.staying)
            if layout and layout.whole and 0 < staying < len(target.tags):
                raise UsageError(
                    f"{layout.name} holds {staying} of these tags already, and is written whole",
                    hint="write another file, or leave out `if_exists`",
                )
            if not (unknown := _unknown(target, known)):
                return []
            from towline.push import learning  # an unchanged image needs none

            entries = learning.learn(target, unknown)
    except TowlineError as error:  # retried already: the push itself would fail, too
        target.failure = error
        return []
    if entries and target.repository.may_teach:
        target.resources.knowledge.record(entries)
    return entries


def _unknown(target: TargetPush, known: Mapping[Digest, Sequence[Entry]]) -> set[Digest]:
    """DiffIDs of layers that are worth learning: nothing is known of them at that host."""
    # A stored blob has one digest, and only a repository to mount it from is worth learning, where
    # somebody names one. With a profile that the user has named no learned blob fits, as nobody
    # knows which profile made it.
    wish, host = target.wish, f"{target.repository.name.host}/"
    if not wish.learn:
        return set()
    somewhere = bool(wish.cache_from or target.origins)
    return {
        blob.identity
        for blob in tree_blobs(tree for _, tree in target.due)
        if (
            somewhere and blob.is_layer
            if blob.stored
            else not (wish.explicit_profile and blob.held)
        )
        if blob.key not in target.delivered
        if not any(entry.repository.startswith(host) for entry in known.get(blob.identity, ()))
    }


def plan(
    target: TargetPush,
    known: Mapping[Digest, Sequence[Entry]],
    rules: Rules,
    siblings: Iterable[RepositoryName],
) -> None:
    """Plan the steps of each blob; `siblings` are the other repositories of this push."""
    blobs = tree_blobs(target.trees)
    # What passed was sent before it was known which layers it is: that is recorded now.
    target.remember(
        (blob, target.delivered[blob.key].made._replace(learned=own(blob).learned))
        for blob in blobs
        if blob.is_layer and blob.stored and blob.key in target.delivered
    )
    place = target.as_planned(known)
    target.rules = rules
    target.plans = {blob: steps(blob, place, known.get(blob.identity, ()), rules) for blob in blobs}
    mounts = (step for plan in target.plans.values() for step in plan if isinstance(step, Mount))
    if not target.layout:
        target.registry.pull_from((*(mount.origin for mount in mounts), *siblings))


def early(target: TargetPush) -> bool:
    """End the push before any blob is asked for, if all tags are right or all have failed."""
    # With a digest for each blob the manifest can be made without asking for any of them. A
    # registry that has it under the tag has its blobs.
    found = {
        blob.key: there(blob, plan[0].candidate)
        for blob, plan in target.plans.items()
        if plan and isinstance(plan[0], Ask)
    }
    try:
        with target.context.span("looked"):
            standing = _standing(target, found)
    except TowlineError as error:  # retried already: no other request would succeed either
        _fail(target, error)
        return True
    if standing is None:
        return False
    for blob in target.plans:
        if blob.is_layer and blob.key not in target.delivered:
            tell_layer(target, blob.id, "Layer already exists")
    target.delivered = {**found, **target.delivered}
    leave_staying(target)
    for tag, tree in target.due:
        place_tag(target, tag, tree, Placed(standing[tag], "unchanged"))
    return True


def _standing(
    target: TargetPush, found: Mapping[str, Delivered]
) -> dict[Reference, Documents] | None:
    """The documents under the tags, if all are right; raises a registry's errors."""
    if target.failure:
        raise target.failure
    if len(found) < len(target.plans):
        return None
    standing = {}
    for reference, tree in target.due:
        image = TaggedImage(target, reference, tree, found)
        if (right := tagged.first_standing(image)) is None:
            return None
        standing[reference] = right
    # To verify, each blob is asked for, and one that is missing is sent again.
    wish = target.wish
    return None if wish.verify or wish.check_diffids or target.referrers else standing


def _fail(target: TargetPush, error: TowlineError) -> None:
    """Note that no tag was written."""
    leave_staying(target)
    target.outcomes |= dict.fromkeys((reference for reference, _ in target.due), error)


def begin(target: TargetPush, uploads: Uploads) -> TargetBlobs:
    """Prepare to await the blobs that `uploads` brings."""
    from towline.push.upload.target_blobs import TargetBlobs  # an unchanged image needs none

    try:
        if target.layout:
            target.layout.begin()
    except TowlineError as error:
        target.failure, target.plans = error, {}
    return TargetBlobs(target, uploads)


def bring(target: TargetPush, blobs: TargetBlobs) -> None:
    """Await the blobs, and put no manifest: it is not known yet. Raises Cancelled."""
    _await(target, blobs)
    target.failure = next(iter(blobs.errors.values()), None)


def finish(target: TargetPush, blobs: TargetBlobs) -> None:
    """Await the blobs, put the manifests, and give each tag an outcome. Raises Cancelled."""
    from towline.push.tag_push import TagPush  # an unchanged image needs none

    if target.failure:
        _fail(target, target.failure)
        return
    _await(target, blobs)
    if target.wish.check_diffids:
        blobs.check_unsent()
    leave_staying(target)
    tags = TagPush(target, blobs)
    tags.put_all(target.due)
    for each in target.referrers:
        tags.put_referrer(each)
    if target.layout:
        tags.publish(target.layout)
    tell_placed(target)


def _await(target: TargetPush, blobs: TargetBlobs) -> None:
    context = target.context
    began = context.clock()
    blobs.wait(target.trees)
    seconds = context.clock() - began
    target.repository.facts.note_rate(context.meter.sent_bytes, seconds)


class JointPush:
    """A push to all of its targets: `push` carries it out, `prepare` only plans it."""

    def __init__(self, targets: Sequence[TargetPush]) -> None:
        """`targets`: at least one; all are of the same push."""
        self._targets = targets
        self._resources = targets[0].resources
        self._wish = targets[0].wish
        for target in targets:
            announce(target)
        self._blobs = tree_blobs(tree for target in targets for tree in target.trees)
        self._known = self._resources.known(self._blobs)
        self._choosing = Lock()
        """Two late targets may begin at once: they make one choice."""

    @cached_property
    def _choice(self) -> Choice:
        from towline.push.upload.choice import Choice  # an unchanged image needs none

        zstd = self._formats(self._targets) == {"oci"}
        return Choice(self._wish.profile, self._known, zstd=zstd)

    def push(self) -> None:
        """Push to each target. At the end each has an outcome for each of its tags.

        Raises Cancelled, and errors that do not belong to any one target.
        """
        if len(self._targets) == 1:
            self._push_alone(self._targets[0], partial(learn, self._targets[0], self._known))
        else:
            # Two threads for each: a late target's next step waits, in a second one, for its first.
            with Threads(2 * len(self._targets), "towline-target") as threads:
                try:
                    for end in self._begin(threads):
                        end.result()
                except BaseException:
                    # The threads of all are waited for at the end of the block: have them end, too.
                    for target in self._targets:
                        target.context.cancel.cancel()
                    raise
        # If the link was the limit of the push, it is told once how `auto` would have helped.
        if "_choice" in vars(self) and (told := self._choice.told()):
            self._targets[0].note(told)

    def prepare(self) -> None:
        """Let each target learn, plan for all together, and write nothing."""
        with Threads(len(self._targets), "towline-target") as threads:
            taught = [threads.submit(partial(learn, each, self._known)) for each in self._targets]
        self._plan(self._targets, [entry for one in taught for entry in one.result()])

    def bring_blobs(self) -> None:
        """Bring the blobs to the targets, and put no manifest. Raises Cancelled.

        Each target then has the blobs that were `delivered`, or a `failure`.
        """
        self.prepare()
        hopeful = [target for target in self._targets if not target.failure]
        with Threads(len(self._targets), "towline-target") as threads:
            ends = [threads.submit(partial(bring, *begun)) for begun in self._start(hopeful)]
        for end in ends:
            end.result()

    def _begin(self, threads: Threads) -> list[Future[None]]:
        """Start each target's way to its end; the futures end with it."""
        targets = self._targets
        learning = {each: threads.submit(partial(learn, each, self._known)) for each in targets}
        come, late = meet(learning, lambda target, _: not target.failure)
        alone = (partial(self._push_alone, target, learning[target].result) for target in late)
        ends = [*map(threads.submit, alone)]
        if come:
            self._plan(list(come), [entry for some in come.values() for entry in some])
        looking = {target: threads.submit(partial(early, target)) for target in come}
        looked, late = meet(looking, lambda _, over: not over)
        alone = (partial(self._send_alone, target, looking[target].result) for target in late)
        ends += map(threads.submit, alone)
        begun = self._start([target for target, over in looked.items() if not over])
        ends += [threads.submit(partial(finish, *each)) for each in begun]
        return ends

    def _push_alone(self, target: TargetPush, learned: Callable[[], list[Entry]]) -> None:
        """Carry out one target's push by itself."""
        self._plan([target], learned())
        self._send_alone(target, partial(early, target))

    def _send_alone(self, target: TargetPush, over: Callable[[], bool]) -> None:
        if not over():
            for begun in self._start([target]):
                finish(*begun)

    def _plan(self, targets: Sequence[TargetPush], taught: Sequence[Entry]) -> None:
        """Plan the steps of all blobs for targets that are planned together."""
        known = {identity: list(entries) for identity, entries in self._known.items()}
        for entry in taught:  # as the oldest: what was learned ranks last
            known.setdefault(entry.diff_id, []).insert(0, entry)
        hopeful = [target for target in targets if not target.failure] or targets
        hosts = frozenset(target.repository.name.host for target in hopeful)
        rules = Rules(
            profile=self._wish.profile,
            explicit=self._wish.explicit_profile,
            formats=self._formats(hopeful),
            trust_learned=self._wish.learn,
            everywhere=common(known.values(), hosts) if len(hopeful) > 1 else None,
        )
        siblings = [target.repository.name for target in self._targets]
        for target in targets:
            plan(target, known, rules, siblings)

    def _formats(self, targets: Sequence[TargetPush]) -> frozenset[Format]:
        """The formats of the images' manifests, before any registry has refused one."""
        trees = dict.fromkeys(tree for target in targets for _, tree in target.tags)
        every = (image for tree in trees for image in images(tree))
        wish = self._wish
        return frozenset(build.preferred(image, wish.format, wish.profile) for image in every)

    def _start(self, targets: Sequence[TargetPush]) -> list[tuple[TargetPush, TargetBlobs]]:
        """Begin the uploads of every blob to every target. Returns each with what it awaits."""
        # First blobs that the source lacks: where one is nowhere, nothing is worth sending. Then
        # configs, which are small and tell whether small layers can go in one request each. Then
        # layers, the largest first, as they take the longest.
        from towline.push.upload.scheduler import Uploads  # an unchanged image needs none

        with self._choosing:
            choice = self._choice
        uploads = Uploads(self._resources, self._wish, choice)
        begun = [(target, begin(target, uploads)) for target in targets]
        for blob in sorted(self._blobs, key=lambda blob: (blob.held, blob.is_layer, -blob.size)):
            tasks = []
            try:
                for target, blobs in begun:
                    if blob in target.plans and blob.key not in target.delivered:
                        tasks.append(blobs.join(blob))
            finally:  # when a later one is cancelled too: others may have joined what was begun
                uploads.start([task for task in tasks if task])
        return begun


def meet(
    coming: Mapping[TargetPush, Future[T]], goes_on: Callable[[TargetPush, T], bool]
) -> tuple[dict[TargetPush, T], list[TargetPush]]:
    """The targets whose futures are done, with their results, and those that are late.

    A late one is waited for while the patience with it lasts, which is spent only while another, of
    those that are done, `goes_on`. Raises the error of a future.
    """
    from concurrent.futures import wait

    def late() -> list[TargetPush]:
        return [target for target, future in coming.items() if not future.done()]

    wait_patiently(
        wait=lambda seconds: wait(coming.values(), seconds),
        late=lambda: [target.patience for target in late()],
        held=lambda: any(f.done() and goes_on(target, f.result()) for target, f in coming.items()),
    )
    behind = late()
    return {each: done.result() for each, done in coming.items() if each not in behind}, behind
