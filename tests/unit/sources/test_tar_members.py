from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING, BinaryIO, cast

import pytest

from tests.support.sources import Counted, link, member, tar_of
from towline.context import Cancel
from towline.errors import Cancelled, SourceError
from towline.sources.files import OpenFile, SharedFile, SharedObject, read_all
from towline.sources.tar_members import TarMembers

if TYPE_CHECKING:
    from pathlib import Path

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
MiB = 1 << 20
GIB = 1 << 30


def index_of(data: bytes) -> TarMembers:
    return TarMembers(SharedObject(cast("BinaryIO", io.BytesIO(data)), "x.tar"), "x.tar", Cancel())


def content_of(data: bytes, index: TarMembers, path: str) -> bytes | None:
    size = index.size(path)
    if size is None:
        return None
    content = read_all(index.open(path), size)
    assert content in data
    return content


def header(entry: tarfile.TarInfo) -> bytes:
    return entry.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("fmt", FORMATS)
def test_members_are_found_by_name_in_every_format(fmt: int) -> None:
    long_name = "a" * 90 + "/" + "b" * 90
    data = tar_of(member("first", b"1" * 513), member(long_name, b"2"), fmt=fmt)
    index = index_of(data)
    assert content_of(data, index, "first") == b"1" * 513
    assert content_of(data, index, long_name) == b"2"
    assert index.size("third") is None
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


def test_what_lies_between_headers_is_passed_over_unread() -> None:
    data = Counted(tar_of(*(member(str(n), bytes(MiB)) for n in range(16))))
    index = TarMembers(SharedObject(cast("BinaryIO", data), "x.tar"), "x.tar", Cancel())
    assert len(index.files) == 16
    assert data.count < MiB


def test_links_in_a_circle_lead_nowhere() -> None:
    index = index_of(tar_of(link("a", "b"), link("b", "a"), link("c", "c")))
    assert index.size("a") is None
    assert index.size("c") is None


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/../x"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_members_that_point_outside_are_refused(name: str, fmt: int) -> None:
    data = tar_of(member("fine", b"x"), member(name, b"x"), fmt=fmt)
    with pytest.raises(SourceError, match=r"x\.tar is not read: its member .* points outside"):
        index_of(data)


@pytest.mark.parametrize("fmt", FORMATS)
def test_the_root_of_the_archive_is_where_names_begin(fmt: int) -> None:
    data = tar_of(
        member("/a", b"x"),
        link("absolute", "/a"),
        link("b/relative", "../../../a"),
        link("hard", "/../a", tarfile.LNKTYPE),
        link("out", "/etc/passwd"),
        fmt=fmt,
    )
    index = index_of(data)
    for name in ("a", "/a", "../../a", "absolute", "/b/relative", "hard"):
        assert content_of(data, index, name) == b"x"
    assert index.size("out") is None


def test_a_file_of_ten_gigabytes_is_jumped_over(tmp_path: Path) -> None:
    big = tarfile.TarInfo("big")
    big.size = 10 * GIB
    path = tmp_path / "x.tar"
    with path.open("wb") as file:
        file.write(header(big))
        file.seek(10 * GIB, os.SEEK_CUR)
        file.write(tar_of(member("after", b"x")))
    index = TarMembers(OpenFile(os.open(path, os.O_RDONLY), "x.tar"), "x.tar", Cancel())
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
    with pytest.raises(SourceError, match="is a damaged tar: it has no header at byte 1024"):
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
        index_of(tar_of(member("first"))[:512] + header(entry))


def test_an_extended_header_that_cannot_be_read_is_damage() -> None:
    records = b"0 path=a\n"
    entry = tarfile.TarInfo("a")
    entry.type, entry.size = tarfile.XHDTYPE, len(records)
    first = tar_of(member("first"))[:512]
    with pytest.raises(SourceError, match="is a damaged tar: it has no header at byte 512"):
        index_of(first + header(entry) + records.ljust(512, b"\0") + header(tarfile.TarInfo("b")))


def test_a_size_that_leads_back_ends_no_search() -> None:
    back = tarfile.TarInfo("a")
    back.pax_headers = {"size": "-1024"}
    data = tar_of(member("first"), (back, b""))
    # Newer releases of Python refuse it before we do.
    with pytest.raises(SourceError, match=r"it has (a size below 0|no header at byte 512)"):
        index_of(data)


def test_extended_headers_without_end_are_refused() -> None:
    entry = tarfile.TarInfo("a")
    entry.type = tarfile.GNUTYPE_LONGNAME
    with pytest.raises(SourceError, match=r"x\.tar is a damaged tar"):
        index_of(tar_of(member("first"))[:512] + header(entry) * 5000)


def test_what_takes_tarfile_long_is_ended_by_a_cancel() -> None:
    cancel = Cancel()
    cancel.cancel()
    file = SharedObject(cast("BinaryIO", io.BytesIO(tar_of(member("a")))), "x.tar")
    with pytest.raises(Cancelled):
        TarMembers(file, "x.tar", cancel)


def test_a_name_with_strange_characters_is_shown_harmlessly() -> None:
    data = tar_of(
        member("../\x1b[31m\udcff", b"x"), fmt=tarfile.GNU_FORMAT, errors="surrogateescape"
    )
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
    for long in (member("a" * 5000, b"x"), link("a", "b" * 5000)):
        with pytest.raises(SourceError, match="a name in it has more than 4096 characters"):
            index_of(tar_of(member("fine", b"x"), long))


def test_many_long_names_do_not_fill_the_memory() -> None:
    data = tar_of(*(member(f"{n:04}".ljust(4096, "x")) for n in range(4200)))
    with pytest.raises(SourceError, match="its names have more than 16777216 characters"):
        index_of(data)


def test_no_archive_makes_the_index_grow_without_end() -> None:
    class Endless(SharedFile):
        """The same empty member, again and again, under other names."""

        empty = header(tarfile.TarInfo("0" * 12))

        def read_at(self, buffer: memoryview, position: int) -> int:
            block = bytearray(self.empty)
            block[:12] = b"%012d" % position
            # Its sum is that of twelve zeros, and what these digits add to them.
            more = sum(block[:12]) - 12 * ord("0")
            block[148:156] = b"%06o\0 " % (int(self.empty[148:154], 8) + more)
            buffer[:512] = block
            return 512

        def _close(self) -> None:
            pass

    with pytest.raises(SourceError, match="more than 100000 members"):
        TarMembers(Endless("x.tar", 1 << 60), "x.tar", Cancel())
