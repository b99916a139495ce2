from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import pytest

from tests.support.sources import (
    QUIET,
    digest_of,
    docker_archive,
    entries,
    image_of,
    member,
    tar_of,
)
from towline.context import Cancel, Context
from towline.errors import Cancelled, SourceError, UsageError
from towline.events import Event, Note
from towline.sources.location import parse
from towline.sources.open_source import open_source
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from towline.sources.image_source import ImageSource
    from towline.spec.media_types import Compression
    from towline.testing.image_formats import Form, Made

LAYERS = [{"etc/a": b"a" * 300_000}, {"etc/b": b"b"}]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_image(tmp_path / "x.tar", LAYERS)


@pytest.fixture
def pipe_of() -> Iterator[Callable[[bytes], str]]:
    """A path that is a pipe with these bytes in it, as a shell's process substitution gives."""
    threads, ends = [], []

    def start(data: bytes) -> str:
        out, into = os.pipe()
        ends.append(out)

        def feed() -> None:
            with open(into, "wb") as file:  # noqa: PTH123 - a descriptor
                file.write(data)

        threads.append(threading.Thread(target=feed))
        threads[-1].start()
        return f"/dev/fd/{out}"

    yield start
    for end in ends:
        os.close(end)
    for thread in threads:
        thread.join()


def check(source: ImageSource, made: Made) -> None:
    image = image_of(source.entries()[0])
    assert image.config == made.config
    assert tuple(layer.diff_id for layer in image.layers) == made.diff_ids
    for layer in image.layers:
        assert digest_of(layer) == (layer.stored.digest if layer.stored else layer.diff_id)
    source.close()


def test_a_path_is_recognised_by_its_content(tmp_path: Path, made: Made) -> None:
    odd = made.path.rename(tmp_path / "image.zip")
    for source in (odd, str(odd), f"docker-archive:{odd}:app:1", f"oci-archive:{odd}"):
        check(open_source(parse(source), QUIET), made)


@pytest.mark.parametrize("form", ["docker", "docker-legacy", "docker-containerd", "oci-archive"])
@pytest.mark.parametrize("archive", ["gzip", "zstd"])
def test_a_compressed_archive_is_spooled_and_says_so(
    tmp_path: Path, form: Form, archive: Compression
) -> None:
    made = make_image(tmp_path / "x", LAYERS, format=form, archive=archive)
    told: list[Event] = []
    spools = tmp_path / "spools"
    spools.mkdir()
    context = Context(emit=told.append)
    source = open_source(parse(made.path), context, environ={"TMPDIR": str(spools)})
    assert not list(spools.iterdir()), "the spool has no name"
    check(source, made)
    plain = make_image(tmp_path / "y", LAYERS, format=form).path.stat().st_size
    first, last = [event.message for event in told if isinstance(event, Note)]
    assert first == f"spooling {made.path} to a temporary file under {spools}"
    assert last == f"spooled {plain} bytes of {made.path} under {spools}"


def test_a_plain_archive_is_read_in_place(made: Made) -> None:
    told: list[Event] = []
    check(open_source(parse(made.path), Context(emit=told.append)), made)
    assert not told


@pytest.mark.parametrize("archive", ["none", "gzip", "zstd"])
def test_a_pipe_is_spooled(
    tmp_path: Path, archive: Compression, pipe_of: Callable[[bytes], str]
) -> None:
    made = make_image(tmp_path / "x.tar", LAYERS, archive=archive)
    told: list[Event] = []
    source = open_source(parse(pipe_of(made.path.read_bytes())), Context(emit=told.append))
    check(source, made)
    assert sum(isinstance(event, Note) for event in told) == 2


def test_zeros_behind_a_gzip_archive_are_ignored(
    tmp_path: Path, pipe_of: Callable[[bytes], str]
) -> None:
    made = make_image(tmp_path / "x.tar", LAYERS, archive="gzip")
    padded = made.path.read_bytes() + bytes(10_000)
    made.path.write_bytes(padded)
    for source in (made.path, pipe_of(padded)):
        check(open_source(parse(source), QUIET), made)


def test_a_pipe_that_gives_nothing_can_be_cancelled() -> None:
    out, into = os.pipe()
    cancel = Cancel()
    timer = threading.Timer(0.1, cancel.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        open_source(parse(f"/dev/fd/{out}"), Context(cancel=cancel))
    timer.join()
    os.close(out)
    os.close(into)


def test_a_file_object_is_read_in_place_from_where_it_stands(made: Made, tmp_path: Path) -> None:
    data = made.path.read_bytes()
    (tmp_path / "behind").write_bytes(b"before" + data)
    with (tmp_path / "behind").open("rb") as file:
        file.seek(6)
        check(open_source(parse(file), QUIET), made)
        assert file.tell() == 6
    memory = io.BytesIO(b"before" + data)
    memory.seek(6)
    check(open_source(parse(memory), QUIET), made)
    assert not memory.closed


def test_what_a_caller_has_written_but_not_flushed_is_read(made: Made, tmp_path: Path) -> None:
    with (tmp_path / "new").open("w+b", buffering=1 << 30) as file:
        file.write(made.path.read_bytes())
        file.seek(0)
        check(open_source(parse(file), QUIET), made)


def test_an_archive_in_an_archive_is_read_in_place(made: Made) -> None:
    outer = tar_of(member("inner.tar", made.path.read_bytes()))
    with tarfile.open(fileobj=io.BytesIO(outer)) as tar:
        inner = tar.extractfile("inner.tar")
        assert inner
        check(open_source(parse(cast("BinaryIO", inner)), QUIET), made)


def test_an_object_that_decompresses_is_spooled(made: Made) -> None:
    told: list[Event] = []
    packed = io.BytesIO(gzip.compress(made.path.read_bytes()))
    with gzip.open(packed) as file:
        check(open_source(parse(cast("BinaryIO", file)), Context(emit=told.append)), made)
    assert sum(isinstance(event, Note) for event in told) == 2


def test_an_object_that_cannot_seek_is_spooled(made: Made) -> None:
    class Stream(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self.rest = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # narrower
            return self.rest.readinto(memoryview(buffer)[:1000])

    check(open_source(parse(cast("BinaryIO", Stream(made.path.read_bytes()))), QUIET), made)


def test_an_object_that_can_only_be_read_is_a_stream(made: Made) -> None:
    class Reads:
        def __init__(self, content: bytes) -> None:
            self.read = io.BytesIO(content).read

    check(open_source(parse(cast("BinaryIO", Reads(made.path.read_bytes()))), QUIET), made)


def test_an_object_that_cannot_be_read_is_the_sources_fault(made: Made) -> None:
    class Broken(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: object) -> int:
            raise ConnectionError("gone")

    closed = made.path.open("rb")
    closed.close()
    for file, reason in ((closed, "closed file"), (Broken(), "gone")):
        with pytest.raises(SourceError, match=f"cannot read .*: .*{reason}"):
            open_source(parse(cast("BinaryIO", file)), QUIET)


def test_a_text_file_is_the_callers_mistake(made: Made) -> None:
    with (
        made.path.open(encoding="latin-1") as file,
        pytest.raises(UsageError, match="is a text file"),
    ):
        open_source(parse(cast("BinaryIO", file)), QUIET)


def test_an_entry_of_a_folder_read_as_bytes_is_a_path(made: Made) -> None:
    with os.scandir(os.fsencode(made.path.parent)) as listed:
        found: Any = next(each for each in listed if each.name == os.fsencode(made.path.name))
    assert open_source(parse(found), QUIET).entries()


@pytest.mark.parametrize("source", [b"image.tar", 3, None])
def test_what_is_neither_a_path_nor_a_file_is_refused(source: object) -> None:
    with pytest.raises(UsageError, match=f"is of type {type(source).__name__}"):
        open_source(parse(cast("BinaryIO", source)), QUIET)


@pytest.mark.parametrize("in_memory", [True, False])
def test_layers_are_read_many_times_by_many_threads(made: Made, *, in_memory: bool) -> None:
    source = (
        open_source(parse(io.BytesIO(made.path.read_bytes())), QUIET)
        if in_memory
        else open_source(parse(made.path), QUIET)
    )
    layers = image_of(source.entries()[0]).layers * 16
    with ThreadPoolExecutor(8) as pool:
        assert tuple(pool.map(digest_of, layers)) == made.diff_ids * 16
    source.close()


def test_nothing_stays_open(tmp_path: Path) -> None:
    paths = [
        make_image(tmp_path / "1", LAYERS).path,
        make_image(tmp_path / "2", LAYERS, archive="gzip").path,
        make_image(tmp_path / "3", LAYERS, format="oci").path,
        docker_archive(tmp_path / "4", {"a": b"plain"}, more=[member("../out", b"")]),
        tmp_path / "5",
        tmp_path / "6",
    ]
    paths[-2].write_bytes(b"no tar")
    paths[-1].write_bytes(gzip.compress(b"no tar"))
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - names alone
    for path in paths:
        try:
            source = open_source(parse(path), QUIET)
        except SourceError:
            continue
        reader = image_of(source.entries()[0]).layers[0].open()
        source.close()
        reader.close()
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208 - as above


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"gone\.tar does not exist$"):
        open_source(parse(tmp_path / "gone.tar"), QUIET)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SourceError, match=r"cannot read .*: not a directory$"):
        open_source(parse(tmp_path / "file" / "x"), QUIET)
    with pytest.raises(SourceError, match="cannot read"):
        open_source(parse("nul\0"), QUIET)


def test_a_transport_that_does_not_fit_says_which_does(tmp_path: Path) -> None:
    legacy = make_image(tmp_path / "legacy", format="docker-legacy").path
    with pytest.raises(SourceError, match="is no oci-archive") as caught:
        open_source(parse(f"oci-archive:{legacy}"), QUIET)
    assert caught.value.hint == "use docker-archive:PATH, or the path alone"
    archive = make_image(tmp_path / "archive", format="oci-archive").path
    with pytest.raises(SourceError, match="is no docker-archive") as caught:
        open_source(parse(f"docker-archive:{archive}"), QUIET)
    assert caught.value.hint == "use oci-archive:PATH, or the path alone"
    folder = make_image(tmp_path / "folder", format="oci").path
    with pytest.raises(SourceError, match="is a folder, not an archive") as caught:
        open_source(parse(f"docker-archive:{folder}"), QUIET)
    assert caught.value.hint == f"use oci:{folder}"
    with pytest.raises(SourceError, match="is no folder, so it is no OCI layout") as caught:
        open_source(parse(f"oci:{legacy}"), QUIET)
    assert caught.value.hint == f"use the path alone: {legacy}"


def test_an_oci_archive_by_name_is_read_by_its_index(tmp_path: Path) -> None:
    made = make_image(tmp_path / "x")
    source = open_source(parse(f"oci-archive:{made.path}"), QUIET)
    assert image_of(source.entries()[0]).manifest == made.root
    source.close()


def test_a_folder_without_an_index_is_no_layout(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"is a folder without index\.json"):
        entries(tmp_path)


@pytest.mark.parametrize(
    ("data", "command"), [(bz2.compress(b"x"), "bzip2 -dc"), (lzma.compress(b"x"), "xz -dc")]
)
def test_another_compression_is_named_with_the_way_round(
    tmp_path: Path, pipe_of: Callable[[bytes], str], data: bytes, command: str
) -> None:
    (tmp_path / "x").write_bytes(data)
    for path in (str(tmp_path / "x"), pipe_of(data)):
        with pytest.raises(SourceError, match="compressed in a way that is not read") as caught:
            open_source(parse(path), QUIET)
        assert caught.value.hint == f"pipe it: {command} {path} | towline push - DESTINATION"
