"""Sends blobs of a source while they pass, before it is known which manifest lists them.

A pipe whose blobs are named by their digests needs no room on the disk: each blob is asked for and
sent as it comes. At the end of the pipe the push goes on like any other, with blobs that are at the
targets already.
"""

from __future__ import annotations

from contextlib import closing, nullcontext
from typing import TYPE_CHECKING

from towline.context import Context, acquired
from towline.errors import TowlineError
from towline.layers.fan_out import Outpaced
from towline.push.begin import targets_of
from towline.push.image import Blob, Gatherer, Index, Tree
from towline.push.manifests import tagged
from towline.push.pipeline import JointPush
from towline.push.plan import Mount, steps
from towline.push.reporting import tell_started
from towline.push.upload.choice import Choice
from towline.push.upload.scheduler import Uploads
from towline.push.upload.target_blobs import TargetBlobs
from towline.sources.base import PassedBy, SourceImage, SourceIndex
from towline.sources.passing_blob import HINT, Held, PassingBlob, Share, Taker
from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.manifest import RawManifest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from towline.push.source_images import Opened
    from towline.push.target import TargetPush
    from towline.reference import Reference, RepositoryName
    from towline.sources.image_source import ImageSource


_NOTHING: Tree = Index(SourceIndex(RawManifest(b"", media_types.OCI_INDEX), (), ()), ())
"""Stands for the tree of a tag while that is not known."""


def send_ahead(
    opened: Opened, places: Mapping[RepositoryName, Sequence[Reference]], context: Context
) -> Mapping[RepositoryName, TargetPush]:
    """Send the blobs of a source that passes, or whose config comes late. Returns the targets."""
    begun = targets_of(opened, places, context)
    for name, tags in places.items():
        begun[name].tags = tuple((tag, _NOTHING) for tag in tags if tag.tag)
    targets = list(begun.values())
    if opened.source.passes():
        pass_by(opened.source, targets)
    elif outline := opened.source.early_outline:
        for target in targets:
            target.origins = opened.source.near_origins
        send_layers(outline, targets)
    return begun


def pass_by(source: ImageSource, targets: Sequence[TargetPush]) -> None:
    """Read the source to its end, and bring its blobs to the targets meanwhile.

    Each target then has the blobs that were `delivered`, or a `failure`. Raises Cancelled, errors
    of reading, and, with one target alone, the error of a blob.
    """
    resources, wish = targets[0].resources, targets[0].wish
    uploads = Uploads(resources, wish, Choice(wish.profile, {}, zstd=False))  # none is compressed
    held = Held(targets[0].context.cancel, resources.wait_for_takers)
    passages = [Passage(target, uploads, held, once=source.once) for target in targets]
    try:
        with closing(source.passing(held)) as passing:
            for blob in passing:
                if blob:
                    _begin(passages, blob)
                _settle(passages)
        while any(passage.blobs.pending for passage in passages):
            held.wait()
            _settle(passages)
    finally:
        for passage in passages:
            passage.leave()


def send_layers(outline: SourceImage, targets: Sequence[TargetPush]) -> None:
    """Bring an image's layers to the targets before its config has come.

    Sets the same fields of the targets, and raises the same errors, as `pass_by`.
    """
    tree = Gatherer(targets[0].wish.profile).tree(outline)
    for target in targets:
        target.tags = tuple((tag, tree) for tag, _ in target.tags)
    JointPush(targets).bring_blobs()
    if len(targets) == 1 and targets[0].failure:
        raise targets[0].failure


def _settle(passages: Sequence[Passage]) -> None:
    """Take in what has ended. Raises Cancelled, and the failure of the only target."""
    for passage in passages:
        passage.settle()
    if len(passages) == 1 and (failure := passages[0].target.failure):
        raise failure


def _begin(passages: Sequence[Passage], passing: PassingBlob) -> None:
    """Begin the uploads of a blob to the targets that want blobs, each for itself."""
    wanting = [passage for passage in passages if passage.wants_blobs]
    # First all shares: no byte of the blob may be dropped for one target that another wants.
    shares = [passing.share(passage.taker) for passage in wanting]
    # Targets wait for each other with their slots taken. Of two blobs that did so, each could have
    # the slot that the other waits for, so one blob of all pushes at a time begins.
    target, several = passages[0].target, len(wanting) > 1
    with acquired(target.resources.passing, target.context) if several else nullcontext():
        for passage, share in zip(wanting, shares, strict=True):
            passage.begin(passing, share)
        while several and passing.is_expected:
            passing.held.wait()
            _settle(passages)


class Passage:
    """The passing blobs at one target."""

    def __init__(self, target: TargetPush, uploads: Uploads, held: Held, *, once: bool) -> None:
        """`once`: blobs that have passed cannot be had again, so that none may fail."""
        self.target = target
        self._once = once
        self._uploads = uploads
        self.blobs = TargetBlobs(target, uploads, told=held.wake)
        self._shares: dict[Blob, Share] = {}
        tell_started(target)
        self.wants_blobs = False
        """Whether any tag will be written, as far as is known; False after an error."""
        try:
            staying = tagged.staying(target)
        except TowlineError as error:
            target.failure = error
        else:
            self.wants_blobs = len(staying) < len(target.tags) or not staying
        self.taker = Taker(held, self._is_full)
        if not self.wants_blobs:
            self.taker.leave()

    def _is_full(self, size: int) -> bool:
        """Whether an upload of so many bytes has to wait for a slot of the target's host."""
        hosts = [self.target.repository.name.host]
        return bool(self.target.resources.slots_for(hosts, size).full(hosts))

    def begin(self, passing: PassingBlob, share: Share) -> None:
        """Plan the steps of a blob, and begin its upload, unless another push does that."""
        target = self.target
        media_type = media_types.layer("oci", passing.compression)
        stored = Descriptor(media_type, passing.digest, passing.size)
        blob = Blob(passing.digest, stored, passing.size, share.open, is_layer=False)
        known = target.resources.known([blob])
        plan = steps(blob, target.as_planned(known), known.get(blob.identity, ()), target.rules)
        if not target.layout:
            target.registry.pull_from(step.origin for step in plan if isinstance(step, Mount))
        self.blobs.plans[blob] = plan
        self._shares[blob] = share
        if task := self.blobs.join(blob):
            self._uploads.start([task])
        else:
            share.stand_aside()

    def settle(self) -> None:
        """Take in the uploads that have ended. A blob's failure ends the passage of all.

        Raises Cancelled.
        """
        for blob in self.blobs.settle():
            self._shares.pop(blob).release()
        if not self.wants_blobs:
            return
        # An engine can be asked again: there a blob that has passed too far is no failure.
        errors = [
            error
            for error in self.blobs.errors.values()
            if self._once or not isinstance(error.__cause__ or error, PassedBy)
        ]
        if self.taker.left_behind and self._once:
            errors.append(Outpaced())
        for error in errors[:1]:
            error.hint = error.hint or (HINT if self._once else None)
            self.target.failure = error
        if errors or self.taker.left_behind:
            self.wants_blobs = False
            self.leave()

    def leave(self) -> None:
        """Wait for no blob any more."""
        self.blobs.leave()
        self.taker.leave()
