"""Standard input and full disks, in a child: both belong to a whole process."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from typing import IO, TYPE_CHECKING, Any

import pytest
import zstandard

from towline.context import Cancel
from towline.sources.spool import ObjectReader, PipeReader
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from towline.spec.media_types import Compression

MIB = 1 << 20
CHILD = """
import json, resource, sys
from towline.context import Context
from towline.errors import SourceError
from towline.events import Note
from towline.sources.location import parse
from towline.sources.open_source import open_source

notes = []
def heard(event):
    if isinstance(event, Note):
        notes.append(event.message)
try:
    source = open_source(parse(sys.argv[1]), Context(emit=heard))
    names = [name for entry in source.entries() for name in entry.names]
    for entry in source.entries():
        for layer in entry.content.layers:
            reader = layer.open()
            block = memoryview(bytearray(1 << 20))
            while reader.readinto(block):
                pass
            reader.close()
    source.close()
    said = {"names": names}
except SourceError as error:
    said = {"error": str(error), "hint": error.hint}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({**said, "notes": notes, "peak": peak}))
"""


def run(
    stdin: IO[bytes] | int | None,
    source: str = "-",
    *,
    data: bytes | None = None,
    tmpdir: Path | None = None,
    before: list[str] | None = None,
) -> dict[str, Any]:
    environ = {**os.environ, **({"TMPDIR": str(tmpdir)} if tmpdir else {})}
    done = subprocess.run(
        [*(before or []), sys.executable, "-c", CHILD, source],
        stdin=None if data is not None else stdin,
        input=data,
        stdout=subprocess.PIPE,
        env=environ,
        check=True,
    )
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def big_image(tmp_path: Path, megabytes: int, archive: Compression = "none") -> Path:
    """One whose layer does not compress."""
    layer = {"random": os.urandom(megabytes * MIB)}
    return make_image(tmp_path / "big.tar", [layer], archive=archive).path


def limited(tmp_path: Path) -> list[str]:
    """What to put before a command so that `tmp_path/small` has room for 1 MiB.

    A file system of that size in a namespace of its own; where that is not allowed, a limit on
    the size of the child's files.
    """
    small = tmp_path / "small"
    small.mkdir()
    mount = f"mount -t tmpfs -o size=1m tmpfs {small} && exec"
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    try:
        works = subprocess.run([*namespace, f"{mount} true"], capture_output=True, check=False)
    except FileNotFoundError:
        works = None
    if works and works.returncode == 0:
        return [*namespace, f'{mount} "$@"', "sh"]
    return ["sh", "-c", 'ulimit -f 1024; exec "$@"', "sh"]  # blocks of 512 or 1024 bytes


def test_a_file_as_standard_input_is_read_in_place(tmp_path: Path) -> None:
    path = make_image(tmp_path / "x.tar", names=["app:7"]).path
    with path.open("rb") as file:
        said = run(file)
    assert said["names"] == ["app:7"]
    assert said["notes"] == []


def test_a_file_as_standard_input_is_read_from_where_it_stands(tmp_path: Path) -> None:
    path = make_image(tmp_path / "x.tar", names=["app:7"]).path
    (tmp_path / "y").write_bytes(b"before" + path.read_bytes())
    with (tmp_path / "y").open("rb", buffering=0) as file:
        file.seek(6)
        assert run(file)["names"] == ["app:7"]


@pytest.mark.parametrize("source", ["-", "docker-archive:-", "/dev/stdin"])
def test_a_pipe_as_standard_input_is_spooled_under_tmpdir(tmp_path: Path, source: str) -> None:
    data = make_image(tmp_path / "x.tar", names=["app:7"]).path.read_bytes()
    said = run(None, source, data=data, tmpdir=tmp_path)
    name = "/dev/stdin" if source == "/dev/stdin" else "standard input"
    assert said["names"] == ["app:7"]
    assert said["notes"] == [
        f"spooling {name} to a temporary file under {tmp_path}",
        f"spooled {len(data)} bytes of {name} under {tmp_path}",
    ]


@pytest.mark.parametrize("packed", [gzip.compress, zstandard.compress])
def test_a_compressed_pipe_is_decompressed_on_its_way(tmp_path: Path, packed: Any) -> None:
    data = make_image(tmp_path / "x.tar", names=["app:7"]).path.read_bytes()
    said = run(None, data=packed(data))
    assert said["names"] == ["app:7"]
    assert f"spooled {len(data)} bytes" in said["notes"][1]


@pytest.mark.parametrize("as_object", [False, True])
def test_whoever_writes_a_pipe_may_be_ahead_by_more_than_the_usual_64_kib(
    *, as_object: bool
) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with os.fdopen(ours, "rb") as file:
        if as_object:
            ObjectReader(file, "a pipe")
        else:
            PipeReader(os.dup(ours), "a pipe", Cancel()).close()
        assert os.write(theirs, bytes(2 * MIB)) == MIB
    os.close(theirs)


def test_an_empty_pipe_is_said_to_be_empty() -> None:
    said = run(subprocess.DEVNULL)
    assert said["error"] == "standard input is not a tar archive: it is empty"
    assert said["hint"] == "did the command before the pipe fail?"


def test_standard_input_that_is_closed_is_said_to_be_closed() -> None:
    said = run(None, before=["sh", "-c", 'exec "$@" <&-', "sh"])
    assert said["error"] == "standard input is closed"


def test_a_terminal_is_no_archive() -> None:
    ours, theirs = os.openpty()
    said = run(theirs)
    os.close(ours)
    os.close(theirs)
    assert said["error"] == "standard input is a terminal"
    assert said["hint"]


def test_a_full_disk_is_told_with_what_was_written_and_what_is_free(tmp_path: Path) -> None:
    data = big_image(tmp_path, 3).read_bytes()
    said = run(None, data=data, tmpdir=tmp_path / "small", before=limited(tmp_path))
    match = re.fullmatch(
        rf"no room to spool standard input under {tmp_path}/small: (\d+) bytes were written, "
        r"(\d+) are free \(.*\)",
        said["error"],
    )
    assert match, said
    assert 0 < int(match[1]) <= MIB
    assert said["hint"] == "set TMPDIR to a folder with more room, or push from a plain file"


def test_what_is_needed_is_told_where_it_is_known(tmp_path: Path) -> None:
    data = big_image(tmp_path, 3).read_bytes()
    (tmp_path / "x.tar.zst").write_bytes(zstandard.compress(data))
    source = str(tmp_path / "x.tar.zst")
    said = run(None, source, data=b"", tmpdir=tmp_path / "small", before=limited(tmp_path))
    assert f"{len(data)} are needed" in said["error"]


def test_a_folder_for_spools_that_does_not_exist_is_named(tmp_path: Path) -> None:
    data = make_image(tmp_path / "x.tar").path.read_bytes()
    said = run(None, data=data, tmpdir=tmp_path / "gone")
    assert said["error"] == (
        f"cannot spool standard input under {tmp_path}/gone: no such file or directory"
    )
    assert said["hint"]


def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    small = make_image(tmp_path / "small.tar.gz", archive="gzip").path.read_bytes()
    big = big_image(tmp_path, 40, archive="gzip")
    with big.open("rb") as file:
        peaks = [
            run(None, data=small)["peak"],
            run(file)["peak"],
            run(None, str(big), data=b"")["peak"],
        ]
    assert max(peaks) - min(peaks) < 12 << 10, peaks  # KiB


@pytest.mark.parametrize("piped", [True, False])
def test_a_zstd_window_that_is_not_read_is_told_with_the_way_round(
    tmp_path: Path, *, piped: bool
) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=29, enable_ldm=True)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path = tmp_path / "x.tar.zst"
    path.write_bytes(packed.compress(make_image(tmp_path / "x.tar").path.read_bytes()))
    path.write_bytes(path.read_bytes() + packed.flush())
    said = run(None, "-" if piped else str(path), data=path.read_bytes() if piped else b"")
    assert "was compressed with zstd --long=29: its window of 536870912 bytes" in said["error"]
    file = "" if piped else f" {path}"
    assert said["hint"] == f"pipe it: zstd -dc --long=29{file} | towline push - DESTINATION"
    assert said["notes"] == []
