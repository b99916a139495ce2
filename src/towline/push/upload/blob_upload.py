"""One blob on its way to one target: ask, mount, or receive its bytes.

Reads like the protocol. What has been learned stays for the next attempt: a retry goes on at the
step that failed. When to try again is the scheduler's to say, and how often `transfers.retry`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol, cast

from towline.context import Cancel
from towline.errors import AuthError, Cancelled, RegistryError, TowlineError
from towline.events import LayerProgress, Retrying
from towline.layers.profile import AUTO
from towline.push.image import nowhere
from towline.push.plan import Ask, Candidate, Delivered, Made, Mount, Send, own
from towline.reference import RepositoryName
from towline.registry.blobs import Mounted
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from towline.context import Context
    from towline.events import Outcome
    from towline.layers import blobstream
    from towline.layers.profile import Profile
    from towline.push.image import Blob
    from towline.push.plan import Step
    from towline.push.unfinished import KeptSession
    from towline.registry.repository import Repository
    from towline.registry.upload.upload import Upload
    from towline.targets.blob_files import BlobFile
    from towline.targets.layout import Layout

Forget = Callable[[Digest, Digest, RepositoryName], None]
"""DiffID, digest and the repository that turned out not to hold it."""


class Blocks(Protocol):
    """The bytes of a blob as they are read: a `BlobStream`, or a lane of one."""

    def __iter__(self) -> Iterator[bytes | memoryview]:
        """The blocks in order; each is valid until the next is asked for."""
        ...

    @property
    def position(self) -> int:
        """Bytes read from the source so far."""
        ...

    @property
    def blob(self) -> blobstream.Blob:
        """What they came to, at the end."""
        ...


class _Attempt:
    """An upload session, and the switch that ends whatever is under way in it.

    The switch is thrown with the transfer's own.
    """

    def __init__(self, transfer: Context) -> None:
        self.cancel = Cancel()
        self.context = transfer.but(cancel=self.cancel)
        """What everything that is done in this attempt is to use."""
        self.session: Upload | BlobFile | None = None
        self.failed = False
        """The session has seen a failure: it may be used again after `rewind` alone."""
        self._chained = ExitStack()
        self._chained.enter_context(transfer.cancel.on_cancel(self.cancel.cancel))

    def close(self) -> None:
        """Give the session back, if there is one."""
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
        forget: Forget,
        unfinished: Callable[[], KeptSession | None],
    ) -> None:
        """`context`: of the flight, whose watchers hear how it goes.

        `unfinished` gives its session as the cache has it, once it is to be sent; None: it is to
        have none.
        """
        self.blob = blob
        self.repository = repository
        self.context = context
        self._steps = deque(steps)
        self.profile = profile
        """By which the layer is compressed; found when its pass starts, with `auto`."""
        self._forget = forget
        self._unfinished = unfinished
        self._kept: KeptSession | None = None
        self._is_new = True
        self._attempt: _Attempt | None = None
        self._sent_before = 0
        """Bytes of the blob that went out in sessions that were given up."""

    # Ask and mount.

    @property
    def asks(self) -> bool:
        """Whether there is something to be asked before anything is sent."""
        return bool(self._steps) and not isinstance(self._steps[0], Send)

    def ask_or_mount(self) -> Delivered | None:
        """Walk the steps that are left until one succeeds; None when only sending is left.

        Raises SourceError when there is nothing that could be sent.
        """
        while self._steps:
            match self._steps[0]:
                case Ask(candidate):
                    if self._is_there(candidate):
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
        """Give up the question that keeps failing; False when there is nothing to do instead."""
        if not self.asks:
            return False
        self._steps.popleft()
        return bool(self._steps)

    def ask_first(self, candidate: Candidate) -> None:
        """Before anything else, ask for this blob."""
        asked = {step.candidate.digest for step in self._steps if isinstance(step, Ask)}
        if candidate.digest not in asked:
            self._steps.appendleft(Ask(candidate))

    def mount_first(self, candidate: Candidate, origin: RepositoryName) -> None:
        """Before anything else, mount this blob."""
        self._steps.appendleft(Mount(candidate, origin, ours=False))

    def _is_there(self, candidate: Candidate) -> bool:
        size = None if self.blob.stored else candidate.size
        try:
            there = self.repository.has_blob(candidate.digest, self.context, size=size)
        except AuthError:
            raise
        except RegistryError as error:
            if error.transient or not self.blob.held:
                raise
            return False  # only the plain upload's own error counts
        if not there and candidate.remembered:
            self._forget(self.blob.identity, candidate.digest, self.repository.name)
        return there

    def _is_mounted(self, mount: Mount) -> bool:
        digest, origin = mount.candidate.digest, mount.origin
        # What others have told of a size is asked for: nothing but a HEAD says it.
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
        except BaseException:
            attempt.close()
            raise
        if isinstance(answer, Mounted):
            attempt.close()
            return True
        if answer is None:  # a refusal says nothing of the blob, and opens nothing
            attempt.close()
            return False
        attempt.session = answer
        self.drop()  # the last session serves; the one before it is given up
        self._attempt = attempt
        if mount.ours and self.repository.mounts:  # some never do, whoever holds the blob
            self._forget(self.blob.identity, digest, origin)
        return False

    # Receive the bytes.

    def _take_up(self) -> bool:
        """Take over, once, what an earlier process has left; whether there is a step before it.

        It may have come as far as the digest: then the blob may be there.
        """
        if not self._is_new:
            return False
        self._is_new, self._kept = False, self._unfinished()
        attempt = _Attempt(self.context)
        taken = self._kept.take(attempt.context) if self._kept else None
        if taken is None:
            attempt.close()
            return False
        self.drop()  # what a mount has opened
        attempt.session, self.profile, made = taken
        attempt.failed = True
        self._attempt = attempt
        if made is None:
            return False
        self.ask_first(self._candidate(*made))
        return True

    def make_by(self, profile: Profile) -> None:
        """Have the bytes made so; a session that holds others is given up."""
        if self.profile not in {AUTO, profile}:
            self.drop()
        self.profile = profile

    def _rewind(self) -> None:
        """After a failed attempt: go on with its session where that is possible, else drop it."""
        attempt = self._attempt
        if attempt is None or not attempt.failed or attempt.session is None:
            return
        if attempt.cancel.cancelled or not attempt.session.rewind():
            self.drop()
        else:
            attempt.failed = False

    def receive(self, blocks: Blocks) -> Delivered:
        """Send every block, and have the registry confirm the digest."""
        attempt = self.attempt()
        try:
            for block in blocks:
                session = self._session(attempt)
                with self.context.span("sent", len(block)):
                    session.write(block)
                self._note(session)
                self.tell("Pushing", blocks.position, self.blob.size, self._sent)
            with self.context.span("confirmed"):
                return self._commit(attempt, blocks.blob)
        except BaseException:
            attempt.failed = True
            raise

    def attempt(self) -> _Attempt:
        """The attempt that the next bytes belong to; made when there is none."""
        if self._attempt is None:
            self._attempt = _Attempt(self.context)
        return self._attempt

    def _session(self, attempt: _Attempt) -> Upload | BlobFile:
        if attempt.session is None:
            known, size = self.blob.stored, self.blob.size
            with self.context.span("asked"):
                attempt.session = self.repository.start_upload(attempt.context, known, size)
        return attempt.session

    def _commit(self, attempt: _Attempt, sent: blobstream.Blob) -> Delivered:
        self.blob.check(sent.digest, sent.diff_id)
        candidate = self._candidate(sent.digest, sent.size)
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
        """Have the cache keep where the session stands; see `KeptSession.note`."""
        if self._kept is None:
            return
        upload = cast("Upload", session)
        try:
            self._kept.note(upload, self.profile, made)
        except RegistryError:
            upload.abandon()
            raise

    def _candidate(self, digest: Digest, size: int) -> Candidate:
        if self.blob.stored is not None:
            return own(self.blob)
        profile = self.profile
        return Candidate(digest, size, profile.compression, profile.recorded)

    # What came of it.

    def _done(
        self, candidate: Candidate, outcome: Outcome, mounted_from: str | None = None
    ) -> Delivered:
        self.drop()
        if self._kept is not None:
            self._kept.forget()
        made = Made(candidate.digest, candidate.size, candidate.compression)
        ours = self._sent and candidate.profile == self.profile.recorded
        label = self.blob.label or (self.profile.name if ours else "reused")
        return Delivered(
            made,
            outcome,
            label,
            candidate.profile,
            mounted_from,
            self._sent,
            learned=candidate.learned,
        )

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
        """It has failed, or nobody waits for it: leave what another process can go on with."""
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
        """Give up the session that there is."""
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
        """Tell the watchers."""
        if not self.blob.shown:
            return
        event = LayerProgress(
            reference="", id=self.blob.id, status=status, current=current, total=total, sent=sent
        )
        self.context.emit(event)

    def tell_retry(self, seconds: float, reason: str) -> None:
        """Tell the watchers of a wait before the next attempt; of none there is nothing to tell."""
        if not seconds:
            return
        if not self.blob.shown:
            what, told = self.blob.name, self.context.emit
            told(Retrying(reference="", what=what, seconds=seconds, reason=reason))
            return
        whole = max(1, round(seconds))
        self.tell(f"Retrying in {whole} second{'' if whole == 1 else 's'} ({reason})")
