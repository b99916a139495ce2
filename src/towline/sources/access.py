"""Bytes by position: a file that many readers share, and a reader of one stretch of it.

An archive is opened once; every layer is read through that one descriptor, which is closed when
the source and the last of its readers have let go.
"""

from __future__ import annotations

import io
import os
import threading
from typing import TYPE_CHECKING, BinaryIO, Protocol

from towline.errors import SourceError

if TYPE_CHECKING:
    from towline.layers.reader import Reader

_DECOMPRESSING = frozenset({"gzip", "bz2", "lzma", "zipfile", "compression"})
"""Modules of the standard library whose file objects can seek, but only by starting anew."""


class Access(Protocol):
    """Something of known size that can be read anywhere, from any thread."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def read_at(self, buffer: memoryview, position: int) -> int:
        """Read once into `buffer`; the bytes read, 0 at the end. Raises SourceError."""
        ...

    def hold(self) -> None:
        """Keep it open until `release`. Raises SourceError when it is closed already."""
        ...

    def release(self) -> None:
        """Let go; the last one closes it."""
        ...


class _Held:
    """Counts those who need a thing open; whoever makes it is the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._holders = 1
        self._lock = threading.Lock()

    def hold(self) -> None:
        with self._lock:
            if not self._holders:
                raise SourceError(f"{self._name} is closed already")
            self._holders += 1

    def release(self) -> None:
        with self._lock:
            self._holders -= 1
            last = not self._holders
        if last:
            self._close()

    def _close(self) -> None:
        raise NotImplementedError


class OpenFile(_Held):
    """A file descriptor that it owns, counted from `base`."""

    def __init__(self, descriptor: int, name: str, base: int = 0) -> None:
        super().__init__(name)
        self._descriptor = descriptor
        self._base = base
        self.size = max(0, os.fstat(descriptor).st_size - base)

    def read_at(self, buffer: memoryview, position: int) -> int:
        """Read by position: the descriptor's own offset stays as it is."""
        try:
            return os.preadv(self._descriptor, [buffer], self._base + position)
        except OSError as error:
            raise unreadable(self._name, error) from None

    def _close(self) -> None:
        os.close(self._descriptor)


class FileObject(_Held):
    """A caller's seekable object without a descriptor of its own; the caller closes it."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        super().__init__(name)
        self._file = file
        self._turn = threading.Lock()
        self._base = file.tell()
        self.size = max(0, file.seek(0, os.SEEK_END) - self._base)
        file.seek(self._base)

    def read_at(self, buffer: memoryview, position: int) -> int:
        """One reader at a time: the object has a single position."""
        with self._turn:
            try:
                self._file.seek(self._base + position)
                data = self._file.read(len(buffer))
            except (OSError, ValueError) as error:
                raise unreadable(self._name, error) from None
        buffer[: len(data)] = data
        return len(data)

    def _close(self) -> None:
        pass


class Section:
    """A Reader of `size` bytes at `start`, which keeps its file open until it is closed."""

    def __init__(self, access: Access, start: int, size: int, what: str) -> None:
        access.hold()
        self._access: Access | None = access
        self._at = start
        self._end = start + size
        self._what = what

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Reader`; SourceError when the file ends before the section does."""
        left = self._end - self._at
        if not left or not buffer:
            return 0
        if self._access is None:
            raise SourceError(f"{self._what} is closed already")
        got = self._access.read_at(buffer[:left], self._at)
        if not got:
            raise SourceError(f"{self._what} is cut short: {left} bytes are missing at its end")
        self._at += got
        return got

    def close(self) -> None:
        """See `Reader`."""
        access, self._access = self._access, None
        if access is not None:
            access.release()


def read_all(reader: Reader, size: int) -> bytes:
    """`size` bytes from a reader, which is closed whatever happens; fewer if it ends before."""
    content = bytearray(size)
    done = 0
    try:
        with memoryview(content) as view:
            while done < size and (got := reader.readinto(view[done:])):
                done += got
    finally:
        reader.close()
    return bytes(content[:done])


def unreadable(name: str, error: OSError | ValueError | EOFError) -> SourceError:
    """What to say when the system cannot read `name`."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return SourceError(f"cannot read {name}: {reason[:1].lower()}{reason[1:]}")


def of_object(file: BinaryIO, name: str) -> Access | None:
    """Access in place to a caller's object, from its present position; None if it cannot seek.

    Objects that decompress as they are read are not read in place: each step back would begin
    them anew.
    """
    seekable = getattr(file, "seekable", None)  # of what only looks like a file, `read` is enough
    if not (seekable and seekable()) or type(file).__module__.partition(".")[0] in _DECOMPRESSING:
        return None
    raw = getattr(file, "raw", file)
    if not isinstance(raw, io.FileIO):
        return FileObject(file, name)
    if file.writable():
        file.flush()
    return OpenFile(os.dup(file.fileno()), name, file.tell())
