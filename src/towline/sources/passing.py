"""A tar that is read once, from front to end: what passes by is offered, and need not be kept.

In layouts, and in what a containerd store exports, each blob is named by its digest and sized by
its header, so that it can be asked for and sent before it is known which manifest lists it. Those
that are compressed pass by. Small members, manifests and configs among them, are kept in memory,
since the lists of images come last. At the first member that is neither, such as a plain layer,
the rest of the tar is spooled.
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
"""Bytes of a blob that are handed on at once."""
WINDOW = 4 << 20
"""Bytes of one blob that are held while it passes: so far its upload can begin anew."""
ROOM = 12 << 20
"""Bytes of all blobs that are held."""
KEPT = 8 << 20
"""Bytes of small members that are kept."""
_LOOK = 0.1
"""Seconds after which a wait looks whether it is still wanted."""
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")
_HINT = "write it to a file, and push that: a file can be read again"


class PassingBlob:
    """A blob that passes by: a few blocks of it, between who reads the pipe and who sends them."""

    def __init__(self, digest: Digest, size: int, kind: Compression, source: str) -> None:
        self.digest = digest
        self.size = size
        """Bytes."""
        self.compression = kind
        self.window = min(size, WINDOW)
        """Bytes that are held at most."""
        self._source = source
        self._moved = Condition()
        self._blocks: deque[bytes | bytearray] = deque()
        """Those that are held, of `BLOCK` bytes each but for the last of all."""
        self._dropped = 0
        """Bytes before them."""
        self._put = 0
        """Bytes that have come."""
        self._taken = 0
        """Bytes that the present reader has had."""
        self._error: BaseException | None = None
        self.let_go = False
        """Whether nobody wants any more of it."""
        self.missed = False
        """Whether somebody wanted what had gone by."""

    def open(self) -> Reader:
        """The reader, at the first byte. Raises PassedBy where that is not held any more."""
        with self._moved:
            if self._dropped or self.let_go:
                raise self._gone()
            self._taken = 0
        return self

    def _gone(self) -> PassedBy:
        self.missed = True
        return passed_by(self._source, f"the blob {self.digest}")

    def release(self) -> None:
        """Nobody wants any more of it: the rest is read and forgotten."""
        with self._moved:
            self.let_go = True
            self._blocks.clear()
            self._moved.notify_all()

    def put(self, block: bytes | bytearray, cancel: Cancel) -> None:
        """Hand on the next block, once there is room for it. Raises Cancelled."""
        with self._moved:
            while not self.let_go and not self._has_room():
                self._moved.wait(_LOOK)
                cancel.check()
            if not self.let_go:
                self._blocks.append(block)
                self._put += len(block)
                self._moved.notify_all()

    def _has_room(self) -> bool:
        if self._put - self._dropped < self.window:
            return True
        if self._taken - self._dropped < len(self._blocks[0]):
            return False
        self._dropped += len(self._blocks.popleft())
        return True

    def end(self, error: BaseException) -> None:
        """There will be no more of it, though it is not whole."""
        with self._moved:
            self._error = error
            self._moved.notify_all()

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Reader`: of the one that was opened last."""
        with self._moved:
            while self._taken == self._put < self.size:
                if self._error is not None:
                    raise self._error
                if self.let_go:
                    raise self._gone()
                self._moved.wait()
            if self._taken == self.size:
                return 0
            place, start = divmod(self._taken - self._dropped, BLOCK)
            block = self._blocks[place]
            count = min(len(buffer), len(block) - start)
            buffer[:count] = memoryview(block)[start : start + count]
            self._taken += count
            self._moved.notify_all()
            return count

    def close(self) -> None:
        """See `Reader`; the next one begins anew."""


def passed_by(source: str, what: str) -> PassedBy:
    """What to say when bytes are wanted that have gone by."""
    return PassedBy(f"{what} has passed by in {source}, which can be read only once", hint=_HINT)


class PassesBy(Protocol):
    """A source whose blobs are to be taken as they pass, before it is asked for anything else."""

    @property
    def once(self) -> bool:
        """Whether what has passed by is gone for good; else it can be asked for again."""
        ...

    def passing(self) -> Generator[PassingBlob, None, None]:
        """Each blob, as it passes.

        Whoever gets one opens it in another thread, and releases it at the end. Raises
        SourceError, and Cancelled.
        """
        ...


class PassingSource:
    """An ImageSource, and one that passes by: a pipe."""

    once = True

    def __init__(
        self,
        reader: Reader,
        name: str,
        context: Context,
        environ: Mapping[str, str],
        listed: Callable[[Archive], ImageSource],
    ) -> None:
        """`listed` makes the source of what is known at the end. Raises SourceError."""
        self.name = name
        """What errors call it."""
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
        """The source that it has turned out to be."""
        if self._source is None:
            self._source = self._listed(self._tar)
        return self._source

    def close(self) -> None:
        """See `ImageSource`."""
        self._tar.stream.close()
        self._tar.close()

    def passing(self) -> Generator[PassingBlob, None, None]:
        """See `PassesBy`; the tar has been read to its end then."""
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
    """The `Archive` of a tar that passes by: it is in memory, on disk, or gone."""

    def __init__(self, reader: Reader, name: str, cancel: Cancel) -> None:
        self.name = name
        self.stream = Forward(reader)
        """What has not passed yet."""
        self.documents: dict[str, bytes] = {}
        """Small members, by their names."""
        self.passed: dict[str, tuple[int, bytes]] = {}
        """Sizes and first bytes of what has gone by."""
        self.tail: TarMembers | None = None
        self.ended = False
        self._cancel = cancel
        self._kept = 0
        """Bytes of the documents."""
        self._blobs: list[PassingBlob] = []
        """Those of which something is held, or was missed."""

    def passing(
        self, enough: Callable[[], bool] = lambda: False
    ) -> Generator[PassingBlob, None, str]:
        """Each blob, as it passes, until there is `enough`, or to the end.

        It ends also before a member that can neither pass by nor be kept: why is what it returns.
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
        self.stream.drain()  # or the command before the pipe dies of it
        return ""

    def _kind(self, member: tarfile.TarInfo) -> Compression:
        """How the content is compressed, by its beginning."""
        return compression.detect(self._head(member)) if member.isreg() else "none"

    def _head(self, member: tarfile.TarInfo) -> bytes:
        head = self.stream.read(min(member.size, compression.MAGIC_LENGTH))
        self.stream.seek(member.offset_data)
        return head

    def _pass(
        self, digest: Digest, member: tarfile.TarInfo, kind: Compression
    ) -> Iterator[PassingBlob]:
        blob = PassingBlob(digest, member.size, kind, self.name)
        self.passed[clamped(member.name)] = (member.size, self._head(member))
        self._wait_for_room(blob.window)
        self._blobs.append(blob)
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
        """Until so many bytes may be held: those that are held are whole, and wait for nobody."""
        while True:
            self._blobs = [blob for blob in self._blobs if blob.missed or not blob.let_go]
            if sum(blob.window for blob in self._blobs if not blob.let_go) + size <= ROOM:
                return
            self._cancel.wait(_LOOK / 10)

    def _fill(self, block: bytearray, member: tarfile.TarInfo, start: int) -> None:
        """The next bytes of a member's content, of which `start` have gone by."""
        got = fill(self.stream, memoryview(block))
        if got < len(block):
            raise torn(self.name, f"its member {member.name!r}", start + got, member.size)

    # What is known of it.

    @property
    def missed(self) -> set[Digest]:
        """The blobs that somebody wanted when they had gone by."""
        return {blob.digest for blob in self._blobs if blob.missed}

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
        """See `Files`; of what has passed by the first bytes alone."""
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
    """A Reader of bytes in memory, and of an error where there are more that are not."""

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
