"""The index of a tar says what the standard library's reader says, and never falls over."""

from __future__ import annotations

import io
import tarfile
from typing import BinaryIO, cast

from hypothesis import assume, given
from hypothesis import strategies as st

from towline.context import Cancel
from towline.errors import SourceError
from towline.sources.files import SharedObject
from towline.sources.tar_members import TarMembers

_PART = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=120
).filter(lambda part: part not in {".", ".."})
NAMES = st.lists(_PART, min_size=1, max_size=4).map("/".join)
KINDS = st.sampled_from(
    [
        tarfile.REGTYPE,
        tarfile.AREGTYPE,
        tarfile.CONTTYPE,
        tarfile.DIRTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CHRTYPE,
        b"V",
    ]
)
FORMATS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
WITH_DATA = {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, b"V"}


@st.composite
def members(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(draw(NAMES))
    entry.type = draw(KINDS)
    # Some versions of the standard library take such a member for a folder if what is left of its
    # name in the header, cut at 100 bytes, ends with a slash.
    assume(entry.type != tarfile.AREGTYPE or len(entry.name.encode()) <= tarfile.LENGTH_NAME)
    entry.mtime = draw(st.one_of(st.integers(0, 2**33), st.floats(0, 2**33)))
    entry.uid = draw(st.integers(0, 2**40))
    entry.uname = draw(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5))
    content = draw(st.binary(max_size=2000)) if entry.type in WITH_DATA else b""
    entry.size = len(content)
    if entry.type in {tarfile.SYMTYPE, tarfile.LNKTYPE}:
        entry.linkname = draw(NAMES)
    return entry, content


def written(listed: list[tuple[tarfile.TarInfo, bytes]], fmt: int, extra: dict[str, str]) -> bytes:
    file = io.BytesIO()
    headers = extra if fmt == tarfile.PAX_FORMAT else {}
    try:
        with tarfile.open(
            fileobj=file, mode="w", format=fmt, pax_headers=headers, encoding="utf-8"
        ) as tar:
            for entry, content in listed:
                tar.addfile(entry, io.BytesIO(content))
    except ValueError:
        assume(condition=False)  # too long a name or number for ustar
    return file.getvalue()


def index_of(data: bytes) -> TarMembers:
    return TarMembers(SharedObject(cast("BinaryIO", io.BytesIO(data)), "x.tar"), "x.tar", Cancel())


@given(
    st.lists(members(), min_size=1, max_size=8),
    FORMATS,
    st.dictionaries(st.sampled_from(["comment", "hello"]), st.text(max_size=9), max_size=2),
)
def test_files_lie_where_the_standard_library_finds_them(
    listed: list[tuple[tarfile.TarInfo, bytes]], fmt: int, extra: dict[str, str]
) -> None:
    data = written(listed, fmt, extra)
    index = index_of(data)
    expected: dict[str, tuple[int, int] | None] = {}
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as tar:
        for entry in tar:
            is_file = entry.isreg() or entry.type == b"V"
            expected[entry.name] = (entry.offset_data, entry.size) if is_file else None
    found = {name: (span.start, span.size) for name, span in index.files.items()}
    assert found == {name: span for name, span in expected.items() if span is not None}
    assert index.ended


@given(st.binary(max_size=4096))
def test_any_bytes_are_indexed_or_refused(data: bytes) -> None:
    try:
        index_of(data)
    except SourceError as error:
        assert str(error).isprintable()  # noqa: PT017 - it need not be raised


@given(
    st.lists(members(), min_size=1, max_size=4),
    FORMATS,
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, 1 << 20),
)
def test_any_damage_is_indexed_or_refused(
    listed: list[tuple[tarfile.TarInfo, bytes]],
    fmt: int,
    damage: list[tuple[int, int]],
    cut: int,
) -> None:
    data = bytearray(written(listed, fmt, {}))
    for place, value in damage:
        data[place % len(data)] = value
    # A header whose sum still fits is the one whose fields are believed.
    header = data[:512]
    header[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(header)
    del data[len(data) - cut % len(data) :]
    try:
        index = index_of(bytes(data))
    except SourceError as error:
        assert str(error).isprintable()  # noqa: PT017 - it need not be raised
    else:
        for span in index.files.values():
            assert 0 <= span.start <= span.start + span.size <= len(data)
