"""The root of a registry: one copy of every blob, and the locks for changes and collections.

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

import fcntl
import os
import shutil
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from towline.errors import TowlineError
from towline.server.files import Files, touched
from towline.spec import distribution
from towline.spec.digest import HEX_LENGTHS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.spec.digest import Digest

_STRIPES = 64
"""Locks that all repositories share, so that their number costs no memory."""
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_EMPTY_INDEX = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}'
)


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
        self.files = Files(self.uploads, durable=not self._temporary)
        self._changing = [threading.Lock() for _ in range(_STRIPES)]
        self._held: int | None = None
        try:
            for folder in (self.repositories, self.uploads, *map(self.blobs.joinpath, HEX_LENGTHS)):
                folder.mkdir(parents=True, exist_ok=True)
            for path, content in (
                (self.root / "oci-layout", _LAYOUT),
                (self.index, _EMPTY_INDEX),
                (self._lock, b""),
                (self._sweep_lock, b""),
                (self._sweep_turn, b""),
            ):
                if not path.exists():
                    self.files.write(path, content)
        except OSError as error:
            message = f"cannot keep a registry in {self.root}: {error.strerror or error}"
            raise TowlineError(message, hint="choose another folder with `--root`") from error

    def hold(self) -> bool:
        """Lock the root for this server. False: another one has it."""
        try:
            self._held = _lock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Release the root; a temporary one is removed."""
        if self._held is not None:
            os.close(self._held)
            self._held = None
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
        self.files.move(source, self.path(digest))

    def names(self) -> Iterator[str]:
        """The names of all repositories, in no order."""
        for folder, below, _ in os.walk(self.repositories):
            if "_blobs" in below or "_manifests" in below:
                yield os.path.relpath(folder, self.repositories)
            below[:] = [name for name in below if distribution.NAME.fullmatch(name)]


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[None]:
    descriptor = _lock(path, kind)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path, kind: int) -> int:
    # Each lock has a descriptor of its own: a `flock` belongs to the open file, not to a thread.
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, kind)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
