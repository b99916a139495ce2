"""An engine's export, kept in a temporary file without a name: of the layers only what is wanted.

A thread walks the tar as it comes; whoever reads waits for what has not come yet, and what has come
is sent while the rest is on its way. Where a layer need not be kept there is a hole in the file;
should somebody read there all the same, the engine is asked once more and the holes are filled.
What an engine says after it has begun is no status but a line of JSON at the end of a torn tar.
"""

from __future__ import annotations

import os
import re
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

from towline.context import Cancel
from towline.errors import SourceError, TowlineError
from towline.events import Note, Working
from towline.sources.engine_client import said_in
from towline.sources.files import Section, SharedFile, read_all, unreadable
from towline.sources.spool import Room, folder_in
from towline.sources.tar_members import Span
from towline.spec import config as configs
from towline.wire.channel import advance

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from towline.context import Context
    from towline.layers.reader import Reader
    from towline.wire.exchange import Unread

_BLOCK = 512
_HEAD = 4 << 10
"""Bytes of a member that are kept anyway: how it is compressed is seen there."""
_TAIL = 8 << 10
"""Bytes of a stream in whose end an engine's last words are looked for."""
_EXTENSION_MAX = 16 << 10
_PIECE = 1 << 20
"""Bytes that are written at once."""
_PARTS = 512
"""Parts that are written at once; systems take 1024."""
_TICK = 0.1
"""Seconds after which who waits looks whether the push was cancelled."""
_NAMED = re.compile(r"(?:^|/)([0-9a-f]{64})(?:/layer\.tar|\.tar|\.json)?$")
_PAX_SIZE = re.compile(rb"(?:^|\n)[0-9]+ size=([0-9]+)\n")
_FILES = b"0\0"
_EXTENSIONS = b"xgXLK"
_WITHOUT_DATA = b"12345"
"""Types of members that have none: links, devices, folders."""


class EngineExport(SharedFile):
    """The tar as a file that can be read anywhere, from any thread, while it is still written."""

    def __init__(
        self,
        ask: Callable[[Context], Unread],
        gone: Callable[[TowlineError, int], SourceError],
        name: str,
        context: Context,
        environ: Mapping[str, str],
        *,
        expected: int,
        unwanted: Container[str],
    ) -> None:
        """`ask` begins an export, as often as needed; `gone` says what it means that one broke off.

        `unwanted` are digests, without their algorithm, of members that are not kept; `expected` is
        about how many bytes will come. Raises SourceError: there is no room.
        """
        super().__init__(name, 0)
        self._ask, self._gone = ask, gone
        self._context = context
        self._expected = expected
        self._room = Room(name, folder_in(environ), None)
        with self._room.file() as file:
            self._descriptor = os.dup(file.fileno())
        self._news = threading.Condition()
        self._members: dict[str, Span] = {}
        self._written = 0
        """Bytes from the beginning that have come."""
        self._holes: list[tuple[int, int]] = []
        self._wanted: set[str] | None = None
        self._ended = False
        self._error: BaseException | None = None
        self._filling = threading.Lock()
        self._stop = Cancel()
        self._stack = ExitStack()
        self._stack.enter_context(context.cancel.on_cancel(self._stop.cancel))
        self._thread = threading.Thread(target=self._drain, args=(unwanted,), name="towline-export")
        self._thread.start()

    # What is read.

    def open(self, hexadecimal: str) -> Reader | None:
        """The member that is named by a digest, as soon as it begins; None where there is none.

        Raises SourceError for an export that failed, and Cancelled.
        """
        span = self._find(hexadecimal)
        if span is None:
            return None
        return Section(self, span.start, span.size, f"{hexadecimal} in {self.name}")

    def read(self, hexadecimal: str) -> bytes | None:
        """A config or manifest, whole; None where there is none, or it would be too large for one.

        Raises as `open` does.
        """
        span = self._find(hexadecimal)
        if span is None or span.size > configs.MAX_SIZE:
            return None
        return read_all(Section(self, span.start, span.size, hexadecimal), span.size)

    def _find(self, hexadecimal: str) -> Span | None:
        self._wait(lambda: hexadecimal in self._members)
        return self._members.get(hexadecimal)

    def await_end(self) -> None:
        """Wait for all of it; its size is known then. Raises SourceError, Cancelled."""
        self._wait(lambda: False)
        self.size = self._written

    def read_at(self, buffer: memoryview, position: int) -> int:
        """See `SharedFile`: waits until these bytes have come."""
        self._wait(lambda: self._written > position)
        end = min(position + len(buffer), self._written)
        for start, stop in self._holes:
            if start <= position < stop:
                self._fill()
            elif position < start:  # who reads ahead wants no hole filled
                end = min(end, start)
                break
        try:
            return os.preadv(self._descriptor, [buffer[: max(0, end - position)]], position)
        except OSError as error:
            raise unreadable(self.name, error) from None

    def _wait(self, come: Callable[[], bool]) -> None:
        """Until it has come, or the export has ended."""
        with self._news:
            while not (come() or self._ended):
                self._context.cancel.check()
                self._news.wait(_TICK)
            if self._error is not None and not come():
                raise self._error

    def _close(self) -> None:
        self._stop.cancel()
        self._thread.join()
        self._stack.close()
        os.close(self._descriptor)

    # What is written.

    def _drain(self, unwanted: Container[str]) -> None:
        """The thread."""
        error: BaseException | None = None
        try:
            self._take(unwanted)
        except BaseException as failure:  # noqa: BLE001 - whoever reads hears of it
            error = failure
        with self._news:
            self._error, self._ended = error, True
            self._news.notify_all()

    def _take(self, unwanted: Container[str]) -> None:
        """One export from its beginning to its end."""
        context = self._context.but(cancel=self._stop)
        unread = self._ask(context)
        try:
            walk = _Walk(unread, self, self._gone, self._stop)
            walk.run(unwanted)
        finally:
            unread.close()
        done = walk.position
        self._context.emit(Working(reference="", what=self._what, current=done, total=done))
        message = f"spooled {walk.kept} bytes of {self.name} under {self._room.folder}"
        self._context.emit(Note(reference="", message=message))

    def begin(self, hexadecimal: str, span: Span) -> None:
        """A member begins that is named by a digest."""
        with self._news:
            self._members[hexadecimal] = span
            self._news.notify_all()

    def begin_hole(self, start: int, stop: int) -> None:
        """These bytes are not kept."""
        with self._news:
            self._holes.append((start, stop))

    def come(self, parts: list[memoryview], at: int, end: int) -> None:
        """Keep these parts from that position on; all before `end` has come then.

        Raises SourceError.
        """
        kept = at
        while parts:
            try:
                done = os.pwritev(self._descriptor, parts, kept)
            except OSError as error:
                raise self._room.error(error, self._descriptor, at) from None
            kept += done
            advance(parts, done)
        with self._news:
            self._written = max(self._written, end)
            self._news.notify_all()
        total = max(self._expected, end)
        self._context.emit(Working(reference="", what=self._what, current=end, total=total))

    @property
    def _what(self) -> str:
        return f"reading {self.name}"

    @property
    def enough(self) -> bool:
        """Whether all that is wanted has come."""
        with self._news:
            return self._wanted is not None and self._wanted <= self._members.keys()

    def want_only(self, names: set[str]) -> None:
        """No other members will be asked for: behind the last of them it is hung up."""
        with self._news:
            self._wanted = names

    def _fill(self) -> None:
        """Have the engine export it once more, whole, when this time is over."""
        self.await_end()
        with self._filling:
            if self._holes:
                self._wanted = None
                self._take(())
                self._holes = []


class _Walk:
    """One pass over the stream, in large pieces."""

    def __init__(
        self,
        unread: Unread,
        export: EngineExport,
        gone: Callable[[TowlineError, int], SourceError],
        cancel: Cancel,
    ) -> None:
        self.position = 0
        """Bytes of the tar so far."""
        self.kept = 0
        self._unread = unread
        self._export = export
        self._gone = gone
        self._cancel = cancel
        self._piece = memoryview(b"")
        self._parts: list[memoryview] = []
        """What is to be written next."""
        self._pending = 0
        """Bytes of those."""
        self._tail = b""

    def run(self, unwanted: Container[str]) -> None:
        """To the end of the stream, or of what is wanted. Raises SourceError."""
        size_told: int | None = None
        while not self._export.enough and any(header := self._copy(_BLOCK)):
            if header[257:262] != b"ustar":
                raise self._torn()
            kind = header[156:157]
            size = 0 if kind in _WITHOUT_DATA else size_told or _number(header[124:136])
            size_told = None
            padded = -(-size // _BLOCK) * _BLOCK
            if kind in _EXTENSIONS and size <= _EXTENSION_MAX:
                told = _PAX_SIZE.search(self._copy(padded))
                size_told = int(told[1]) if told else None
                continue
            match = _NAMED.search(header[:100].partition(b"\0")[0].decode("latin-1"))
            if match and kind in _FILES:
                self._export.begin(match[1], Span(self.position, size))
            hole = padded - _HEAD - _BLOCK
            if match is None or match[1] not in unwanted or hole <= 0:
                self._pass(padded)
                continue
            self._pass(_HEAD)
            self._flush()
            self._export.begin_hole(self.position, self.position + hole)
            self._pass(hole, keep=False)
            self._pass(_BLOCK)  # `tarfile` looks whether a member has an end
        if not self._export.enough:
            while self._more():
                self._pass(len(self._piece))
        self._flush()

    def _copy(self, size: int) -> bytes:
        """Pass over so many bytes, and have them."""
        found = b""
        while len(found) < size:
            if not self._more():
                raise self._torn()
            part = bytes(self._piece[: size - len(found)])
            self._pass(len(part))
            found += part
        return found

    def _pass(self, size: int, *, keep: bool = True) -> None:
        while size:
            if not self._more():
                raise self._torn()
            part = self._piece[:size]
            self._piece = self._piece[len(part) :]
            self.position += len(part)
            size -= len(part)
            if keep:
                self._keep(part)
        if not keep:
            self._export.come([], self.position, self.position)

    def _keep(self, part: memoryview) -> None:
        self._parts.append(part)
        self._pending += len(part)
        if self._pending >= _PIECE or len(self._parts) >= _PARTS:
            self._flush()

    def _flush(self) -> None:
        self.kept += self._pending
        self._export.come(self._parts, self.position - self._pending, self.position)
        self._parts, self._pending = [], 0

    def _more(self) -> bool:
        """Whether there are bytes of the stream at hand."""
        if self._piece:
            return True
        self._cancel.check()
        try:
            data = self._unread.next_piece()
        except TowlineError as error:
            raise self._gone(error, self.position) from None
        self._tail = (self._tail + data)[-_TAIL:]
        self._piece = memoryview(data)
        return bool(data)

    def _torn(self) -> SourceError:
        """The engine has given up in the middle, and perhaps says why."""
        while self._more():
            self._piece = memoryview(b"")
        begin = self._tail.rfind(b'{"errorDetail"')
        if begin >= 0 and (said := said_in(self._tail[begin:])):
            return SourceError(f"the engine could not export the image: {said}")
        return SourceError(
            f"{self._export.name} is torn: it ends after {self.position} bytes",
            hint="see what the engine's own log says",
        )


def _number(field: bytes) -> int:
    """A number of a tar header: octal, or binary where it is large (GNU)."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    return int(text, 8) if text.isdigit() else 0
