"""Pushes of one `Pusher` at one moment: what is the same goes once, and what is not never joins."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support import readback
from tests.support.processes import until
from towline.server import Server
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.conftest import Place
    from towline.testing.image_formats import Made
    from towline.testing.registry import TestRegistry

KiB = 1 << 10
PATIENCE = 60.0
"""Seconds; only a deadlock takes that long."""


def content(seed: str, size: int) -> bytes:
    return Random(seed).randbytes(size // 2) + bytes(size // 2)  # noqa: S311 - no secret


def image(path: Path, seed: str = "", **options: Any) -> Made:
    layers = [{f"file{n}": content(f"{seed} {n}", size * KiB)} for n, size in enumerate((900, 8))]
    return make_image(path, [*layers, {"last": b"small\n"}], **options)


@pytest.fixture
def pusher() -> Iterator[towline.Pusher]:
    with towline.Pusher(cache="none") as made:
        yield made


def at_once(*pushes: Callable[[], towline.PushResult]) -> list[towline.PushResult]:
    """Begin all in the same moment; their results."""
    start = threading.Barrier(len(pushes))

    def push(one: Callable[[], towline.PushResult]) -> towline.PushResult:
        start.wait(PATIENCE)
        return one()

    with ThreadPoolExecutor(len(pushes)) as threads:
        return [done.result(PATIENCE) for done in [threads.submit(push, one) for one in pushes]]


def digests_sent(requests: list[tuple[str, str]]) -> list[str]:
    """The digest of each upload that was closed, or that came in one request."""
    named = [
        (method, path.rpartition("digest=")[2].replace("%3A", ":"))
        for method, path in requests
        if "/blobs/uploads/" in path and "digest=" in path
    ]
    puts = [digest for method, digest in named if method == "PUT"]
    posts = [digest for method, digest in named if method == "POST" and digest not in puts]
    return sorted(puts + posts)


# The founding bug: a transfer whose key lacks the registry loses a layer of one of two.


def sent_once(server: Server | TestRegistry) -> None:
    """Everything came at the first try: nothing was found missing when the tag was written."""
    requests = [(one.method, one.path) for one in server.requests]
    assert len([one for one in requests if one[0] == "PUT" and "/manifests/" in one[1]]) == 1
    assert len(digests_sent(requests)) == 4


@pytest.mark.parametrize("turn", range(3))
def test_one_image_to_two_registries_under_one_name_is_whole_at_both(
    turn: int, pusher: towline.Pusher, tmp_path: Path
) -> None:
    made = image(tmp_path / "image.tar", str(turn))
    with Server() as one, Server() as other:
        first, second = at_once(
            lambda: pusher.push(made.path, f"{one.host}/team/app:1"),
            lambda: pusher.push(made.path, f"{other.host}/team/app:1"),
        )
        assert first.digest == second.digest
        assert readback.image(one.url, "team/app", "1").digest == first.digest
        assert readback.image(other.url, "team/app", "1").digest == first.digest
        sent_once(one)
        sent_once(other)


def test_one_push_to_two_registries_under_one_name_is_whole_at_both(
    pusher: towline.Pusher, tmp_path: Path
) -> None:
    made = image(tmp_path / "image.tar")
    with Server() as one, Server() as other:
        places = [f"{one.host}/team/app:1", f"{other.host}/team/app:1"]
        results = pusher.push(made.path, places)
        assert [result.reference for result in results] == places
        for server, result in zip((one, other), results, strict=True):
            assert readback.image(server.url, "team/app", "1").digest == result.digest
            assert {layer.outcome for layer in result.layers} == {"pushed"}
            sent_once(server)


def test_one_registry_under_two_names_is_written_to_twice_and_whole(
    pusher: towline.Pusher, tmp_path: Path
) -> None:
    made = image(tmp_path / "image.tar")
    with Server() as server:
        port = server.host.rpartition(":")[2]
        at_once(
            lambda: pusher.push(made.path, f"127.0.0.1:{port}/team/app:1"),
            lambda: pusher.push(made.path, f"localhost:{port}/team/app:2"),
        )
        assert readback.image(server.url, "team/app", "1").layers
        assert readback.image(server.url, "team/app", "2").layers


# Its mirror: what is the same is sent once, and everyone who waited has the descriptors.


def test_two_tags_of_one_repository_send_each_blob_once(
    registry: Place, pusher: towline.Pusher, tmp_path: Path
) -> None:
    made = image(tmp_path / "image.tar")
    name = registry.name("app")
    results = pusher.push(made.path, [f"{name}:1", f"{name}:2"])
    sent = digests_sent(registry.requests())
    assert len(sent) == len(set(sent)) == 4
    for result, tag in zip(results, ("1", "2"), strict=True):
        assert [layer.diff_id for layer in result.layers] == list(made.diff_ids)
        assert readback.image(registry.url, registry.path("app"), tag).digest == result.digest


@pytest.mark.parametrize("later", [0.0, 0.01, 0.03, 0.1])
def test_two_threads_send_each_blob_of_one_image_once(
    later: float, registry: Place, pusher: towline.Pusher, tmp_path: Path
) -> None:
    made = image(tmp_path / "image.tar", str(later))
    name = registry.name("app")

    def second() -> towline.PushResult:
        threading.Event().wait(later)
        return pusher.push(made.path, f"{name}:2", no_learn=True)

    results = at_once(lambda: pusher.push(made.path, f"{name}:1", no_learn=True), second)
    sent = digests_sent(registry.requests())
    assert len(sent) == len(set(sent)) == 4
    for result, tag in zip(results, ("1", "2"), strict=True):
        assert [layer.diff_id for layer in result.layers] == list(made.diff_ids)
        assert readback.image(registry.url, registry.path("app"), tag).digest == result.digest
    for one, other in zip(*(result.layers for result in results), strict=True):
        assert one.sent_bytes == 0 or other.sent_bytes == 0, "whoever joined has sent nothing"


def test_the_same_tag_by_several_threads_is_put_once(
    oci_registry: TestRegistry, pusher: towline.Pusher, tmp_path: Path
) -> None:
    made = image(tmp_path / "image.tar")
    destination = oci_registry.name("app") + ":1"
    oci_registry.stall(0.02)
    results = at_once(*[lambda: pusher.push(made.path, destination)] * 4)
    assert len({result.digest for result in results}) == 1
    sent_once(oci_registry)


def test_two_images_for_one_tag_are_both_put_there(
    oci_registry: TestRegistry, pusher: towline.Pusher, tmp_path: Path
) -> None:
    """Neither is told that its manifest is in place because the other's is."""
    made = [image(tmp_path / f"{seed}.tar", seed) for seed in ("one", "two")]
    name = oci_registry.name("app")
    oci_registry.stall(0.05)
    results = at_once(*[lambda one=one: pusher.push(one.path, f"{name}:1") for one in made])
    oci_registry.stall(0)
    assert len({result.digest for result in results}) == 2
    for result in results:
        path = name.partition("/")[2]
        assert readback.image(oci_registry.url, path, result.digest).digest == result.digest


def test_a_layer_is_mounted_once_by_two_threads(oci_registry: TestRegistry, tmp_path: Path) -> None:
    made = image(tmp_path / "image.tar")
    with towline.Pusher(cache=tmp_path / "cache") as pusher:
        pusher.push(made.path, oci_registry.name("base") + ":1")
        oci_registry.stall(0.2)  # the second is there before the first is done
        name = oci_registry.name("app")
        results = at_once(
            lambda: pusher.push(made.path, f"{name}:1"), lambda: pusher.push(made.path, f"{name}:2")
        )
    assert {layer.outcome for one in results for layer in one.layers} == {"mounted"}
    mounts = [one.path for one in oci_registry.requests if "mount=" in one.path]
    assert len(mounts) == len(set(mounts)) == 4


# Its twin: one DiffID is not one blob.


def recompressed(layout: Path, to: Path) -> str:
    """A copy of a layout whose layers are other gzip of the same tars; the manifest's digest."""
    shutil.copytree(layout, to)
    index = json.loads((to / "index.json").read_bytes())
    blobs = to / "blobs/sha256"

    def stored(data: bytes) -> tuple[str, int]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return f"sha256:{digest}", len(data)

    (listed,) = index["manifests"]
    manifest = json.loads((blobs / listed["digest"].removeprefix("sha256:")).read_bytes())
    for layer in manifest["layers"]:
        plain = gzip.decompress((blobs / layer["digest"].removeprefix("sha256:")).read_bytes())
        layer["digest"], layer["size"] = stored(gzip.compress(plain, 1, mtime=7))
    listed["digest"], listed["size"] = stored(json.dumps(manifest).encode())
    (to / "index.json").write_text(json.dumps(index))
    return str(listed["digest"])


def test_two_images_with_other_blobs_of_one_diff_id_are_both_whole(
    registry: Place, pusher: towline.Pusher, tmp_path: Path
) -> None:
    made = image(tmp_path / "one", format="oci")
    digest = recompressed(tmp_path / "one", tmp_path / "two")
    assert digest != made.digest
    name = registry.name("app")
    first, second = at_once(
        lambda: pusher.push(tmp_path / "one", f"{name}:1"),
        lambda: pusher.push(tmp_path / "two", f"{name}:2"),
    )
    assert (first.digest, second.digest) == (made.digest, digest)
    assert [one.diff_id for one in first.layers] == [one.diff_id for one in second.layers]
    for tag, expected in (("1", made.digest), ("2", digest)):
        assert readback.image(registry.url, registry.path("app"), tag).digest == expected


def test_gzip_beside_zstd_are_both_whole(
    registry: Place, pusher: towline.Pusher, tmp_path: Path
) -> None:
    made = image(tmp_path / "image.tar")
    name = registry.name("app")
    at_once(
        lambda: pusher.push(made.path, f"{name}:gzip", compression="gzip"),
        lambda: pusher.push(made.path, f"{name}:zstd", compression="zstd"),
    )
    for how in ("gzip", "zstd"):
        read = readback.image(registry.url, registry.path("app"), how)
        assert all(layer["mediaType"].endswith(how) for layer in read.manifest["layers"])


def test_a_joined_blob_that_the_manifest_cannot_list_is_not_taken(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    made = image(tmp_path / "image.tar")
    name = oci_registry.name("app")
    with towline.Pusher(cache=tmp_path / "cache") as pusher:
        pusher.push(made.path, f"{name}:known", compression="zstd")
        oci_registry.stall(0.2)
        known = len(oci_registry.requests)

        def later() -> towline.PushResult:
            until(lambda: len(oci_registry.requests) > known)  # the other's tag
            threading.Event().wait(0.1)  # it asks for its layers
            return pusher.push(made.path, f"{name}:docker", format="docker", no_learn=True)

        oci, docker = at_once(
            lambda: pusher.push(made.path, f"{name}:oci", format="oci", no_learn=True), later
        )
    oci_registry.stall(0)
    assert {layer.compression for layer in oci.layers} == {"reused"}
    assert {layer.compression for layer in docker.layers} == {"gzip"}
    path = name.partition("/")[2]
    assert readback.image(oci_registry.url, path, "docker").digest == docker.digest
    assert readback.image(oci_registry.url, path, "oci").digest == oci.digest


# What becomes of one push is not the others' fate.


def test_a_push_that_joins_one_from_a_damaged_archive_sends_from_its_own(
    oci_registry: TestRegistry, pusher: towline.Pusher, tmp_path: Path
) -> None:
    made = image(tmp_path / "good.tar", format="docker-legacy")
    damaged = tmp_path / "damaged.tar"
    whole = made.path.read_bytes()
    assert whole.count(b"small\n") == 1
    damaged.write_bytes(whole.replace(b"small\n", b"smell\n"))
    name = oci_registry.name("app")
    oci_registry.stall(0.1)
    errors: list[BaseException] = []

    def push_damaged() -> None:
        try:
            pusher.push(damaged, f"{name}:bad", no_learn=True)
        except towline.SourceError as error:
            errors.append(error)

    def sessions() -> int:
        posts = [each.path for each in oci_registry.requests if each.method == "POST"]
        return sum("digest=" not in path for path in posts)

    # Small blobs go in sessions, too, so that each has begun once its session is asked for.
    oci_registry.fail("POST", "digest=", 405, times=99)
    first = threading.Thread(target=push_damaged)
    first.start()
    # Each answer is held back, so that most often the other joins what has begun here.
    until(lambda: sessions() == len(made.diff_ids) + 1)
    result = pusher.push(made.path, f"{name}:good", no_learn=True)
    first.join(PATIENCE)
    assert errors
    oci_registry.stall(0)
    assert oci_registry.tags(name) == ["good"]
    assert readback.image(oci_registry.url, name.partition("/")[2], "good").digest == result.digest


@pytest.mark.parametrize("status", [403, 507])
def test_what_a_shared_transfer_fails_with_is_everybodys_error(
    status: int, oci_registry: TestRegistry, pusher: towline.Pusher, tmp_path: Path
) -> None:
    made = image(tmp_path / "image.tar")
    name = oci_registry.name("app")
    oci_registry.stall(0.1)
    oci_registry.fail("POST", "/blobs/uploads/", status, times=99)
    with ThreadPoolExecutor(4) as threads:
        pushes = [threads.submit(pusher.push, made.path, f"{name}:{n}") for n in range(4)]
        errors = [push.exception(PATIENCE) for push in pushes]
    assert [getattr(error, "status", None) for error in errors] == [status] * 4
    assert len([one for one in oci_registry.requests if one.method == "POST"]) < 4 * 4
    assert not [one for one in oci_registry.requests if one.method == "PUT"]


@pytest.mark.parametrize("seed", range(6))
def test_the_cancelling_of_one_push_leaves_those_alone_that_joined_it(
    seed: int, oci_registry: TestRegistry, pusher: towline.Pusher, tmp_path: Path
) -> None:
    made = image(tmp_path / "image.tar", str(seed))
    name, cancel = oci_registry.name("app"), towline.Cancel()
    oci_registry.stall(0.05)
    cancelled: list[BaseException] = []

    def push_and_cancel() -> None:
        try:
            pusher.push(made.path, f"{name}:1", cancel=cancel)
        except towline.TransferCancelled as error:
            cancelled.append(error)

    first = threading.Thread(target=push_and_cancel)
    first.start()
    threading.Event().wait(0.02)
    timer = threading.Timer(0.05 + seed * 0.03, cancel.cancel)
    timer.start()
    result = pusher.push(made.path, f"{name}:2")
    first.join(PATIENCE)
    timer.join()
    assert [layer.diff_id for layer in result.layers] == list(made.diff_ids)
    oci_registry.stall(0)
    assert readback.image(oci_registry.url, name.partition("/")[2], "2").digest == result.digest
    if cancelled and "may have been written" not in str(cancelled[0]):
        assert oci_registry.tags(name) == ["2"]
