"""An engine's export, kept in a temporary file without a name: of the layers only what is wanted.

The tar is walked as it comes. Where a layer need not be kept there is a hole in the file; should
somebody read there all the same, the engine is asked once more and the holes are filled. What an
engine says after it has begun is no status but a line of JSON at the end of a torn tar.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from typing import TYPE_CHECKING

from towline.errors import SourceError, TowlineError
from towline.events import Note
from towline.sources.engine_client import said_in
from towline.sources.files import OpenFile
from towline.sources.spool import Room

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from towline.context import Context
    from towline.wire.exchange import Unread

_BLOCK = 512
_HEAD = 4 << 10
"""Bytes of a member that are kept anyway: how it is compressed is seen there."""
_TAIL = 8 << 10
"""Bytes of a stream in whose end an engine's last words are looked for."""
_EXTENSION_MAX = 16 << 10
_NAMED = re.compile(r"(?:^|/)([0-9a-f]{64})(?:/layer\.tar|\.tar|\.json)?$")
_PAX_SIZE = re.compile(rb"(?:^|\n)[0-9]+ size=([0-9]+)\n")
_EXTENSIONS = b"xgXLK"
_WITHOUT_DATA = b"12345"
"""Types of members that have none: links, devices, folders."""


class EngineExport(OpenFile):
    """The tar as a file that can be read anywhere; `ask` begins an export, as often as needed."""

    def __init__(
        self,
        ask: Callable[[], Unread],
        gone: Callable[[Exception, int], SourceError],
        name: str,
        context: Context,
        environ: Mapping[str, str],
        *,
        unwanted: Container[str],
    ) -> None:
        """`unwanted` are digests, without their algorithm, of members that are not kept.

        Raises SourceError: the engine refuses, goes away, or there is no room.
        """
        self._ask, self._gone = ask, gone
        self._context = context
        self._turn = threading.Lock()
        self._holes: list[tuple[int, int]] = []
        folder = environ.get("TMPDIR") or tempfile.gettempdir()
        self._room = Room(name, folder, None)
        with self._room.file() as file:
            self._descriptor = os.dup(file.fileno())
        try:
            self._take(unwanted, folder, name)
            super().__init__(self._descriptor, name)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _take(self, unwanted: Container[str], folder: str, name: str) -> None:
        walk = _Walk(self._ask(), self._descriptor, self._room, self._gone, self._context)
        try:
            walk.run(unwanted)
        finally:
            walk.close()
        self._holes = walk.holes
        os.ftruncate(self._descriptor, walk.position)
        message = f"spooled {walk.kept} bytes of {name} under {folder}"
        self._context.emit(Note(reference="", message=message))

    def read_at(self, buffer: memoryview, position: int) -> int:
        """See `SharedFile`."""
        for start, stop in self._holes:
            if start <= position < stop:
                self._fill()
            elif position < start:  # who reads ahead wants no hole filled
                buffer = buffer[: start - position]
                break
        return super().read_at(buffer, position)

    def _fill(self) -> None:
        """Have the engine export it once more, whole."""
        with self._turn:
            if not self._holes:
                return
            size = self.size
            self._take((), self._room.folder, self.name)
            if os.fstat(self._descriptor).st_size != size:
                raise SourceError(f"{self.name} has changed while it was pushed")


class _Walk:
    """One pass over the stream, which writes what is kept."""

    def __init__(
        self,
        unread: Unread,
        descriptor: int,
        room: Room,
        gone: Callable[[Exception, int], SourceError],
        context: Context,
    ) -> None:
        self.position = 0
        """Bytes of the tar so far."""
        self.kept = 0
        self.holes: list[tuple[int, int]] = []
        self._unread = unread
        self._piece = memoryview(b"")
        self._descriptor = descriptor
        self._room = room
        self._gone = gone
        self._context = context
        self._tail = b""

    def run(self, unwanted: Container[str]) -> None:
        """To the end of the stream. Raises SourceError."""
        size_told: int | None = None
        while any(header := self._copy(_BLOCK, keep=True)):
            if header[257:262] != b"ustar":
                raise self._torn()
            kind = header[156:157]
            size = 0 if kind in _WITHOUT_DATA else size_told or _number(header[124:136])
            size_told = None
            padded = -(-size // _BLOCK) * _BLOCK
            if kind in _EXTENSIONS and size <= _EXTENSION_MAX:
                told = _PAX_SIZE.search(self._copy(padded, keep=True))
                size_told = int(told[1]) if told else None
                continue
            match = _NAMED.search(header[:100].rstrip(b"\0").decode("latin-1"))
            hole = padded - _HEAD - _BLOCK
            if match is None or match[1] not in unwanted or hole <= 0:
                self._pass(padded, keep=True)
                continue
            self._pass(_HEAD, keep=True)
            self.holes.append((self.position, self.position + hole))
            self._pass(hole, keep=False)
            self._pass(_BLOCK, keep=True)  # `tarfile` looks whether a member has an end
        while self._more():
            self._pass(len(self._piece), keep=True)

    def _copy(self, size: int, *, keep: bool) -> bytes:
        """Pass over so many bytes, and have them."""
        found = b""
        while len(found) < size and self._more():
            part = bytes(self._piece[: size - len(found)])
            self._pass(len(part), keep=keep)
            found += part
        if len(found) < size:
            raise self._torn()
        return found

    def _pass(self, size: int, *, keep: bool) -> None:
        while size:
            if not self._more():
                raise self._torn()
            part = self._piece[:size]
            if keep:
                self._write(part)
            self._piece = self._piece[len(part) :]
            self.position += len(part)
            size -= len(part)

    def _more(self) -> bool:
        """Whether there are bytes of the stream at hand."""
        if self._piece:
            return True
        self._context.cancel.check()
        try:
            data = self._unread.next_piece()
        except TowlineError as error:
            raise self._gone(error, self.position) from None
        self._tail = (self._tail + data)[-_TAIL:]
        self._piece = memoryview(data)
        return bool(data)

    def _write(self, part: memoryview) -> None:
        at = self.position
        while part:
            try:
                done = os.pwrite(self._descriptor, part, at)
            except OSError as error:
                raise self._room.error(error, self._descriptor, self.kept) from None
            at, part = at + done, part[done:]
            self.kept += done

    def _torn(self) -> SourceError:
        """The engine has given up in the middle, and perhaps says why."""
        while self._more():
            self._piece = memoryview(b"")
        begin = self._tail.rfind(b'{"errorDetail"')
        if begin >= 0 and (said := said_in(self._tail[begin:])):
            return SourceError(f"the engine could not export the image: {said}")
        return SourceError(
            f"{self._room.name} is torn: it ends after {self.position} bytes",
            hint="see what the engine's own log says",
        )

    def close(self) -> None:
        """Hang up, if it was not read to its end."""
        self._unread.close()


def _number(field: bytes) -> int:
    """A number of a tar header: octal, or binary where it is large (GNU)."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    return int(text, 8) if text.isdigit() else 0
