"""A tar that is read once: what passes, what is kept, and that it is one and the same tar."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.sources import digest_of, images_of, link, member, tar_of
from towline.context import Cancel, Context
from towline.errors import Cancelled, SourceError
from towline.sources import open_source as opening
from towline.sources.base import PassedBy
from towline.sources.files import fill, read_all
from towline.sources.passing import KEPT, PassingSource, PassingTar
from towline.sources.passing_blob import BLOCK, ROOM, WINDOW, Held, PassingBlob, Share, Taker
from towline.spec import manifest
from towline.spec.digest import Digest
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from towline.layers.reader import Reader
    from towline.sources.files import Archive
    from towline.sources.image_source import ImageSource
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

    def take(blob: PassingBlob, share: Share) -> None:
        found[blob.digest] = read_all(share.open(), blob.size)
        share.release()

    taker = Taker(Held(Cancel(), 60))
    for blob in source.passing(taker.held):
        if blob:
            threads.append(threading.Thread(target=take, args=[blob, blob.share(taker)]))
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


def some(reader: Reader, size: int) -> bytes:
    """The next bytes of a reader, which stays open."""
    content = bytearray(size)
    return bytes(content[: fill(reader, memoryview(content))])


def passing_blob(size: int, patience: float = 60) -> PassingBlob:
    digest = Digest("sha256:" + "0" * 64)
    return PassingBlob(digest, size, "gzip", "the pipe", Held(Cancel(), patience))


def shares_of(blob: PassingBlob, count: int) -> list[Share]:
    """The shares of so many targets."""
    return [blob.share(Taker(blob.held)) for _ in range(count)]


def put(blob: PassingBlob, size: int) -> None:
    """Put so many bytes, waiting for room."""
    for _ in range(size // BLOCK):
        while not blob.put(bytes(BLOCK)):
            pass


def test_a_blob_can_be_begun_anew_as_long_as_there_is_room_for_what_was_sent() -> None:
    blob = passing_blob(2 * ROOM)
    [share] = shares_of(blob, 1)
    put(blob, ROOM)
    for _ in range(2):
        assert len(read_all(share.open(), ROOM)) == ROOM
    reader = share.open()
    assert not blob.put(bytes(BLOCK)), "what is held is all of it needed yet"
    assert len(some(reader, ROOM)) == ROOM
    assert blob.put(bytes(BLOCK))
    with pytest.raises(PassedBy):
        share.open()


def test_what_was_sent_of_one_blob_makes_room_for_another() -> None:
    held = Held(Cancel(), 60)
    blobs = [
        PassingBlob(Digest(f"sha256:{n:064}"), size, "gzip", "the pipe", held)
        for n, size in enumerate((WINDOW, ROOM - WINDOW, 2 * BLOCK))
    ]
    taker = Taker(held)
    small, first, second = (blob.share(taker) for blob in blobs)
    put(blobs[0], WINDOW)
    put(blobs[1], ROOM - WINDOW)
    assert len(some(small.open(), WINDOW)) == WINDOW
    assert len(some(first.open(), ROOM - WINDOW - BLOCK)) == ROOM - WINDOW - BLOCK
    assert not held.awaits_room(2 * BLOCK)
    assert held.size == WINDOW + BLOCK
    put(blobs[2], 2 * BLOCK)
    assert len(some(second.open(), BLOCK)) == BLOCK
    assert len(some(small.open(), WINDOW)) == WINDOW


def test_who_reads_on_in_a_blob_that_was_let_go_hears_that_it_has_passed() -> None:
    blob = passing_blob(2 * BLOCK)
    [share] = shares_of(blob, 1)
    put(blob, BLOCK)
    reader = share.open()
    share.release()
    with pytest.raises(PassedBy):
        reader.readinto(memoryview(bytearray(9)))


def test_what_one_target_takes_is_held_for_the_others_until_they_have_it() -> None:
    content = os.urandom(WINDOW + 4 * BLOCK)
    blob = passing_blob(len(content))
    first, second, aside = shares_of(blob, 3)
    aside.stand_aside()
    for start in range(0, len(content), BLOCK):
        assert blob.put(content[start : start + BLOCK])
    first.open()
    half = some(second.open(), len(content) // 2)
    assert read_all(first, len(content)) == content
    assert half + some(second, len(content) - len(half)) == content


@pytest.mark.parametrize("late", ["paused", "stuck", "reads the same again"])
def test_who_takes_nothing_keeps_the_others_waiting_for_a_while_at_most(late: str) -> None:
    blob = passing_blob(2 * ROOM, patience=0.3)
    fast, failing = shares_of(blob, 2)
    put(blob, ROOM)
    reader, again = fast.open(), failing.open()
    assert len(some(again, MiB)) == MiB
    assert some(reader, ROOM)  # all of which is held for the other
    if late != "stuck":
        again.close()
    if late == "reads the same again":
        some(failing.open(), MiB // 2)
    putting = threading.Thread(target=put, args=[blob, ROOM])  # the patience begins to run here
    putting.start()
    assert len(some(reader, ROOM)) == ROOM
    putting.join()
    assert failing.taker.left_behind
    assert not fast.taker.left_behind
    with pytest.raises(PassedBy):
        failing.open()


def test_who_waits_for_a_slot_of_ours_is_not_left_behind_for_that() -> None:
    blob = passing_blob(2 * ROOM, patience=0.0)
    full = [True]
    begun, waiting = blob.share(Taker(blob.held)), blob.share(Taker(blob.held, lambda _: full[0]))
    begun.open()
    blob.held.wait()
    assert not waiting.taker.left_behind
    full[0] = False
    blob.held.wait()
    assert waiting.taker.left_behind


def test_nobody_is_left_behind_where_no_other_waits() -> None:
    blob = passing_blob(2 * ROOM, patience=0.0)
    one, other = shares_of(blob, 2)
    put(blob, ROOM)
    one.open()
    for _ in range(3):
        assert not blob.put(bytes(BLOCK))
    other.taker.leave()
    for _ in range(3):
        assert not blob.put(bytes(BLOCK))
    assert not one.taker.left_behind


@pytest.mark.parametrize("size", [WINDOW, WINDOW + BLOCK])
def test_a_registry_may_take_its_time_to_confirm_a_large_blob_for_the_first_time(size: int) -> None:
    blob = passing_blob(size, patience=0.0)
    fast, slow = shares_of(blob, 2)
    put(blob, size)
    read_all(fast.open(), size)
    fast.release()
    read_all(slow.open(), size)
    blob.held.wait()
    assert slow.taker.left_behind == (size == WINDOW)
    if not slow.taker.left_behind:
        read_all(slow.open(), size)
        blob.held.wait()
        assert slow.taker.left_behind


def test_the_first_bytes_wait_for_all_who_want_them_until_the_blob_is_whole() -> None:
    blob = passing_blob(2 * BLOCK)
    early, late, gone = shares_of(blob, 3)
    put(blob, BLOCK)
    got: list[int] = []
    reading = threading.Thread(target=lambda: got.append(len(read_all(early.open(), BLOCK))))
    reading.start()
    gone.release()
    reading.join(0.1)
    assert not got
    put(blob, BLOCK)  # the last one: early may hold what late is waiting for
    reading.join()
    assert got == [BLOCK]
    assert len(read_all(late.open(), 2 * BLOCK)) == 2 * BLOCK


def test_a_blob_that_nobody_reads_waits_until_it_is_let_go_or_all_is_cancelled() -> None:
    data = tar_of(member(f"blobs/sha256/{'0' * 64}", gzip.compress(os.urandom(2 * ROOM), 0)))
    cancel = Cancel()
    taker = Taker(Held(cancel, 60))
    source = passing(data, cancel=cancel)
    threading.Timer(0.2, cancel.cancel).start()
    with pytest.raises(Cancelled):
        _ = [blob.share(taker) for blob in source.passing(taker.held) if blob]
    assert taker.held.size == ROOM
    taker = Taker(Held(Cancel(), 60))
    source = passing(data)
    for blob in source.passing(taker.held):
        if blob:
            threading.Timer(0.2, blob.share(taker).release).start()
    source.close()


def blob_member(content: bytes) -> tuple[tarfile.TarInfo, bytes]:
    return member(f"blobs/sha256/{Digest.of(content).hex}", content)


def test_a_tar_is_read_no_further_than_to_where_there_is_enough() -> None:
    blobs = [gzip.compress(os.urandom(MiB), mtime=0) for _ in range(3)]
    reader = Trickle(tar_of(*map(blob_member, blobs)), MiB)
    tar = PassingTar(reader, "the pipe", Cancel())
    passed: list[Digest] = []
    for blob in tar.passing(Held(Cancel(), 60), lambda: len(passed) == 2):
        passed.extend([blob.digest] if blob else [])
    assert passed == [Digest.of(blob) for blob in blobs[:2]]
    assert reader.rest.tell() < 2 * MiB + 8 * 512


@pytest.mark.parametrize(
    ("stops", "why"),
    [
        (blob_member(bytes(manifest.MAX_SIZE + 1)), "is large and not compressed"),
        (member("layer.tar", bytes(manifest.MAX_SIZE + 1)), "are not all named by their digests"),
        (link("0/layer.tar", "../1/layer.tar"), "are not all named by their digests"),
    ],
)
def test_what_can_neither_pass_nor_be_kept_is_where_it_ends(
    stops: tuple[tarfile.TarInfo, bytes], why: str
) -> None:
    first, last = member("a", b"a"), member("b", b"b")
    tar = PassingTar(Trickle(tar_of(first, stops, last), 700), "the pipe", Cancel())
    with pytest.raises(StopIteration) as ended:
        next(tar.passing(Held(Cancel(), 60)))
    assert str(ended.value.value).endswith(why)
    with tarfile.open(fileobj=io.BytesIO(bytes(rest_of(tar)))) as rest:
        assert rest.getnames() == [stops[0].name, "b"]
    assert (tar.documents, tar.passed, tar.ended) == ({"a": b"a"}, {}, False)


def rest_of(tar: PassingTar) -> bytearray:
    content, piece = bytearray(), memoryview(bytearray(9999))
    while got := tar.stream.readinto(piece):
        content += piece[:got]
    return content


def test_a_link_leads_to_what_came_before_it_too() -> None:
    source = passing(tar_of(member("1/layer.tar", b"layer"), link("0/layer.tar", "../1/layer.tar")))
    assert taken(source) == {}
    assert source._tar.size("0/layer.tar") == 5
    assert read_all(source._tar.open("0/layer.tar"), 5) == b"layer"
    source.close()


def test_a_tar_without_end_is_refused() -> None:
    header = tar_of(member("x"))[:512]
    with pytest.raises(SourceError, match="more than 100000 members"):
        taken(passing(header * 100_001))


def test_a_blob_that_comes_twice_passes_once() -> None:
    blob = gzip.compress(os.urandom(5000), mtime=0)
    source = passing(tar_of(blob_member(blob), blob_member(blob), member("x", b"x")))
    assert taken(source) == {Digest.of(blob): blob}
    assert source._tar.documents == {"x": b"x"}


def test_a_name_is_taken_from_the_root_of_the_archive(tmp_path: Path) -> None:
    made = make_image(tmp_path / "x.tar", LAYERS, format="oci-archive")
    with tarfile.open(made.path) as tar:
        members = [
            member(f"/./{each.name}", tar.extractfile(each).read())  # type: ignore[union-attr]
            for each in tar
            if each.isreg()
        ]
    source = passing(tar_of(*members))
    assert len(taken(source)) == len(LAYERS)
    assert source.entries()[0].content.manifest == made.root


def test_who_reads_a_blob_hears_that_the_pipe_is_torn() -> None:
    data = tar_of(member(f"blobs/sha256/{'0' * 64}", gzip.compress(os.urandom(MiB))))
    source = passing(data[: MiB // 2])
    heard: list[str] = []

    def read(blob: PassingBlob) -> None:
        try:
            read_all(share.open(), blob.size)
        except SourceError as error:
            heard.append(str(error))

    taker = Taker(Held(Cancel(), 60))
    going = source.passing(taker.held)
    blob = next(going)
    assert blob
    share = blob.share(taker)
    thread = threading.Thread(target=read, args=[blob])
    thread.start()
    with pytest.raises(SourceError, match="the pipe is torn: it ends inside its member") as caught:
        _ = [*going]
    thread.join()
    assert heard == [str(caught.value)]
