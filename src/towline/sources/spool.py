"""Keeps a stream that can be read only once (a pipe, a compressed archive) in a temporary file.

The file has no name (`tempfile.TemporaryFile`), so that it is never left behind. It holds plain
bytes: a compressed stream is decompressed once, on its way to the disk.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from towline.errors import SourceError
from towline.events import Note, Working
from towline.layers import decoders
from towline.sources.files import OpenFile, blocks, unreadable
from towline.sources.tar_members import Forward
from towline.spec import media_types

if TYPE_CHECKING:
    from collections.abc import Mapping

    from towline.context import Cancel, Context
    from towline.layers.reader import Reader

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""A full disk, a full quota, a limit on the size of files."""
_PIPE_SIZE = 1 << 20
"""Bytes by which the writer of a pipe may be ahead; any user may ask for as many (pipe(7))."""
_WAKE_MS = 200
"""Milliseconds between two looks whether the push was cancelled, while a read waits for data."""
_HEADER = 18
"""Bytes that hold a zstd frame's header (RFC 8878, section 3.1.1)."""


def spool(
    reader: Reader, name: str, context: Context, environ: Mapping[str, str], why: str = ""
) -> OpenFile:
    """Write all of `reader`, decompressed, to a temporary file, and close the reader.

    `TMPDIR` names the folder; Notes tell why, where and how much. Raises SourceError when there is
    no room, or when the stream is damaged; Cancelled.
    """
    if why:
        _tell(context, f"{name} is not sent as it passes: {why}")
    plain, needed = decompressed(reader, name)
    try:
        room = Room(name, environ, needed)
        with room.file:
            _tell(context, f"spooling {name} to a temporary file under {room.folder}")
            written, what = 0, f"spooling {name}"
            for block in blocks(plain):
                context.cancel.check()
                room.write(block, written)
                written += len(block)
                context.emit(Working(reference="", what=what, current=written, total=needed))
            context.emit(Working(reference="", what=what, current=written, total=written))
            _tell(context, f"spooled {written} bytes of {name} under {room.folder}")
            return OpenFile(os.dup(room.file.fileno()), f"the spool of {name}")
    finally:
        plain.close()


def decompressed(reader: Reader, name: str) -> tuple[Reader, int | None]:
    """The stream without its compression, and its bytes then, if it tells them at its beginning.

    It closes the reader, too. Raises SourceError, and for a larger zstd window than is read.
    """
    stream = Forward(reader)
    try:
        head = stream.read(_HEADER)
        stream.seek(0)
        kind = media_types.detect(head)
        # Not so for layers: Go's gzip, with which they are pulled, refuses zeros behind the end.
        plain = decoders.decoded(stream, kind, name, padded=True)
        return plain, _check_window(head, kind, name)
    except BaseException:
        stream.close()
        raise


def _tell(context: Context, message: str) -> None:
    context.emit(Note(reference="", message=message))


def _check_window(head: bytes, kind: media_types.Compression, name: str) -> int | None:
    """Raise SourceError for a larger zstd window than is read.

    Returns the bytes that the stream will decompress to, if it tells them at its beginning.
    """
    if kind != "zstd" or not head.startswith(b"\x28\xb5\x2f\xfd"):
        return None
    import zstandard

    try:
        frame = zstandard.get_frame_parameters(head)
    except zstandard.ZstdError:
        return None
    if frame.window_size > decoders.MAX_ZSTD_WINDOW:
        log = (frame.window_size - 1).bit_length()
        file = "" if name == "standard input" else f" {name}"
        raise SourceError(
            f"{name} was compressed with zstd --long={log}: its window of {frame.window_size} "
            f"bytes is above the {decoders.MAX_ZSTD_WINDOW} that are read",
            hint=f"pipe it: zstd -dc --long={log}{file} | towline push - DESTINATION",
        )
    return frame.content_size if 0 < frame.content_size < zstandard.CONTENTSIZE_ERROR else None


class Room:
    """A temporary file without a name."""

    def __init__(self, name: str, environ: Mapping[str, str], needed: int | None = None) -> None:
        """`name`: that of what it is for; `needed`: how many bytes that has, if it is known.

        Raises SourceError where no file can be made.
        """
        import tempfile

        self._name = name
        self._needed = needed
        self.folder = environ.get("TMPDIR") or _usual_folder()
        try:
            self.file = tempfile.TemporaryFile(buffering=0, dir=self.folder)  # noqa: SIM115 - the maker closes it
        except OSError as error:
            raise SourceError(
                f"cannot spool {name} under {self.folder}: {(error.strerror or '').lower()}",
                hint="set TMPDIR to a folder that can be written to",
            ) from None

    def write(self, part: memoryview, at: int) -> None:
        """Write all of `part` at position `at`. Raises SourceError."""
        while part:
            try:
                done = os.pwrite(self.file.fileno(), part, at)
            except OSError as error:
                raise self._error(error, at) from None
            part, at = part[done:], at + done

    def _error(self, error: OSError, written: int) -> SourceError:
        """The error for a file to which nothing more can be written."""
        if error.errno not in FULL:
            return unreadable(f"the spool of {self._name} under {self.folder}", error)
        room = os.fstatvfs(self.file.fileno())
        parts = [f"{written} bytes were written", f"{room.f_bavail * room.f_frsize} are free"]
        if self._needed is not None:
            parts.append(f"{self._needed} are needed")
        reason = (error.strerror or "").lower()
        return SourceError(
            f"no room to spool {self._name} under {self.folder}: {', '.join(parts)} ({reason})",
            hint="set TMPDIR to a folder with more room, or push from a plain file",
        )


def _usual_folder() -> str:
    import tempfile

    try:
        return tempfile.gettempdir()
    except FileNotFoundError:  # Python could write to none of the usual folders: all are full
        return "/tmp"  # noqa: S108 - writing there fails with a sentence of ours


def _widen(descriptor: int) -> None:
    """Let the writer of a pipe be further ahead."""
    # A pipe's 64 KiB are less than a millisecond of an export: each time that we wait, its writer
    # would wait too.
    with suppress(OSError):  # it is no pipe, or the user has many pipes of that size
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)


class PipeReader:
    """A Reader of a descriptor, which it closes. Cancelling the push ends a wait for data."""

    def __init__(self, descriptor: int, name: str, cancel: Cancel) -> None:
        self._descriptor = descriptor
        self._name = name
        self._cancel = cancel
        self._closed = False
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        _widen(descriptor)

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Reader`."""
        while True:
            # Short polls instead of a second pipe to wake this one: the thread that cancels could
            # write to a descriptor that was closed, and given to another file, meanwhile.
            while not self._poll.poll(_WAKE_MS):
                self._cancel.check()
            self._cancel.check()
            try:
                return os.readv(self._descriptor, [buffer])
            except BlockingIOError:  # another process reads from the pipe, too, and was faster
                continue
            except OSError as error:
                raise unreadable(self._name, error) from None

    def close(self) -> None:
        """See `Reader`."""
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)


class ObjectReader:
    """A Reader of a caller's object, which the caller closes."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name
        # Many objects have no descriptor, or one of something else.
        with suppress(AttributeError, OSError, TypeError, ValueError):
            _widen(file.fileno())

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Reader`."""
        try:
            data = self._file.read(len(buffer)) or b""
        except (OSError, ValueError, EOFError) as error:
            raise unreadable(self._name, error) from None
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """See `Reader`."""
