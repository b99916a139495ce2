"""The blobs of one target, each watched until the target has it or it has failed.

Whoever comes first to a blob does the work, and gets a task for it; whoever comes later to the same
blob of the same repository waits for what comes of that, and begins anew where it can't be used.
"""

from __future__ import annotations

import queue
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

from towline.errors import SourceError, TowlineError
from towline.layers.blobstream import BlobStream
from towline.push import known_blobs
from towline.push.image import nowhere
from towline.push.plan import Ask, Send, fits, own
from towline.push.upload.blob_upload import BlobUpload
from towline.push.upload.key import transfer_key
from towline.push.upload.scheduler import Task
from towline.transfers.retry import Attempts
from towline.transfers.single_flight import Restart

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from towline.push.image import Blob, Tree
    from towline.push.interface.options import Wish
    from towline.push.plan import Delivered, Rules, Step
    from towline.push.target import Target
    from towline.push.unfinished import KeptSession
    from towline.push.upload.scheduler import Uploads
    from towline.transfers.single_flight import Watch


class TargetBlobs:
    """What becomes of each blob of a target, whose way `plans` tells.

    `join` gives a task that is still to be started, so that those of several targets can be
    started together.
    """

    def __init__(
        self,
        target: Target,
        wish: Wish,
        *,
        rules: Rules,
        plans: dict[Blob, tuple[Step, ...]],
        delivered: dict[str, Delivered],
        uploads: Uploads,
    ) -> None:
        self.plans = plans
        self.delivered = delivered
        """What came of the blobs that are there, by their keys."""
        self.errors: dict[Blob, TowlineError] = {}
        """Why others are not."""
        self._target = target
        self._resources = target.resources
        self._profile = wish.profile
        self._rules = rules
        self._uploads = uploads
        self._watches: dict[Watch[Delivered], Blob] = {}
        self._ended: queue.SimpleQueue[Watch[Delivered] | None] = queue.SimpleQueue()
        self._mending = Lock()
        """Held by whoever has blobs sent again for one of the tags."""
        self._doubted: set[Blob] = set()
        """Blobs that a HEAD confirms and the manifest PUT calls unknown: they are sent again."""

    def join(self, blob: Blob, ended: Callable[[], object] = lambda: None) -> Task | None:
        """Watch the blob's upload; a task where nobody carries it out yet.

        `ended` is called when it is over, from any thread.
        """
        repository = self._target.repository
        key = transfer_key(repository.name, repository.account, blob, self._profile)
        watch = self._resources.flights.join(key, self._target.watcher())
        self._watches[watch] = blob
        watch.flight.future.add_done_callback(lambda _: ended())
        watch.flight.future.add_done_callback(lambda _: self._ended.put(watch))
        if not watch.leads:
            return None
        upload = BlobUpload(
            blob,
            repository,
            self.plans[blob],
            profile=self._profile,
            context=watch.flight.context.but(about=(blob.name, str(repository.name))),
            forget=partial(known_blobs.forget, self._resources.knowledge),
            unfinished=partial(self._unfinished, blob),
        )
        seen = self._resources.seen(key) if blob not in self._doubted else None
        if seen is not None and fits(blob, seen, self._rules):  # since the planning, perhaps
            upload.ask_first(seen)
        attempts = Attempts(self._resources.policy)
        return Task(key, upload, watch.flight, attempts, self._target.patience)

    def _unfinished(self, blob: Blob) -> KeptSession | None:
        """Its session as the cache has it; None for a blob that is not worth it."""
        return self._resources.unfinished.of(
            blob, self._target.repository, self._profile, learn=self._rules.trust_learned
        )

    def wait(self, trees: Sequence[Tree]) -> None:
        """Until each blob is there or has failed, or none of the trees can be whole any more.

        Raises Cancelled.
        """
        with self._target.context.cancel.on_cancel(lambda: self._ended.put(None)):
            try:
                while self._watches and not self._hopeless(trees):
                    self._take_one()
            finally:
                self.leave()

    def settle(self) -> None:
        """Take in what has ended so far. Raises Cancelled."""
        while not self._ended.empty():
            self._take_one()

    def leave(self) -> None:
        """Await nothing any more."""
        for watch in self._watches:
            watch.leave()
        self._watches.clear()

    def _hopeless(self, trees: Sequence[Tree]) -> bool:
        if not self.errors or any(not blob.held for blob in self._watches.values()):
            return False  # all of them that are nowhere are to be named
        return all(any(blob in self.errors for blob in tree.blobs) for tree in trees)

    def _take_one(self) -> None:
        watch = self._ended.get()
        self._target.context.cancel.check()
        assert watch is not None  # noqa: S101 - None is put when the cancel is thrown
        blob = self._watches.pop(watch, None)
        if blob is None:  # it was given up before
            return
        joined = not watch.leads
        try:
            delivered = watch.result()
        except Restart:
            self._join_again(blob)
        except SourceError as error:
            if joined:  # the other push's source is at fault, not ours
                self._join_again(blob)
            else:
                self.errors[blob] = error
        except TowlineError as error:
            self.errors[blob] = error
        else:
            if joined and not fits(blob, delivered.candidate, self._rules):
                self._join_again(blob)
            else:
                self._keep(blob, delivered._replace(sent_bytes=0) if joined else delivered)

    def _join_again(self, blob: Blob) -> None:
        if task := self.join(blob):
            self._uploads.start([task])

    def _keep(self, blob: Blob, delivered: Delivered) -> None:
        self.delivered[blob.key] = delivered
        known_blobs.remember(
            self._resources.knowledge, self._target.repository, [(blob, delivered)]
        )

    def check_unsent(self) -> None:
        """Compare the DiffIDs of layers that were there already, and not read on their way."""
        for blob in self.plans:
            delivered = self.delivered.get(blob.key)
            unsent = delivered and not delivered.sent_bytes
            if unsent and blob.held and blob.is_layer and blob.stored:
                try:
                    self._decompress(blob)
                except SourceError as error:
                    self.errors[blob] = error

    def _decompress(self, blob: Blob) -> None:
        """Read a blob of the source for its DiffID. Raises SourceError, and Cancelled."""
        stream = BlobStream(
            blob.open(),
            None,
            self._resources.encoders,
            self._target.context.cancel,
            diff_id_of=blob.stored_compression,
            spares=self._resources.spares,
            name=f"layer {blob.id}",
        )
        for _ in stream:
            pass
        blob.check(stream.blob.digest, stream.blob.diff_id)

    def check(self, tree: Tree) -> None:
        """Raises why blobs of the tree are not there."""
        errors = {blob: self.errors[blob] for blob in tree.blobs if blob in self.errors}
        missing = [
            blob
            for blob, error in errors.items()
            if isinstance(error, SourceError) and not blob.held
        ]
        if missing:
            raise nowhere(missing, self._target.repository.name)
        for error in errors.values():
            raise error

    def send_also(self, tree: Tree, blob: Blob) -> None:
        """Bring a blob there that the tree does not have. Raises what its upload raised."""
        with self._mending:
            self.plans[blob] = (Ask(own(blob)), Send())
            self._join_again(blob)
            self.wait([tree])
            error = self.errors.pop(blob, None)
        if error:
            raise error

    def send_missing(self, tree: Tree, missed: str = "") -> None:
        """Ask for every blob again, and send those that are not there.

        Those whose digests `missed` names are sent whatever the answer: it was wrong before.
        """
        target = self._target
        with self._mending:
            for blob in dict.fromkeys(tree.blobs):
                digest = self.delivered[blob.key].made.digest
                has_blob = partial(target.repository.has_blob, digest, target.context)
                if digest in missed:
                    self._doubted.add(blob)
                if blob in self._doubted or not target.retry("a blob", has_blob):
                    self.plans[blob] = (Send(),) if blob.held else ()
                    self._join_again(blob)
            self.wait([tree])
