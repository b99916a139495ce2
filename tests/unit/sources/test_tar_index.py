from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
from typing import TYPE_CHECKING, BinaryIO, cast

import pytest

from tests.support.sources import link, member, tar_of
from towline.errors import SourceError
from towline.sources import tar_index
from towline.sources.access import FileObject, OpenFile

if TYPE_CHECKING:
    from pathlib import Path

    from towline.sources.tar_index import TarIndex

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
MIB = 1 << 20
GIB = 1 << 30


def index_of(data: bytes) -> TarIndex:
    return tar_index.index(FileObject(cast("BinaryIO", io.BytesIO(data)), "x.tar"), "x.tar")


def content_of(data: bytes, index: TarIndex, path: str) -> bytes | None:
    span = index.find(path)
    return None if span is None else data[span.start : span.start + span.size]


def header(entry: tarfile.TarInfo) -> bytes:
    return entry.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("fmt", FORMATS)
def test_members_are_found_by_name_in_every_format(fmt: int) -> None:
    long_name = "a" * 90 + "/" + "b" * 90
    data = tar_of(member("first", b"1" * 513), member(long_name, b"2"), fmt=fmt)
    index = index_of(data)
    assert content_of(data, index, "first") == b"1" * 513
    assert content_of(data, index, long_name) == b"2"
    assert index.find("third") is None
    assert index.ended


def test_names_are_compared_in_their_normal_form() -> None:
    data = tar_of(member("./a//b", b"x"))
    assert content_of(data, index_of(data), "a/b") == b"x"
    assert content_of(data, index_of(data), "./a/b") == b"x"


def test_the_last_member_of_a_name_counts() -> None:
    data = tar_of(member("a", b"old"), member("a", b"new"))
    assert content_of(data, index_of(data), "a") == b"new"


def test_symbolic_links_start_at_their_folder_and_hard_links_at_the_root() -> None:
    data = tar_of(
        member("one/layer.tar", b"x"),
        link("two/layer.tar", "../one/layer.tar"),
        link("three/layer.tar", "one/layer.tar", tarfile.LNKTYPE),
        link("four", "two/layer.tar"),
    )
    index = index_of(data)
    for name in ("two/layer.tar", "three/layer.tar", "four"):
        assert content_of(data, index, name) == b"x"


def test_links_in_a_circle_lead_nowhere() -> None:
    index = index_of(tar_of(link("a", "b"), link("b", "a"), link("c", "c")))
    assert index.find("a") is None
    assert index.find("c") is None


@pytest.mark.parametrize(
    "outside",
    [
        member("/etc/passwd", b"x"),
        member("../x", b"x"),
        member("a/../../x", b"x"),
        link("a", "/etc/passwd"),
        link("a/b", "../../x"),
        link("a", ".."),
        link("a", "/etc/passwd", tarfile.LNKTYPE),
        link("a/b", "../x", tarfile.LNKTYPE),
    ],
)
@pytest.mark.parametrize("fmt", FORMATS)
def test_members_that_point_outside_are_refused(
    outside: tuple[tarfile.TarInfo, bytes], fmt: int
) -> None:
    data = tar_of(member("fine", b"x"), outside, fmt=fmt)
    with pytest.raises(SourceError, match=r"x\.tar is not read: its member .* points outside"):
        index_of(data)


def test_a_file_of_ten_gigabytes_is_jumped_over(tmp_path: Path) -> None:
    big = tarfile.TarInfo("big")
    big.size = 10 * GIB
    path = tmp_path / "x.tar"
    with path.open("wb") as file:
        file.write(header(big))
        file.seek(10 * GIB, os.SEEK_CUR)
        file.write(tar_of(member("after", b"x")))
    index = tar_index.index(OpenFile(os.open(path, os.O_RDONLY), "x.tar"), "x.tar")
    assert index.files["big"].size == 10 * GIB
    assert index.files["after"].start == 10 * GIB + 1024


def test_an_archive_without_an_end_mark_is_read_and_said_to_be_so() -> None:
    data = tar_of(member("a", b"x"))[:1024]
    index = index_of(data)
    assert content_of(data, index, "a") == b"x"
    assert not index.ended


@pytest.mark.parametrize("fmt", FORMATS)
def test_an_archive_cut_inside_a_member_is_torn(fmt: int) -> None:
    data = tar_of(member("a", b"x" * 2000), fmt=fmt)
    with pytest.raises(SourceError, match=r"x\.tar is torn: it ends inside its member 'a'"):
        index_of(data[:1500])


def test_an_archive_cut_inside_a_header_is_torn() -> None:
    data = tar_of(member("a", b"x"), member("b", b"y"))
    with pytest.raises(SourceError, match=r"x\.tar is torn: it ends inside a header"):
        index_of(data[:1100])


@pytest.mark.parametrize("data", [b"", b"short", b"<html>" * 200, os.urandom(4096), b"\x80" * 2048])
def test_what_is_no_tar_is_called_so(data: bytes) -> None:
    with pytest.raises(SourceError, match=r"x\.tar is not a tar archive"):
        index_of(data)


def test_garbage_between_members_is_damage() -> None:
    data = bytearray(tar_of(member("a", b"x"), member("b", b"y")))
    data[1024:1030] = b"garbage"[:6]
    with pytest.raises(SourceError, match=r"x\.tar is a damaged tar: no header at byte 1024"):
        index_of(bytes(data))


def test_sparse_members_are_refused() -> None:
    old = tarfile.TarInfo("a")
    old.type = tarfile.GNUTYPE_SPARSE
    new = tarfile.TarInfo("a")
    new.pax_headers = {"GNU.sparse.major": "1"}
    for data in (header(old), tar_of((new, b""))):
        with pytest.raises(SourceError, match="sparse"):
            index_of(data)


def test_an_extended_header_of_absurd_size_is_refused_unread() -> None:
    entry = tarfile.TarInfo("a")
    entry.type, entry.size = tarfile.XHDTYPE, GIB
    with pytest.raises(SourceError, match="an extended header of 1073741824 bytes"):
        index_of(header(entry))


@pytest.mark.parametrize("records", [b"99 path=a\n", b"path=a\n", b"0 path=a\n", b"9 path=a."])
def test_an_extended_header_that_cannot_be_read_is_damage(records: bytes) -> None:
    entry = tarfile.TarInfo("a")
    entry.type, entry.size = tarfile.XHDTYPE, len(records)
    with pytest.raises(SourceError, match="damaged"):
        index_of(header(entry) + records.ljust(512, b"\0") + header(tarfile.TarInfo("b")))


def test_a_name_with_strange_characters_is_shown_harmlessly() -> None:
    data = tar_of(member("/\x1b[31m\udcff", b"x"), fmt=tarfile.GNU_FORMAT, errors="surrogateescape")
    with pytest.raises(SourceError) as caught:
        index_of(data)
    assert str(caught.value).isprintable()
    str(caught.value).encode()


def test_devices_and_folders_are_no_files() -> None:
    device = tarfile.TarInfo("null")
    device.type = tarfile.CHRTYPE
    folder = tarfile.TarInfo("folder/")
    folder.type = tarfile.DIRTYPE
    index = index_of(tar_of((device, b""), (folder, b"")))
    assert not index.files


def test_names_longer_than_any_system_has_are_refused() -> None:
    for long in (member("a" * 1_000_000, b"x"), link("a", "b" * 1_000_000)):
        with pytest.raises(SourceError, match="a name of 1000000 bytes, which no image archive"):
            index_of(tar_of(member("fine", b"x"), long))


def test_many_long_names_do_not_fill_the_memory() -> None:
    data = tar_of(*(member(f"{n:04}".ljust(4096, "x")) for n in range(4200)))
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match="its names have more than 16777216 bytes"):
            index_of(data)
        assert tracemalloc.get_traced_memory()[1] < 3 * 16 * MIB
    finally:
        tracemalloc.stop()


def test_no_archive_makes_the_index_grow_without_end() -> None:
    class Endless:
        """The same empty member, again and again, under other names."""

        size = 1 << 60
        empty = header(tarfile.TarInfo("0" * 12))

        def read_at(self, buffer: memoryview, position: int) -> int:
            name = b"%012d" % position
            buffer[:] = self.empty
            buffer[:12] = name
            # Its sum is that of twelve zeros, and what these digits add to them.
            more = sum(name) - 12 * ord("0")
            buffer[148:156] = b"%06o\0 " % (int(self.empty[148:154], 8) + more)
            return len(buffer)

        def hold(self) -> None: ...
        def release(self) -> None: ...

    with pytest.raises(SourceError, match="more than 100000 members"):
        tar_index.index(Endless(), "x.tar")
