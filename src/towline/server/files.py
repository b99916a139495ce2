"""Files that are whole, or not there, whenever the process is killed.

Everything is written beside its place, synced, and renamed into it. This module does not know the
files' meaning.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

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


class Files:
    """Writes files below one root.

    With `durable` they survive a power cut: each change is synced before an answer tells of it. A
    root that is removed at the end does without.
    """

    def __init__(self, scratch: Path, *, durable: bool) -> None:
        self._scratch = scratch
        self._durable = durable

    def write(self, path: Path, content: bytes) -> None:
        """Replace a file's content. A reader sees all of the old or all of the new."""
        beside = self._scratch / f"new-{secrets.token_hex(8)}"
        try:
            with beside.open("xb") as file:
                file.write(content)
                self.sync(file.fileno())
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
        self.sync_directory(path.parent)

    def move(self, source: Path, target: Path) -> None:
        """Put a synced file into its place."""
        try:
            source.replace(target)
        except FileNotFoundError:  # its folder may be missing: that is not asked for each time
            self.make_directory(target.parent)
            source.replace(target)
        self.sync_directory(target.parent)

    def remove(self, path: Path) -> bool:
        """Remove a file. Returns whether it was there."""
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        self.sync_directory(path.parent)
        return True

    def clear(self, folder: Path) -> None:
        """Remove a folder with its files. It stays if another file is put there meanwhile."""
        for path in folder.iterdir() if folder.is_dir() else ():
            path.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()
            self.sync_directory(folder.parent)

    def make_directory(self, path: Path) -> None:
        """Make a folder and those above it, each synced into the one above."""
        missing = [path]
        while not missing[-1].parent.is_dir():
            missing.append(missing[-1].parent)
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self.sync_directory(folder.parent)

    def sync(self, descriptor: int) -> None:
        """Sync an open file's content, if the root is durable."""
        if self._durable:
            os.fsync(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Sync a folder's entries, if the root is durable: a rename is in these."""
        if not self._durable:
            return
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
