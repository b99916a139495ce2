"""A tar that is read once, from front to end: its blobs are offered as they pass.

In layouts, and in exports of a containerd store, each blob is named by its digest and its header
tells its size. So it can be asked for and sent before it is known which manifest lists it.
Compressed blobs pass. Small members, such as manifests and configs, are kept in memory, as the
lists of images come last. From the first other member on, such as a plain layer, the rest of the
tar is spooled.
"""

from __future__ import annotations

import io
import re
from functools import cached_property
from typing import TYPE_CHECKING

from towline.errors import Cancelled, SourceError
from towline.sources.files import fill, missing
from towline.sources.image_source import ImageSource
from towline.sources.passing_blob import BLOCK, WINDOW, PassingBlob, passed_by
from towline.sources.spool import decompressed, spool
from towline.sources.tar_members import Forward, TarHeaders, TarMembers, clamped, torn
from towline.spec import manifest, media_types
from towline.spec.digest import Digest

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from towline.context import Cancel, Context
    from towline.layers.reader import Reader
    from towline.sources.base import SourceEntry
    from towline.sources.files import Archive
    from towline.sources.passing_blob import Held

KEPT = 8 << 20
"""Bytes of small members that are kept."""
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")


class PassingSource(ImageSource):
    """A tar in a pipe, whose blobs are taken as they pass."""

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
        plain, _ = decompressed(reader, name)
        self._tar = PassingTar(plain, name, context.cancel)

    def entries(self) -> Sequence[SourceEntry]:
        """See `ImageSource`."""
        return self._source.entries()

    @property
    def transport(self) -> str:
        """See `ImageSource`."""
        return self._source.transport

    @cached_property
    def _source(self) -> ImageSource:
        """The source, by the list of images that has come."""
        return self._listed(self._tar)

    def close(self) -> None:
        """See `ImageSource`."""
        self._tar.stream.close()
        self._tar.close()

    def passes(self) -> bool:
        """See `ImageSource`."""
        return True

    def passing(self, held: Held) -> Generator[PassingBlob | None, None, None]:
        """See `ImageSource`. At the end the whole tar has been read."""
        tar = self._tar
        if why := (yield from tar.passing(held)):
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

    def passing(
        self, held: Held, enough: Callable[[], bool] = lambda: False
    ) -> Generator[PassingBlob | None, None, str]:
        """Each blob, as `ImageSource` has it, until there is `enough`, or to the end.

        Ends before a member that can neither pass nor be kept, too, and then returns why; else "".
        """
        headers = TarHeaders(self.stream, self.name, self._cancel, None)
        for member in headers:
            if member.isdir():
                continue
            path = clamped(member.name)
            named = _BLOB.fullmatch(path)
            head = b""
            if member.isreg():
                head = self.stream.read(min(member.size, media_types.MAGIC_LENGTH))
                self.stream.seek(member.offset_data)
            kind = media_types.detect(head)
            if named and kind != "none":
                if path not in self.passed and path not in self.documents:
                    self.passed[path] = (member.size, head)
                    digest = Digest(f"sha256:{named[1]}")
                    blob = PassingBlob(digest, member.size, kind, self.name, held)
                    yield from self._pass(blob, member)
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

    def _pass(self, blob: PassingBlob, member: tarfile.TarInfo) -> Iterator[PassingBlob | None]:
        # No deadlock: all blobs before this one are whole, so their uploads wait for nobody here.
        # Once it has begun it may take their slot (the largest goes first, and with `--jobs 1`
        # there is one for all), so from then on it needs no room of theirs.
        while blob.held.awaits_room(min(blob.size, WINDOW + BLOCK)):
            yield None
        try:
            yield blob
            for start in range(0, blob.size, BLOCK):
                block = bytearray(min(BLOCK, blob.size - start))
                self._fill(block, member, start)
                while not blob.put(block):
                    yield None
                yield None
        except BaseException as error:
            blob.end(error if isinstance(error, SourceError) else Cancelled())
            raise

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
        name = self._led_to(path)
        if self.tail and (size := self.tail.size(name)) is not None:
            return size
        if name in self.documents:
            return len(self.documents[name])
        return self.passed[name][0] if name in self.passed else None

    def open(self, path: str) -> Reader:
        """See `Files`. A member that has passed has its first bytes alone."""
        name = self._led_to(path)
        if self.tail and self.tail.size(name) is not None:
            return self.tail.open(name)
        if name in self.documents:
            return io.BytesIO(self.documents[name])
        if name in self.passed:
            return _Beginning(self.passed[name][1], passed_by(self.name, name))
        raise missing(self, path)

    def _led_to(self, path: str) -> str:
        # The target of a link may have come before what is spooled.
        return self.tail.led_to(path) if self.tail else clamped(path)

    def close(self) -> None:
        """See `Files`."""
        if self.tail:
            self.tail.close()


class _Beginning(io.BytesIO):
    """A Reader of a blob's first bytes, which raises an error behind them."""

    def __init__(self, content: bytes, error: SourceError) -> None:
        super().__init__(content)
        self._error = error

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # narrower
        """See `Reader`."""
        if count := super().readinto(buffer):
            return count
        raise self._error
