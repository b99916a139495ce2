"""One blob on its way to one target: ask, mount, or receive the bytes of a pass.

Reads like the protocol. What has been learned stays for the next attempt: a retry goes on at the
step that failed. When to try again is `passes`' to say, and how often `transfers.retry`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from towline.errors import AuthError, RegistryError
from towline.events import LayerProgress, Retrying
from towline.push.build import Made
from towline.push.plan import Ask, Candidate, Mount, Send, own
from towline.push.seat import Seat
from towline.reference import RepositoryName
from towline.registry.repository import Mounted
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from towline.context import Context
    from towline.events import Outcome
    from towline.layers import blobstream
    from towline.layers.profile import Profile
    from towline.push.plan import Step
    from towline.push.seat import Session
    from towline.push.wanted import Blob
    from towline.spec.descriptor import Descriptor


@dataclass(frozen=True, slots=True)
class Delivered:
    """The registry has confirmed the blob."""

    made: Made
    outcome: Outcome
    label: str
    """What the result says of the compression: a profile's name, `source` or `reused`."""
    profile: str | None = None
    """As recorded, when it is known that a profile of ours made the bytes."""
    mounted_from: str | None = None
    sent_bytes: int = 0
    learned: bool = False
    """As in `Candidate`: asking a registry for a blob does not tell which layer it is."""

    @property
    def candidate(self) -> Candidate:
        """The same blob as one to ask for elsewhere, or later."""
        made, learned = self.made, self.learned
        return Candidate(made.digest, made.size, made.compression, self.profile, learned=learned)


class Place(Protocol):
    """Where a blob goes; `registry.repository.Repository` is one."""

    name: RepositoryName

    def has_blob(self, digest: str, context: Context, /, *, size: int | None = None) -> bool:
        """Whether the blob is there, with so many bytes as far as that is said."""
        ...

    def mount(
        self, digest: str, origin: RepositoryName, context: Context, /, *, size: int | None = None
    ) -> Mounted | Session | None:
        """Link it from another repository, open a session to send it, or refuse (None)."""
        ...

    @property
    def mounts(self) -> bool:
        """Whether it has been seen to link a blob from another repository."""
        ...

    def start_upload(
        self, context: Context, known: Descriptor | None = None, about: int = 0, /
    ) -> Session:
        """Open a session."""
        ...


Forget = Callable[[Digest, Digest, RepositoryName], None]
"""DiffID, digest and the repository that turned out not to hold it."""


class NeedsBytes:
    """Nothing but sending is left."""


class Delivery:
    """One blob at one target."""

    def __init__(
        self,
        blob: Blob,
        repository: Place,
        steps: Iterable[Step],
        *,
        profile: Profile,
        context: Context,
        forget: Forget,
    ) -> None:
        self.blob = blob
        self.repository = repository
        self.context = context
        self.position: Callable[[], int] = lambda: 0
        """Bytes read by the pass that has this delivery's seat."""
        self._steps = deque(steps)
        self._profile = profile
        self._forget = forget
        self._seats: list[Seat] = []
        """One for each attempt; the last may be in use."""

    def settle(self) -> Delivered | NeedsBytes:
        """Walk the steps that are left until one succeeds or only sending is left."""
        while self._steps:
            match self._steps[0]:
                case Ask(candidate):
                    if self._there(candidate):
                        return self._exists(candidate)
                case Mount(candidate, origin) as mount:
                    if self._mounted(mount):
                        return self._mounted_from(candidate, origin.path)
                case Send():
                    break
            self._steps.popleft()
        if not self.seat().rewind():
            self.drop()
        return NeedsBytes()

    def skip(self) -> bool:
        """Give up the question that keeps failing; False when there was none."""
        if self._steps and not isinstance(self._steps[0], Send):
            self._steps.popleft()
            return True
        return False

    def ask(self, candidate: Candidate) -> None:
        """Before anything else, ask for this blob."""
        asked = {step.candidate.digest for step in self._steps if isinstance(step, Ask)}
        if candidate.digest not in asked:
            self._steps.appendleft(Ask(candidate))

    def mount(self, candidate: Candidate, origin: RepositoryName) -> None:
        """Before anything else, mount this blob."""
        self._steps.appendleft(Mount(candidate, origin, ours=False))

    def _there(self, candidate: Candidate) -> bool:
        size = None if self.blob.stored else candidate.size
        try:
            there = self.repository.has_blob(candidate.digest, self.context, size=size)
        except AuthError:
            raise
        except RegistryError as error:
            if error.transient:
                raise
            return False  # only the plain upload's own error counts
        if not there and candidate.remembered:
            self._forget(self.blob.identity, candidate.digest, self.repository.name)
        return there

    def _mounted(self, mount: Mount) -> bool:
        digest, origin = mount.candidate.digest, mount.origin
        # What others have told of a size is asked for: nothing but a HEAD says it.
        told = mount.candidate.learned and not self.blob.stored
        size = mount.candidate.size if told else None
        seat = self._new_seat()
        try:
            answer = self.repository.mount(digest, origin, seat.context, size=size)
            if isinstance(answer, Mounted):
                return True
            seat.session = answer
        finally:
            if seat.session is None:
                seat.close()
        if answer is not None:  # a refusal says nothing of the blob, and opens nothing
            self.drop()  # the last session serves; the one before it is given up
            self._seats.append(seat)
            if mount.ours and self.repository.mounts:  # some never do, whoever holds the blob
                self._forget(self.blob.identity, digest, origin)
        return False

    def _exists(self, candidate: Candidate) -> Delivered:
        sent = self._sent
        self.tell("Pushed" if sent else "Layer already exists")
        return self._done(candidate, "pushed" if sent else "exists")

    def _mounted_from(self, candidate: Candidate, path: str) -> Delivered:
        self.tell(f"Mounted from {path}")
        return self._done(candidate, "mounted", mounted_from=path)

    def _done(
        self, candidate: Candidate, outcome: Outcome, mounted_from: str | None = None
    ) -> Delivered:
        self.drop()
        made = Made(candidate.digest, candidate.size, candidate.compression)
        label = self.blob.label or self._label(candidate)
        return Delivered(
            made,
            outcome,
            label,
            candidate.profile,
            mounted_from,
            self._sent,
            learned=candidate.learned,
        )

    def _label(self, candidate: Candidate) -> str:
        ours = candidate.profile == self._profile.recorded
        return self._profile.name if self._sent and ours else "reused"

    @property
    def _sent(self) -> int:
        return sum(seat.sent for seat in self._seats)

    def seat(self) -> Seat:
        """Where a pass writes the blob's bytes to."""
        if not self._seats or self._seats[-1].closed:
            self._seats.append(self._new_seat())
        return self._seats[-1]

    def _new_seat(self) -> Seat:
        def start(context: Context) -> Session:
            return self.repository.start_upload(context, self.blob.stored, self.blob.size)

        return Seat(self.context, start, self._wrote)

    def _wrote(self) -> None:
        self.tell("Pushing", current=self.position(), total=self.blob.size)

    def finish(self, seat: Seat, sent: blobstream.Blob) -> Delivered:
        """Every block is written: have the registry confirm the digest."""
        self.blob.check(sent.digest, sent.diff_id)
        candidate = self._candidate(sent)
        # Should the answer be lost, the blob may be there: ask before sending again.
        self.ask(candidate)
        seat.commit(sent.digest)
        self.tell("Pushed")
        resumed = seat.session is not None and seat.session.resumed
        return self._done(candidate, "resumed" if resumed else "pushed")

    @property
    def acknowledged(self) -> int:
        """Bytes that the registry is known to hold of an unfinished session."""
        session = self._seats[-1].session if self._seats else None
        return session.acknowledged if session else 0

    def _candidate(self, sent: blobstream.Blob) -> Candidate:
        if self.blob.stored is not None:
            found = own(self.blob)
            return replace(found, learned=found.learned and sent.diff_id is None)
        profile = self._profile
        return Candidate(sent.digest, sent.size, profile.compression, profile.recorded)

    def drop(self) -> None:
        """Give up the session that there is."""
        if self._seats:
            self._seats[-1].close()

    def tell(self, status: str, current: int | None = None, total: int | None = None) -> None:
        """Tell the watchers."""
        if not self.blob.shown:
            return
        event = LayerProgress(
            reference="", id=self.blob.id, status=status, current=current, total=total
        )
        self.context.emit(event)

    def tell_retry(self, seconds: float, reason: str) -> None:
        """Tell the watchers of a wait before the next attempt; of none there is nothing to tell."""
        if not seconds:
            return
        if not self.blob.shown:
            what = self.blob.id
            self.context.emit(Retrying(reference="", what=what, seconds=seconds, reason=reason))
            return
        whole = max(1, round(seconds))
        self.tell(f"Retrying in {whole} second{'' if whole == 1 else 's'} ({reason})")
