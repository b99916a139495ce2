"""The tags of one target: put, verified and told, once its blobs are there."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from towline.errors import Cancelled, RegistryError, TowlineError
from towline.push.manifests import tagged
from towline.push.manifests.build import Documents
from towline.push.manifests.put import TOGETHER, TaggedImage, put, put_together, wants_foreign
from towline.push.reporting import Placed, charge, check_untouched, leave_tag, place_tag
from towline.registry.manifests import lacks_blobs
from towline.results import PushResult, TagOutcome
from towline.spec.descriptor import Descriptor
from towline.transfers.threads import Threads, not_begun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from towline.push.image import Tree
    from towline.push.target import Referral, TargetPush
    from towline.push.upload.target_blobs import TargetBlobs
    from towline.reference import Reference
    from towline.spec.digest import Digest
    from towline.targets.layout import Layout


T = TypeVar("T")


class TagPush:
    """The tags of one target. Its steps are called in the order in which they stand here."""

    def __init__(self, target: TargetPush, blobs: TargetBlobs) -> None:
        self._target = target
        self._blobs = blobs
        self._there: set[Digest] = set()
        """Manifests that this push has put, or has found there."""

    def put_all(self, tags: Sequence[tuple[Reference, Tree]]) -> None:
        """Put the first tag, then all others side by side; or several in one request.

        Raises Cancelled, once the tags that are in place have an outcome.
        """
        if self._together:
            self._put_together(tags)
        # The first one finds out for all which form of the documents the registry takes, and which
        # blobs it has lost.
        for reference, tree in tags[:1]:
            self._conclude(reference, tree, self._put(reference, tree))
        if self._together is None:
            self._put_together(tags)
        puts = self._side_by_side([partial(self._put, *tag) for tag in tags[1:]])
        for tag, ended in zip(tags[1:], puts, strict=True):
            with suppress(Cancelled):
                self._conclude(*tag, ended())
        self._target.context.cancel.check()

    @property
    def _together(self) -> bool | None:
        """Whether several tags may go by one request; None: that is still to be found out."""
        # Other rules want each tag looked at right before it is written.
        if self._target.layout or self._target.wish.if_exists != "overwrite":
            return False
        return self._target.repository.facts.offers("tags_together")

    def _put_together(self, tags: Sequence[tuple[Reference, Tree]]) -> None:
        """Put what goes under several tags by few requests, which only save those of `_put`.

        What they have not written, or fail with, is seen to there.
        """
        trees: dict[Tree, list[Reference]] = {}
        for reference, tree in tags:
            trees.setdefault(tree, []).append(reference)
        batches = [
            partial(self._put_batch, tree, references[at : at + TOGETHER])
            for tree, references in trees.items()
            for at in range(0, len(references), TOGETHER)
            if len(references) > 1
        ]
        for some in (batches[:1], batches[1:]):  # the first may find out that it cannot be
            for ended in self._side_by_side(some):
                with suppress(TowlineError, Cancelled):
                    ended()

    def _put_batch(self, tree: Tree, references: Sequence[Reference]) -> None:
        if self._together is not False:
            self._blobs.check(tree)
            with self._target.context.span("tagged"):
                target = self._target
                image = TaggedImage(target, references[0], tree, target.delivered)
                digest = image.documents.top.digest
                # Not those that were seen to hold it: they may be immutable.
                due = [tag for tag in references if target.seen.get(str(tag.tag)) != digest]
                due = [tag for tag in due if tag not in target.written]
                if due and not target.repository.facts.refuses(image.family):
                    put_together(target, due, image.documents)

    def _side_by_side(self, works: Sequence[Callable[[], T]]) -> Iterator[Callable[[], T]]:
        """Begin all of them; for each in turn what gives its result."""
        at_once = 1 if self._target.layout else self._target.resources.at_once
        with Threads(at_once, "towline-tag") as threads:
            for work, begun in [(work, threads.submit(work)) for work in works]:
                yield work if not_begun(begun) else begun.result

    def _put(self, reference: Reference, tree: Tree) -> Placed | Descriptor | TowlineError:
        """Put a tag. Returns what was put, the descriptor that stays, or the error.

        Raises Cancelled.
        """
        try:
            return self._placed(reference, tree)
        except TowlineError as error:
            return error

    def _placed(
        self, reference: Reference, tree: Tree, *, refers: bool = False
    ) -> Placed | Descriptor:
        """Put a tag, or what `refers` to one; send again what the registry has lost meanwhile.

        Returns what was put, or the descriptor that stays. Raises the last error, and Cancelled.
        """
        target = self._target
        for pause in (*target.resources.look_again, None):
            self._blobs.check(tree)
            image = TaggedImage(target, reference, tree, target.delivered)
            if not refers and (standing := tagged.standing(image)):
                if isinstance(standing, Descriptor):
                    return standing
                placed = Placed(standing, "unchanged")
                break
            try:
                with target.context.span("tagged"):
                    documents = image.put(partial(self._blobs.send_also, tree))
                placed = Placed(documents, "pushed")
                break
            except RegistryError as error:
                self._send_missing(tree, image, error, pause)
        if (how := target.wish.verify) and not refers:
            with target.context.span("verified"):
                placed = placed._replace(verified=tagged.verify(image, placed.documents, how))
        return placed

    def _send_missing(
        self, tree: Tree, image: TaggedImage, refusal: RegistryError, pause: float | None
    ) -> None:
        """After a pause, send again what a registry misses for a manifest.

        Raises the refusal where it is for something else, or there is no pause any more.
        """
        sent = (*image.documents.children, image.documents.top)
        foreign = any(wants_foreign(refusal, each) for each in sent)
        if not lacks_blobs(refusal) or pause is None or foreign:
            raise refusal
        # Harbor, and caches behind a load balancer, may confirm a blob and not find it for the
        # manifest; distribution neither finds what another push puts anew just now; or it was lost
        # meanwhile.
        self._target.context.cancel.wait(pause)
        last = pause == self._target.resources.look_again[-1]
        self._blobs.send_missing(tree, refusal.message if last else "")

    def _conclude(
        self, reference: Reference, tree: Tree, put: Placed | Descriptor | TowlineError
    ) -> None:
        if not isinstance(put, Placed):
            leave_tag(self._target, reference, put)
            return
        self._there.update(each.digest for each in (*put.documents.children, put.documents.top))
        place_tag(self._target, reference, tree, put)

    def put_referrer(self, each: Referral) -> None:
        """Put a manifest after its subject. If that fails, the tag with the subject has failed."""
        target = self._target
        if not isinstance(target.outcomes[each.main], PushResult):
            return
        if each.subject not in self._there:
            target.warn_of_referrers(each.subject)
            charge(target, each.main)
            return
        try:
            placed = self._placed(each.reference, each.tree, refers=True)
        except TowlineError as error:
            told = f"{each.main} is in place, but not {each.reference}, which refers to it"
            error.args = (f"{told}: {error.message}", *error.args[1:])
            target.outcomes[each.main] = error
            return
        if isinstance(placed, Placed):
            self._there.add(placed.documents.top.digest)
        charge(target, each.main)

    def publish(self, layout: Layout) -> None:
        """Write an archive as a whole. If that fails, every tag of it has failed."""
        outcomes, wish = self._target.outcomes, self._target.wish
        failure = next((each for each in outcomes.values() if isinstance(each, TowlineError)), None)
        try:
            if failure is None:
                layout.publish(self._target.context)
        except TowlineError as error:
            failure = error
        if failure is not None and layout.whole:
            outcomes |= dict.fromkeys(outcomes, failure)
        if failure is None and wish.omit_from:
            sizes, where = layout.left_out.values(), " or ".join(wish.omit_from)
            count = "1 layer" if len(sizes) == 1 else f"{len(sizes)} layers"
            self._target.note(
                f"left out of {layout.name}: {count} of {sum(sizes)} bytes in all, "
                f"which {where} has"
                if sizes
                else f"nothing is left out of {layout.name}: no layer of it is in {where}"
            )


def tag(target: TargetPush, reference: Reference, places: Sequence[Reference]) -> list[TagOutcome]:
    """Set tags to the manifest under a reference. Returns their outcomes, in order.

    Raises RegistryError if there is none; AuthError, NetworkError.
    """
    known = target.existing(reference)
    looked = target.look_at_all({place: str(place.tag) for place in places})
    due = [
        place
        for place, found in looked.items()
        if not isinstance(found, TowlineError) and (not found or found.digest != known.digest)
    ]
    outcomes = target.outcomes
    try:
        # By digest: a tag may have moved since the HEAD, and all places get one manifest.
        exactly = reference._replace(digest=known.digest)
        documents = Documents(target.existing_manifest(exactly)) if due else None
        if documents:
            _tag_together(target, due, documents)
        for place, found in looked.items():
            if isinstance(found, TowlineError):
                outcomes[place] = found
                continue
            try:
                if documents and place in due:
                    put(target, place, documents)
            except TowlineError as error:
                outcomes[place] = error
            else:
                leave_tag(target, place, known, "pushed" if place in due else "unchanged")
    except Cancelled:
        check_untouched(places, [target], outcomes)
        raise
    return [outcomes[place] for place in places]


def _tag_together(target: TargetPush, due: Sequence[Reference], documents: Documents) -> None:
    """Put what is due by few requests, where the registry takes that. Raises Cancelled.

    What they have not written is to be put by itself.
    """
    for at in range(0, len(due), TOGETHER):
        together = target.registry.facts.offers("tags_together")
        # To find out costs a request, which pays for three tags or more.
        if together is not False and len(due) >= (2 if together else 3):
            with suppress(TowlineError):
                put_together(target, due[at : at + TOGETHER], documents)
