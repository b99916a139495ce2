"""A tar that is read once: what passes, what is kept, and that it is one and the same tar."""

from __future__ import annotations

import gzip
import io
import os
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.sources import digest_of, images_of, member, tar_of
from towline.context import Cancel, Context
from towline.errors import Cancelled, SourceError
from towline.sources import open_source as opening
from towline.sources.base import PassedBy
from towline.sources.files import read_all
from towline.sources.passing import KEPT, ROOM, WINDOW, PassingBlob, PassingSource
from towline.spec.digest import Digest
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from towline.sources.base import ImageSource
    from towline.sources.files import Archive
    from towline.testing.image_formats import Form

MiB = 1 << 20
LAYERS = [{"a": b"a" * 9000}, {"b": os.urandom(5 * MiB)}, {"a": b"c"}]


class Trickle:
    """A Reader that gives a few bytes at a time."""

    def __init__(self, data: bytes, most: int) -> None:
        self.rest = io.BytesIO(data)
        self.most = most
        self.closed = False

    def readinto(self, buffer: memoryview, /) -> int:
        return self.rest.readinto(buffer[: self.most])

    def close(self) -> None:
        self.closed = True


def passing(data: bytes, most: int = 1 << 20, *, cancel: Cancel | None = None) -> PassingSource:
    context = Context(cancel=cancel or Cancel())

    def listed(files: Archive) -> ImageSource:
        return opening.by_its_list(files, None, context)

    return PassingSource(Trickle(data, most), "the pipe", context, {}, listed)


def taken(source: PassingSource) -> dict[Digest, bytes]:
    """All that passes, read by a thread for each blob."""
    found: dict[Digest, bytes] = {}
    threads = []

    def take(blob: PassingBlob) -> None:
        found[blob.digest] = read_all(blob.open(), blob.size)
        blob.release()

    for blob in source.passing():
        threads.append(threading.Thread(target=take, args=[blob]))
        threads[-1].start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("form", ["docker-containerd", "oci-archive"])
@pytest.mark.parametrize("most", [700, 1 << 20])
def test_each_layer_passes_and_the_rest_describes_the_image(
    tmp_path: Path, form: Form, most: int
) -> None:
    made = make_image(tmp_path / "x.tar", LAYERS, ["linux/amd64", "linux/arm64"], form)
    source = passing(made.path.read_bytes(), most)
    found = taken(source)
    blobs = {layer.blob.digest for image in made.images for layer in image.layers}
    assert set(found) == blobs
    assert all(Digest.of(content) == digest for digest, content in found.items())
    [entry] = source.entries()
    assert entry.content.manifest == made.root
    for layer in (layer for image in images_of(entry) for layer in image.layers):
        assert layer.held
        assert layer.stored
        with pytest.raises(PassedBy, match="has passed by in the pipe"):
            read_all(layer.open(), layer.size)
    source.close()


@given(st.lists(st.integers(0, 3 * 512), min_size=1, max_size=8), st.integers(1, 3000))
def test_a_tar_means_the_same_however_it_comes(sizes: list[int], most: int) -> None:
    contents = [os.urandom(size) for size in sizes]
    blobs = [gzip.compress(content, mtime=0) for content in contents]
    members = [
        part
        for content, blob in zip(contents, blobs, strict=True)
        for part in (
            member("n" * 150 + Digest.of(content).hex, content),
            member(f"blobs/sha256/{Digest.of(blob).hex}", blob),
        )
    ]
    source = passing(tar_of(*members), most)
    found = taken(source)
    assert found == {Digest.of(blob): blob for blob in blobs}
    for content in contents:
        kept = source._tar
        assert kept.documents["n" * 150 + Digest.of(content).hex] == content
    assert kept.ended


def test_more_small_members_than_are_kept_are_spooled(tmp_path: Path) -> None:
    many = [member(f"x{n}", os.urandom(MiB)) for n in range(KEPT // MiB + 3)]
    made = make_image(tmp_path / "x.tar", LAYERS, format="oci-archive")
    data = tar_of(*many)[: -2 * 512].rstrip(b"\0")
    data += bytes(-len(data) % 512) + made.path.read_bytes()
    source = passing(data)
    assert taken(source) == {}
    [entry] = source.entries()
    for image in images_of(entry):
        assert [digest_of(layer) for layer in image.layers] == [
            layer.blob.digest for layer in made.images[0].layers
        ]
    source.close()


def test_a_blob_can_be_begun_anew_until_more_of_it_has_passed_than_is_held() -> None:
    blob = PassingBlob(Digest("sha256:" + "0" * 64), 2 * WINDOW, "gzip", "the pipe")
    block, cancel = bytes(256 << 10), Cancel()
    for _ in range(WINDOW // len(block)):
        blob.put(block, cancel)
    for _ in range(2):
        assert len(read_all(blob.open(), WINDOW)) == WINDOW
    blob.put(block, cancel)
    with pytest.raises(PassedBy):
        blob.open()


def test_a_blob_that_nobody_reads_waits_until_it_is_let_go_or_all_is_cancelled() -> None:
    data = tar_of(member(f"blobs/sha256/{'0' * 64}", gzip.compress(os.urandom(2 * ROOM))))
    cancel = Cancel()
    source = passing(data, cancel=cancel)
    threading.Timer(0.2, cancel.cancel).start()
    with pytest.raises(Cancelled):
        list(source.passing())
    source = passing(data)
    for blob in source.passing():
        threading.Timer(0.2, blob.release).start()
    source.close()


def test_who_reads_a_blob_hears_that_the_pipe_is_torn() -> None:
    data = tar_of(member(f"blobs/sha256/{'0' * 64}", gzip.compress(os.urandom(MiB))))
    source = passing(data[: MiB // 2])
    heard: list[str] = []

    def read(blob: PassingBlob) -> None:
        try:
            read_all(blob.open(), blob.size)
        except SourceError as error:
            heard.append(str(error))

    going = source.passing()
    thread = threading.Thread(target=read, args=[next(going)])
    thread.start()
    with pytest.raises(SourceError, match="the pipe is torn: it ends inside its member") as caught:
        next(going)
    thread.join()
    assert heard == [str(caught.value)]
