"""The part of a push that concerns one target: its blobs awaited, its manifests put.

`joint_push` gives the order of things to the targets of a push; `upload` brings the blobs.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import Cancelled, RegistryError, SourceError, TowlineError, UsageError
from towline.events import Note
from towline.push import known_blobs, learning, reporting
from towline.push.image import Blob, tree_blobs
from towline.push.interface.result import PushResult
from towline.push.manifests import if_exists
from towline.push.manifests.tag import Tagging
from towline.push.plan import Ask, Delivered, Made, Mount, own, steps
from towline.push.reporting import Telling
from towline.push.target import Costs
from towline.registry.manifests import lacks_blobs
from towline.spec import media_types
from towline.transfers.threads import Threads, not_begun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from towline.context import Patience
    from towline.knowledge.base import Entry
    from towline.push.image import Tree
    from towline.push.interface.options import Wish
    from towline.push.interface.result import Status, TagOutcome, Verification
    from towline.push.manifests.build import Documents
    from towline.push.plan import Rules, Step
    from towline.push.target import Referral, Target
    from towline.push.upload.scheduler import Uploads
    from towline.push.upload.target_blobs import TargetBlobs
    from towline.reference import Reference, RepositoryName
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest
    from towline.targets.layout import Layout


class Placed(NamedTuple):
    """What stands under a tag in the end."""

    documents: Documents
    status: Status
    verified: Verification | None


class TargetPush:
    """A push to one target. Its steps are called in the order in which they stand here."""

    def __init__(self, target: Target, wish: Wish, agreed: dict[Tree, tuple[str, Digest]]) -> None:
        """`agreed` is where the targets of a push write down a tree's first digest."""
        self.target = target
        self.kept: dict[Reference, Descriptor | RegistryError] = {}
        """Tags that are not to be written: what stands there, or why that ends their push."""
        self.blobs = tree_blobs(self._trees)
        self.telling = Telling(target)
        self._resources = target.resources
        self._wish = wish
        self.costs = target.costs or Costs(target.context)
        self.plans: dict[Blob, tuple[Step, ...]] = {}
        """Which way each blob takes."""
        self.delivered: dict[str, Delivered] = dict(target.passed or {})
        """What came of the blobs that are there, by their keys."""
        self._untold: dict[Reference, int] = {}
        """Tags that are in place and not told of yet, with the bytes of their blobs."""
        self._placed: set[Digest] = set()
        """Manifests that are there."""
        self.awaited: TargetBlobs
        """The blobs that are on their way; there from `begin` on."""
        self._rules: Rules
        self._fatal: TowlineError | None = target.failure
        self._agreed = agreed
        self.outcomes: dict[Reference, TagOutcome] = {}
        """Of the tags whose push has come to its end."""

    @property
    def patience(self) -> Patience:
        """For how long it may make the other targets of the push wait."""
        return self.target.patience

    @property
    def left(self) -> tuple[tuple[Reference, Tree], ...]:
        """The tags that are to be written."""
        return tuple(pair for pair in self.target.tags if pair[0] not in self.kept)

    @property
    def _trees(self) -> list[Tree]:
        """What is to be there: under the tags, and what goes along with that."""
        referrers = [each.tree for each in self.target.referrers]
        return [*(tree for _, tree in self.left), *referrers]

    def _each(self, make: Callable[[Reference, Tree], TagOutcome]) -> None:
        for reference, tree in self.target.tags:
            kept = reference in self.kept
            self.outcomes[reference] = self.keep(reference) if kept else make(reference, tree)
            if not self._more_follows:
                self._tell_ended()

    @property
    def _more_follows(self) -> bool:
        """Whether it takes more than its manifest until a tag is as it is to be."""
        layout = self.target.layout
        return bool(self.target.referrers) or (layout is not None and layout.begun)

    def keep(self, reference: Reference) -> TagOutcome:
        """The outcome of a tag that is left as it is."""
        standing = self.kept[reference]
        if isinstance(standing, RegistryError):
            return standing
        cost = self.costs.share()
        result = reporting.as_it_stands(self.target, reference, standing, "skipped", cost)
        self.telling.ended(result, 0)
        return result

    @property
    def hopeless(self) -> bool:
        """Whether the target cannot even be asked."""
        return self._fatal is not None

    def learn(self, known: Mapping[Digest, Sequence[Entry]]) -> list[Entry]:
        """What the registry itself can say of layers that nothing is known of here."""
        try:
            with self.target.context.span("learned"):
                self._look_at_tags()
                lessons = learning.learn(self.target, self._wish, self.left, known)
        except TowlineError as error:  # it has been tried often enough
            self._fatal = self.target.failure = error
            return []
        for lesson in lessons:
            self.target.teachers |= dict.fromkeys(lesson.wanted, lesson.reference)
        return [entry for lesson in lessons for entry in lesson.entries]

    def _look_at_tags(self) -> None:
        """Find those that are to be kept. Raises AuthError and NetworkError."""
        self.kept = if_exists.kept(self.target, self._wish.if_exists)
        layout, kept = self.target.layout, len(self.kept)
        if layout and layout.whole and 0 < kept < len(self.target.tags):
            raise UsageError(
                f"{layout.name} holds {kept} of these tags already, and is written whole",
                hint="write another file, or leave out `if_exists`",
            )
        self.blobs = tree_blobs(self._trees)

    def plan(
        self,
        known: Mapping[Digest, Sequence[Entry]],
        rules: Rules,
        siblings: Iterable[RepositoryName],
    ) -> None:
        """Decide which way each blob takes; `siblings` are pushed to as well."""
        self._tell_layers_that_passed()
        place = known_blobs.destination(self._resources.knowledge, self.target.repository, known)
        self._rules = rules
        self.plans = {
            blob: steps(blob, place, known.get(blob.identity, ()), rules) for blob in self.blobs
        }
        mounts = (step for plan in self.plans.values() for step in plan if isinstance(step, Mount))
        self.target.pull_from((*(mount.origin for mount in mounts), *siblings))

    def _tell_layers_that_passed(self) -> None:
        """Remember of which layers the blobs are that were brought there without knowing that."""
        passed = self.target.passed or {}
        layers = [
            blob for blob in self.blobs if blob.is_layer and blob.stored and blob.key in passed
        ]
        found = [(blob, passed[blob.key]._replace(learned=own(blob).learned)) for blob in layers]
        known_blobs.remember(self._resources.knowledge, self.target.repository, found)

    def early(self) -> bool:
        """Come to the end without asking for a single blob, if every tag is right, or hopeless.

        False when there is more to do.
        """
        try:
            with self.target.context.span("looked"):
                standing = self._standing()
        except TowlineError as failure:  # retried already: nothing else will get through either
            spent = failure
            self._each(lambda _, __: spent)
            return True
        if standing is None:
            return False
        for blob in self.blobs:
            if blob.is_layer and blob.key not in (self.target.passed or ()):
                self.telling.layer(blob.id, "Layer already exists")
        self._each(lambda tag, tree: self._result(tag, tree, standing[tag], "unchanged"))
        return True

    def _standing(self) -> dict[Reference, Documents] | None:
        """What stands under the tags, if all of it is right.

        The manifest can be written down when a digest is known for each of its blobs. A registry
        that holds it under the tag holds its blobs. Raises what the asking raises.
        """
        if self._fatal:
            raise self._fatal
        guesses = {blob.key: _guess(blob, plan) for blob, plan in self.plans.items()}
        found = {key: guess for key, guess in guesses.items() if guess}
        if len(found) < len(guesses) or self._wish.check_diffids or self.target.referrers:
            return None
        standing = {}
        for reference, tree in self.left:
            if (right := self._tagging(reference, tree, found).standing()) is None:
                return None
            standing[reference] = right
        if self._wish.verify:  # then each blob is asked for, and what is missing sent again
            return None
        self.delivered = {**found, **self.delivered}
        return standing

    def begin(self, uploads: Uploads) -> None:
        """Get ready to await the blobs that `uploads` brings there."""
        from towline.push.upload.target_blobs import TargetBlobs  # an unchanged image needs none

        try:
            if self.target.layout:
                self.target.layout.begin()
        except TowlineError as error:
            self._fatal, self.plans = error, {}
        self.awaited = TargetBlobs(
            self.target,
            self._wish,
            rules=self._rules,
            plans=self.plans,
            delivered=self.delivered,
            uploads=uploads,
        )

    def bring(self) -> None:
        """Await the blobs, of which it is not known yet what lists them. Raises Cancelled."""
        self._await_blobs()
        self.target.passed = self.delivered
        self.target.failure = next(iter(self.awaited.errors.values()), None)

    def finish(self) -> None:
        """Await the blobs, then put the manifests; an outcome for each tag. Raises Cancelled."""
        if fatal := self._fatal:
            self._each(lambda _, __: fatal)
            return
        self._await_blobs()
        if self._wish.check_diffids:
            self._look_into_unsent()
        self._tag_all()
        for each in self.target.referrers:
            self._put_referrer(each)
        if self.target.layout:
            self._publish(self.target.layout)
        self._tell_ended()

    def _put_referrer(self, each: Referral) -> None:
        """Put it after its subject; if that fails, the tag that it goes with has failed."""
        main = self.outcomes[each.main]
        if not isinstance(main, PushResult):
            return
        if each.subject not in self._placed:
            self.target.warn(f"what refers to {each.subject} is left out: it has another digest")
            return
        try:
            self.awaited.check(each.tree)
            tagging = self._tagging(each.reference, each.tree, self.delivered)
            tagging.put(partial(self.awaited.send_also, each.tree))
        except TowlineError as error:
            told = f"{each.main} is in place, but not {each.reference}, which refers to it"
            error.args = (f"{told}: {error.message}", *error.args[1:])
            self.outcomes[each.main] = error
            return
        self._placed.add(tagging.documents.top.digest)
        cost = self.costs.share()
        self.outcomes[each.main] = replace(
            main,
            sent_bytes=main.sent_bytes + cost.sent_bytes,
            requests=main.requests + cost.requests,
            seconds=main.seconds + cost.seconds,
        )

    def _publish(self, layout: Layout) -> None:
        """An archive is whole, or is not written: then every tag of it has failed."""
        outcomes = self.outcomes.values()
        failure = next((each for each in outcomes if isinstance(each, TowlineError)), None)
        try:
            if failure is None:
                layout.publish(self.target.context)
                self._tell_left_out(layout)
        except TowlineError as error:
            failure = error
        if failure is not None and layout.whole:
            self.outcomes = dict.fromkeys(self.outcomes, failure)

    def _tell_left_out(self, layout: Layout) -> None:
        if sizes := layout.left_out.values():
            count = "1 layer" if len(sizes) == 1 else f"{len(sizes)} layers"
            what = f"{count} of {sum(sizes)} bytes in all"
            where = " or ".join(self._wish.omit_from)
            message = f"left out of {layout.name}: {what}, which {where} has"
            self.target.context.emit(Note(reference=self.target.reference, message=message))

    def _await_blobs(self) -> None:
        context, host = self.target.context, self.target.repository.name.host
        began = context.clock()
        self.awaited.wait(self._trees)
        seconds = context.clock() - began
        self._resources.client.rates.note(host, context.meter.sent_bytes, seconds)

    def _look_into_unsent(self) -> None:
        """What the registry held already was not read on its way."""
        from towline.push.manifests import verify

        for blob in self.blobs:
            delivered = self.delivered.get(blob.key)
            unsent = delivered and not delivered.sent_bytes
            if unsent and blob.held and blob.is_layer and blob.stored:
                try:
                    verify.look_into_unsent(self._resources, blob, self.target.context.cancel)
                except SourceError as error:
                    self.awaited.errors[blob] = error

    def _tag_all(self) -> None:
        """Put the first tag, then all others side by side.

        What form of the documents the registry takes, and which blobs it has lost, the first finds
        out for all. Raises Cancelled, once the tags that are in place have an outcome.
        """
        for reference in self.kept:
            self.outcomes[reference] = self.keep(reference)
        left = self.left
        for reference, tree in left[:1]:
            self._conclude(reference, tree, partial(self._put, reference, tree))
        at_once = 1 if self.target.layout else self._resources.at_once
        with Threads(at_once, "towline-tag") as threads:
            puts = [(tag, threads.submit(partial(self._put, *tag))) for tag in left[1:]]
            for tag, put in puts:
                with suppress(Cancelled):
                    self._conclude(*tag, partial(self._put, *tag) if not_begun(put) else put.result)
        self.target.context.cancel.check()

    def _conclude(self, reference: Reference, tree: Tree, put: Callable[[], Placed]) -> None:
        """The outcome of a tag, once it is put."""
        try:
            placed = put()
        except TowlineError as error:
            self.outcomes[reference] = error
            return
        if reference in self.kept:
            self.outcomes[reference] = self.keep(reference)
            return
        if placed.verified:
            self.telling.verified(reference, placed.verified)
        self._compare(reference, tree, placed.documents)
        self.outcomes[reference] = self._result(reference, tree, *placed)
        if not self._more_follows:
            self._tell_ended()

    def _put(self, reference: Reference, tree: Tree) -> Placed:
        status: Status = "pushed"
        verified: Verification | None = None
        pauses = self._resources.look_again
        for pause in (*pauses, None):
            self.awaited.check(tree)
            tagging = self._tagging(reference, tree, self.delivered)
            if kept := tagging.kept():
                documents, standing = kept
                status = "unchanged"
                if self._wish.if_exists == "skip":
                    self.kept[reference] = standing
                break
            try:
                with self.target.context.span("tagged"):
                    documents = tagging.put(partial(self.awaited.send_also, tree))
                break
            except RegistryError as error:
                if not lacks_blobs(error) or pause is None or tagging.wants_foreign(error):
                    raise
                missed = error.message if pause == pauses[-1] else ""
            # A registry may confirm a blob and yet not find it, or have lost it meanwhile.
            self.target.context.cancel.wait(pause)
            self.awaited.send_missing(tree, missed)
        if (how := self._wish.verify) and reference not in self.kept:
            from towline.push.manifests import verify

            made = _made(tree, self.delivered)
            tag = reference.tag or documents.top.digest
            with self.target.context.span("verified"):
                verified = verify.verify(self.target, tag, tree, documents, made=made, how=how)
        return Placed(documents, status, verified)

    def _compare(self, reference: Reference, tree: Tree, documents: Documents) -> None:
        """Say so when another target of the push holds another digest of the same image."""
        if documents.top.media_type == media_types.SCHEMA1_SIGNED:
            return  # it names its repository and tag
        mine = (str(reference), documents.top.digest)
        other, digest = self._agreed.setdefault(tree, mine)
        if digest != mine[1]:
            self.target.warn(
                f"{reference} has the digest {mine[1]}, {other} has {digest}: "
                "the same image, of layers that were compressed in different ways"
            )

    def _tagging(
        self, reference: Reference, tree: Tree, delivered: Mapping[str, Delivered]
    ) -> Tagging:
        return Tagging(self.target, self._wish, reference, tree, _made(tree, delivered))

    def _result(
        self,
        reference: Reference,
        tree: Tree,
        documents: Documents,
        status: Status,
        verified: Verification | None = None,
    ) -> PushResult:
        result = reporting.pushed(
            self.target,
            reference,
            documents,
            status,
            cost=self.costs.share(),
            layers=reporting.layers(tree, self.delivered, self.costs.layers),
            manifests=reporting.manifests(tree, documents),
            learned_from=self.learned_from(tree, self.delivered),
            verified=verified,
        )
        self.telling.reused(reference, tree, self.delivered, self._wish.profile)
        self._untold[reference] = reporting.total_bytes(tree, self.delivered)
        self._placed.update(each.digest for each in (*documents.children, documents.top))
        return result

    def _tell_ended(self) -> None:
        for reference, total_bytes in self._untold.items():
            if isinstance(outcome := self.outcomes[reference], PushResult):
                self.telling.ended(outcome, total_bytes)
        self._untold.clear()

    def learned_from(self, tree: Tree, found: Mapping[str, Delivered | None]) -> str | None:
        """The reference that taught what the lowest of the layers is that needs no sending."""
        for blob in tree_blobs([tree]):
            there, teacher = found.get(blob.key), self.target.teachers.get(blob.identity)
            if there and teacher and there.outcome in {"exists", "mounted"}:
                return str(teacher)
        return None


def _made(tree: Tree, delivered: Mapping[str, Delivered]) -> dict[str, Made]:
    """What became of a tree's own blobs: a target may have those of a thousand others."""
    return {blob.key: delivered[blob.key].made for blob in tree.blobs}


def _guess(blob: Blob, plan: Sequence[Step]) -> Delivered | None:
    """The blob as it will turn out if the first place to ask has it."""
    if not plan or not isinstance(plan[0], Ask):
        return None
    candidate = plan[0].candidate
    made = Made(candidate.digest, candidate.size, candidate.compression)
    label = blob.label or "reused"
    return Delivered(made, "exists", label, candidate.profile)
