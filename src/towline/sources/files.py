"""The files of a source, read by name and by position, from any thread.

`Files` are found by their names, in a folder or in a tar. `docker_archive` and `oci_layout`, which
know their meaning, see no difference. A `SharedFile` is opened once and read by many: it is closed
when the source and the last of its readers have released it.
"""

from __future__ import annotations

import io
import json
import os
import stat
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from towline.errors import SourceError
from towline.spec import manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from towline.layers.reader import Reader


BLOCK = 1 << 20
"""Bytes of a large file that are read at once."""


class Files(Protocol):
    """Read-only files by their paths, relative to the root of the source."""

    @property
    def name(self) -> str:
        """The source's name in errors."""

    def size(self, path: str) -> int | None:
        """Bytes of the file; None: there is none."""

    def open(self, path: str) -> Reader:
        """A new reader of the whole file. Raises SourceError."""

    def close(self) -> None:
        """Release the files; readers that are open go on."""


class Archive(Files, Protocol):
    """The files of a tar."""

    @property
    def files(self) -> Mapping[str, object]:
        """The files by their names."""

    @property
    def ended(self) -> bool:
        """Whether the tar has its end mark; without one it may have been cut between members."""


class SharedFile:
    """A file of known size that can be read anywhere, from any thread."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        """Its name in errors."""
        self.size = size
        """Bytes."""
        self._holders = 1  # whoever makes it holds it
        self._lock = threading.Lock()

    def read_at(self, buffer: memoryview, position: int) -> int:
        """Read once into `buffer`. Returns the bytes read, 0 at the end. Raises SourceError."""
        raise NotImplementedError

    def hold(self) -> None:
        """Keep the file open until `release`. Raises SourceError when it is closed already."""
        with self._lock:
            if not self._holders:
                raise SourceError(f"{self.name} is closed already")
            self._holders += 1

    def release(self) -> None:
        """End one `hold`, or that of whoever made it. After the last one the file is closed."""
        with self._lock:
            self._holders -= 1
            last = not self._holders
        if last:
            self._close()

    def _close(self) -> None:
        """Close what is to be closed."""


class OpenFile(SharedFile):
    """A file with a descriptor of its own; positions are counted from `base`."""

    def __init__(self, descriptor: int, name: str, base: int = 0) -> None:
        super().__init__(name, max(0, os.fstat(descriptor).st_size - base))
        self._descriptor = descriptor
        self._base = base

    def read_at(self, buffer: memoryview, position: int) -> int:
        """See `SharedFile`."""
        try:  # by position: the descriptor's offset stays, so that threads do not disturb another
            return os.preadv(self._descriptor, [buffer], self._base + position)
        except OSError as error:
            raise unreadable(self.name, error) from None

    def _close(self) -> None:
        os.close(self._descriptor)


class SharedObject(SharedFile):
    """A caller's seekable object without a descriptor of its own; the caller closes it."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._turn = threading.Lock()
        self._base = file.tell()
        super().__init__(name, max(0, file.seek(0, os.SEEK_END) - self._base))
        file.seek(self._base)

    def read_at(self, buffer: memoryview, position: int) -> int:
        """See `SharedFile`."""
        with self._turn:  # the object has one position for all
            try:
                self._file.seek(self._base + position)
                data = self._file.read(len(buffer))
            except (OSError, ValueError) as error:
                raise unreadable(self.name, error) from None
        buffer[: len(data)] = data
        return len(data)


class Section(io.RawIOBase):
    """A Reader of `size` bytes at `start`, which keeps its file open until it is closed.

    It can seek, for `tarfile`, which wants a file.
    """

    def __init__(self, file: SharedFile, start: int, size: int, what: str) -> None:
        self._file: SharedFile | None = None
        self._start = start
        self._size = size
        self._at = 0
        self._what = what
        file.hold()
        self._file = file

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # narrower
        """See `Reader`. Raises SourceError when the file ends before the section does."""
        left = max(0, self._size - self._at)
        if not left or not buffer:
            return 0
        if self._file is None:
            raise SourceError(f"{self._what} is closed already")
        got = self._file.read_at(buffer[:left], self._start + self._at)
        if not got:
            raise SourceError(f"{self._what} is cut short: {left} bytes are missing at its end")
        self._at += got
        return got

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a position; behind the end nothing is read."""
        origin = (0, self._at, self._size)[whence]
        self._at = max(0, origin + offset)
        return self._at

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can seek."""
        return True

    def close(self) -> None:
        """See `Reader`."""
        file, self._file = self._file, None
        super().close()
        if file is not None:
            file.release()


class Folder:
    """The files below a folder. Links are followed, but not out of it.

    A link may lead to any file of the user's. That its digest is wrong is known only when its bytes
    were sent already.
    """

    def __init__(self, root: str) -> None:
        self.name = root
        self._root = os.path.realpath(root)

    def size(self, path: str) -> int | None:
        """See `Files`."""
        try:
            found = os.stat(self._inside(path))  # noqa: PTH116 - pathlib costs start-up
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreadable(f"{path} in {self.name}", error) from None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def open(self, path: str) -> Reader:
        """See `Files`."""
        what = f"{path} in {self.name}"
        try:
            descriptor = os.open(self._inside(path), os.O_RDONLY)
        except FileNotFoundError:
            raise missing(self, path) from None
        except OSError as error:
            raise unreadable(what, error) from None
        file = OpenFile(descriptor, what)
        try:
            return Section(file, 0, file.size, what)
        finally:
            file.release()

    def close(self) -> None:
        """See `Files`."""

    def _inside(self, path: str) -> str:
        """The file's real path. Raises SourceError when that is outside of the folder."""
        found = os.path.realpath(os.path.join(self._root, path))  # noqa: PTH118 - a text
        if os.path.commonpath((self._root, found)) != self._root:
            raise SourceError(
                f"{shown(path)} in {self.name} is a link that leaves the layout",
                hint=f"copy it with what its links point to: cp -RL {self.name} COPY",
            )
        return found


def fill(reader: Reader, buffer: memoryview) -> int:
    """Read until the buffer is full. Returns the bytes in it: fewer only at the end."""
    done = 0
    while done < len(buffer) and (got := reader.readinto(buffer[done:])):
        done += got
    return done


def blocks(reader: Reader) -> Iterator[memoryview]:
    """All that a reader gives, block by block; each block is overwritten by the next one."""
    room = memoryview(bytearray(BLOCK))
    while got := reader.readinto(room):
        yield room[:got]


def read_all(reader: Reader, size: int) -> bytes:
    """`size` bytes of a reader, fewer if it ends before. The reader is closed in any case."""
    content = bytearray(size)
    try:
        done = fill(reader, memoryview(content))
    finally:
        reader.close()
    return bytes(content[:done])


def unreadable(name: str, error: OSError | ValueError | EOFError) -> SourceError:
    """The error for a file that the system cannot read."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return SourceError(f"cannot read {name}: {reason[:1].lower()}{reason[1:]}")


def missing(files: Files, path: str) -> SourceError:
    """The error for a file that should be there."""
    return SourceError(f"{files.name} has no {shown(path)}")


def shown(path: str) -> str:
    """A name from a source in a form for messages, whatever characters it has."""
    return path if path.isprintable() else repr(path)


def read(files: Files, path: str) -> bytes:
    """All of a manifest, config or index. Raises SourceError if it is missing or too large."""
    size = files.size(path)
    if size is None:
        raise missing(files, path)
    if size > manifest.MAX_SIZE:
        raise SourceError(
            f"{shown(path)} in {files.name} is {size} bytes long; "
            f"no manifest or config has more than {manifest.MAX_SIZE}"
        )
    content = read_all(files.open(path), size)
    if len(content) < size:
        raise SourceError(f"{shown(path)} in {files.name} is cut short")
    return content


def read_json(files: Files, path: str) -> Any:  # noqa: ANN401 - any JSON
    """A JSON document. Raises SourceError where the file is none."""
    content = read(files, path)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{shown(path)} in {files.name} is not JSON ({error})") from None


@contextmanager
def understood(what: str) -> Iterator[None]:
    """A ValueError in this block becomes a SourceError about `what`."""
    try:
        yield
    except ValueError as error:
        raise SourceError(f"{what} cannot be used: {error}") from None
