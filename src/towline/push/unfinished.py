"""Uploads that were left unfinished, and who may go on with them.

While a blob is sent, the cache has its session: where it goes on, what makes its bytes, what was
acknowledged. A later process that is to bring the same blob to the same place takes it over, unless
its owner still runs: no two ever write one session. On one machine that is seen at once; an owner
elsewhere says every few seconds that it is alive.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import RegistryError
from towline.knowledge.base import SavedSession
from towline.knowledge.sessions import LEASE
from towline.layers.profile import AUTO, of_record
from towline.registry.repository import Repository
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.context import Context
    from towline.knowledge.base import Knowledge
    from towline.layers.profile import Profile
    from towline.push.image import Blob
    from towline.registry.upload.upload import Upload
    from towline.targets.layout import Layout

LEAST = 1 << 20
"""Bytes from which a blob is worth it: a smaller one is sent about as soon as it is asked for."""
TELLING = 8 << 20
"""Bytes of which some should have arrived, whatever the systems between had on their way."""


class Unfinished:
    """Those of one `Pusher`. Safe from any thread."""

    def __init__(self, knowledge: Knowledge, record_hosts: Callable[[], None]) -> None:
        """`record_hosts` has the cache remember what hosts have turned out to do."""
        self.knowledge = knowledge
        self.record_hosts = record_hosts
        self.owner = f"{_this_process()} {os.urandom(8).hex()}"
        self._left: dict[str, set[str]] = {}
        """Of each repository, the blobs whose sessions are left to a later process."""
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._beating: threading.Thread | None = None

    def of(
        self, blob: Blob, repository: Repository | Layout, profile: Profile, *, learn: bool
    ) -> KeptSession | None:
        """The session of a blob at a target; None where it would not be worth it.

        `learn`: whether to believe what others wrote.
        """
        if blob.size < LEAST or not isinstance(repository, Repository):
            return None
        return KeptSession(self, blob, repository, profile, learn=learn)

    def is_running(self, owner: str) -> bool:
        """Whether a process is at work on its sessions."""
        machine, _, process = owner.rpartition(" ")[0].partition(" ")
        if machine and machine == _machine():
            return process == _process(process.partition(" ")[0])
        return bool(owner) and self.knowledge.is_alive(owner)

    def begin(self) -> None:
        """From here on say that we are alive."""
        with self._lock:
            if self._beating is None:
                self.knowledge.beat(self.owner)
                self._beating = threading.Thread(target=self._beat, name="sessions", daemon=True)
                with suppress(RuntimeError):  # no thread is to be had
                    self._beating.start()

    def _beat(self) -> None:
        while not self._closed.wait(LEASE / 3):
            self.knowledge.beat(self.owner)

    def leave(self, session: SavedSession) -> None:
        """A session is whose that comes."""
        with self._lock:
            self._left.setdefault(session.repository, set()).add(session.blob)

    def told(self) -> list[str]:
        """What has been left, a sentence for each repository."""
        return [
            f"{len(blobs)} upload{'s' * (len(blobs) > 1)} to {name} can be resumed: push again, "
            "and what the registry holds of them is not sent again"
            for name, blobs in self._left.items()
        ]

    def close(self) -> None:
        """Say no more that we are alive."""
        self._closed.set()
        if self._beating is not None and self._beating.ident:  # else it could not be started
            self._beating.join()


class Taken(NamedTuple):
    """What an earlier process has left, and is ours now."""

    upload: Upload
    """To be gone on with: `rewind` it first."""
    profile: Profile
    """By which the bytes that it holds are made, where they do not go as they are."""
    made: tuple[Digest, int] | None
    """Digest and size of the blob, if it came that far: then the blob may be there."""


class KeptSession:
    """The session of one blob at one target. Used by one thread at a time."""

    def __init__(
        self,
        unfinished: Unfinished,
        blob: Blob,
        repository: Repository,
        profile: Profile,
        *,
        learn: bool,
    ) -> None:
        import hmac

        self._unfinished = unfinished
        self._knowledge = unfinished.knowledge
        self._repository = repository
        self._blob = blob
        self._learn = learn
        self._profile = profile
        made_by = "" if blob.stored else profile.recorded
        self._session = SavedSession(
            unfinished.owner, str(repository.name), blob.key, made_by, blob.size, ""
        )
        # What makes two transfers the same one (`key.transfer_key`), told to nobody.
        same = "\n".join((*self._session[1:4], repository.account))
        key = self._knowledge.account_key()
        self._key = hmac.digest(key, same.encode("utf-8", "surrogateescape"), "sha256").hex()
        self._is_ours = False

    def held(self, context: Context) -> int:
        """Bytes that the registry holds of what an earlier process has left; asks it."""
        left = self._left()
        upload = self._resumed(left, context) if left else None
        return upload.acknowledged if upload and upload.rewind() else 0

    def take(self, context: Context) -> Taken | None:
        """Take over what an earlier process has left: from here on it is nobody else's."""
        left = self._left()
        if left is None:
            return None
        self._unfinished.begin()
        self._session = left._replace(owner=self._unfinished.owner)
        swapped = self._knowledge.swap_session(self._key, left.owner, self._session)
        self._is_ours = swapped is True
        upload = self._resumed(left, context) if self._is_ours else None
        profile = of_record(left.profile) if self._profile is AUTO else self._profile
        if upload is None or (profile is None and not self._blob.stored):
            return None
        digest, size = left.made
        # Which blob a layer is is nobody else's to say.
        made = None if left.learned or not digest else (Digest(digest), size)
        return Taken(upload, profile or self._profile, made)

    def _left(self) -> SavedSession | None:
        """What an earlier process has left, and nobody is at work on."""
        left = self._knowledge.session(self._key)
        return None if left is None or self._unfinished.is_running(left.owner) else left

    def _resumed(self, left: SavedSession, context: Context) -> Upload | None:
        """The upload that was left, where it is of use."""
        lost = not self._repository.may_go_on(in_chunks=left.acknowledged > 0)
        if lost or (left.learned and not self._learn):
            return None
        known, size = self._blob.stored, self._blob.size
        return self._repository.resume_upload(
            context, left.url, left.acknowledged, known, size, telling=left.sent >= TELLING
        )

    def note(self, upload: Upload, profile: Profile, made: tuple[str, int]) -> None:
        """Keep where the session stands, if that is worth it.

        `profile` makes the bytes that do not go as they are; `made`: all of it was sent.
        Raises RegistryError, transient, where another process has taken it over: it took ours for
        dead.
        """
        before, url = self._session, str(upload.url)
        sent = TELLING if upload.sent >= TELLING else 0
        known = (before.url, before.acknowledged, before.sent, before.made)
        if (url, upload.acknowledged, sent, made) == known:
            return
        self._session = before._replace(
            owner=self._unfinished.owner,
            profile="" if self._blob.stored else profile.recorded,
            url=url,
            acknowledged=upload.acknowledged,
            sent=sent,
            made=made,
            saved=time.time(),
        )
        in_chunks = upload.acknowledged > 0
        if not (upload.is_at_home and self._repository.may_go_on(in_chunks=in_chunks)):
            return
        self._unfinished.begin()
        owner = self._unfinished.owner if self._is_ours else None
        swapped = self._knowledge.swap_session(self._key, owner, self._session)
        if self._is_ours and swapped is False:
            self._is_ours = False
            raise RegistryError(
                f"another process goes on with an upload to {self._repository.name}",
                transient=True,
            )
        self._is_ours = swapped is True
        self._unfinished.record_hosts()

    def forget(self) -> None:
        """The session is over."""
        if self._is_ours:
            self._knowledge.swap_session(self._key, self._unfinished.owner, None)
            self._is_ours = False

    def leave(self) -> bool:
        """Let a later process go on with it; whether one may, as far as is known."""
        session = self._session._replace(owner="")
        owner, in_chunks = self._unfinished.owner, session.acknowledged > 0
        if not (self._is_ours and self._repository.may_go_on(in_chunks=in_chunks)):
            self.forget()
            return False
        self._is_ours = False
        left = self._knowledge.swap_session(self._key, owner, session) is True
        if left:
            self._unfinished.leave(session)
        return left


# Linux tells all that is needed; elsewhere every owner is as good as on another machine.


def _this_process() -> str:
    """Names this process so that others on the machine see whether it still runs."""
    return f"{_machine()} {_process(str(os.getpid()))}"


def _machine() -> str:
    """Where process numbers mean the same: since its start, in this container."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    except OSError:
        return ""


def _process(number: str) -> str:
    """Number and start of a process that runs; without a start if it does not.

    One that has ended and was not waited for (Z) does not run.
    """
    with suppress(OSError, LookupError), open(f"/proc/{number}/stat", encoding="latin-1") as file:  # noqa: PTH123
        state, *_, start = file.read().rpartition(")")[2].split()[:20]
        return number if state in {"Z", "X"} else f"{number} {start}"
    return number
