"""Archives that come by a pipe: what is named by its digest is sent as it passes."""

from __future__ import annotations

import contextlib
import functools
import gzip
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import pytest

import towline
from tests.support import readback
from tests.support.processes import until
from tests.support.quick import quick
from tests.support.scripted import CUT, Reply, scripted
from tests.support.sources import tar_of
from towline.spec.digest import Digest
from towline.testing.images import ImageSpec, make_image, make_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from tests.integration.conftest import Place
    from tests.support.scripted import Asked
    from towline.testing.image_formats import Form, Made
    from towline.testing.registry import TestRegistry

    Images = Callable[..., Made]

MiB = 1 << 20
PASSING: list[Form] = ["docker-containerd", "oci-archive"]
LAYERS = [{"a": b"a" * 5000}, {"b": os.urandom(6 * MiB)}, {"c": os.urandom(300_000)}]
PLATFORMS = ["linux/amd64", "linux/arm64"]


@pytest.fixture(scope="module", name="image_of")
def images_by_form(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """The image of LAYERS in a form, made once."""

    @functools.cache
    def image_of(form: Form, *platforms: str) -> Made:
        path = tmp_path_factory.mktemp("image") / "x.tar"
        wanted = list(platforms) or None
        return make_image(path, LAYERS, wanted, form, attestations=bool(platforms))

    return image_of


def random_image(path: Path, *sizes: int) -> Made:
    """An image of random bytes: zstd, which passes such bytes on, takes little time for them."""
    layers = [{"f": os.urandom(size)} for size in sizes]
    return make_image(path, layers, format="oci-archive", compression="zstd")


@contextlib.contextmanager
def piped(data: bytes) -> Iterator[BinaryIO]:
    """The reading end of a pipe that has these bytes; somebody writes them meanwhile."""
    ours, theirs = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(theirs, "wb") as file:
            file.write(data)

    writing = threading.Thread(target=write)
    writing.start()
    with os.fdopen(ours, "rb", buffering=0) as file:
        yield file
    writing.join()


def notes(events: list[towline.Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, towline.Note)]


def command(
    data: bytes, *words: str, before: str = 'exec "$@"', **environ: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["sh", "-c", before, "sh", sys.executable, "-m", "towline", *words],
        input=data,
        capture_output=True,
        check=False,
        env={**os.environ, **environ},
    )


@pytest.mark.parametrize("form", PASSING)
@pytest.mark.parametrize("platforms", [[], PLATFORMS])
def test_what_passes_by_is_pushed_with_nothing_written_to_any_disk(
    registry: Place, image_of: Images, form: Form, platforms: list[str]
) -> None:
    made = image_of(form, *platforms)
    name = registry.name("app") + ":1"
    no_files = 'ulimit -f 0; exec "$@"'
    words = ["push", "-", name, "--cache", "none", "--output", "json"]
    done = command(made.path.read_bytes(), *words, before=no_files, TMPDIR="/nowhere")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["digest"] == made.digest
    assert {layer["outcome"] for layer in result["layers"]} == {"pushed"}
    assert result["sent_bytes"] >= sum(layer["sent_bytes"] for layer in result["layers"]) > 6 * MiB
    assert b"spool" not in done.stderr
    assert readback.read(registry.url, registry.path("app"), "1").digest == made.digest


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", ["docker", "docker-legacy", "docker-containerd", "oci-archive"])
def test_a_pipe_gives_the_digest_that_its_file_gives(
    registry: Place, image_of: Images, form: Form, *, packed: bool
) -> None:
    made = image_of(form)
    data = made.path.read_bytes()
    with piped(gzip.compress(data, 0) if packed else data) as pipe:
        result = towline.push(pipe, registry.name("app") + ":1", verify="full")
    assert result.digest == towline.digest(made.path)


@pytest.mark.parametrize("form", PASSING)
def test_what_is_there_already_passes_without_being_sent(
    registry: Place, image_of: Images, form: Form
) -> None:
    made = image_of(form)
    data, name = made.path.read_bytes(), registry.name("app")
    with piped(data) as pipe:
        towline.push(pipe, f"{name}:1", cache="none")
    with piped(data) as pipe:
        again = towline.push(pipe, f"{name}:1", cache="none")
    assert (again.status, again.sent_bytes) == ("unchanged", 0)
    assert [layer.outcome for layer in again.layers] == ["exists"] * 3
    with piped(data) as pipe:
        other = towline.push(pipe, f"{name}:2", cache="none")
    assert (other.status, other.sent_bytes) == ("pushed", 0)


def test_what_has_passed_is_known_by_its_layers_and_mounted_later(
    registry: Place, tmp_path: Path, image_of: Images
) -> None:
    made = image_of("oci-archive")
    cache = str(tmp_path / "cache")
    with piped(made.path.read_bytes()) as pipe:
        towline.push(pipe, registry.name("app") + ":1", cache=cache)
    result = towline.push(made.path, registry.name("file") + ":1", cache=cache)
    assert [layer.outcome for layer in result.layers] == ["mounted"] * 3
    with piped(made.path.read_bytes()) as pipe:
        result = towline.push(pipe, registry.name("pipe") + ":1", cache=cache)
    assert [layer.outcome for layer in result.layers] == ["mounted"] * 3
    assert result.sent_bytes == 0


def test_a_pipe_goes_to_several_registries_at_once(
    registry: Place, oci_registry: TestRegistry, image_of: Images
) -> None:
    made = image_of("oci-archive", *PLATFORMS)
    names = [registry.name("app") + ":1", oci_registry.name("other") + ":1"]
    told: list[towline.Event] = []
    with piped(made.path.read_bytes()) as pipe, towline.Pusher(on_event=told.append) as pusher:
        both = pusher.push(pipe, names)
    assert [result.digest for result in both] == [made.digest] * 2
    one_host = registry.host == oci_registry.host
    assert [note for note in notes(told) if "spool" in note or "passes" in note][:1] == (
        ["the file object is not sent as it passes: it goes to two repositories of one registry"]
        if one_host
        else []
    )


@pytest.mark.parametrize(
    "failure", [Reply(503), Reply(429, {"Retry-After": "1"}), CUT], ids=["503", "429", "cut"]
)
@pytest.mark.parametrize("size", [300_000, 24 * MiB])
def test_one_failure_at_one_of_several_registries_costs_it_no_blob(
    tmp_path: Path, size: int, failure: Reply
) -> None:
    made = random_image(tmp_path / "x.tar", size)
    with (
        scripted() as sound,
        scripted() as failing,
        piped(made.path.read_bytes()) as pipe,
        quick(towline.Pusher(cache="none")) as pusher,
    ):
        failing.on("POST", "/uploads/", failure)
        both = pusher.push(pipe, [f"{each.host}/app:1" for each in (sound, failing)])
    assert [result.digest for result in both] == [made.digest] * 2


def test_all_tags_of_a_pipe_are_pushed(registry: Place, tmp_path: Path) -> None:
    specs = [ImageSpec([{"x": os.urandom(9000)}], names=(f"app:{tag}",)) for tag in "ab"]
    made = make_images(tmp_path / "x.tar", specs, "docker-containerd")
    with piped((tmp_path / "x.tar").read_bytes()) as pipe:
        results = towline.push(pipe, registry.name("app"), all_tags=True)
    assert [result.digest for result in results] == [each.digest for each in made]


def test_a_blob_that_no_manifest_wants_does_no_harm(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "x", LAYERS, format="oci")
    stray = gzip.compress(os.urandom(5000), mtime=0)
    (made.path / "blobs" / "sha256" / Digest.of(stray).hex).write_bytes(stray)
    tar = subprocess.run(["tar", "-C", made.path, "-c", "."], check=True, capture_output=True)
    with piped(tar.stdout) as pipe:
        result = towline.push(pipe, registry.name("app") + ":1", verify="full")
    assert result.digest == made.digest


@pytest.mark.parametrize(
    ("wishes", "why"),
    [
        ({"platform": "linux/amd64"}, "which layers are of the wanted platforms is said last"),
        ({"check_diffids": True}, "its layers are to be compared with its configs"),
    ],
)
def test_what_has_to_be_known_first_is_spooled_and_said(
    registry: Place, image_of: Images, wishes: Any, why: str
) -> None:
    made = image_of("oci-archive", *PLATFORMS)
    told: list[towline.Event] = []
    with piped(made.path.read_bytes()) as pipe, towline.Pusher(on_event=told.append) as pusher:
        pusher.push(pipe, registry.name("app") + ":1", **wishes)
    first, second, *_ = notes(told)
    assert first.endswith(f"is not sent as it passes: {why}")
    assert second.startswith("spooling ")


def test_a_plain_layer_has_the_rest_spooled_and_is_compressed(
    registry: Place, tmp_path: Path
) -> None:
    packed = make_image(tmp_path / "x", [{"a": os.urandom(MiB)}], format="oci")
    plain = make_image(
        tmp_path / "y", [{"b": bytes(6 * MiB)}], format="oci", compression="none", names=["y"]
    )
    for blob in (plain.path / "blobs" / "sha256").iterdir():
        (packed.path / "blobs" / "sha256" / blob.name).write_bytes(blob.read_bytes())
    index = json.loads((packed.path / "index.json").read_bytes())
    index["manifests"] += json.loads((plain.path / "index.json").read_bytes())["manifests"]
    (packed.path / "index.json").write_text(json.dumps(index))
    tar = subprocess.run(
        ["tar", "-C", packed.path, "-c", "--sort=name", "."], check=True, capture_output=True
    )
    told: list[towline.Event] = []
    with piped(tar.stdout) as pipe, towline.Pusher(on_event=told.append) as pusher:
        results = pusher.push(pipe, registry.name("app"), all_tags=True, verify="full")
    assert packed.digest in [result.digest for result in results]
    assert "is large and not compressed" in notes(told)[0]


def test_a_pipe_is_read_to_its_end(registry: Place, image_of: Images) -> None:
    made = image_of("oci-archive")
    script = (
        f"set -o pipefail; (cat {made.path}; head -c 3000000 /dev/zero) | "
        f"{sys.executable} -m towline push - {registry.name('app')}:1"
    )
    subprocess.run(["bash", "-c", script], check=True, capture_output=True)


@pytest.mark.parametrize("form", PASSING)
@pytest.mark.parametrize("packed", [False, True])
def test_a_pipe_that_is_torn_anywhere_is_one_sentence_and_no_tag(
    oci_registry: TestRegistry, image_of: Images, form: Form, *, packed: bool
) -> None:
    made = image_of(form)
    data = made.path.read_bytes()
    if packed:
        data = gzip.compress(data, 0)
    name = oci_registry.name("app")
    for length in (0, 100, 700, len(data) // 3, len(data) // 2, len(data) - 20_000):
        with piped(data[:length]) as pipe, pytest.raises(towline.SourceError) as caught:
            towline.push(pipe, f"{name}:1")
        assert str(caught.value).count("\n") == 0
    assert oci_registry.tags(name) == []


def test_bytes_that_are_not_those_of_their_name_are_refused(
    oci_registry: TestRegistry, image_of: Images
) -> None:
    made = image_of("oci-archive")
    data = bytearray(made.path.read_bytes())
    place = data.index(gzip.compress(b"")[:3]) + 5000
    data[place] ^= 1
    name = oci_registry.name("app")
    with piped(bytes(data)) as pipe, pytest.raises(towline.SourceError, match="its bytes have"):
        towline.push(pipe, f"{name}:1")
    assert oci_registry.tags(name) == []


def test_of_pipes_that_cross_none_waits_for_the_other(tmp_path: Path) -> None:
    made = [random_image(tmp_path / f"{number}.tar", 24 * MiB) for number in range(2)]
    cancel = towline.Cancel()
    too_late = threading.Timer(120, cancel.cancel)
    too_late.start()
    with (
        scripted() as one,
        scripted() as other,
        quick(towline.Pusher(jobs=1, cache="none")) as pusher,
        ThreadPoolExecutor(2) as threads,
    ):
        ways = ([one, other], [other, one])
        for number in range(3):
            with (
                piped(made[0].path.read_bytes()) as first,
                piped(made[1].path.read_bytes()) as last,
            ):
                pushes = [
                    threads.submit(
                        pusher.push,
                        pipe,
                        [f"{to.host}/{name}:{number}" for to in way],
                        cancel=cancel,
                    )
                    for pipe, way, name in zip((first, last), ways, "ab", strict=True)
                ]
                digests = [[result.digest for result in push.result()] for push in pushes]
            assert digests == [[each.digest] * 2 for each in made]
            one.blobs.clear()
            other.blobs.clear()
    too_late.cancel()


@pytest.mark.parametrize("ends", ["torn", "cancelled"])
@pytest.mark.parametrize("size", [6 * MiB, 28 * MiB])
def test_who_has_joined_the_upload_of_another_pipe_sends_its_own_bytes_where_that_pipe_ends(
    oci_registry: TestRegistry, tmp_path: Path, ends: str, size: int
) -> None:
    made = random_image(tmp_path / "x.tar", size)
    data, name = made.path.read_bytes(), oci_registry.name("app")
    cancel, joined = towline.Cancel(), threading.Event()
    ours, theirs = os.pipe()

    def tell(event: towline.Event) -> None:
        if isinstance(event, towline.LayerProgress) and event.reference.endswith(":2"):
            joined.set()

    with (
        quick(towline.Pusher(cache="none", on_event=tell)) as pusher,
        ThreadPoolExecutor(3) as threads,
        os.fdopen(ours, "rb", buffering=0) as first,
        os.fdopen(theirs, "wb", buffering=0) as writing,
        piped(data) as second,
    ):
        threads.submit(writing.write, data[: 3 * MiB])
        leading = threads.submit(pusher.push, first, f"{name}:1", cancel=cancel)
        until(lambda: any("/uploads/" in one.path for one in oci_registry.requests))
        joining = threads.submit(pusher.push, second, f"{name}:2")
        assert joined.wait(60)
        time.sleep(0.5)  # its pipe goes on meanwhile, as far as there is room
        if ends == "cancelled":
            cancel.cancel()
        writing.close()
        with pytest.raises((towline.SourceError, towline.TransferCancelled)):
            leading.result(60)
        assert joining.result(60).digest == made.digest
    assert oci_registry.tags(name) == ["2"]


def test_what_has_come_is_held_for_an_upload_that_pauses(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    made = random_image(tmp_path / "x.tar", 40 * MiB)
    data = made.path.read_bytes()
    cut, ends = threading.Event(), os.pipe()

    def tell(event: towline.Event) -> None:
        if isinstance(event, towline.LayerProgress) and event.status.startswith("Retrying"):
            cut.set()

    def write(file: BinaryIO) -> None:
        with file:
            at = 12 * MiB
            file.write(data[:at])
            # All of that may be in the system's buffers: only what is sent next meets the cut.
            while at < 19 * MiB and not cut.wait(0.1):
                file.write(data[at : at + MiB // 4])
                at += MiB // 4
            assert cut.wait(60)
            file.write(data[at:])

    oci_registry.cut(after_bytes=6 * MiB)
    with (
        ThreadPoolExecutor(1) as threads,
        towline.Pusher(cache="none", on_event=tell) as pusher,
        os.fdopen(ends[0], "rb", buffering=0) as pipe,
    ):
        threads.submit(write, os.fdopen(ends[1], "wb"))
        assert pusher.push(pipe, oci_registry.name("app") + ":1").digest == made.digest


@pytest.mark.parametrize(
    ("method", "size"),
    [
        ("HEAD", 300_000),
        ("POST", 300_000),
        ("HEAD", 28 * MiB),
        ("POST", 28 * MiB),
        ("PUT", 28 * MiB),
    ],
)
def test_a_registry_that_hangs_keeps_the_others_waiting_for_a_while_at_most(
    tmp_path: Path, size: int, method: str
) -> None:
    made = random_image(tmp_path / "x.tar", size)
    with (
        scripted() as sound,
        scripted() as hanging,
        piped(made.path.read_bytes()) as pipe,
        towline.Pusher(cache="none", timeout=300) as pusher,
    ):
        pusher._resources.wait_for_takers = 2.0
        hanging.on(method, "/blobs/", Reply(early=100_000, hang=True), forever=True)
        began = time.monotonic()
        with pytest.raises(towline.PartialFailure) as caught:
            pusher.push(pipe, [f"{each.host}/app:1" for each in (hanging, sound)])
        assert time.monotonic() - began < 60
    failed, done = caught.value.results
    assert isinstance(failed, towline.NetworkError)
    assert failed.hint == "write it to a file, and push that: a file can be read again"
    assert isinstance(done, towline.PushResult)
    assert done.digest == made.digest


def test_who_waits_for_another_push_of_ours_to_end_is_not_left_behind(tmp_path: Path) -> None:
    one, other = (random_image(tmp_path / f"{n}.tar", 6 * MiB) for n in range(2))
    with (
        scripted() as free,
        scripted() as busy,
        piped(other.path.read_bytes()) as pipe,
        towline.Pusher(cache="none", jobs=1) as pusher,
        ThreadPoolExecutor(1) as threads,
    ):
        pusher._resources.wait_for_takers = 1.0
        busy.on("PUT", "/uploads/", lambda _: time.sleep(5))
        before = threads.submit(pusher.push, one.path, f"{busy.host}/app:1")
        until(lambda: bool(busy.requests("PUT", "/uploads/")))
        both = pusher.push(pipe, [f"{each.host}/app:2" for each in (free, busy)])
        assert [result.digest for result in both] == [other.digest] * 2
        assert before.result().digest == one.digest


def test_small_blobs_are_sent_again_and_large_ones_end_with_the_way_round(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    small = random_image(tmp_path / "s.tar", 12 * MiB)
    large = random_image(tmp_path / "l.tar", 28 * MiB)
    name = oci_registry.name("app")
    oci_registry.cut(after_bytes=11 * MiB)
    with piped(small.path.read_bytes()) as pipe:
        assert towline.push(pipe, f"{name}:1").digest == small.digest
    oci_registry.cut(after_bytes=26 * MiB, times=9)
    with piped(large.path.read_bytes()) as pipe, pytest.raises(towline.NetworkError) as caught:
        towline.push(pipe, f"{name}:2")
    hint = "write it to a file, and push that: a file can be read again"
    assert caught.value.hint == hint
    oci_registry.fail("POST", "/blobs/", 500, times=99)
    with (
        quick(towline.Pusher(cache="none")) as pusher,
        piped(large.path.read_bytes()) as pipe,
        pytest.raises(towline.RegistryError) as refused,
    ):
        pusher.push(pipe, f"{name}:3")
    assert refused.value.hint == hint
    assert oci_registry.tags(name) == ["1"]


@pytest.mark.parametrize("jobs", [1, 3])
def test_many_blobs_pass_however_few_go_at_once(registry: Place, tmp_path: Path, jobs: int) -> None:
    made = random_image(tmp_path / "x.tar", *(5 * MiB, 9, 2 * MiB, 7 * MiB, 300_000) * 4)
    with piped(made.path.read_bytes()) as pipe:
        result = towline.push(pipe, registry.name("app") + ":1", jobs=jobs, cache="none")
    assert result.digest == made.digest


@pytest.mark.parametrize("rule", ["skip", "fail"])
def test_a_tag_that_is_to_stay_costs_no_blob(
    registry: Place, tmp_path: Path, image_of: Images, rule: Any
) -> None:
    old = make_image(tmp_path / "old.tar", [{"o": b"o"}], format="oci-archive")
    made = image_of("oci-archive")
    name = registry.name("app") + ":1"
    towline.push(old.path, name)
    before = len(registry.requests())
    with piped(made.path.read_bytes()) as pipe:
        if rule == "skip":
            result = towline.push(pipe, name, if_exists="skip")
            assert (result.status, result.digest) == ("skipped", old.digest)
        else:
            with pytest.raises(towline.RegistryError, match="exists already"):
                towline.push(pipe, name, if_exists="fail")
    assert {method for method, _ in registry.requests()[before:]} == {"HEAD"}


def test_a_large_blob_that_takes_the_only_slot_needs_no_room_of_those_before_it(
    tmp_path: Path,
) -> None:
    # Without the first one, those before the last leave less room than is held of what was sent.
    made = random_image(tmp_path / "x.tar", *(size << 10 for size in (*[2800] * 7, 12_000)))
    with tarfile.open(made.path) as tar:
        files = [each for each in tar if each.isreg()]
        parts = [(each, cast("BinaryIO", tar.extractfile(each)).read()) for each in files]
    data = tar_of(*sorted(parts, key=lambda part: part[0].size))
    with (
        scripted() as registry,
        piped(data) as pipe,
        towline.Pusher(jobs=1, cache="none") as pusher,
    ):

        def wait(_: Asked) -> None:
            time.sleep(1)  # so that the pipe fills what room there is

        registry.on("POST", "/uploads/", wait)
        result = pusher.push(pipe, f"{registry.host}/app:1")
        assert result.digest == made.digest


def test_a_cancelled_pipe_stops_at_once(oci_registry: TestRegistry, image_of: Images) -> None:
    made = image_of("oci-archive")
    data = made.path.read_bytes()
    cancel = towline.Cancel()
    ours, theirs = os.pipe()
    os.write(theirs, data[:30_000])  # the rest never comes
    threading.Timer(0.5, cancel.cancel).start()
    script = os.fdopen(ours, "rb", buffering=0)
    command_line = towline.Pusher(cache="none")
    saved = os.dup(0)
    os.dup2(ours, 0)
    try:
        with command_line, pytest.raises(towline.TransferCancelled):
            command_line.push("-", oci_registry.name("app") + ":1", cancel=cancel)
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(theirs)
        script.close()
