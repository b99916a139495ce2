"""What the registry holds: one copy of every blob, and the repositories that share them.

Opens a root, adopts uploaded files as blobs and answers for their age. What a repository knows of
its blobs, manifests and tags is `repository`'s; open uploads are `sessions`'; throwing away is
`gc`'s.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from towline.errors import TowlineError
from towline.server.files import Files
from towline.server.layout import EMPTY_INDEX, LAYOUT, Layout
from towline.server.repository import Repository
from towline.spec import distribution
from towline.spec.digest import HEX_LENGTHS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.spec.digest import Digest

_TOUCH_AFTER = 60.0
"""Seconds; a blob that was asked for more recently is not noted down again."""
_STRIPES = 64


class Storage:
    """One root, opened by one server at a time; safe from any thread.

    Raises TowlineError when the root cannot be used, or another server has it.
    """

    def __init__(self, root: Path | None = None, *, alone: bool = True) -> None:
        self._temporary = root is None
        folder = root or Path(tempfile.mkdtemp(prefix="towline-registry-"))
        self.layout = Layout(folder)
        self.files = Files(self.layout.uploads, durable=not self._temporary)
        self._locks = [threading.Lock() for _ in range(_STRIPES)]
        self._held: int | None = None
        try:
            self._prepare()
            if alone:
                self._held = self._lock_root()
        except OSError as error:
            message = f"cannot keep a registry in {folder}: {error.strerror or error}"
            raise TowlineError(message, hint="choose another folder with `--root`") from error

    def _prepare(self) -> None:
        for folder in (self.layout.repositories, self.layout.uploads):
            folder.mkdir(parents=True, exist_ok=True)
        for algorithm in HEX_LENGTHS:
            (self.layout.blobs / algorithm).mkdir(parents=True, exist_ok=True)
        for path, content in (
            (self.layout.version, LAYOUT),
            (self.layout.index, EMPTY_INDEX),
            (self.layout.sweep_lock, b""),
        ):
            if not path.exists():
                self.files.write(path, content)

    def _lock_root(self) -> int:
        descriptor = os.open(self.layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            message = f"another server uses {self.layout.root}"
            raise TowlineError(message, hint="stop it, or choose another `--root`") from error
        return descriptor

    def close(self) -> None:
        """Let the root go; a temporary one is removed."""
        if self._held is not None:
            os.close(self._held)
            self._held = None
        if self._temporary:
            shutil.rmtree(self.layout.root, ignore_errors=True)

    @contextmanager
    def unswept(self) -> Iterator[None]:
        """While the block runs, no collection in any process takes a blob away."""
        with self._flock(fcntl.LOCK_SH):
            yield

    @contextmanager
    def sweeping(self) -> Iterator[None]:
        """While the block runs, nothing in any process is being committed."""
        with self._flock(fcntl.LOCK_EX):
            yield

    @contextmanager
    def _flock(self, kind: int) -> Iterator[None]:
        # A descriptor of its own: such a lock belongs to the opened file, not to the process.
        descriptor = os.open(self.layout.sweep_lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)

    def changing(self, name: str) -> threading.Lock:
        """The lock under which a repository's manifests and tags change."""
        return self._locks[hash(name) % _STRIPES]

    def repository(self, name: str) -> Repository:
        """A repository by its name, which was checked; it need not exist."""
        return Repository(name, self.layout.repository(name), self)

    def size(self, digest: Digest) -> int | None:
        """Bytes of a blob, in whatever repository; None where there is none."""
        try:
            return self.layout.blob(digest).stat().st_size
        except FileNotFoundError:
            return None

    def keep(self, digest: Digest) -> int | None:
        """Like `size`, and note that the blob was asked for: no collection takes it for a while."""
        path = self.layout.blob(digest)
        try:
            status = path.stat()
            if time.time() - status.st_mtime > _TOUCH_AFTER:
                os.utime(path)
        except FileNotFoundError:
            return None
        except PermissionError:
            return status.st_size
        return status.st_size

    def adopt(self, source: Path, digest: Digest) -> None:
        """Make a synced file, whose digest was checked, the one copy of a blob.

        Call it, and link the blob, within `unswept`.
        """
        target = self.layout.blob(digest)
        if self.keep(digest) is not None:
            source.unlink()
            return
        os.utime(source)  # the clock of collections starts now, not at the upload's last byte
        self.files.move(source, target)

    def names(self) -> Iterator[str]:
        """Every repository's name, in no order; walks the folders."""
        for folder, below, _ in os.walk(self.layout.repositories):
            if "_blobs" in below or "_manifests" in below:
                yield os.path.relpath(folder, self.layout.repositories)
            below[:] = [name for name in below if distribution.NAME.fullmatch(name)]
