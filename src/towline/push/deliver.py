"""One blob on its way to one target: ask, mount, or receive the bytes of a pass.

Reads like the protocol. What has been learned stays for the next attempt: a retry goes on at the
step that failed. When to try again is `passes`' to say, and how often `transfers.retry`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from towline.errors import AuthError, RegistryError
from towline.events import LayerProgress
from towline.push.build import Made
from towline.push.plan import Ask, Candidate, Mount, Send, own
from towline.reference import RepositoryName
from towline.registry.repository import Mounted
from towline.registry.upload import Upload
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from towline.context import Context
    from towline.events import Outcome
    from towline.layers import blobstream
    from towline.layers.profile import Profile
    from towline.push.plan import Step
    from towline.push.wanted import Blob
    from towline.registry.repository import Repository


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


Forget = Callable[[Digest, Digest, RepositoryName], None]
"""DiffID, digest and the repository that turned out not to hold it."""


class NeedsBytes:
    """Nothing but sending is left."""


class Delivery:
    """One blob at one target; also a seat of the pass that sends it."""

    def __init__(
        self,
        blob: Blob,
        repository: Repository,
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
        """Bytes read by the pass that this seat belongs to."""
        self._steps = deque(steps)
        self._profile = profile
        self._forget = forget
        self._upload: Upload | None = None
        self._sent = 0

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
        return NeedsBytes()

    def skip(self) -> bool:
        """Give up the step that keeps failing; False when that is the sending itself."""
        if self._steps and not isinstance(self._steps[0], Send):
            self._steps.popleft()
            return True
        return False

    def _there(self, candidate: Candidate) -> bool:
        try:
            there = self.repository.has_blob(candidate.digest, self.context)
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
        answer = self.repository.mount(digest, origin, self.context)
        if isinstance(answer, Mounted):
            return True
        if isinstance(answer, Upload):  # a refusal says nothing of the blob, and opens nothing
            self._replace(answer)
            if mount.ours:
                self._forget(self.blob.identity, digest, origin)
        return False

    def _replace(self, upload: Upload | None) -> None:
        """The last session serves; the one before it is given up."""
        if self._upload is not None:
            self._upload.cancel()
        self._upload = upload

    def _exists(self, candidate: Candidate) -> Delivered:
        self._replace(None)
        self.tell("Layer already exists")
        return self._done(candidate, "pushed" if self._sent else "exists")

    def _mounted_from(self, candidate: Candidate, path: str) -> Delivered:
        self._replace(None)
        self.tell(f"Mounted from {path}")
        return self._done(candidate, "mounted", mounted_from=path)

    def _done(
        self, candidate: Candidate, outcome: Outcome, mounted_from: str | None = None
    ) -> Delivered:
        made = Made(candidate.digest, candidate.size, candidate.compression)
        label = "source" if self.blob.stored else self._label(candidate)
        return Delivered(made, outcome, label, candidate.profile, mounted_from, self._sent)

    def _label(self, candidate: Candidate) -> str:
        ours = candidate.profile == self._profile.recorded
        return self._profile.name if self._sent and ours else "reused"

    # The seat: called by a pass, one thread at a time.

    def write(self, block: bytes | memoryview) -> None:
        """Send one block of the blob; the first one opens the session."""
        if self._upload is None:
            self._upload = self.repository.start_upload(self.context, self.blob.stored)
        self._upload.write(block)
        self.tell("Pushing", current=self.position(), total=self.blob.size)

    def finish(self, sent: blobstream.Blob) -> Delivered:
        """Every block is written: have the registry confirm the digest."""
        self.blob.check(sent.digest, sent.diff_id)
        if self._upload is None:  # an empty blob has no blocks
            self._upload = self.repository.start_upload(self.context, self.blob.stored)
        candidate = self._candidate(sent)
        # Should the answer be lost, the blob may be there: ask before sending again.
        self._steps.appendleft(Ask(candidate))
        self._upload.commit(sent.digest)
        self._sent += self._upload.sent
        self._upload = None
        self.tell("Pushed")
        return self._done(candidate, "pushed")

    @property
    def acknowledged(self) -> int:
        """Bytes that the registry is known to hold of an unfinished session."""
        return 0

    def _candidate(self, sent: blobstream.Blob) -> Candidate:
        if self.blob.stored is not None:
            return own(self.blob)
        profile = self._profile
        return Candidate(sent.digest, sent.size, profile.compression, profile.recorded)

    def drop(self) -> None:
        """Give up the session of a failed attempt."""
        upload, self._upload = self._upload, None
        if upload is not None:
            self._sent += upload.sent
            upload.cancel()

    def tell(self, status: str, current: int | None = None, total: int | None = None) -> None:
        """Tell the watchers."""
        if not self.blob.shown:
            return
        event = LayerProgress(
            reference="", id=self.blob.id, status=status, current=current, total=total
        )
        self.context.emit(event)
