"""Repositories in memory that stall, fail, cut and lie at random: for tests of what sends to them.

They have the shape of `registry.repository.Repository`, so that a push's own machinery runs
unchanged. Everything random comes from one seed.
"""

from __future__ import annotations

import hashlib
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from towline.errors import NetworkError, RegistryError, TowlineError
from towline.registry.repository import Mounted

if TYPE_CHECKING:
    from towline.context import Context
    from towline.reference import RepositoryName
    from towline.spec.descriptor import Descriptor


def seeded(seed: object) -> Random:
    return Random(str(seed))  # noqa: S311 - to be repeated, not secret


@dataclass(frozen=True)
class Habits:
    """How a place behaves; chances from 0 to 1 for each call."""

    fails: float = 0.0
    stalls: float = 0.0
    stall: float = 0.05
    """Seconds that a stalled call waits before it fails, as a time-out does."""
    slow: float = 0.0
    """Seconds that each block takes."""
    loses_answers: float = 0.0
    """Commits that succeed and say otherwise."""
    dead: bool = False
    """Every call stalls."""
    mounts: float = 1.0
    holds: float = 0.5
    """Sessions that can be gone on with after a failure."""

    @property
    def troubled(self) -> bool:
        """Whether anything can go wrong there."""
        return self.dead or max(self.fails, self.stalls, self.loses_answers) > 0


def habits(random: Random) -> Habits:
    kind = random.choice(("good", "good", "good", "flaky", "flaky", "stalling", "slow", "dead"))
    mounts = random.random()
    match kind:
        case "flaky":
            return Habits(random.random() / 5, loses_answers=random.random() / 3, mounts=mounts)
        case "stalling":
            return Habits(stalls=random.random() / 5, stall=random.random() / 8, mounts=mounts)
        case "slow":
            return Habits(slow=random.random() / 200, mounts=mounts)
        case "dead":
            return Habits(dead=True, stall=random.random() / 50)
    return Habits(mounts=mounts)


@dataclass
class Host:
    """What the repositories of one registry share."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    open: int = 0
    """Sessions with a write or a commit in them right now."""
    most: int = 0


class Place:
    """One repository."""

    mounts = True

    def __init__(self, name: RepositoryName, how: Habits, seed: object, host: Host) -> None:
        self.name = name
        self.habits = how
        self.host = host
        self.blobs: dict[str, bytes] = {}
        """Contents, by digest."""
        self.others: dict[str, Place] = {}
        """By path, those of the same host."""
        self.sessions = 0
        """Opened and neither committed nor given back."""
        self._random = seeded(f"{seed} {name}")
        self._lock = threading.Lock()

    def chance(self, probability: float) -> bool:
        with self._lock:
            return self._random.random() < probability

    def trouble(self, context: Context) -> None:
        """Fail, if it is to be."""
        how = self.habits
        context.cancel.check()
        if how.dead or self.chance(how.stalls):
            context.cancel.wait(how.stall)
            raise NetworkError(f"{self.name} sent no byte", transient=True, side="destination")
        if self.chance(how.fails):
            raise RegistryError(
                f"{self.name} failed", status=500, transient=True, side="destination"
            )

    # The shape of a repository.

    def has_blob(self, digest: str, context: Context, *, size: int | None = None) -> bool:
        self.trouble(context)
        return digest in self.blobs

    def mount(
        self, digest: str, origin: RepositoryName, context: Context, *, size: int | None = None
    ) -> Mounted | Taken | None:
        with suppress(TowlineError):
            self.trouble(context)
            found = self.others[origin.path].blobs.get(digest)
            if self.chance(self.habits.mounts) and found is not None:
                self.blobs[digest] = found
                return Mounted()
            return Taken(self, context)
        return None

    def start_upload(
        self, context: Context, known: Descriptor | None = None, about: int = 0
    ) -> Taken:
        self.trouble(context)
        return Taken(self, context)


class Taken:
    """An upload session."""

    def __init__(self, place: Place, context: Context) -> None:
        self.sent = 0
        self.resumed = False
        self._place = place
        self._context = context
        self._content = bytearray()
        self._skip = 0
        self._at = 0
        self._over = False
        self._inside = threading.Lock()
        place.sessions += 1

    @property
    def acknowledged(self) -> int:
        return self._skip

    def write(self, block: bytes | memoryview) -> None:
        assert not self._over, "written to after its end"
        with self._busy():
            self._context.cancel.wait(self._place.habits.slow)
            fresh = bytes(block)[max(0, self._skip - self._at) :]
            self._at += len(block)
            self._place.trouble(self._context)
            self._content += fresh
            self.sent += len(fresh)

    def commit(self, digest: str) -> None:
        assert not self._over, "committed after its end"
        with self._busy():
            self._place.trouble(self._context)
            content = bytes(self._content)
            assert "sha256:" + hashlib.sha256(content).hexdigest() == digest
            self._place.blobs[digest] = content
            self._end()
            if self._place.chance(self._place.habits.loses_answers):
                raise NetworkError("the answer was lost", transient=True, side="destination")

    def rewind(self) -> bool:
        self._place.trouble(self._context)
        if self._over or not self._content or not self._place.chance(self._place.habits.holds):
            self._end()
            return False
        self._skip, self._at, self.resumed = len(self._content), 0, True
        return True

    def cancel(self) -> None:
        assert not self._inside.locked(), "given back while somebody writes to it"
        self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._place.sessions -= 1

    def _busy(self) -> _Busy:
        assert self._inside.acquire(blocking=False), "two write to one session"
        return _Busy(self._inside, self._place.host)


class _Busy:
    def __init__(self, inside: threading.Lock, host: Host) -> None:
        self._inside = inside
        self._host = host

    def __enter__(self) -> None:
        with self._host.lock:
            self._host.open += 1
            self._host.most = max(self._host.most, self._host.open)

    def __exit__(self, *_: object) -> None:
        with self._host.lock:
            self._host.open -= 1
        self._inside.release()
