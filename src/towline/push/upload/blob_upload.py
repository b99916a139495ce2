"""One blob's upload to one target: ask for it, mount it, or send its bytes.

Reads like the protocol. Steps that are done stay done: the next attempt goes on at the step that
failed. When to try again is decided by the scheduler, how often by `transfers.retry`.
"""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING, cast

from towline.context import Cancel, Context
from towline.errors import AuthError, Cancelled, RegistryError, TowlineError
from towline.events import Retrying
from towline.layers.profile import AUTO, Profile
from towline.push.image import Blob, nowhere
from towline.push.plan import Ask, Delivered, Made, Mount, Send, Step, own
from towline.push_events import LayerProgress, Outcome
from towline.registry.blobs import Confirmed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from towline.layers.blobstream import Blob as Sent
    from towline.layers.blobstream import BlobStream
    from towline.layers.fan_out import Lane
    from towline.push.unfinished import KeptSession, Unfinished
    from towline.reference import RepositoryName
    from towline.registry.repository import Repository
    from towline.registry.upload.upload import Upload
    from towline.spec.digest import Digest
    from towline.targets.blob_files import BlobFile
    from towline.targets.layout import Layout

_TOLD_EVERY = 0.05
"""Seconds between two events of a blob's bytes: on a fast link each block would be one."""


class _Attempt:
    """An upload session, and a switch that ends whatever is under way in it."""

    def __init__(self, transfer: Context) -> None:
        self.cancel = Cancel()
        self.context = transfer.but(cancel=self.cancel)
        """For all that is done in this attempt."""
        self.session: Upload | BlobFile | None = None
        self.failed = False
        """Whether the session has seen a failure: then `rewind` comes before any further use."""
        # The flight's switch throws this one; this one alone ends a write to a target that is too
        # slow for the others (`FanOut`), while the flight goes on.
        self._chained = ExitStack()
        self._chained.enter_context(transfer.cancel.on_cancel(self.cancel.cancel))

    def close(self) -> None:
        """Cancel the session, if there is one."""
        self._chained.close()
        if self.session is not None:
            self.session.cancel()


class BlobUpload:
    """One blob at one target. Used by one thread at a time."""

    def __init__(
        self,
        blob: Blob,
        repository: Repository | Layout,
        steps: Iterable[Step],
        *,
        profile: Profile,
        context: Context,
        unfinished: Unfinished,
        learn: bool,
    ) -> None:
        """`context`: of the flight, whose watchers are told of progress.

        `learn`: see `Unfinished.of`.
        """
        self.blob = blob
        self.repository = repository
        self.context = context
        self._steps = deque(steps)
        self.profile = profile
        """The profile that compresses the layer; `auto` until the layer is about to be read."""
        self._unfinished = unfinished
        self._learn = learn
        self._kept: KeptSession | None = None
        self._is_new = True
        self._attempt: _Attempt | None = None
        self._sent_before = 0
        """Bytes of the blob that were sent in sessions that were given up."""

    # Ask and mount.

    @property
    def asks(self) -> bool:
        """Whether the next step is a question, or a mount."""
        return bool(self._steps) and not isinstance(self._steps[0], Send)

    def ask_or_mount(self) -> Delivered | None:
        """Walk the steps that are left until one succeeds. None: the bytes must be sent.

        Raises SourceError when the source does not have them; AuthError, RegistryError,
        NetworkError, Cancelled.
        """
        while self._steps:
            match self._steps[0]:
                case Ask(candidate):
                    if self._is_there(candidate):
                        # It has been sent, and the answer to its commit was lost.
                        sent = self._sent > 0
                        self.tell("Pushed" if sent else "Layer already exists")
                        return self._done(candidate, "pushed" if sent else "exists")
                case Mount(candidate, origin) as mount:
                    if self._is_mounted(mount):
                        self.tell(f"Mounted from {origin.path}")
                        return self._done(candidate, "mounted", mounted_from=origin.path)
                case Send():
                    if self._take_up():
                        continue
                    break
            self._steps.popleft()
        if not self.blob.held:
            raise nowhere([self.blob], self.repository.name)
        self._rewind()
        return None

    def skip(self) -> bool:
        """Give up a question that keeps failing. False: there is no other step to take."""
        if not self.asks:
            return False
        self._steps.popleft()
        return bool(self._steps)

    def ask_first(self, candidate: Made) -> None:
        """Ask for this blob before anything else."""
        asked = {step.candidate.digest for step in self._steps if isinstance(step, Ask)}
        if candidate.digest not in asked:
            self._steps.appendleft(Ask(candidate))

    def mount_first(self, candidate: Made, origin: RepositoryName) -> None:
        """Mount this blob before anything else."""
        self._steps.appendleft(Mount(candidate, origin, ours=False))

    def _is_there(self, candidate: Made) -> bool:
        # The size of a stored blob is our source's, and a registry's word of it is not needed; a
        # file may have been cut. That of a candidate is the cache's, and would stand in the
        # manifest.
        at_registry = self.repository.name.is_at_registry
        size = None if self.blob.stored and at_registry else candidate.size
        try:
            there = self.repository.has_blob(candidate.digest, self.context, size=size)
        except AuthError:
            raise
        except RegistryError as error:
            if error.transient or not self.blob.held:
                raise
            return False  # only the plain upload's own error counts
        if not there and candidate.remembered:
            self._forget(candidate.digest, self.repository.name)
        return there

    def _is_mounted(self, mount: Mount) -> bool:
        digest, origin = mount.candidate.digest, mount.origin
        # A mount does not tell the size. Where only others have told it, a HEAD is made for it.
        told = mount.candidate.learned and not self.blob.stored
        size = mount.candidate.size if told else None
        attempt = _Attempt(self.context)
        try:
            answer = self.repository.mount(
                digest,
                origin,
                attempt.context,
                size=size,
                known=self.blob.stored,
                about=self.blob.size,
            )
            # None: it was refused, which says nothing of the blob.
            if answer is None or isinstance(answer, Confirmed):
                return answer is not None
            # 202: the registry has opened a session instead, and the last one serves the upload.
            self.drop()
            self._attempt, attempt.session = attempt, answer
        finally:
            if self._attempt is not attempt:
                attempt.close()
        # A registry that does mount has said that the origin lacks the blob. Some mount nothing
        # (ECR by default), and with other credentials than those of the entry nothing is known.
        if mount.ours and self.repository.facts.mounts:
            self._forget(digest, origin)
        return False

    def _forget(self, digest: Digest, holder: RepositoryName) -> None:
        """Have the cache forget that a repository holds the blob with that digest."""
        self._unfinished.knowledge.forget(self.blob.identity, digest, str(holder))

    # Receive the bytes.

    def _take_up(self) -> bool:
        """Take over, once, the session that an earlier process has left.

        Returns whether another step comes before sending.
        """
        if not self._is_new:
            return False
        self._is_new = False
        self._kept = self._unfinished.of(
            self.blob, self.repository, self.profile, learn=self._learn
        )
        attempt = _Attempt(self.context)
        taken = self._kept.take(attempt.context) if self._kept else None
        if taken is None:
            attempt.close()
            return False
        self.drop()  # a session that a mount has opened
        attempt.session, self.profile, made = taken
        attempt.failed = True
        self._attempt = attempt
        if made is None:
            return False
        # The earlier process had sent all of it, and its commit may have been carried out.
        self.ask_first(self._candidate(*made))
        return True

    def make_by(self, profile: Profile) -> None:
        """Compress by this profile. A session that holds bytes of another one is given up."""
        if self.profile not in {AUTO, profile}:
            self.drop()
        self.profile = profile

    def _rewind(self) -> None:
        """After a failed attempt: resume its session if that is possible, else drop it."""
        attempt = self._attempt
        if attempt is None or not attempt.failed or attempt.session is None:
            return
        # With its switch thrown nothing can be asked in the attempt: the target was too slow.
        if attempt.cancel.cancelled or not attempt.session.rewind():
            self.drop()
        else:
            attempt.failed = False

    def receive(self, blocks: BlobStream | Lane) -> Delivered:
        """Send every block, and have the registry confirm the digest.

        Raises SourceError, AuthError, RegistryError, NetworkError, Cancelled.
        """
        attempt, due = self.attempt(), 0.0
        try:
            for block in blocks:
                session = self._session(attempt)
                with self.context.span("sent", len(block)):
                    session.write(block)
                self._note(session)
                if self.context.clock() >= due or blocks.position >= self.blob.size:
                    self.tell("Pushing", blocks.position, self.blob.size, self._sent)
                    due = self.context.clock() + _TOLD_EVERY
            with self.context.span("confirmed"):
                return self._commit(attempt, blocks.blob)
        except BaseException:
            attempt.failed = True
            raise

    def attempt(self) -> _Attempt:
        """The present attempt; one is made if there is none."""
        if self._attempt is None:
            self._attempt = _Attempt(self.context)
        return self._attempt

    def _session(self, attempt: _Attempt) -> Upload | BlobFile:
        if attempt.session is None:
            known, size = self.blob.stored, self.blob.size
            with self.context.span("asked"):
                attempt.session = self.repository.start_upload(attempt.context, known, size)
        return attempt.session

    def _commit(self, attempt: _Attempt, sent: Sent) -> Delivered:
        # Before the closing PUT: a layer that is not what its image says is committed nowhere.
        self.blob.check(sent.digest, sent.diff_id)
        candidate = self._candidate(sent.digest, sent.size)
        # Whoever has decompressed the blob knows its DiffID by itself.
        if self.blob.stored:
            candidate = candidate._replace(learned=candidate.learned and sent.diff_id is None)
        # Should the answer be lost, the blob may be there: ask before sending again.
        self.ask_first(candidate)
        session = self._session(attempt)  # an empty blob has opened none yet
        self._note(session, (sent.digest, sent.size))
        session.commit(sent.digest)
        self.tell("Pushed")
        return self._done(candidate, "resumed" if session.resumed else "pushed")

    def _note(self, session: Upload | BlobFile, made: tuple[str, int] = ("", 0)) -> None:
        """Have the cache note how far the session is; see `KeptSession.note`."""
        if self._kept is None:
            return
        upload = cast("Upload", session)
        try:
            self._kept.note(upload, self.profile, made)
        except RegistryError:  # another process has taken the session over: leave it alone
            upload.abandon()
            raise

    def _candidate(self, digest: Digest, size: int) -> Made:
        if self.blob.stored is not None:
            return own(self.blob)
        profile = self.profile
        return Made(digest, size, profile.compression, profile.recorded)

    # What came of it.

    def _done(
        self, candidate: Made, outcome: Outcome, mounted_from: str | None = None
    ) -> Delivered:
        self.drop()
        if self._kept is not None:
            self._kept.forget()
        ours = self._sent and candidate.profile == self.profile.recorded
        label = self.blob.label or (self.profile.name if ours else "reused")
        return Delivered(candidate, outcome, label, mounted_from, self._sent)

    @property
    def _sent(self) -> int:
        session = self._attempt.session if self._attempt else None
        return self._sent_before + (session.sent if session else 0)

    @property
    def acknowledged(self) -> int:
        """Bytes that the registry is known to hold of an unfinished session."""
        session = self._attempt.session if self._attempt else None
        return session.acknowledged if session else 0

    def leave(self, error: BaseException) -> None:
        """After the last failure, or a cancel: leave the session to a later process, if it heals.

        Else the session is cancelled.
        """
        session = self._attempt.session if self._attempt else None
        heals = isinstance(error, Cancelled) or (
            isinstance(error, TowlineError) and error.transient
        )
        if self._kept and session and heals and self._kept.leave():
            cast("Upload", session).abandon()
        elif self._kept:
            self._kept.forget()
        self.drop()

    def drop(self) -> None:
        """Give up the present session, if there is one."""
        self._sent_before = self._sent
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.close()

    def tell(
        self,
        status: str,
        current: int | None = None,
        total: int | None = None,
        sent: int | None = None,
    ) -> None:
        """Tell the watchers of the blob's progress; the counts are bytes."""
        if not self.blob.shown:
            return
        event = LayerProgress(
            reference="", id=self.blob.id, status=status, current=current, total=total, sent=sent
        )
        self.context.emit(event)

    def tell_retry(self, seconds: float, reason: str) -> None:
        """Tell the watchers of a wait before the next attempt, unless it is 0 seconds."""
        if not seconds:
            return
        if not self.blob.shown:
            what, told = self.blob.name, self.context.emit
            told(Retrying(reference="", what=what, seconds=seconds, reason=reason))
            return
        whole = max(1, round(seconds))
        self.tell(f"Retrying in {whole} second{'' if whole == 1 else 's'} ({reason})")
