"""The tags of one target: put, verified and told, once its blobs are there."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from towline.errors import Cancelled, RegistryError, TowlineError
from towline.push.interface.result import PushResult, TagOutcome
from towline.push.manifests.build import Documents
from towline.push.manifests.put import TOGETHER, Fallback, put, put_together, wants_foreign
from towline.push.manifests.tagged import TaggedImage, verify
from towline.push.reporting import Outcomes, Placed, check_untouched
from towline.push.target import Referral, Tag, Target
from towline.registry.manifests import lacks_blobs, refuses_type
from towline.spec.descriptor import Descriptor
from towline.transfers.threads import Threads, not_begun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from towline.push.image import Tree
    from towline.push.upload.target_blobs import TargetBlobs
    from towline.reference import Reference
    from towline.spec.digest import Digest
    from towline.targets.layout import Layout


T = TypeVar("T")


class TagPush:
    """The tags of one target. Its steps are called in the order in which they stand here."""

    def __init__(self, target: Target, blobs: TargetBlobs, outcomes: Outcomes) -> None:
        self._target = target
        self._wish = target.wish
        self._blobs = blobs
        self._outcomes = outcomes
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
        if self._target.layout or self._wish.if_exists != "overwrite":
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
                image = TaggedImage(self._tag(references[0], tree))
                target, digest = self._target, image.documents.top.digest
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
            for pause in (*self._target.resources.look_again, None):
                self._blobs.check(tree)
                image = TaggedImage(self._tag(reference, tree))
                if kept := image.kept():
                    documents, standing = kept
                    if self._wish.if_exists == "skip":
                        return standing
                    return self._verified(image.tag, Placed(documents, "unchanged"))
                try:
                    with self._target.context.span("tagged"):
                        documents = self._put_image(image)
                    break
                except RegistryError as error:
                    self._send_missing(tree, image, error, pause)
            return self._verified(image.tag, Placed(documents, "pushed"))
        except TowlineError as error:
            return error

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

    def _put_image(self, image: TaggedImage) -> Documents:
        """Put the documents; where their type is refused, convert them and put those.

        Returns the documents that were put. Raises the error of the last attempt, and Cancelled.
        """
        tag, placed = image.tag, image.documents
        try:
            put(self._target, tag.reference, placed)
        except RegistryError as refusal:
            if not refuses_type(refusal):
                raise
            placed = Fallback(tag).put(placed, refusal, partial(self._blobs.send_also, tag.tree))
        refused = placed.top.media_type != image.documents.top.media_type
        self._target.repository.facts.note_format(image.family, refused=refused)
        return placed

    def _tag(self, reference: Reference, tree: Tree) -> Tag:
        return Tag(self._target, reference, tree, self._blobs.delivered)

    def _verified(self, tag: Tag, placed: Placed) -> Placed:
        """The placed tag, verified if the user wants that. Raises as `verify` does."""
        if not (how := self._wish.verify):
            return placed
        with self._target.context.span("verified"):
            return placed._replace(verified=verify(tag, placed.documents, how))

    def _conclude(
        self, reference: Reference, tree: Tree, put: Placed | Descriptor | TowlineError
    ) -> None:
        if isinstance(put, TowlineError):
            self._outcomes.failed([reference], put)
        elif isinstance(put, Descriptor):
            self._outcomes.left_alone(reference, put)
        else:
            self._there.update(each.digest for each in (*put.documents.children, put.documents.top))
            self._outcomes.placed(reference, tree, put, self._blobs.delivered)

    def put_referrer(self, each: Referral) -> None:
        """Put a manifest after its subject. If that fails, the tag with the subject has failed."""
        if not isinstance(self._outcomes.by_tag[each.main], PushResult):
            return
        if each.subject not in self._there:
            self._target.warn_of_referrers(each.subject)
            self._outcomes.charge(each.main)
            return
        try:
            for pause in (*self._target.resources.look_again, None):
                self._blobs.check(each.tree)
                image = TaggedImage(self._tag(each.reference, each.tree))
                try:
                    self._put_image(image)
                    break
                except RegistryError as error:
                    self._send_missing(each.tree, image, error, pause)
        except TowlineError as error:
            told = f"{each.main} is in place, but not {each.reference}, which refers to it"
            error.args = (f"{told}: {error.message}", *error.args[1:])
            self._outcomes.failed([each.main], error)
            return
        self._there.add(image.documents.top.digest)
        self._outcomes.charge(each.main)

    def publish(self, layout: Layout) -> None:
        """Write an archive as a whole. If that fails, every tag of it has failed."""
        outcomes = self._outcomes.by_tag
        failure = next((each for each in outcomes.values() if isinstance(each, TowlineError)), None)
        try:
            if failure is None:
                layout.publish(self._target.context)
        except TowlineError as error:
            failure = error
        if failure is not None and layout.whole:
            self._outcomes.failed([*outcomes], failure)
        if failure is None and self._wish.omit_from:
            sizes, where = layout.left_out.values(), " or ".join(self._wish.omit_from)
            count = "1 layer" if len(sizes) == 1 else f"{len(sizes)} layers"
            self._target.note(
                f"left out of {layout.name}: {count} of {sum(sizes)} bytes in all, "
                f"which {where} has"
                if sizes
                else f"nothing is left out of {layout.name}: no layer of it is in {where}"
            )


def tag(target: Target, reference: Reference, places: Sequence[Reference]) -> list[TagOutcome]:
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
    outcomes = Outcomes(target, {})
    try:
        # By digest: a tag may have moved since the HEAD, and all places get one manifest.
        exactly = reference._replace(digest=known.digest)
        documents = Documents(target.existing_manifest(exactly)) if due else None
        if documents:
            _tag_together(target, due, documents)
        for place, found in looked.items():
            if isinstance(found, TowlineError):
                outcomes.failed([place], found)
                continue
            try:
                if documents and place in due:
                    put(target, place, documents)
            except TowlineError as error:
                outcomes.failed([place], error)
            else:
                outcomes.left_alone(place, known, "pushed" if place in due else "unchanged")
    except Cancelled:
        check_untouched(places, [target], outcomes.by_tag)
        raise
    return [outcomes.by_tag[place] for place in places]


def _tag_together(target: Target, due: Sequence[Reference], documents: Documents) -> None:
    """Put what is due by few requests, where the registry takes that. Raises Cancelled.

    What they have not written is to be put by itself.
    """
    for at in range(0, len(due), TOGETHER):
        together = target.registry.facts.offers("tags_together")
        # To find out costs a request, which pays for three tags or more.
        if together is not False and len(due) >= (2 if together else 3):
            with suppress(TowlineError):
                put_together(target, due[at : at + TOGETHER], documents)
