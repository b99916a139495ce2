"""One target's part of a push: learn, plan, look at the tags, await the blobs, put the tags.

`joint_push` calls these steps for all targets of a push, and `upload` brings the blobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.errors import RegistryError, TowlineError, UsageError
from towline.push.image import Blob, tree_blobs
from towline.push.manifests import if_exists
from towline.push.plan import Ask, Mount, own, steps, there
from towline.push.reporting import Placed, tell_layer
from towline.push.target import Tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from towline.knowledge.base import Entry
    from towline.push.image import Tree
    from towline.push.manifests.build import Documents
    from towline.push.plan import Delivered, Rules, Step
    from towline.push.reporting import Outcomes
    from towline.push.target import Target
    from towline.push.upload.scheduler import Uploads
    from towline.push.upload.target_blobs import TargetBlobs
    from towline.reference import Reference, RepositoryName
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest


class TargetPush:
    """A push to one target. Its steps are called in the order in which they stand here."""

    def __init__(self, target: Target, outcomes: Outcomes) -> None:
        self.target = target
        self.kept: dict[Reference, Descriptor | RegistryError] = {}
        """Tags that are not written: the manifest under each, or the error of its push."""
        self.blobs = tree_blobs(self._trees)
        self._resources = target.resources
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
        referrers = [each.tree for each in self.target.referrers]
        return [*(tree for _, tree in self.left), *referrers]

    @property
    def hopeless(self) -> bool:
        """Whether the target has failed already."""
        return self.target.failure is not None

    def learn(self, known: Mapping[Digest, Sequence[Entry]]) -> list[Entry]:
        """Entries that the registry itself teaches, of layers that nothing is known of."""
        try:
            with self.target.context.span("learned"):
                self._look_at_tags()
                if not (unknown := self._unknown(known)):
                    return []
                from towline.push import learning  # an unchanged image needs none

                entries = learning.learn(self.target, self.left, unknown)
        except TowlineError as error:  # retried already: the push itself would fail, too
            self.target.failure = error
            return []
        if entries and self.target.repository.may_teach:
            self._resources.knowledge.record(entries)
        return entries

    def _look_at_tags(self) -> None:
        """Find the tags that stay. Raises AuthError, NetworkError and UsageError."""
        self.kept = if_exists.kept(self.target)
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
        self._tell_layers_that_passed()
        place = self.target.as_planned(known)
        self._rules = rules
        self.plans = {
            blob: steps(blob, place, known.get(blob.identity, ()), rules) for blob in self.blobs
        }
        mounts = (step for plan in self.plans.values() for step in plan if isinstance(step, Mount))
        self.target.pull_from((*(mount.origin for mount in mounts), *siblings))

    def _tell_layers_that_passed(self) -> None:
        """Record the layers of blobs that were sent before it was known which layers they are."""
        passed = self.target.passed or {}
        layers = [
            blob for blob in self.blobs if blob.is_layer and blob.stored and blob.key in passed
        ]
        self.target.remember(
            (blob, passed[blob.key].made._replace(learned=own(blob).learned)) for blob in layers
        )

    def early(self) -> bool:
        """End the push without asking for a single blob, if every tag is right, or all have failed.

        Returns whether it has ended.
        """
        try:
            with self.target.context.span("looked"):
                standing = self._standing()
        except TowlineError as failure:  # retried already: no other request would succeed either
            self._fail(failure)
            return True
        if standing is None:
            return False
        for blob in self.blobs:
            if blob.is_layer and blob.key not in (self.target.passed or ()):
                tell_layer(self.target, blob.id, "Layer already exists")
        self._keep()
        for reference, tree in self.left:
            unchanged = Placed(standing[reference], "unchanged")
            self.outcomes.placed(reference, tree, unchanged, self.delivered)
        return True

    def _keep(self) -> None:
        for reference, standing in self.kept.items():
            self.outcomes.left_alone(reference, standing)

    def _fail(self, error: TowlineError) -> None:
        """Note that no tag was written."""
        self._keep()
        self.outcomes.failed((reference for reference, _ in self.left), error)

    def _standing(self) -> dict[Reference, Documents] | None:
        """The documents under the tags, if all are right; None: some are not, or unknown.

        Raises AuthError, RegistryError, NetworkError.
        """
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
            if (right := if_exists.TaggedImage(tag).standing()) is None:
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
        self.awaited = TargetBlobs(
            self.target,
            rules=self._rules,
            plans=self.plans,
            delivered=self.delivered,
            uploads=uploads,
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
