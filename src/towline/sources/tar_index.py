"""Where the members of a tar lie, found by reading its headers alone.

Reads ustar, GNU and pax archives (POSIX.1-2024, "pax"; GNU tar's manual, "Basic Tar Format").
Contents are jumped over, so that an archive of any size is indexed at once. What the members
mean is `docker_archive`'s and `oci_layout`'s.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from towline.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from towline.sources.access import Access

BLOCK = 512
MAX_MEMBERS = 100_000
"""More is no image archive; the index is held in memory."""
MAX_EXTENSION = 1 << 20
"""Bytes of one extended header; it holds a path and little more."""
MAX_NAME = 4096
"""Bytes of a member's name, or of the name a link stands for; no system opens a longer one."""
MAX_NAMES = 16 << 20
"""Bytes of all names together: 100,000 blobs under their digests have half of it."""
_MAX_HOPS = 16
"""Links to links that are followed."""
_LINKS = frozenset(b"12")
_WITHOUT_DATA = frozenset(b"123456")
_EXTENSIONS = frozenset(b"xgXLK")
_RECORD = re.compile(rb"(\d{1,7}) ([^=]+)=")


@dataclass(frozen=True, slots=True)
class Span:
    """Where a file's content lies."""

    start: int
    """Bytes from the beginning of the archive."""
    size: int


@dataclass(frozen=True, slots=True)
class TarIndex:
    """The files of an archive by their names, links resolved on demand."""

    files: Mapping[str, Span]
    links: Mapping[str, str]
    """Names of symbolic and hard links, and the names they stand for."""
    ended: bool
    """Whether the archive has its end mark; without one it may have been cut between members."""

    def find(self, path: str) -> Span | None:
        """The file under that name, through links; None where there is none."""
        name = posixpath.normpath(path)
        for _ in range(_MAX_HOPS):
            if name not in self.links:
                return self.files.get(name)
            name = self.links[name]
        return None


def index(access: Access, name: str) -> TarIndex:
    """Read every header of the tar; `name` is what errors call it.

    Raises SourceError when it is no tar, is torn, or has members that point outside of it.
    """
    scan = _Scan(access, name)
    while scan.step():
        pass
    return TarIndex(scan.files, scan.links, scan.ended)


class _Scan:
    """One pass over the headers of one archive."""

    def __init__(self, access: Access, name: str) -> None:
        self.access = access
        self.name = name
        self.at = 0
        self.files: dict[str, Span] = {}
        self.links: dict[str, str] = {}
        self.ended = False
        self.names = 0
        """Bytes of all names so far."""
        self.everywhere: dict[str, bytes] = {}
        self.next: dict[str, bytes] = {}
        """What extended headers say of the member after them: path, linkpath, size."""
        self.header = bytearray(BLOCK)

    def step(self) -> bool:
        """Read one header and pass over what belongs to it; False at the end."""
        header = self.block()
        if header is None:
            return False
        size, kind = self.size(header), header[156]
        start, self.at = self.at, self.at + BLOCK
        if kind in _EXTENSIONS:
            self.extend(kind, self.content(size))
            return True
        self.member(header, kind, size, start)
        self.next = {}
        return True

    def block(self) -> bytearray | None:
        """The header at the present position, checked; None at the end mark or the end."""
        left = self.access.size - self.at
        if left == 0 and self.at:
            return None
        if left < BLOCK:
            self.not_a_header("it is too short" if left else "it is empty")
        self.fill(memoryview(self.header), self.at)
        if not any(self.header):
            self.ended = True
            return None
        if not _sum_is_right(self.header):
            self.not_a_header("it has no tar header")
        return self.header

    def fill(self, view: memoryview, position: int) -> None:
        done = 0
        while done < len(view):
            got = self.access.read_at(view[done:], position + done)
            if not got:
                raise SourceError(f"{self.name} became shorter while it was read")
            done += got

    def size(self, header: bytearray) -> int:
        """Bytes of data after this header, by itself or by the extended header before it."""
        if header[156] not in _EXTENSIONS and "size" in self.next:
            text = self.next["size"]
            if not text.isdigit() or len(text) > 20:  # noqa: PLR2004 - digits of 2**64
                self.damaged("a size that is no number")
            return int(text)
        size = _number(header[124:136])
        if size is None:
            self.damaged("a size that is no number")
        return size

    def content(self, size: int) -> bytes:
        """The data of an extended header, and past its padding."""
        if size > MAX_EXTENSION:
            self.damaged(f"an extended header of {size} bytes")
        self.check_whole(size, "an extended header")
        data = bytearray(size)
        with memoryview(data) as view:
            self.fill(view, self.at)
        self.at += _padded(size)
        return bytes(data)

    def extend(self, kind: int, data: bytes) -> None:
        if kind == ord("L"):
            self.next["path"] = data.partition(b"\0")[0]
        elif kind == ord("K"):
            self.next["linkpath"] = data.partition(b"\0")[0]
        elif kind == ord("g"):
            self.everywhere |= self.records(data)
        else:
            self.next |= self.records(data)

    def records(self, data: bytes) -> dict[str, bytes]:
        """The records of a pax header that say where a member lies."""
        found: dict[str, bytes] = {}
        at = 0
        while at < len(data) and data[at]:
            match = _RECORD.match(data, at)
            end = at + int(match[1]) if match else 0
            if match is None or end <= match.end() or data[end - 1 : end] != b"\n":
                self.damaged("an extended header that cannot be read")
            key = match[2].decode("utf-8", "replace")
            if key.startswith("GNU.sparse."):
                self.sparse()
            if key in {"path", "linkpath", "size"}:
                found[key] = data[match.end() : end - 1]
            at = end
        return found

    def member(self, header: bytearray, kind: int, size: int, start: int) -> None:
        said = self.everywhere | self.next
        if kind == ord("S"):
            self.sparse()
        written = said.get("path") or _name(header)
        target = said.get("linkpath") or bytes(header[157:257]).partition(b"\0")[0]
        self.bound(written, target)
        path = self.inside(written, written)
        # Before ustar a directory was a file whose name ends with a slash.
        folder = not kind and written.endswith(b"/")
        if kind in _WITHOUT_DATA or folder:
            size = 0
        self.check_whole(size, f"its member {_text(written)!r}")
        self.at += _padded(size)
        self.files.pop(path, None)
        self.links.pop(path, None)
        if kind in _LINKS:
            self.links[path] = self.target(path, kind, written, target)
        elif kind not in _WITHOUT_DATA and not folder:
            self.files[path] = Span(start + BLOCK, size)
        if len(self.files) + len(self.links) > MAX_MEMBERS:
            self.refuse(f"it has more than {MAX_MEMBERS} members, which no image archive has")

    def bound(self, *names: bytes) -> None:
        """Count what the index holds in memory: an archive of a few kilobytes may unpack to it."""
        for name in names:
            if len(name) > MAX_NAME:
                self.refuse(f"it has a name of {len(name)} bytes, which no image archive has")
            self.names += len(name)
        if self.names > MAX_NAMES:
            self.refuse(f"its names have more than {MAX_NAMES} bytes, which no image archive has")

    def target(self, path: str, kind: int, written: bytes, target: bytes) -> str:
        """The name a link stands for: from its own folder if symbolic, else from the root."""
        if kind == ord("2") and not target.startswith(b"/"):
            folder = posixpath.dirname(path).encode("utf-8", "surrogateescape")
            return _resolved(posixpath.join(folder, target)) or self.outside(written)
        return self.inside(target, written)

    def inside(self, path: bytes, written: bytes) -> str:
        """The normal form of a path that has no business outside of the archive."""
        if path.startswith(b"/") or b".." in path.split(b"/"):
            self.outside(written)
        return posixpath.normpath(_text(path))

    def check_whole(self, size: int, what: str) -> None:
        if self.at + size > self.access.size:
            held = max(0, self.access.size - self.at)
            raise SourceError(
                f"{self.name} is torn: it ends inside {what}, after {held} of its {size} bytes",
                hint="make the archive again, or copy it again",
            )

    def outside(self, written: bytes) -> NoReturn:
        self.refuse(f"its member {_text(written)!r} points outside the archive")

    def sparse(self) -> NoReturn:
        self.refuse("it has sparse members; make it without --sparse")

    def refuse(self, why: str) -> NoReturn:
        raise SourceError(f"{self.name} is not read: {why}")

    def damaged(self, what: str) -> NoReturn:
        raise SourceError(f"{self.name} is a damaged tar: {what} at byte {self.at}")

    def not_a_header(self, why: str) -> NoReturn:
        if not self.at:
            piped = self.name == "standard input"
            hint = "did the command before the pipe fail?" if piped else None
            raise SourceError(f"{self.name} is not a tar archive: {why}", hint=hint)
        if self.access.size - self.at < BLOCK:
            raise SourceError(
                f"{self.name} is torn: it ends inside a header, at byte {self.access.size}",
                hint="make the archive again, or copy it again",
            )
        self.damaged("no header")


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _sum_is_right(header: bytearray) -> bool:
    """Whether the header's checksum is that of its bytes, its own field counted as spaces."""
    said = _number(header[148:156])
    rest = header[:148] + header[156:]
    if said == sum(rest) + 8 * ord(" "):
        return True
    # Some old writers summed signed bytes.
    return said == sum(rest) + 8 * ord(" ") - 256 * sum(byte > 127 for byte in rest)  # noqa: PLR2004


def _number(field: bytearray) -> int | None:
    """Octal digits, or GNU's binary form for what they cannot hold; None for anything else."""
    if field[0] & 0x80:
        negative = field[0] & 0x40
        return None if negative else int.from_bytes(field) & ((1 << (8 * len(field) - 1)) - 1)
    digits = field.partition(b"\0")[0].strip(b" ")
    if digits.strip(b"01234567"):
        return None
    return int(digits or b"0", 8)


def _name(header: bytearray) -> bytes:
    name = bytes(header[:100]).partition(b"\0")[0]
    if header[257:263] != b"ustar\0":
        return name  # GNU's own format keeps other things where ustar has the prefix
    prefix = bytes(header[345:500]).partition(b"\0")[0]
    return prefix + b"/" + name if prefix else name


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _resolved(path: bytes) -> str | None:
    """The normal form of a relative path; None when it leads out."""
    normal = posixpath.normpath(_text(path))
    return None if normal == ".." or normal.startswith("../") else normal
