"""An engine's export, kept in a temporary file without a name, without the layers nobody wants.

A thread reads the tar as it comes. A reader waits for bytes that have not come yet, so that layers
are sent while the rest is still on its way. A layer that need not be kept leaves a hole in the
file. If it is read all the same, the engine exports once more, and the holes are filled.
"""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING

from towline.context import SLICE, Cancel
from towline.errors import SourceError
from towline.events import Note, Working
from towline.sources.files import Section, SharedFile, fill, read_all, unreadable
from towline.sources.open_source import by_its_list
from towline.sources.spool import Room
from towline.sources.tar_members import Forward, Members, Span, TarHeaders, content_size, torn
from towline.spec.digest import Digest
from towline.spec.manifest import MAX_SIZE

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable, Mapping

    from towline.context import Context
    from towline.layers.reader import Reader
    from towline.sources.engine.client import ExportStream
    from towline.sources.image_source import ImageSource

_HEAD = 4 << 10
"""Bytes at a member's beginning that are always kept: they tell how it is compressed."""
_PIECE = 1 << 20
"""Bytes that are written at once."""
_NAMED = re.compile(r"(?:^|/)([0-9a-f]{64})(?:/layer\.tar|\.tar|\.json)?$")


class KeptExport(SharedFile):
    """The tar as a file that any thread can read at any position, while it is still written.

    Its members lie where they lie in the tar; what is between them is not kept. A blob is a member
    that is named by a digest.
    """

    def __init__(
        self,
        begin: Callable[[Context], ExportStream],
        name: str,
        context: Context,
        environ: Mapping[str, str],
        *,
        expected: int,
        wanted: set[Digest] | None,
        unwanted: set[Digest],
    ) -> None:
        """`begin` begins an export, as often as needed; about `expected` bytes will come.

        `wanted`: see `want_only`. `unwanted` blobs are not kept unless they are asked for before
        they come. Raises SourceError where no temporary file can be made.
        """
        super().__init__(name, 0)
        self._begin = begin
        self._context = context
        self._expected = expected
        self._wanted, self._unwanted = wanted, unwanted
        self._room = Room(name, environ)
        self._news = threading.Condition()
        self._members = Members(self, name)
        self._blobs: dict[Digest, Span] = {}
        self._come = 0
        """The position up to which all has come, holes included."""
        self._holes: list[tuple[int, int]] = []
        self._ended = False
        self._error: BaseException | None = None
        self._filling = threading.Lock()
        self._stop = Cancel()
        self._thread = threading.Thread(target=self._take_all, name="towline-export")
        self._thread.start()

    def want_only(self, blobs: set[Digest]) -> None:
        """Note that nothing else will be read: the export is ended behind the last of them."""
        with self._news:
            self._wanted = blobs

    # What is read.

    def open(self, blob: Digest) -> Reader | None:
        """A reader of a blob, as soon as it begins to come; None: there is none.

        Raises SourceError for an export that failed, and Cancelled.
        """
        with self._news:
            self._unwanted.discard(blob)
        self._wait(lambda: blob in self._blobs)
        span = self._blobs.get(blob)
        return Section(self, span.start, span.size, f"{blob} in {self.name}") if span else None

    def document(self, digest: Digest) -> bytes | None:
        """All of a config or manifest; None: there is none. Of a larger blob only a part.

        Raises as `open` does.
        """
        reader = self.open(digest)
        return read_all(reader, MAX_SIZE) if reader else None

    def listed(self) -> ImageSource:
        """The export as a source by its list of images, which comes last. It need not be closed.

        Raises as `open` does.
        """
        self._wait(lambda: False)
        return by_its_list(self._members, None, self._context)

    def read_at(self, buffer: memoryview, position: int) -> int:
        """See `SharedFile`. Waits until these bytes have come. Raises Cancelled, too."""
        self._wait(lambda: self._come > position)
        end = min(position + len(buffer), self._come)
        for start, stop in self._holes:
            if start <= position < stop:
                self._fill_holes()
            elif position < start:  # up to the hole: a buffer that reaches into it fills none
                end = min(end, start)
                break
        try:
            return os.preadv(self._room.file.fileno(), [buffer[: max(0, end - position)]], position)
        except OSError as error:
            raise unreadable(self.name, error) from None

    def _wait(self, come: Callable[[], bool]) -> None:
        """Wait until `come` is true, or the export has ended. Raises its error, Cancelled."""
        with self._news:
            while not (come() or self._ended):
                self._context.cancel.check()
                self._news.wait(SLICE)
            if self._error is not None and not come():
                raise self._error

    def _fill_holes(self) -> None:
        """Have the engine export once more, when this export is over, and keep all of it."""
        self._wait(lambda: False)
        with self._filling, self._context.cancel.on_cancel(self._stop.cancel):
            if self._holes:
                self._wanted, self._unwanted = None, set()
                self._take()
                self._holes = []

    def _close(self) -> None:
        self._stop.cancel()
        self._thread.join()
        self._room.file.close()

    # What is written.

    def _take_all(self) -> None:
        """The thread's work."""
        try:
            with self._context.cancel.on_cancel(self._stop.cancel):
                self._take()
        except BaseException as error:  # noqa: BLE001 - whoever reads hears of it
            self._error = error
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _take(self) -> None:
        """Read one export to its end, or until all that is wanted has come."""
        stream = self._begin(self._context.but(cancel=self._stop))
        tar = Forward(stream)
        headers = TarHeaders(tar, self.name, self._stop, None)
        kept = 0
        try:
            for member in headers:
                kept += self._take_member(tar, member)
                with self._news:
                    if self._wanted is not None and self._wanted <= self._blobs.keys():
                        break
            else:
                self._members.ended = headers.ended
                tar.drain()
        except SourceError as error:
            raise stream.explained(error) from error
        finally:
            tar.close()
        self._tell(tar.tell(), tar.tell())
        message = f"spooled {kept} bytes of {self.name} under {self._room.folder}"
        self._context.emit(Note(reference="", message=message))

    def _take_member(self, tar: Forward, member: tarfile.TarInfo) -> int:
        """Read a member's content, and keep what is wanted of it. Returns the bytes kept."""
        start = member.offset_data
        kept = size = content_size(member)
        named = _NAMED.search(member.name) if member.isreg() else None
        with self._news:
            self._members.add(member)
            if named:
                blob = Digest(f"sha256:{named[1]}")
                self._blobs[blob] = Span(start, size)
                if blob in self._unwanted and size > _HEAD:
                    kept = _HEAD
                    self._holes.append((start + kept, start + size))
            self._news.notify_all()
        at, piece = 0, memoryview(bytearray(min(size, _PIECE)))
        while at < size:
            part = piece[: (kept if at < kept else size) - at]
            got = fill(tar, part)
            if got < len(part):
                raise torn(self.name, f"its member {member.name!r}", at + got, size)
            if at < kept:
                self._room.write(part, start + at)
            at += got
            self._reach(start + at)
        return kept

    def _reach(self, position: int) -> None:
        """Note that all up to this position has come."""
        with self._news:
            before, self._come = self._come, max(self._come, position)
            self._news.notify_all()
        if position // _PIECE > before // _PIECE:
            self._tell(position, max(self._expected, position))

    def _tell(self, current: int, total: int) -> None:
        what = f"reading {self.name}"
        self._context.emit(Working(reference="", what=what, current=current, total=total))
