"""Keeps on disk, unlinked, what can be read only once: a pipe, or a compressed archive.

One pass, plain bytes out: a compressed stream is decompressed on its way to the disk.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from towline.errors import SourceError
from towline.events import Note
from towline.layers import decoders
from towline.sources.access import OpenFile, unreadable
from towline.spec import compression

if TYPE_CHECKING:
    from collections.abc import Mapping

    from towline.context import Context
    from towline.layers.reader import Reader

BLOCK = 1 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""A full disk, a full quota, a limit on the size of files."""
_MAGIC_IN_REACH = 18
"""Bytes that hold a zstd frame's header (RFC 8878, section 3.1.1)."""


def spool(reader: Reader, name: str, context: Context, environ: Mapping[str, str]) -> OpenFile:
    """Write what `reader` gives, decompressed, to an unlinked file, and close the reader.

    `TMPDIR` says where; two Notes tell where and how much. Raises SourceError when there is no
    room, or when the stream is damaged.
    """
    folder = environ.get("TMPDIR") or _usual_folder()
    head = Head(reader)
    kind = compression.detect(head.content)
    try:
        plain = decoders.decoded(head, kind, name)
        file = _Spool(name, folder, _plain_size(head.content, kind))
        _tell(context, f"spooling {name} to a temporary file under {folder}")
        try:
            _copy(plain, file, context)
            spooled = OpenFile(os.dup(file.descriptor), f"the spool of {name}")
        finally:
            os.close(file.descriptor)
        _tell(context, f"spooled {file.written} bytes of {name} under {folder}")
        return spooled
    finally:
        head.close()


def _usual_folder() -> str:
    import tempfile

    return tempfile.gettempdir()


def _tell(context: Context, message: str) -> None:
    context.emit(Note(reference="", message=message))


def _copy(reader: Reader, file: _Spool, context: Context) -> None:
    with memoryview(bytearray(BLOCK)) as block:
        while got := reader.readinto(block):
            context.cancel.check()
            file.write(block[:got])


def _plain_size(head: bytes, kind: compression.Compression) -> int | None:
    """Bytes that there will be in all, where the stream says it at its beginning."""
    if kind != "zstd" or not head.startswith(b"\x28\xb5\x2f\xfd"):
        return None
    import zstandard

    try:
        size = zstandard.frame_content_size(head)
    except zstandard.ZstdError:
        return None
    return size if size > 0 else None


class Head:
    """A Reader whose first bytes can be looked at before they are read."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.content = b""
        buffer = memoryview(bytearray(_MAGIC_IN_REACH))
        try:
            while rest := buffer[len(self.content) :]:
                got = reader.readinto(rest)
                if not got:
                    break
                self.content += bytes(rest[:got])
        except BaseException:
            reader.close()
            raise
        self._unread = self.content

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Reader`."""
        if not self._unread:
            return self._reader.readinto(buffer)
        part, self._unread = self._unread[: len(buffer)], self._unread[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    def close(self) -> None:
        """See `Reader`."""
        self._reader.close()


class _Spool:
    """The unlinked file while it is written."""

    def __init__(self, name: str, folder: str, needed: int | None) -> None:
        self.written = 0
        self._name = name
        self._folder = folder
        self._needed = needed
        try:
            self.descriptor = _unlinked_file(folder)
        except OSError as error:
            raise SourceError(
                f"cannot spool {name} under {folder}: {(error.strerror or '').lower()}",
                hint="set TMPDIR to a folder that can be written to",
            ) from None

    def write(self, block: memoryview) -> None:
        while block:
            try:
                done = os.write(self.descriptor, block)
            except OSError as error:
                raise self._cannot(error) from None
            self.written += done
            block = block[done:]

    def _cannot(self, error: OSError) -> SourceError:
        if error.errno not in _FULL:
            return unreadable(f"the spool of {self._name} under {self._folder}", error)
        room = os.fstatvfs(self.descriptor)
        parts = [f"{self.written} bytes were written", f"{room.f_bavail * room.f_frsize} are free"]
        if self._needed is not None:
            parts.append(f"{self._needed} are needed")
        reason = (error.strerror or "").lower()
        return SourceError(
            f"no room to spool {self._name} under {self._folder}: {', '.join(parts)} ({reason})",
            hint="set TMPDIR to a folder with more room, or push from a plain file",
        )


def _unlinked_file(folder: str) -> int:
    """A new file without a name, which is gone when it is closed."""
    try:
        return os.open(folder, os.O_RDWR | os.O_TMPFILE, 0o600)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}:
            raise
    import tempfile

    descriptor, path = tempfile.mkstemp(prefix="towline-", dir=folder)
    os.unlink(path)  # noqa: PTH108 - pathlib costs start-up
    return descriptor
