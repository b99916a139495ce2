"""An engine's export, kept in a temporary file without a name, without the layers nobody wants.

A thread reads the tar as it comes. A reader waits for bytes that have not come yet, so that layers
are sent while the rest is still on its way. A layer that need not be kept leaves a hole in the
file. If it is read all the same, the engine exports once more, and the holes are filled.
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
from towline.sources.files import Section, SharedFile, fill, read_all, unreadable
from towline.sources.spool import Room, folder_in
from towline.sources.tar_members import Forward, Span, TarHeaders, content_size, torn
from towline.spec.manifest import MAX_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from towline.context import Context
    from towline.layers.reader import Reader
    from towline.wire.exchange import Unread

_BLOCK = 512
_HEAD = 4 << 10
"""Bytes at a member's beginning that are always kept: they tell how it is compressed."""
_TAIL = 8 << 10
"""Bytes at a stream's end that are searched for the engine's error."""
_PIECE = 1 << 20
"""Bytes that are written at once."""
_TICK = 0.1
"""Seconds between two looks whether the push was cancelled."""
_NAMED = re.compile(r"(?:^|/)([0-9a-f]{64})(?:/layer\.tar|\.tar|\.json)?$")


class EngineExport(SharedFile):
    """The tar as a file that any thread can read at any position, while it is still written."""

    def __init__(
        self,
        ask: Callable[[Context], Unread],
        gone: Callable[[TowlineError, int], SourceError],
        name: str,
        context: Context,
        environ: Mapping[str, str],
        *,
        expected: int,
        unwanted: set[str],
    ) -> None:
        """`ask` begins an export, as often as needed; `gone` makes the error of one that broke off.

        `unwanted`: digests, without the algorithm, of members that are not kept unless they are
        asked for before they come. `expected`: about how many bytes will come. Raises SourceError
        where no temporary file can be made.
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
        """Bytes that have come, holes included."""
        self._holes: list[tuple[int, int]] = []
        self._unwanted = unwanted
        self._wanted: set[str] | None = None
        self._ended = False
        self._error: BaseException | None = None
        self._filling = threading.Lock()
        self._stop = Cancel()
        self._stack = ExitStack()
        self._stack.enter_context(context.cancel.on_cancel(self._stop.cancel))
        self._thread = threading.Thread(target=self._drain, name="towline-export")
        self._thread.start()

    # What is read.

    def open(self, hexadecimal: str) -> Reader | None:
        """A reader of the member named by a digest, as soon as it begins; None: there is none.

        Raises SourceError for an export that failed, and Cancelled.
        """
        span = self._find(hexadecimal)
        if span is None:
            return None
        return Section(self, span.start, span.size, f"{hexadecimal} in {self.name}")

    def read(self, hexadecimal: str) -> bytes | None:
        """All of a config or manifest; None: there is none, or it is too large to be one.

        Raises as `open` does.
        """
        span = self._find(hexadecimal)
        if span is None or span.size > MAX_SIZE:
            return None
        return read_all(Section(self, span.start, span.size, hexadecimal), span.size)

    def _find(self, hexadecimal: str) -> Span | None:
        with self._news:
            self._unwanted.discard(hexadecimal)
        self._wait(lambda: hexadecimal in self._members)
        return self._members.get(hexadecimal)

    def await_end(self) -> None:
        """Wait for the end of the export, and set `size`. Raises SourceError, Cancelled."""
        self._wait(lambda: False)
        self.size = self._written

    def read_at(self, buffer: memoryview, position: int) -> int:
        """See `SharedFile`. Waits until these bytes have come. Raises Cancelled, too."""
        self._wait(lambda: self._written > position)
        end = min(position + len(buffer), self._written)
        for start, stop in self._holes:
            if start <= position < stop:
                self._fill()
            elif position < start:  # up to the hole: a buffer that reaches into it fills none
                end = min(end, start)
                break
        try:
            return os.preadv(self._descriptor, [buffer[: max(0, end - position)]], position)
        except OSError as error:
            raise unreadable(self.name, error) from None

    def _wait(self, come: Callable[[], bool]) -> None:
        """Wait until `come` is true, or the export has ended. Raises its error, Cancelled."""
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

    def _drain(self) -> None:
        """The thread's work."""
        error: BaseException | None = None
        try:
            self._take()
        except BaseException as failure:  # noqa: BLE001 - whoever reads hears of it
            error = failure
        with self._news:
            self._error, self._ended = error, True
            self._news.notify_all()

    def _take(self) -> None:
        """Read one export to its end, or until all that is wanted has come."""
        unread = self._ask(self._context.but(cancel=self._stop))
        stream = ExportStream(unread, self.name, self._gone)
        kept = _Kept(stream, self)
        tar = Forward(kept)
        try:
            for member in TarHeaders(tar, self.name, self._stop, None):
                match = _NAMED.search(member.name) if member.isreg() else None
                if match:
                    self._begin(match[1], Span(member.offset_data, member.size))
                end = member.offset_data + -(-content_size(member) // _BLOCK) * _BLOCK
                # The last block is kept: `tarfile` reads a member's last byte.
                hole = (member.offset_data + _HEAD, end - _BLOCK)
                if match and match[1] in self._unwanted and hole[0] < hole[1]:
                    _take_to(tar, hole[0])
                    with self._news:
                        self._holes.append(hole)
                    kept.keeps = False
                    _take_to(tar, hole[1])
                    kept.keeps = True
                _take_to(tar, end)
                if (missing := end - tar.tell()) > 0:
                    size = content_size(member)
                    raise torn(self.name, f"its member {member.name!r}", size - missing, size)
                if self._enough:
                    break
            else:
                tar.drain()
        except SourceError as error:
            raise stream.explained(error) from error
        finally:
            tar.close()
        done = kept.position
        self._context.emit(Working(reference="", what=self._what, current=done, total=done))
        message = f"spooled {kept.size} bytes of {self.name} under {self._room.folder}"
        self._context.emit(Note(reference="", message=message))

    def _begin(self, hexadecimal: str, span: Span) -> None:
        """Note that a member begins that is named by a digest."""
        with self._news:
            self._members[hexadecimal] = span
            self._news.notify_all()

    def come(self, part: memoryview, at: int, end: int) -> None:
        """Write these bytes at position `at`; everything before `end` has come. Raises SourceError.

        `part` is empty for a hole.
        """
        self._room.write(self._descriptor, part, at)
        with self._news:
            self._written = max(self._written, end)
            self._news.notify_all()
        if end // _PIECE > at // _PIECE:
            total = max(self._expected, end)
            self._context.emit(Working(reference="", what=self._what, current=end, total=total))

    @property
    def _what(self) -> str:
        return f"reading {self.name}"

    @property
    def _enough(self) -> bool:
        """Whether all members that are wanted have come."""
        with self._news:
            return self._wanted is not None and self._wanted <= self._members.keys()

    def want_only(self, names: set[str]) -> None:
        """Note that no other members will be read: the export is ended behind the last of them."""
        with self._news:
            self._wanted = names

    def _fill(self) -> None:
        """Have the engine export once more, when this export is over, and keep all of it."""
        self.await_end()
        with self._filling:
            if self._holes:
                self._wanted, self._unwanted = None, set()
                self._take()
                self._holes = []


class _Kept:
    """A Reader of an export that writes what it reads to the file."""

    def __init__(self, stream: ExportStream, export: EngineExport) -> None:
        self.position = 0
        """Bytes read so far."""
        self.size = 0
        """Bytes written so far."""
        self.keeps = True
        """Whether the next bytes are written."""
        self._stream = stream
        self._export = export

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Reader`. Fills the buffer, but for the end."""
        done = fill(self._stream, buffer)
        part = buffer[: done if self.keeps else 0]
        self._export.come(part, self.position, self.position + done)
        self.position += done
        self.size += len(part)
        return done

    def close(self) -> None:
        """See `Reader`."""
        self._stream.close()


def _take_to(tar: Forward, position: int) -> None:
    """Read on to a position, or to the tar's end, in large pieces."""
    piece = memoryview(bytearray(min(_PIECE, position - tar.tell())))
    while (left := position - tar.tell()) and tar.readinto(piece[:left]):
        pass


class ExportStream:
    """A Reader of an engine's export as it comes; closing it ends the export."""

    def __init__(
        self, unread: Unread, name: str, gone: Callable[[TowlineError, int], SourceError]
    ) -> None:
        """`gone` makes the error of an export that broke off after so many bytes."""
        self._unread = unread
        self._name = name
        self._gone = gone
        self._position = 0
        self._tail = b""
        self._over = False

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Reader`."""
        if self._over:
            return 0
        try:
            count = self._unread.readinto(buffer)
        except TowlineError as error:
            self._over = True
            raise self._gone(error, self._position) from None
        self._tail = (self._tail + bytes(buffer[:count][-_TAIL:]))[-_TAIL:]
        self._over = not count
        self._position += count
        return count

    def explained(self, error: SourceError) -> SourceError:
        """The engine's reason for a torn tar, if it gives one; else `error`."""
        # An engine that fails after the first byte cannot change the status, which was 200: it
        # appends a line of JSON to the tar.
        room = memoryview(bytearray(_PIECE))
        while self.readinto(room):
            pass
        begin = self._tail.rfind(b'{"errorDetail"')
        if begin >= 0 and (said := said_in(self._tail[begin:])):
            return SourceError(f"the engine could not export the image: {said}")
        return error

    def close(self) -> None:
        """See `Reader`."""
        self._unread.close()
