"""Upload sessions: the bytes of a blob that have come so far (distribution-spec, "Pushing blobs").

A session is one file, so that it survives a restart. The file's name has a hash of the repository's
name, so that only requests to that repository find it. Bytes are hashed by sha256 as they come.
After a restart, or for a closing digest of another algorithm, the file is hashed.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from towline.server.http import Body
    from towline.server.limits import Limits
    from towline.server.storage import Storage

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Session:
    """One open upload. Only `offset` may be used outside of `taken`."""

    def __init__(self, session: str, path: Path, offset: int) -> None:
        self.id = session
        self.path = path
        self.offset = offset
        """Bytes received and kept."""
        self.closed = False
        """Whether it was committed, cancelled or expired, while another request waited for it."""
        self.touched = time.monotonic()
        self._hash = None if offset else hashlib.sha256()
        self._turn = threading.Lock()
        self._taken: Body | None = None

    @contextmanager
    def taken(self, body: Body) -> Iterator[bool]:
        """Take the right to write `body`; the body that has it is read no further.

        Yields whether there was one: its client cannot know how far it came.
        """
        # The newest request counts: a client that lost its connection comes back before this
        # registry has noticed that.
        before, self._taken = self._taken, body
        if before:
            before.interrupt()
        with self._turn:
            try:
                yield before is not None
            finally:
                self.touched = time.monotonic()
                if self._taken is body:
                    self._taken = None

    def append(self, body: Body) -> None:
        """Append a request's body; bytes that came before a cut are kept.

        Raises Cut or BadRequest from the body, OSError from the disk.
        """
        with self.path.open("rb+", buffering=0) as file:
            file.seek(self.offset)
            while block := memoryview(body.read()):
                while block:  # a disk that is nearly full takes only a part
                    written = file.write(block)
                    if self._hash:
                        self._hash.update(block[:written])
                    self.offset += written
                    self.touched = time.monotonic()
                    block = block[written:]

    def digest(self, algorithm: str) -> Digest:
        """The digest of the bytes received."""
        if self._hash and algorithm == "sha256":
            return Digest(f"sha256:{self._hash.hexdigest()}")
        with self.path.open("rb") as file:
            return Digest(f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}")


class Sessions:
    """All open uploads of one storage."""

    def __init__(self, storage: Storage, limits: Limits) -> None:
        self._folder = storage.uploads
        self._limits = limits
        self._lock = threading.Lock()
        self._open: dict[Path, Session] = {}
        self._count = sum(1 for _ in self._folder.glob("session-*"))
        self.expire()

    def start(self, name: str) -> Session | None:
        """A new session for a repository; None: too many are open."""
        with self._lock:
            if self._count >= self._limits.sessions:
                return None
            self._count += 1
        session = str(uuid.uuid4())
        path = self._path(name, session)
        try:
            path.touch(exist_ok=False)
        except OSError:
            with self._lock:
                self._count -= 1
            raise
        with self._lock:
            return self._open.setdefault(path, Session(session, path, 0))

    def find(self, name: str, session: str) -> Session | None:
        """An open session of a repository; None: there is none."""
        if not _ID.fullmatch(session):  # it becomes part of a path
            return None
        path = self._path(name, session)
        with self._lock:
            found = self._open.get(path)
            if found is None and path.exists():
                found = self._open[path] = Session(session, path, path.stat().st_size)
            return found

    def close(self, session: Session) -> None:
        """Remove a session and its bytes. Inside its `taken`."""
        with self._lock:
            if session.closed:
                return
            session.closed = True
            self._open.pop(session.path, None)
            self._count -= 1
        session.path.unlink(missing_ok=True)

    def expire(self) -> None:
        """Remove sessions that were not used for `session_seconds`, and unfinished files as old."""
        oldest, now = time.time() - self._limits.session_seconds, time.monotonic()
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime >= oldest:
                    continue
                with self._lock:
                    session = self._open.get(path)
                    if session and session.touched > now - self._limits.session_seconds:
                        continue
                    path.unlink()
                    self._count -= path.name.startswith("session-")
                    if session := self._open.pop(path, None):
                        session.closed = True

    def _path(self, name: str, session: str) -> Path:
        mark = hashlib.sha256(name.encode()).hexdigest()[:16]
        return self._folder / f"session-{mark}-{session}"
