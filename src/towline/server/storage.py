"""The root of a registry: one copy of every blob, and the locks for changes and collections.

Files are whole, or not there, whenever the process is killed: everything is written beside its
place, synced, and renamed into it.

`repository` stands on this, and knows a repository's blobs, manifests and tags; `sessions` has the
open uploads, and `gc` removes blobs. The root has the following (`docs/` describes it for people):

    oci-layout  index.json  blobs/ALG/HEX      an OCI image layout (image-spec, "Image Layout")
    repositories/NAME/       see `repository`
    uploads/                 open sessions, and files that are being written
    lock                     held by the one server of this root
    sweep.lock               held by changes and by collections
    sweep.turn               held while waiting for `sweep.lock`
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from towline.errors import TowlineError
from towline.spec import distribution
from towline.spec.digest import HEX_LENGTHS, Digest
from towline.spec.manifest import build_index

if TYPE_CHECKING:
    from collections.abc import Iterator


_STRIPES = 64
"""Locks that all repositories share, so that their number costs no memory."""
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
TOUCH_AFTER = 60.0
"""Seconds: a file that was asked for more recently is not marked again, which would cost a write
for each question."""
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def is_no_room(error: OSError) -> bool:
    """Whether the error is of a full disk, a full quota, or a limit of the file size."""
    return error.errno in _NO_ROOM


def touched(path: Path) -> os.stat_result | None:
    """A file's status; None: there is no file. Sets its time to note that it was asked for."""
    try:
        status = path.stat()
        if time.time() - status.st_mtime > TOUCH_AFTER:
            with suppress(PermissionError):
                os.utime(path)
    except FileNotFoundError:
        return None
    return status


def last_asked(path: Path) -> float:
    """The time at which a file was last asked for, as `touched` notes it; 0: there is none."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def at(folder: Path, digest: Digest) -> Path:
    """The path of a digest in a folder of digests."""
    algorithm, _, encoded = digest.partition(":")
    return folder / algorithm / encoded


class Storage:
    """One root. Safe from any thread, and beside collections in other processes.

    Without a root it is a temporary folder, removed at the end. Raises TowlineError when the root
    cannot be used.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._temporary = root is None
        self.root = root or Path(tempfile.mkdtemp(prefix="towline-registry-"))
        self.blobs = self.root / "blobs"
        self.repositories = self.root / "repositories"
        self.uploads = self.root / "uploads"
        self.index = self.root / "index.json"
        self._lock = self.root / "lock"
        self._sweep_lock = self.root / "sweep.lock"
        self._sweep_turn = self.root / "sweep.turn"
        self._changing = [threading.Lock() for _ in range(_STRIPES)]
        self._held = ExitStack()
        if self.blobs.exists() and not self.repositories.exists():
            # Somebody's layout: no repository holds its blobs, so a collection would remove them.
            raise TowlineError(
                f"{self.root} holds blobs, and is no registry of towline's",
                hint="choose another folder with `--root`, and push what is in this one",
            )
        try:
            for folder in (self.repositories, self.uploads, *map(self.blobs.joinpath, HEX_LENGTHS)):
                folder.mkdir(parents=True, exist_ok=True)
            for path, content in (
                (self.root / "oci-layout", _LAYOUT),
                (self.index, build_index("oci", ()).content),
                (self._lock, b""),
                (self._sweep_lock, b""),
                (self._sweep_turn, b""),
            ):
                if not path.exists():
                    self.write(path, content)
        except OSError as error:
            message = f"cannot keep a registry in {self.root}: {error.strerror or error}"
            raise TowlineError(message, hint="choose another folder with `--root`") from error

    def hold(self) -> bool:
        """Lock the root for this server. False: another one has it."""
        try:
            self._held.enter_context(_locked(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Release the root; a temporary one is removed."""
        self._held.close()
        if self._temporary:
            shutil.rmtree(self.root, ignore_errors=True)

    @contextmanager
    def unswept(self) -> Iterator[None]:
        """While the block runs, no collection in any process removes anything. Never nested."""
        # Changes share `sweep.lock`. Without the queue at `sweep.turn` a collection might wait for
        # ever, as there may always be a change that shares the lock.
        with ExitStack() as held:
            with _locked(self._sweep_turn, fcntl.LOCK_EX):
                held.enter_context(_locked(self._sweep_lock, fcntl.LOCK_SH))
            yield

    @contextmanager
    def sweeping(self) -> Iterator[None]:
        """While the block runs, no blob is linked or committed in any process."""
        with (
            _locked(self._sweep_turn, fcntl.LOCK_EX),
            _locked(self._sweep_lock, fcntl.LOCK_EX),
        ):
            yield

    def changing(self, name: str) -> threading.Lock:
        """The lock for changes of a repository's manifests and tags."""
        return self._changing[hash(name) % _STRIPES]

    # Blobs.

    def path(self, digest: Digest) -> Path:
        """The path of the one copy of a blob or manifest."""
        return at(self.blobs, digest)

    def size(self, digest: Digest) -> int | None:
        """Bytes of a blob of any repository; None: there is none."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def keep(self, digest: Digest) -> int | None:
        """Bytes of a blob, which no collection removes for a while; None: there is none.

        Within `unswept`.
        """
        status = touched(self.path(digest))
        return status.st_size if status else None

    def adopt(self, source: Path, digest: Digest) -> None:
        """Make a synced file of that digest the one copy of a blob. Within `unswept`."""
        if self.keep(digest) is not None:
            source.unlink()
            return
        os.utime(source)  # its last byte may have come long ago, and a collection looks at the time
        self.move(source, self.path(digest))

    def names(self) -> Iterator[str]:
        """The names of all repositories, in no order."""
        for folder, below, _ in os.walk(self.repositories):
            if "_blobs" in below or "_manifests" in below:
                yield os.path.relpath(folder, self.repositories)
            below[:] = [name for name in below if distribution.NAME.fullmatch(name)]

    # Files. They survive a power cut: each change is synced before an answer tells of it. A root
    # that is removed at the end does without.

    def write(self, path: Path, content: bytes) -> None:
        """Replace a file's content. A reader sees all of the old or all of the new."""
        beside = self.uploads / f"new-{secrets.token_hex(8)}"
        try:
            beside.write_bytes(content)
            self.sync(beside)
            self.move(beside, path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise

    def mark(self, path: Path) -> None:
        """Make an empty file, or set the time of the one that is there to now."""
        try:
            path.touch()
        except FileNotFoundError:
            self.make_directory(path.parent)
            path.touch()
        self.sync(path.parent)

    def move(self, source: Path, target: Path) -> None:
        """Put a synced file into its place."""
        try:
            source.replace(target)
        except FileNotFoundError:  # its folder may be missing: that is not asked for each time
            self.make_directory(target.parent)
            source.replace(target)
        self.sync(target.parent)

    def remove(self, path: Path) -> bool:
        """Remove a file. Returns whether it was there."""
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        self.sync(path.parent)
        return True

    def make_directory(self, path: Path) -> None:
        """Make a folder and those above it, each synced into the one above."""
        missing = [path]
        while not missing[-1].parent.is_dir():
            missing.append(missing[-1].parent)
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self.sync(folder.parent)

    def sync(self, path: Path) -> None:
        """Sync a file's content or a folder's entries, in which a rename is."""
        if self._temporary:
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    # Each lock has a file of its own: a `flock` belongs to the open file, not to a thread.
    with path.open("rb+", buffering=0) as file:
        fcntl.flock(file, kind)
        yield
