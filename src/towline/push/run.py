"""One push to its targets, from what is wanted to what came of it.

`pusher` opens what this needs; `passes` does the work; here is the order of things: look up what
is known, end at once where the tag is right already, deliver every blob, put the manifests.
"""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING

from towline.events import LayerProgress, Summary, TagPushed
from towline.push import build, learn, manifests, report
from towline.push.deliver import Delivered, Delivery
from towline.push.passes import Job, Passes
from towline.push.plan import Ask, Rules, steps
from towline.push.result import PushResult
from towline.push.verify import verify
from towline.push.wanted import Blob, images, tree_blobs
from towline.transfers.retry import Attempts
from towline.transfers.shared import Restart

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from towline.knowledge.base import Entry
    from towline.push.build import Documents
    from towline.push.engine import Engine
    from towline.push.options import Wish
    from towline.push.plan import Step
    from towline.push.result import Status
    from towline.push.target import Target
    from towline.push.wanted import Tree
    from towline.reference import Reference
    from towline.spec.digest import Digest
    from towline.spec.media_types import Format
    from towline.transfers.shared import Watch


class Run:
    """A push of some trees to one target."""

    def __init__(self, engine: Engine, target: Target, wish: Wish) -> None:
        self._engine = engine
        self._target = target
        self._wish = wish
        self._passes = Passes(engine, wish)
        self._started = target.context.clock()
        self._delivered: dict[str, Delivered] = {}
        self._blobs = tree_blobs(tree for _, tree in target.tags)

    def results(self) -> list[PushResult]:
        """Do it; a result for each tag. Raises the first error that nothing could heal."""
        self._announce()
        plans = self._plans(learn.known(self._engine.knowledge, self._blobs))
        if results := self._unchanged(plans):
            return results
        self._deliver(plans)
        return [self._put(reference, tree) for reference, tree in self._target.tags]

    def _announce(self) -> None:
        """Docker's first words, top layer first."""
        for tree in (tree for _, tree in self._target.tags):
            for layer in (layer for image in images(tree) for layer in reversed(image.layers)):
                skipped = not isinstance(layer, Blob)
                self._tell(layer, "Skipped foreign layer" if skipped else "Preparing")

    def _tell(self, layer: Blob | object, status: str) -> None:
        shown = layer.id if isinstance(layer, Blob) else layer.digest.short  # type: ignore[attr-defined]
        event = LayerProgress(reference=self._target.reference, id=shown, status=status)
        self._target.context.emit(event)

    def _plans(self, known: Mapping[Digest, Sequence[Entry]]) -> dict[Blob, tuple[Step, ...]]:
        destination = learn.destination(self._engine.knowledge, self._target.repository, known)
        rules = Rules(self._wish.profile, self._wish.explicit_profile, self._formats())
        return {
            blob: steps(blob, destination, known.get(blob.identity, ()), rules)
            for blob in self._blobs
        }

    def _formats(self) -> frozenset[Format]:
        wish = self._wish
        return frozenset(
            build.preferred(image, wish.format, wish.profile)
            for _, tree in self._target.tags
            for image in images(tree)
        )

    # Unchanged: the manifest can be written down, and the tag holds it.

    def _unchanged(self, plans: Mapping[Blob, tuple[Step, ...]]) -> list[PushResult]:
        """Results without asking for a single blob, if every tag is right already."""
        guesses = {blob.key: _guess(blob, plan) for blob, plan in plans.items()}
        found = {key: guess for key, guess in guesses.items() if guess}
        if len(found) < len(guesses) or self._wish.check_diffids:
            return []
        made = {key: guess.made for key, guess in found.items()}
        documents = {tree: self._documents(tree, made) for _, tree in self._target.tags}
        if not all(
            manifests.is_there(self._target, str(reference.tag), documents[tree].top)
            for reference, tree in self._target.tags
        ):
            return []
        self._delivered = found
        for blob in self._blobs:
            if blob.is_layer:
                self._tell(blob, "Layer already exists")
        return [
            self._result(reference, tree, documents[tree], "unchanged")
            for reference, tree in self._target.tags
        ]

    # Deliver: every blob, joined with whoever else sends it.

    def _deliver(self, plans: Mapping[Blob, tuple[Step, ...]]) -> None:
        waiting = dict(plans)
        ended: queue.SimpleQueue[Blob | None] = queue.SimpleQueue()
        watches: dict[Blob, Watch[Delivered]] = {}
        cancel = self._target.context.cancel
        with cancel.on_cancel(lambda: ended.put(None)):
            try:
                for blob in sorted(plans, key=lambda blob: -blob.size):
                    watches[blob] = self._join(blob, plans[blob], ended)
                while waiting:
                    blob = self._next(ended)
                    try:
                        self._settled(blob, watches[blob].result())
                    except Restart:
                        watches[blob] = self._join(blob, plans[blob], ended)
                    else:
                        waiting.pop(blob)
            finally:
                for watch in watches.values():
                    watch.leave()

    def _next(self, ended: queue.SimpleQueue[Blob | None]) -> Blob:
        blob = ended.get()
        self._target.context.cancel.check()
        assert blob is not None  # noqa: S101 - None is put when the cancel is thrown
        return blob

    def _join(
        self, blob: Blob, plan: tuple[Step, ...], ended: queue.SimpleQueue[Blob | None]
    ) -> Watch[Delivered]:
        watch: Watch[Delivered] = self._engine.transfers.join(
            self._key(blob), self._target.watcher()
        )
        if transfer := watch.started:
            repository, profile = self._target.repository, self._wish.profile
            delivery = Delivery(blob, repository, plan, profile, transfer.context)
            attempts = Attempts(self._engine.policy)
            self._passes.start([Job(delivery, transfer, attempts, self._target.patience)])
        watch.on_done(lambda: ended.put(blob))
        return watch

    def _key(self, blob: Blob) -> Hashable:
        """Registry and full repository name, account, and what fixes the bytes.

        Without the host the same layer to two registries would be one transfer, and one of them
        would lack it; without the bytes, two images' different blobs of one DiffID would be.
        """
        repository = self._target.repository
        made_by = () if blob.stored else (self._wish.profile.recorded,)
        return (repository.endpoint, str(repository.name), repository.account, blob.key, *made_by)

    def _settled(self, blob: Blob, delivered: Delivered) -> None:
        self._delivered[blob.key] = delivered
        learn.remember(self._engine.knowledge, self._target.repository, [(blob, delivered)])

    # Put: every blob is confirmed.

    def _put(self, reference: Reference, tree: Tree) -> PushResult:
        made = {key: delivered.made for key, delivered in self._delivered.items()}
        documents = self._documents(tree, made)
        self._target.context.cancel.check()
        manifests.put(self._target, str(reference.tag), documents)
        if self._wish.verify:
            how = self._wish.verify
            verify(self._target, str(reference.tag), tree, documents, made=made, how=how)
        return self._result(reference, tree, documents, "pushed")

    def _documents(self, tree: Tree, made: Mapping[str, build.Made]) -> Documents:
        return build.documents(tree, made, self._wish.format)

    def _result(
        self, reference: Reference, tree: Tree, documents: Documents, status: Status
    ) -> PushResult:
        context = self._target.context
        top = documents.top
        result = PushResult(
            reference=str(reference),
            tag=reference.tag,
            digest=top.digest,
            size=top.size,
            media_type=top.media_type,
            status=status,
            layers=report.layers(tree, self._delivered),
            manifests=report.manifests(tree, documents),
            digest_differs=documents.differs,
            warnings=tuple(self._target.warnings),
            sent_bytes=context.meter.sent_bytes,
            requests=context.meter.requests,
            seconds=context.clock() - self._started,
        )
        self._told(result, report.total_bytes(tree, self._delivered))
        return result

    def _told(self, result: PushResult, total_bytes: int) -> None:
        emit = self._target.context.emit
        reference = result.reference
        emit(TagPushed(reference=reference, tag=result.tag, digest=result.digest, size=result.size))
        emit(
            Summary(
                reference=reference,
                sent_bytes=result.sent_bytes,
                total_bytes=total_bytes,
                requests=result.requests,
                seconds=result.seconds,
            )
        )


def _guess(blob: Blob, plan: Sequence[Step]) -> Delivered | None:
    """The blob as it will turn out if the first place to ask has it."""
    first = plan[0]
    if not isinstance(first, Ask):
        return None
    candidate = first.candidate
    made = build.Made(candidate.digest, candidate.size, candidate.compression)
    label = "source" if blob.stored else "reused"
    return Delivered(made, "exists", label, candidate.profile)
