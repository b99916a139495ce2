"""Uploads that were left unfinished, and the process that may resume each.

While a blob is sent, its session is in the cache: its address, the profile that makes its bytes,
and how many bytes were acknowledged. A later process with the same blob for the same repository
takes the session over, unless its owner still runs: two processes never write one session. On the
same machine that is looked up; an owner elsewhere says every few seconds that it lives.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from towline.errors import RegistryError
from towline.knowledge.base import SavedSession
from towline.knowledge.store import LEASE, Knowledge
from towline.layers.profile import AUTO, Profile, of_record
from towline.registry.repository import Repository
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.context import Context
    from towline.push.image import Blob
    from towline.registry.upload.upload import Upload
    from towline.targets.layout import Layout

LEAST = 1 << 20
"""Bytes of the smallest blob whose session is kept: a smaller one is sent again as fast as its
session is asked."""
TELLING = 8 << 20
"""Bytes sent of which a registry must hold some, however many were in buffers on the way. If it
holds none, it keeps nothing of a cut body."""


class Unfinished:
    """The unfinished uploads of one `Pusher`. Safe from any thread."""

    def __init__(self, knowledge: Knowledge, record_hosts: Callable[[], None]) -> None:
        """`record_hosts` writes the facts of hosts into the cache."""
        self.knowledge = knowledge
        self.record_hosts = record_hosts
        # Others on the machine can see by it whether this process still runs.
        self.owner = f"{_machine()} {_process(str(os.getpid()))} {os.urandom(8).hex()}"
        self._left: dict[tuple[str, bool], set[str]] = {}
        """The blobs whose sessions are left to a later process; by repository, and by whether its
        host is known to keep what it has of them."""
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._beating: threading.Thread | None = None

    def of(
        self, blob: Blob, repository: Repository | Layout, profile: Profile, *, learn: bool
    ) -> KeptSession | None:
        """The session of a blob at a target; None: no session is kept of it.

        `learn`: whether to take over sessions that other machines wrote without a shared key.
        """
        if blob.size < LEAST or not isinstance(repository, Repository):
            return None
        return KeptSession(self, blob, repository, profile, learn=learn)

    def is_running(self, owner: str) -> bool:
        """Whether the owner, a process, still runs, as far as that can be known."""
        machine, _, process = owner.rpartition(" ")[0].partition(" ")
        if machine and machine == _machine():
            return process == _process(process.partition(" ")[0])
        return bool(owner) and self.knowledge.is_alive(owner)

    def begin(self) -> None:
        """Say from here on, every few seconds, that this process lives."""
        with self._lock:
            if self._beating is None:
                # At once, and not only by the thread: the session is about to be written.
                self.knowledge.beat(self.owner)
                self._beating = threading.Thread(target=self._beat, name="sessions", daemon=True)
                with suppress(RuntimeError):  # the system gives no thread
                    self._beating.start()

    def _beat(self) -> None:
        while not self._closed.wait(LEASE / 3):
            self.knowledge.beat(self.owner)

    def leave(self, session: SavedSession, *, goes_on: bool) -> None:
        """Note that a session is left to whatever process comes first; `goes_on`: surely of use."""
        with self._lock:
            self._left.setdefault((session.repository, goes_on), set()).add(session.blob)

    def told(self) -> list[str]:
        """What was left to later processes, a sentence for each repository."""
        return [
            f"{len(blobs)} upload{'s' * (len(blobs) > 1)} to {name} {'can' if goes_on else 'may'} "
            f"be resumed: push again, and what the registry {'holds' if goes_on else 'has kept'} "
            "is not sent again"
            for (name, goes_on), blobs in self._left.items()
        ]

    def close(self) -> None:
        """Say no longer that this process lives."""
        self._closed.set()
        if self._beating is not None and self._beating.ident:  # without one it never started
            self._beating.join()


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
        # The parts of a transfer's key (`transfer_key`) under an HMAC: who reads the cache
        # learns no account from it.
        same = "\n".join((*self._session[1:4], repository.account))
        key = self._knowledge.account_key()
        self._key = hmac.digest(key, same.encode("utf-8", "surrogateescape"), "sha256").hex()
        self._is_ours = False

    def held(self, context: Context) -> int:
        """Bytes that the registry holds of the session of an earlier process. Asks it."""
        left = self._left()
        upload = self._resumed(left, context) if left else None
        if left is None or upload is None:
            return 0
        if upload.rewind():
            return upload.acknowledged
        self._knowledge.swap_session(self._key, left.owner, None)  # nobody can resume it
        return 0

    def take(self, context: Context) -> tuple[Upload, Profile, tuple[Digest, int] | None] | None:
        """Take the session of an earlier process over; None: there is none that is of use.

        Returns its upload, to be used after `rewind`; the profile that made the bytes which it
        holds, unless they go as they are; and digest and size of the blob, if all of it was sent:
        then the blob may be there.
        """
        if (left := self._left()) is None:
            return None
        self._unfinished.begin()
        self._session = left._replace(owner=self._unfinished.owner)
        # Of several processes that find the same session, one gets it here.
        swapped = self._knowledge.swap_session(self._key, left.owner, self._session)
        self._is_ours = swapped is True
        upload = self._resumed(left, context) if self._is_ours else None
        profile = of_record(left.profile) if self._profile is AUTO else self._profile
        if upload is None or (profile is None and not self._blob.stored):
            return None
        digest, size = left.made
        # Another machine's word on which blob a layer is would end up in our manifest.
        made = None if left.learned or not digest else (Digest(digest), size)
        return upload, profile or self._profile, made

    def _left(self) -> SavedSession | None:
        """The session of an earlier process that does not run any more; None: there is none."""
        left = self._knowledge.session(self._key)
        return None if left is None or self._unfinished.is_running(left.owner) else left

    def _resumed(self, left: SavedSession, context: Context) -> Upload | None:
        """The upload of that session; None where it is of no use."""
        goes_on = self._repository.facts.goes_on(in_chunks=left.acknowledged > 0)
        if goes_on is False or (left.learned and not self._learn):
            return None
        known, size = self._blob.stored, self._blob.size
        return self._repository.resume_upload(
            context, left.url, left.acknowledged, known, size, telling=left.sent >= TELLING
        )

    def note(self, upload: Upload, profile: Profile, made: tuple[str, int]) -> None:
        """Write to the cache how far the session is, if that is worth it.

        `profile` makes the bytes, unless they go as they are. `made`: digest and size, once all of
        the blob was sent. Raises RegistryError, transient, where another process has taken the
        session over because it took this one for dead.
        """
        before, url = self._session, str(upload.session.url)
        # Written only when something changes that counts: bytes sent are not told one by one.
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
        goes_on = self._repository.facts.goes_on(in_chunks=upload.acknowledged > 0)
        if goes_on is False or not upload.session.is_at_home:
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
        # A process that is killed tells nothing at its end: what hosts lose is written down now.
        self._unfinished.record_hosts()

    def forget(self) -> None:
        """Drop the session from the cache: it is over."""
        if self._is_ours:
            self._knowledge.swap_session(self._key, self._unfinished.owner, None)
            self._is_ours = False

    def leave(self) -> bool:
        """Leave the session to a later process. Returns whether one may resume it."""
        session = self._session._replace(owner="")
        owner = self._unfinished.owner
        goes_on = self._repository.facts.goes_on(in_chunks=session.acknowledged > 0)
        if goes_on is False or not self._is_ours:
            self.forget()
            return False
        self._is_ours = False
        left = self._knowledge.swap_session(self._key, owner, session) is True
        if left:
            self._unfinished.leave(session, goes_on=goes_on is True)
        return left


# Only Linux tells this much of processes. Elsewhere every owner counts as on another machine.


def _machine() -> str:
    """Names the boot and the PID namespace, within which a process number means one process."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    except OSError:
        return ""


def _process(number: str) -> str:
    """The number and start time of a process that runs; the number alone if it does not."""
    # The start time tells it from a later process with the same number. A process that has ended
    # and was not waited for (state Z) does not run.
    with suppress(OSError, LookupError), open(f"/proc/{number}/stat", encoding="latin-1") as file:  # noqa: PTH123
        state, *_, start = file.read().rpartition(")")[2].split()[:20]
        return number if state in {"Z", "X"} else f"{number} {start}"
    return number
