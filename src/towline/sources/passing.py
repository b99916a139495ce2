"""A tar that is read once, from front to end: its blobs are offered as they pass.

In layouts, and in exports of a containerd store, each blob is named by its digest and its header
tells its size. So it can be asked for and sent before it is known which manifest lists it.
Compressed blobs pass. Small members, such as manifests and configs, are kept in memory, as the
lists of images come last. From the first other member on, such as a plain layer, the rest of the
tar is spooled.
"""

from __future__ import annotations

import re
from collections import deque
from threading import Condition
from typing import TYPE_CHECKING, Protocol

from towline.errors import Cancelled, SourceError
from towline.layers import decoders
from towline.sources.base import ImageSource, PassedBy, SourceEntry
from towline.sources.files import fill, missing
from towline.sources.spool import Head, check_window, spool
from towline.sources.tar_members import Forward, TarHeaders, TarMembers, clamped, torn
from towline.spec import compression, manifest
from towline.spec.digest import Digest

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from towline.context import Cancel, Context
    from towline.layers.reader import Reader
    from towline.sources.files import Archive
    from towline.spec.compression import Compression

BLOCK = 256 << 10
"""Bytes of a blob that are passed on at once."""
WINDOW = 4 << 20
"""Bytes of one blob that are held after they were sent: until there are more, its upload can begin
anew."""
ROOM = 20 << 20
"""Bytes of all blobs together that are held. Over 20 ms of round trip, 6 MB of 150 MB/s come before
the upload of a blob is open."""
KEPT = 8 << 20
"""Bytes of small members that are kept."""
_LOOK = 0.1
"""Seconds between two looks whether a wait is still wanted."""
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_HINT = "write it to a file, and push that: a file can be read again"


class Held:
    """What is held of all blobs that pass."""

    def __init__(self) -> None:
        self.moved = Condition()
        """Notified of each change in one of them."""
        self.size = 0
        """Bytes."""
        self.missed: set[Digest] = set()
        """Blobs of which a reader wanted bytes that were not held any more."""


class PassingBlob:
    """A blob that passes: the thread that reads the pipe puts blocks, another one sends them."""

    def __init__(
        self, digest: Digest, size: int, kind: Compression, source: str, held: Held
    ) -> None:
        self.digest = digest
        self.size = size
        """Bytes."""
        self.compression = kind
        self._source = source
        self._held = held
        self._moved = held.moved
        self._blocks: deque[bytes | bytearray] = deque()
        """The blocks that are held, of `BLOCK` bytes each but for the blob's last one."""
        self._dropped = 0
        """Bytes of the blob before those blocks."""
        self._put = 0
        """Bytes that have come."""
        self._taken = 0
        """Bytes that the present reader has taken."""
        self._error: BaseException | None = None
        self.let_go = False
        """Whether nobody wants more of the blob."""

    def open(self) -> Reader:
        """A reader at the first byte. Raises PassedBy where that is not held any more."""
        with self._moved:
            if self._dropped or self.let_go:
                raise self._gone()
            self._taken = 0
        return self

    def _gone(self) -> PassedBy:
        self._held.missed.add(self.digest)
        return passed_by(self._source, f"the blob {self.digest}")

    def release(self) -> None:
        """Note that nobody wants more of the blob: the rest is read and dropped."""
        with self._moved:
            self.let_go = True
            self._held.size -= sum(map(len, self._blocks))
            self._blocks.clear()
            self._moved.notify_all()

    def put(self, block: bytes | bytearray, cancel: Cancel) -> None:
        """Add the next block, once there is room for it. Raises Cancelled."""
        with self._moved:
            while not self.let_go and self._held.size >= ROOM:
                self._moved.wait(_LOOK)
                cancel.check()
            if not self.let_go:
                self._blocks.append(block)
                self._put += len(block)
                self._held.size += len(block)
                self._moved.notify_all()

    def end(self, error: BaseException) -> None:
        """Note that no more of it comes, though it is not whole."""
        with self._moved:
            self._error = error
            self._moved.notify_all()

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Reader`. There is one reader at a time, the one that was opened last."""
        with self._moved:
            while self._taken == self._put < self.size and not self.let_go:
                if self._error is not None:
                    raise self._error
                self._moved.wait()
            if self._taken == self.size:
                return 0
            if self.let_go:
                raise self._gone()
            place, start = divmod(self._taken - self._dropped, BLOCK)
            block = self._blocks[place]
            count = min(len(buffer), len(block) - start)
            buffer[:count] = memoryview(block)[start : start + count]
            self._taken += count
            while self._taken - self._dropped > WINDOW:
                oldest = len(self._blocks.popleft())
                self._dropped += oldest
                self._held.size -= oldest
            self._moved.notify_all()
            return count

    def close(self) -> None:
        """See `Reader`. The next reader begins at the first byte."""


def passed_by(source: str, what: str) -> PassedBy:
    """The error for bytes that have passed and are not held any more."""
    return PassedBy(f"{what} has passed by in {source}, which can be read only once", hint=_HINT)


class PassesBy(Protocol):
    """A source whose blobs are taken as they pass, before anything else is asked of it."""

    @property
    def once(self) -> bool:
        """Whether blobs that have passed are gone for good (a pipe), or can be had again."""

    def passing(self) -> Generator[PassingBlob, None, None]:
        """Each blob, as it passes.

        The caller opens it in another thread, and releases it at the end. Raises SourceError,
        Cancelled.
        """


class PassingSource:
    """An ImageSource in a pipe, whose blobs are taken as they pass."""

    once = True

    def __init__(
        self,
        reader: Reader,
        name: str,
        context: Context,
        environ: Mapping[str, str],
        listed: Callable[[Archive], ImageSource],
    ) -> None:
        """`listed` makes an ImageSource of the members, at the end. Raises SourceError."""
        self.name = name
        """Its name in errors."""
        self._context = context
        self._environ = environ
        self._listed = listed
        head = Head(reader)
        kind = compression.detect(head.content)
        check_window(head.content, kind, name)
        self._tar = PassingTar(decoders.decoded(head, kind, name), name, context.cancel)
        self._source: ImageSource | None = None

    def entries(self) -> Sequence[SourceEntry]:
        """See `ImageSource`."""
        return self._known().entries()

    @property
    def transport(self) -> str:
        """See `ImageSource`."""
        return self._known().transport

    def _known(self) -> ImageSource:
        """The source, by the list of images that has come."""
        if self._source is None:
            self._source = self._listed(self._tar)
        return self._source

    def close(self) -> None:
        """See `ImageSource`."""
        self._tar.stream.close()
        self._tar.close()

    def passing(self) -> Generator[PassingBlob, None, None]:
        """See `PassesBy`. At the end the whole tar has been read."""
        tar = self._tar
        if why := (yield from tar.passing()):
            file = spool(tar.stream, self.name, self._context, self._environ, why)
            try:
                tar.tail = TarMembers(file, self.name, self._context.cancel)
            except BaseException:
                file.release()
                raise
            tar.ended = tar.tail.ended


class PassingTar:
    """The `Archive` of a tar that passes: each member is in memory, on disk, or gone."""

    def __init__(self, reader: Reader, name: str, cancel: Cancel) -> None:
        self.name = name
        self.stream = Forward(reader)
        """The rest of the tar, which has not passed yet."""
        self.documents: dict[str, bytes] = {}
        """Small members, by their names."""
        self.passed: dict[str, tuple[int, bytes]] = {}
        """Sizes and first bytes of the blobs that have passed, by their names."""
        self.tail: TarMembers | None = None
        self.ended = False
        self._cancel = cancel
        self._kept = 0
        """Bytes of the documents."""
        self.held = Held()

    def passing(
        self, enough: Callable[[], bool] = lambda: False
    ) -> Generator[PassingBlob, None, str]:
        """Each blob, as it passes, until there is `enough`, or to the end.

        Ends before a member that can neither pass nor be kept, too, and then returns why; else "".
        """
        headers = TarHeaders(self.stream, self.name, self._cancel, None)
        for member in headers:
            if member.isdir():
                continue
            path = clamped(member.name)
            named = _BLOB.fullmatch(path)
            kind = self._kind(member)
            if named and kind != "none":
                if path not in self.passed and path not in self.documents:
                    yield from self._pass(Digest(f"sha256:{named[1]}"), member, kind)
            elif member.isreg() and member.size <= min(manifest.MAX_SIZE, KEPT - self._kept):
                self._kept += member.size
                content = bytearray(member.size)
                self._fill(content, member, 0)
                self.documents[path] = bytes(content)
            else:
                self.stream.seek(member.offset)
                if named:
                    return f"{path} is large and not compressed"
                return "its layers are not all named by their digests"
            if enough():
                return ""
        self.ended = headers.ended
        # To the end: a command before the pipe that can write no more would die of SIGPIPE.
        self.stream.drain()
        return ""

    def _kind(self, member: tarfile.TarInfo) -> Compression:
        """How the content is compressed, by its first bytes."""
        return compression.detect(self._head(member)) if member.isreg() else "none"

    def _head(self, member: tarfile.TarInfo) -> bytes:
        head = self.stream.read(min(member.size, compression.MAGIC_LENGTH))
        self.stream.seek(member.offset_data)
        return head

    def _pass(
        self, digest: Digest, member: tarfile.TarInfo, kind: Compression
    ) -> Iterator[PassingBlob]:
        blob = PassingBlob(digest, member.size, kind, self.name, self.held)
        self.passed[clamped(member.name)] = (member.size, self._head(member))
        self._wait_for_room(min(member.size, WINDOW + BLOCK))
        try:
            yield blob
            for start in range(0, member.size, BLOCK):
                block = bytearray(min(BLOCK, member.size - start))
                self._fill(block, member, start)
                blob.put(block, self._cancel)
        except BaseException as error:
            blob.end(error if isinstance(error, SourceError) else Cancelled())
            raise

    def _wait_for_room(self, size: int) -> None:
        """Wait until so many more bytes may be held."""
        # No deadlock: all blobs before the next one are whole, so their uploads wait for nobody
        # here. Once it has begun it may take their slot (the largest goes first, and with `--jobs
        # 1` there is one for all), so from then on it needs no room of theirs.
        with self.held.moved:
            while self.held.size + size > ROOM:
                self.held.moved.wait(_LOOK)
                self._cancel.check()

    def _fill(self, block: bytearray, member: tarfile.TarInfo, start: int) -> None:
        """Read the next bytes of a member's content, of which `start` were read before."""
        got = fill(self.stream, memoryview(block))
        if got < len(block):
            raise torn(self.name, f"its member {member.name!r}", start + got, member.size)

    # As an archive.

    @property
    def files(self) -> Mapping[str, object]:
        """See `Archive`."""
        tail = self.tail.files if self.tail else {}
        return {**self.documents, **self.passed, **tail}

    def size(self, path: str) -> int | None:
        """See `Files`."""
        name = clamped(path)
        if self.tail and (size := self.tail.size(path)) is not None:
            return size
        if name in self.documents:
            return len(self.documents[name])
        return self.passed[name][0] if name in self.passed else None

    def open(self, path: str) -> Reader:
        """See `Files`. A member that has passed has its first bytes alone."""
        name = clamped(path)
        if self.tail and self.tail.size(path) is not None:
            return self.tail.open(path)
        if name in self.documents:
            return _Beginning(self.documents[name])
        if name in self.passed:
            return _Beginning(self.passed[name][1], passed_by(self.name, name))
        raise missing(self, path)

    def close(self) -> None:
        """See `Files`."""
        if self.tail:
            self.tail.close()


class _Beginning:
    """A Reader of bytes in memory, which raises `error` behind them, if there is one."""

    def __init__(self, content: bytes, error: SourceError | None = None) -> None:
        self._rest = memoryview(content)
        self._error = error

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Reader`."""
        if not self._rest and self._error:
            raise self._error
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """See `Reader`."""
