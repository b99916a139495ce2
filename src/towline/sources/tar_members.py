"""The members of a tar: `tarfile` reads the headers, and contents are read in place.

Reads ustar, GNU and pax archives (POSIX.1-2024, "pax"; GNU tar's manual, "Basic Tar Format").
Nothing is unpacked, so a link leads to another member or nowhere. `docker_archive` and `oci_layout`
know what the members mean.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

from towline.errors import SourceError
from towline.sources.files import Section, blocks, missing, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.context import Cancel
    from towline.layers.reader import Reader
    from towline.sources.files import SharedFile

MAX_MEMBERS = 100_000
"""No image archive has more; their names are held in memory."""
MAX_NAME = 4096
"""Characters of a member's name, or of a link's target; no system opens a longer one."""
MAX_NAMES = 16 << 20
"""Characters of all names together: 100,000 blobs named by their digests have half as many."""
MAX_EXTENSION = 16 << 10
"""Bytes of one extended header: two names and little more. The time that `tarfile` takes grows with
the square of them."""
_OTHERS = {b"BZh": "bzip2 -dc", b"\xfd7zXZ\x00": "xz -dc", b"\x04\x22\x4d\x18": "lz4 -dc"}
"""First bytes of compressions that are not read, and the command that decompresses each."""
_BLOCK = 512
_EXTENSIONS = frozenset((b"x", b"g", b"X", b"L", b"K"))
"""Types of headers that describe the member after them, in pax and GNU archives."""
_MAX_HOPS = 16
"""Links to links that are followed."""
_BACK = 64 << 10
"""Bytes that can be read again: extended headers, a name, a link, and a member's beginning."""
_AHEAD = 8 << 10
"""Bytes read at once for headers. Python 3.14 would read 128 KiB, which are mostly content."""


class TarHeaders:
    """The members of a tar, one after the other; iterated once.

    Iterating raises SourceError when the stream is no tar, is torn, or has members that no image
    archive has: outside of the archive, sparse, or too many. Of a stream of unknown size (a pipe)
    only the reader of a member's content finds out that it is torn there.
    """

    def __init__(
        self, stream: io.BufferedReader[Any] | Forward, name: str, cancel: Cancel, size: int | None
    ) -> None:
        """`size`: bytes of the tar; None: not known before its end."""
        self.name = name
        self.ended = False
        """Whether the tar has its end mark; without one it may have been cut between members."""
        self._stream = stream
        self._cancel = cancel
        self._size = size
        self._names = 0
        """Characters of all names so far."""
        self._members = 0

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        """Each member; the stream then stands behind its headers."""
        at = 0
        try:
            tar = tarfile.TarFile(
                fileobj=cast("Any", self._stream), tarinfo=self._header_type(), encoding="utf-8"
            )
            while member := tar.next():
                at = tar.offset
                self._check(member)
                # `tarfile` keeps all members: 100,000 of them are memory for nothing.
                tar.members.clear()  # type: ignore[attr-defined]  # a list, as ever
                # Nor is a global header kept: it would set the names of all members after it.
                tar.pax_headers = {}
                yield member
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            raise self._damaged(at) from error
        # `tarfile` stops without an error at an end mark, at the end of the file, and at a bad
        # header.
        block = self._block(at)
        if any(block) or 0 < len(block) < _BLOCK:
            raise self._damaged(at)
        self.ended = bool(block)

    def _header_type(self) -> type[tarfile.TarInfo]:
        """A type of `tarfile`'s headers that checks each of them before `tarfile` believes it."""
        check = self._check_header

        class Header(tarfile.TarInfo):
            # The one method that Python 3.11 to 3.14 call for every header, those behind extended
            # headers too; `frombuf` and `fromtarfile` are not always called for these.
            def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
                check(self)
                return super()._proc_member(archive)  # type: ignore[misc, no-any-return]

        return Header

    def _check_header(self, header: tarfile.TarInfo) -> None:
        """Refuse a header that `tarfile` would read without bounds, or twice.

        The stream stands behind the header.
        """
        self._cancel.check()
        if header.size < 0:  # it leads back, and the same headers come again for ever
            self._refuse("it has a size below 0")
        if header.type == tarfile.GNUTYPE_SPARSE:
            self._refuse_sparse()
        if header.type not in _EXTENSIONS:
            return
        if header.size > MAX_EXTENSION:
            self._refuse(f"it has an extended header of {header.size} bytes")
        at = self._stream.tell()
        self._check_whole(at, header.size, "an extended header")
        if b" GNU.sparse." in self._stream.read(header.size):
            self._refuse_sparse()
        self._stream.seek(at)

    def _check(self, member: tarfile.TarInfo) -> None:
        """Bound the memory for names: a compressed archive of a few kilobytes may have millions."""
        self._members += 1
        self._names += len(member.name) + len(member.linkname)
        if max(len(member.name), len(member.linkname)) > MAX_NAME:
            self._refuse(f"a name in it has more than {MAX_NAME} characters")
        if self._names > MAX_NAMES:
            self._refuse(f"its names have more than {MAX_NAMES} characters")
        if self._members > MAX_MEMBERS:
            self._refuse(f"it has more than {MAX_MEMBERS} members, which no image archive has")
        size = content_size(member)
        if size < 0:
            self._refuse("it has a size below 0")
        self._check_whole(member.offset_data, size, f"its member {member.name!r}")
        if ".." in member.name.split("/"):
            self._refuse(f"its member {member.name!r} points outside the archive")

    def _damaged(self, at: int) -> SourceError:
        """The error for a header, at byte `at` or behind it, that `tarfile` cannot read."""
        block = self._block(at)
        if at and len(block) < _BLOCK:
            return torn(self.name, f"a header, at byte {at + len(block)}", len(block), _BLOCK)
        if at:
            return SourceError(f"{self.name} is a damaged tar: it has no header at byte {at}")
        piped = self.name == "standard input"
        for magic, command in _OTHERS.items():
            if block.startswith(magic):
                said = f"{self.name} is compressed in a way that is not read"
                plain = command if piped else f"{command} {self.name}"
                return SourceError(said, hint=f"pipe it: {plain} | towline push - DESTINATION")
        why = "it is too short" if block else "it is empty"
        if len(block) == _BLOCK:
            why = "it has no tar header"
        hint = "did the command before the pipe fail?" if piped else None
        return SourceError(f"{self.name} is not a tar archive: {why}", hint=hint)

    def _block(self, at: int) -> bytes:
        self._stream.seek(at)
        return self._stream.read(_BLOCK)

    def _check_whole(self, start: int, size: int, what: str) -> None:
        if self._size is not None and start + size > self._size:
            raise torn(self.name, what, max(0, self._size - start), size)

    def _refuse_sparse(self) -> NoReturn:
        self._refuse("it has sparse members; make it without --sparse")

    def _refuse(self, why: str) -> NoReturn:
        raise SourceError(f"{self.name} is not read: {why}")


def torn(name: str, what: str, held: int, size: int) -> SourceError:
    """The error for an archive that ends inside `what`, after `held` of its `size` bytes."""
    return SourceError(
        f"{name} is torn: it ends inside {what}, after {held} of its {size} bytes",
        hint="make the archive again, or copy it again",
    )


def content_size(member: tarfile.TarInfo) -> int:
    """Bytes of a member's content; links, folders and devices have none."""
    has_data = member.isreg() or member.type not in tarfile.SUPPORTED_TYPES
    return member.size if has_data else 0


class Span(NamedTuple):
    """The place of a file's content."""

    start: int
    """Bytes from the beginning of the archive."""
    size: int


class Members:
    """The members of a tar as `Files`, as far as they are known; closing it releases the tar."""

    def __init__(self, archive: SharedFile, name: str) -> None:
        self.name = name
        self.files: dict[str, Span] = {}
        self.links: dict[str, str] = {}
        """Symbolic and hard links: their names, and those of their targets."""
        self.ended = False
        self._archive = archive

    def add(self, member: tarfile.TarInfo) -> None:
        """Add the next member."""
        path = clamped(member.name)
        # Of two members with one name the later one counts, as when a tar is unpacked.
        self.files.pop(path, None)
        self.links.pop(path, None)
        if member.issym():
            self.links[path] = clamped(posixpath.join(posixpath.dirname(path), member.linkname))
        elif member.islnk():
            self.links[path] = clamped(member.linkname)
        elif member.isreg() or member.type not in tarfile.SUPPORTED_TYPES:
            self.files[path] = Span(member.offset_data, content_size(member))

    def size(self, path: str) -> int | None:
        """See `Files`."""
        span = self.files.get(self.led_to(path))
        return None if span is None else span.size

    def open(self, path: str) -> Reader:
        """See `Files`."""
        span = self.files.get(self.led_to(path))
        if span is None:
            raise missing(self, path)
        return Section(self._archive, span.start, span.size, f"{shown(path)} in {self.name}")

    def close(self) -> None:
        """See `Files`."""
        self._archive.release()

    def led_to(self, path: str) -> str:
        """The name at the end of the links that a path leads through; "" where there are many."""
        name = clamped(path)
        for _ in range(_MAX_HOPS):
            if name not in self.links:
                return name
            name = self.links[name]
        return ""


class TarMembers(Members):
    """The members of a whole tar. Making one raises SourceError as `TarHeaders` does."""

    def __init__(self, archive: SharedFile, name: str, cancel: Cancel) -> None:
        super().__init__(archive, name)
        with io.BufferedReader(Section(archive, 0, archive.size, name), _AHEAD) as stream:
            headers = TarHeaders(stream, name, cancel, archive.size)
            for member in headers:
                self.add(member)
        self.ended = headers.ended


def clamped(path: str) -> str:
    """A path's normal form, from the archive's root; `..` leads no higher than that."""
    return posixpath.normpath("/" + path).lstrip("/")


class Forward:
    """A reader as a stream for `TarHeaders`: it goes forward, and back by a few blocks."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._behind = bytearray()
        """The last bytes of the reader, which can be read again."""
        self._end = 0
        """Bytes that were read from the reader."""
        self._at = 0
        """The position; at most `_end`."""

    def tell(self) -> int:
        """The position: bytes from the beginning."""
        return self._at

    def seek(self, position: int, /) -> None:
        """Go to a position: backwards by `_BACK` bytes at most, forwards to the end at most."""
        while position > self._end and self._more(position - self._end):
            pass
        self._at = min(position, self._end)

    def read(self, size: int, /) -> bytes:
        """So many bytes, fewer only at the end."""
        while self._at + size > self._end and self._more(self._at + size - self._end):
            pass
        start = self._at - (self._end - len(self._behind))
        data = bytes(self._behind[start : start + size])
        self._at += len(data)
        return data

    def _more(self, wanted: int) -> int:
        """Read at most so many bytes, and hold them to be read again."""
        room = bytearray(min(wanted, _BACK))
        got = self._reader.readinto(memoryview(room))
        self._behind += room[:got]
        self._end += got
        del self._behind[: -2 * _BACK]
        return got

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Reader`."""
        if self._at < self._end:
            data = self.read(min(len(buffer), self._end - self._at))
            buffer[: len(data)] = data
            return len(data)
        got = self._reader.readinto(buffer)
        # `tarfile` reads a member's last byte again, to see that it is there.
        self._behind = bytearray(buffer[max(0, got - 1) : got]) if got else self._behind
        self._end += got
        self._at += got
        return got

    def drain(self) -> None:
        """Read to the end."""
        for _ in blocks(self):
            pass

    def close(self) -> None:
        """See `Reader`."""
        self._reader.close()
