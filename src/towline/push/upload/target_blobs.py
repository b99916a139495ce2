"""The blobs of one target: each is watched until the target has it, or its upload has failed.

The first push that wants a blob in a repository gets a task, and carries the upload out. Others
that want the same wait for its result, and begin anew where they cannot use it.
"""

from __future__ import annotations

import queue
from threading import Lock
from typing import TYPE_CHECKING

from towline.errors import SourceError, TowlineError
from towline.layers.blobstream import BlobStream
from towline.push.image import Blob, Tree, nowhere
from towline.push.plan import Ask, Delivered, Send, fits, own
from towline.push.upload.blob_upload import BlobUpload
from towline.push.upload.scheduler import Task, Uploads
from towline.transfers.retry import Attempts
from towline.transfers.single_flight import Restart, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from towline.layers.profile import Profile
    from towline.push.target import TargetPush
    from towline.reference import RepositoryName


def transfer_key(name: RepositoryName, account: str, blob: Blob, profile: Profile) -> Hashable:
    """The key that makes two transfers one: registry, repository, account, what fixes the bytes."""
    # Without the host and its port, the same layer to two registries would be one transfer, and
    # one registry would lack it. Without what fixes the bytes, different blobs of one DiffID in
    # two images would be one. The profile counts only where it compresses the blob: a layer that
    # is unpacked is the plain tar that another push may have as it is. The scheme is not in it:
    # all pushes of a `Pusher` speak to a host in the same way.
    made_by = () if blob.stored or profile.compression == "none" else (profile.recorded,)
    return (str(name), account, blob.key, *made_by)


class TargetBlobs:
    """The blobs of one target, each with its steps in `plans`."""

    def __init__(
        self,
        target: TargetPush,
        uploads: Uploads,
        told: Callable[[], object] = lambda: None,
    ) -> None:
        """`told`: called whenever an upload has ended, from any thread."""
        self.plans = target.plans
        self.delivered = target.delivered
        """By the keys of blobs: how those that are at the target came there."""
        self.errors: dict[Blob, TowlineError] = {}
        """The errors of blobs that are not."""
        self._target = target
        self._resources = target.resources
        self._profile = target.wish.profile
        self._rules = target.rules
        self._uploads = uploads
        self._told = told
        self._watches: dict[Watch[Delivered], Blob] = {}
        self._ended: queue.SimpleQueue[Watch[Delivered] | None] = queue.SimpleQueue()
        self._mending = Lock()
        """Held while blobs are sent again for one of the tags, which are put side by side."""
        self._doubted: set[Blob] = set()
        """Blobs that a HEAD confirms and the manifest PUT calls unknown: they are sent again."""

    def join(self, blob: Blob) -> Task | None:
        """Watch the upload of a blob. Returns a task, to be started, where nobody has one yet.

        Raises Cancelled.
        """
        repository = self._target.repository
        key = transfer_key(repository.name, repository.account, blob, self._profile)
        watch = self._resources.flights.join(key, self._target.watcher())
        self._watches[watch] = blob

        def ended(_: object) -> None:
            self._ended.put(watch)
            self._told()

        watch.flight.future.add_done_callback(ended)
        if not watch.leads:
            return None
        upload = BlobUpload(
            blob,
            repository,
            self.plans[blob],
            profile=self._profile,
            context=watch.flight.context.but(about=(blob.name, str(repository.name))),
            unfinished=self._resources.unfinished,
            learn=self._rules.trust_learned,
        )
        seen = self._resources.seen(key) if blob not in self._doubted else None
        # Another push of this Pusher may have delivered it since the steps were planned.
        if seen is not None and fits(blob, seen, self._rules):
            upload.ask_first(seen)
        attempts = Attempts(self._resources.policy)
        return Task(upload, watch.flight, attempts, self._target.patience)

    def wait(self, trees: Sequence[Tree]) -> None:
        """Wait until each blob is there or has failed, or no tree can become whole any more.

        Raises Cancelled.
        """
        with self._target.context.cancel.on_cancel(lambda: self._ended.put(None)):
            try:
                while self._watches and not self._hopeless(trees):
                    self._take_one()
            finally:
                self.leave()

    @property
    def pending(self) -> bool:
        """Whether any upload is still under way."""
        return bool(self._watches)

    def settle(self) -> list[Blob]:
        """Take in the uploads that have ended so far, without waiting. Returns their blobs.

        Raises Cancelled.
        """
        ended = []
        while not self._ended.empty():
            if blob := self._take_one():
                ended.append(blob)
        return ended

    def leave(self) -> None:
        """Wait for no upload any more; those that nobody else waits for are cancelled."""
        for watch in self._watches:
            watch.leave()
        self._watches.clear()

    def _hopeless(self, trees: Sequence[Tree]) -> bool:
        # Blobs that the source lacks are waited for in any case: the error names all that are
        # nowhere.
        if not self.errors or any(not blob.held for blob in self._watches.values()):
            return False
        return all(any(blob in self.errors for blob in tree.blobs) for tree in trees)

    def _take_one(self) -> Blob | None:
        """Wait for an upload to end. Returns its blob, unless that is tried anew."""
        watch = self._ended.get()
        self._target.context.cancel.check()
        assert watch is not None  # noqa: S101 - None is put when the cancel is thrown
        blob = self._watches.pop(watch, None)
        if blob is None:  # `leave` came before
            return None
        joined = not watch.leads
        try:
            delivered = watch.result()
        except Restart:
            self._join_again(blob)
            return None
        except TowlineError as error:
            # It may be the source of the other push that fails, and not ours.
            if joined and isinstance(error.__cause__ or error, SourceError):
                self._join_again(blob)
                return None
            self.errors[blob] = error
            return blob
        # The other push may have delivered a blob that our manifest must not list (zstd).
        if joined and not fits(blob, delivered.made, self._rules):
            self._join_again(blob)
            return None
        self.delivered[blob.key] = delivered._replace(sent_bytes=0) if joined else delivered
        self._target.remember([(blob, delivered.made)])
        return blob

    def _join_again(self, blob: Blob) -> None:
        if task := self.join(blob):
            self._uploads.start([task])

    def check_unsent(self) -> None:
        """Read stored layers that were at the target already, and check their DiffIDs.

        Raises Cancelled.
        """
        for blob in self.plans:
            delivered = self.delivered.get(blob.key)
            unsent = delivered and not delivered.sent_bytes
            if not (unsent and blob.held and blob.is_layer and blob.stored):
                continue
            try:
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
            except SourceError as error:
                self.errors[blob] = error

    def check(self, tree: Tree) -> None:
        """Raise the first error of the tree's blobs, if any is not there.

        All blobs that are neither in the source nor at the target are named in one SourceError.
        """
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
        """Bring a blob to the target that is not in the tree. Raises the error of its upload."""
        with self._mending:
            self.plans[blob] = (Ask(own(blob)), Send())
            self._join_again(blob)
            self.wait([tree])
            error = self.errors.pop(blob, None)
        if error:
            raise error

    def send_missing(self, tree: Tree, missed: str = "") -> None:
        """Ask for every blob of the tree again, and send those that are missing.

        `missed`: the words of a refusal. A blob whose digest is in them is sent whatever a HEAD
        says: it was wrong before (Harbor, load-balanced caches).
        """
        target = self._target
        with self._mending:
            for blob in dict.fromkeys(tree.blobs):
                digest = self.delivered[blob.key].made.digest
                if digest in missed:
                    self._doubted.add(blob)
                has_blob, context = target.repository.has_blob, target.context
                doubted = blob in self._doubted
                if doubted or not target.retry("a blob", has_blob, digest, context):
                    self.plans[blob] = (Send(),) if blob.held else ()
                    self._join_again(blob)
            self.wait([tree])
