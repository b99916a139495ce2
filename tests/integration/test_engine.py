"""Images of an engine, which a scripted one holds: what it is asked, and what comes of it."""

from __future__ import annotations

import gzip
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support import fake_ssh, scripted_engine
from tests.support.certificates import make_authority
from tests.support.processes import until
from tests.support.scripted import HANG, Reply, scripted
from tests.support.sources import member, tar_of
from towline.cli.main import main
from towline.errors import SourceError, TransferCancelled
from towline.server import Server
from towline.testing.images import ImageSpec, make_image, make_images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.scripted import Asked
    from tests.support.scripted_engine import ScriptedEngine
    from towline.testing.registry import TestRegistry as OciRegistry

LAYERS = ({"base": bytes(range(256)) * 400}, {"app": b"x" * 20_000})


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ScriptedEngine]:
    with scripted_engine.serving(tmp_path) as found:
        yield found


@pytest.fixture
def pusher(tmp_path: Path, engine: ScriptedEngine) -> Iterator[towline.Pusher]:
    with towline.Pusher(engine=engine.url, cache=tmp_path / "cache") as found:
        yield found


def held(
    engine: ScriptedEngine, folder: Path, store: str, *names: str, **spec: Any
) -> scripted_engine.Held:
    """An image of the engine's, in one of its two stores."""
    form: Any = {"overlay2": "docker", "containerd": "docker-containerd"}[store]
    path = folder / f"{store}-{'-'.join(names)}.tar".replace("/", "_")
    make_image(path, **{"layers": LAYERS, **spec}, names=names, format=form)
    return engine.hold(path, *names, containerd=store == "containerd")


class Notes(list[str]):
    """What a push has noted."""

    def hear(self, event: towline.Event) -> None:
        if isinstance(event, towline.Note):
            self.append(event.message)

    @property
    def spooled(self) -> list[int]:
        """Bytes of each temporary file."""
        return [int(note.split()[1]) for note in self if note.startswith("spooled")]


stores = pytest.mark.parametrize("store", ["overlay2", "containerd"])


@stores
def test_an_image_of_an_engine_is_pushed_as_its_archive_would_be(
    engine: ScriptedEngine,
    pusher: towline.Pusher,
    oci_registry: OciRegistry,
    tmp_path: Path,
    store: str,
) -> None:
    image = held(engine, tmp_path, store, "app:1")
    pushed = pusher.push("docker-daemon:app:1", f"{oci_registry.name('app')}:1")
    assert len(engine.exports) == 1
    saved = towline.push(image.archive, f"{oci_registry.name('other')}:1", cache="none")
    assert pushed.digest == saved.digest


def test_an_engines_image_may_be_called_as_a_place_of_skopeos(
    engine: ScriptedEngine,
    oci_registry: OciRegistry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    held(engine, tmp_path, "overlay2", "dir:x")
    words = ["push", "dir:x", oci_registry.name("app"), "--engine", engine.url, "-q"]
    assert main([*words, "--cache", "none"]) == 0
    oci_registry.fail("*", "/v2/", 403, times=99)
    assert main([*words, "--cache", "none"]) == 4
    assert "skopeo" not in capsys.readouterr().err
    assert main(["push", "dir:y", *words[2:]]) == 3
    assert "skopeo copy dir:y oci:DIR" in capsys.readouterr().err


@stores
def test_an_unchanged_image_costs_no_export_and_one_request(
    engine: ScriptedEngine,
    pusher: towline.Pusher,
    oci_registry: OciRegistry,
    tmp_path: Path,
    store: str,
) -> None:
    held(engine, tmp_path, store, "app:1")
    first = pusher.push("docker-daemon:app:1", f"{oci_registry.name('app')}:1")
    again = pusher.push("docker-daemon:app:1", f"{oci_registry.name('app')}:1")
    assert (again.status, again.digest, again.requests) == ("unchanged", first.digest, 1)
    assert len(engine.exports) == 1


@stores
def test_a_new_tag_and_a_sister_repository_cost_no_export_and_no_blob_byte(
    engine: ScriptedEngine,
    pusher: towline.Pusher,
    oci_registry: OciRegistry,
    tmp_path: Path,
    store: str,
) -> None:
    held(engine, tmp_path, store, "app:1")
    first = pusher.push("docker-daemon:app:1", f"{oci_registry.name('app')}:1")
    for place in (f"{oci_registry.name('app')}:2", f"{oci_registry.name('sister')}:1"):
        result = pusher.push("docker-daemon:app:1", place)
        assert (result.digest, result.sent_bytes) == (first.digest, 0)
        assert {layer.outcome for layer in result.layers} <= {"exists", "mounted"}
    assert len(engine.exports) == 1


@stores
def test_a_machine_without_memory_learns_from_the_registry_and_needs_no_export(
    engine: ScriptedEngine, oci_registry: OciRegistry, tmp_path: Path, store: str
) -> None:
    held(engine, tmp_path, store, "app:1")
    place = f"{oci_registry.name('app')}:1"
    options: Any = {"engine": engine.url}
    first = towline.push("docker-daemon:app:1", place, cache=tmp_path / "one", **options)
    before = len(oci_registry.requests)
    again = towline.push("docker-daemon:app:1", place, cache=tmp_path / "two", **options)
    assert (again.status, again.digest, again.sent_bytes) == ("unchanged", first.digest, 0)
    assert again.requests == len(oci_registry.requests) - before
    assert len(engine.exports) == 1


@pytest.mark.parametrize("whole", [True, False])
@stores
def test_what_the_engine_has_pulled_costs_a_sister_repository_no_export(
    engine: ScriptedEngine,
    oci_registry: OciRegistry,
    tmp_path: Path,
    store: str,
    *,
    whole: bool,
) -> None:
    image = held(engine, tmp_path, store, "app:1")
    base = oci_registry.name("base")
    first = towline.push(image.archive, f"{base}:1", cache="none")
    image.repo_digests = (f"{base}@{first.digest}",)
    if not whole:  # as one is that was pulled where its unpacked layers were already
        engine.bend_inspect = without_layers
    place = f"{oci_registry.name('sister')}:1"
    options: Any = {"engine": engine.url, "cache": "none"}
    plan = towline.plan("docker-daemon:app:1", place, **options)
    assert [layer.outcome for layer in plan.layers] == ["mounted", "mounted"]
    result = towline.push("docker-daemon:app:1", place, **options)
    assert [layer.outcome for layer in result.layers] == ["mounted", "mounted"]
    assert (result.digest, result.sent_bytes, engine.exports) == (first.digest, 0, [])


def without_layers(said: dict[str, Any]) -> dict[str, Any]:
    for each in said.get("Manifests", ()):
        each["Available"] = False
    return said


@stores
def test_of_a_changed_image_the_changed_layer_alone_is_kept_and_sent(
    engine: ScriptedEngine, oci_registry: OciRegistry, tmp_path: Path, store: str
) -> None:
    notes = Notes()
    place = f"{oci_registry.name('app')}:1"
    with towline.Pusher(engine=engine.url, cache=tmp_path / "cache", on_event=notes.hear) as pusher:
        held(engine, tmp_path, store, "app:1")
        pusher.push("docker-daemon:app:1", place)
        held(engine, tmp_path, store, "app:2", layers=(LAYERS[0], {"app": b"new"}))
        notes.clear()
        result = pusher.push("docker-daemon:app:2", place)
    assert [layer.outcome for layer in result.layers] == ["exists", "pushed"]
    assert result.sent_bytes < 2000
    archive = tmp_path / f"{store}-app:2.tar"
    if store == "overlay2":
        assert notes.spooled < [archive.stat().st_size - 90_000]
    else:
        assert notes.spooled == []


def test_a_layer_that_was_passed_over_and_is_needed_after_all_is_exported_again(
    engine: ScriptedEngine, pusher: towline.Pusher, tmp_path: Path
) -> None:
    held(engine, tmp_path, "overlay2", "app:1")
    with scripted() as registry:
        lost = pusher.push("docker-daemon:app:1", f"{registry.host}/app:1").layers[0].digest
        held(engine, tmp_path, "overlay2", "app:2", layers=(LAYERS[0], {"app": b"new"}))
        before = len(registry.requests("PUT", "/blobs/"))

        def lacks(_: Asked) -> Reply:
            # The layer behind it has arrived at the registry, so this one has passed.
            until(lambda: len(registry.requests("PUT", "/blobs/")) == before + 1)
            return Reply(404)

        registry.on("HEAD", f"/blobs/{lost}", lacks)
        result = pusher.push("docker-daemon:app:2", f"{registry.host}/app:2")
        assert [layer.outcome for layer in result.layers] == ["pushed", "pushed"]
        assert len(engine.exports) == 3
        assert towline.inspect(f"{registry.host}/app:2").digest == result.digest


@pytest.mark.parametrize("version", ["20.10", "25.0", "28", "29.0", "29.7", "podman"])
@stores
def test_engines_of_every_age_are_spoken_to_in_a_version_that_they_know(
    tmp_path: Path, oci_registry: OciRegistry, version: str, store: str
) -> None:
    with scripted_engine.serving(tmp_path, version) as engine:
        held(engine, tmp_path, store, "app:1")
        place = f"{oci_registry.name('app')}:1"
        options: Any = {"engine": engine.url, "cache": tmp_path / "cache"}
        first = towline.push("docker-daemon:app:1", place, **options)
        again = towline.push("docker-daemon:app:1", place, **options)
        assert (again.status, again.digest) == ("unchanged", first.digest)
        assert len(engine.exports) == 1
        assert ("/libpod/" in engine.exports[0]) == (version == "podman")


def test_an_image_is_found_by_its_id(
    engine: ScriptedEngine, pusher: towline.Pusher, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    image = held(engine, tmp_path, "overlay2", "app:1")
    by_name = pusher.push("docker-daemon:app:1", f"{oci_registry.name('app')}:1")
    short = image.id.removeprefix("sha256:")[:12]
    for name in (short, image.id):
        result = pusher.push(f"docker-daemon:{name}", f"{oci_registry.name('app')}:1")
        assert result.digest == by_name.digest


@stores
def test_all_tags_of_a_repository_are_exported_together(
    engine: ScriptedEngine,
    pusher: towline.Pusher,
    oci_registry: OciRegistry,
    tmp_path: Path,
    store: str,
) -> None:
    form: Any = {"overlay2": "docker", "containerd": "docker-containerd"}[store]
    path = tmp_path / "both.tar"
    specs = [ImageSpec(({"a": text.encode()},), names=(f"app:{text}",)) for text in ("one", "two")]
    made = make_images(path, specs, form)
    for place, image in enumerate(made):
        engine.images.append(_OneOf(path, image.names, store == "containerd", place=place))
    held(engine, tmp_path, store, "other:1")
    results = pusher.push("docker-daemon:app", oci_registry.name("app"), all_tags=True)
    assert [result.tag for result in results] == ["one", "two"]
    assert len({result.digest for result in results}) == 2
    assert len(engine.exports) == 1
    with pytest.raises(SourceError, match="no tags to push for gone"):
        pusher.push("docker-daemon:gone", oci_registry.name("app"), all_tags=True)


class _OneOf(scripted_engine.Held):
    """One image of an archive that holds several."""

    def __init__(self, *args: Any, place: int) -> None:
        super().__init__(*args)
        self.place = place

    def document(self, name: str) -> Any:
        found = super().document(name)
        if name == "manifest.json":
            return [found[self.place]]
        if name == "index.json":
            return {**found, "manifests": [found["manifests"][self.place]]}
        return found


@stores
def test_a_plan_asks_for_no_export_and_says_what_one_would_take(
    engine: ScriptedEngine,
    pusher: towline.Pusher,
    oci_registry: OciRegistry,
    tmp_path: Path,
    store: str,
) -> None:
    image = held(engine, tmp_path, store, "app:1")
    place = f"{oci_registry.name('app')}:1"
    plan = pusher.plan("docker-daemon:app:1", place)
    assert (plan.status, plan.digest) == ("pushed", None)
    assert [layer.outcome for layer in plan.layers] == ["pushed", "pushed"]
    assert any("would have to export" in warning for warning in plan.warnings)
    assert engine.exports == []
    pushed = pusher.push("docker-daemon:app:1", place)
    again = pusher.plan("docker-daemon:app:1", place)
    assert (again.status, again.digest, again.warnings) == ("unchanged", pushed.digest, ())
    assert image.archive.exists()


def test_other_blobs_of_its_layers_at_the_host_keep_no_export_from_passing(
    engine: ScriptedEngine, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    notes = Notes()
    layers = ({"a": os.urandom(6 << 20)},)
    plain = make_image(tmp_path / "plain.tar", layers, format="docker")
    image = held(engine, tmp_path, "containerd", "app:1", layers=layers)
    place = f"{oci_registry.name('app')}:1"
    with towline.Pusher(engine=engine.url, cache=tmp_path / "cache", on_event=notes.hear) as pusher:
        pusher.push(plain.path, place)
        plan = pusher.plan("docker-daemon:app:1", place)
        assert any("would have to export" in warning for warning in plan.warnings)
        pusher.digest("docker-daemon:app:1")  # from now on its documents are known
        notes.clear()
        pushed = pusher.push("docker-daemon:app:1", place)
    assert (pushed.digest, notes.spooled) == (image.id, [])


@stores
def test_who_knows_nothing_asks_three_times_whether_an_image_is_unchanged(
    engine: ScriptedEngine, oci_registry: OciRegistry, tmp_path: Path, store: str
) -> None:
    held(engine, tmp_path, store, "app:1")
    place = f"{oci_registry.name('app')}:1"
    towline.push("docker-daemon:app:1", place, engine=engine.url, cache="none")
    engine.asked.clear()
    again = towline.push("docker-daemon:app:1", place, engine=engine.url, cache="none")
    assert (again.status, engine.exports) == ("unchanged", [])
    assert again.requests <= 3


def test_a_store_that_tells_no_descriptor_is_looked_for_at_the_registry_too(
    tmp_path: Path, oci_registry: OciRegistry
) -> None:
    with scripted_engine.serving(tmp_path, "25.0") as engine:
        held(engine, tmp_path, "containerd", "app:1")
        place = f"{oci_registry.name('app')}:1"
        towline.push("docker-daemon:app:1", place, engine=engine.url, cache="none")
        again = towline.push("docker-daemon:app:1", place, engine=engine.url, cache="none")
        assert (again.status, len(engine.exports)) == ("unchanged", 1)


def test_inspect_and_digest_look_into_an_engine(
    engine: ScriptedEngine, pusher: towline.Pusher, tmp_path: Path
) -> None:
    image = held(engine, tmp_path, "containerd", "app:1")
    seen = pusher.inspect("docker-daemon:app:1")
    assert (seen.reference, seen.digest) == ("docker-daemon:app:1", image.id)
    assert pusher.digest("docker-daemon:app:1") == image.id
    assert pusher.digest(image.archive) == image.id


def test_the_files_of_a_containerd_store_that_may_be_read_need_no_export(
    engine: ScriptedEngine, pusher: towline.Pusher, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    image = held(engine, tmp_path, "containerd", "app:1")
    engine.root = tmp_path / "docker"
    store = engine.root / "containerd" / "daemon" / "io.containerd.content.v1.content"
    with tarfile.open(image.archive) as tar:
        tar.extractall(store, filter="data")
    place = oci_registry.name("app")
    plan = pusher.plan("docker-daemon:app:1", f"{place}:1")
    assert (plan.digest, plan.warnings) == (image.id, ())
    assert pusher.push("docker-daemon:app:1", f"{place}:1", verify="full").digest == image.id
    assert engine.exports == []

    # Its layers have gone since: they are exported.
    digest = pusher.inspect("docker-daemon:app:1").layers[0].digest or ""
    (store / "blobs" / "sha256" / digest.removeprefix("sha256:")).unlink()
    with towline.Pusher(engine=engine.url, cache="none") as fresh:
        result = fresh.push("docker-daemon:app:1", f"{oci_registry.name('else')}:1")
    assert (result.digest, len(engine.exports)) == (image.id, 1)


def test_layers_are_sent_before_an_export_comes_to_the_config(
    engine: ScriptedEngine, pusher: towline.Pusher, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    for salt in range(100):
        image = held(engine, tmp_path, "overlay2", f"app:{salt}", layers=({"a": b"%d" % salt},))
        with tarfile.open(image.archive) as tar:
            members = {each.name: each.offset for each in tar if "sha256/" in each.name}
        if max(members).endswith(image.id[7:]):
            break
    stray = bytes(100_000)  # so that it does not come with the layers
    engine.bend_export = lambda content: (
        b"".join((content[: members[max(members)]], tar_of(member("x", stray))[: 512 + 100_352]))
        + (content[members[max(members)] :])
    )
    seen: list[bool] = []

    def wait_for_layer(sent: int) -> None:
        if sent > 70_000 and not seen:
            deadline = time.monotonic() + 20
            while not any("digest=" in each.path for each in oci_registry.requests):
                assert time.monotonic() < deadline, "no layer came before the config"
                time.sleep(0.02)
            seen.append(True)

    engine.before_piece = wait_for_layer
    result = pusher.push(f"docker-daemon:app:{salt}", f"{oci_registry.name('app')}:1")
    assert seen == [True]
    assert [layer.outcome for layer in result.layers] == ["pushed"]
    assert result.digest == towline.digest(image.archive)
    described = [each for each in engine.asked if "/history" in each]
    assert len(described) == 2, "once without the config, and once with it"


def test_what_is_learned_before_an_export_is_told(
    engine: ScriptedEngine, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    place = f"{oci_registry.name('app')}:1"
    options: Any = {"engine": engine.url, "cache": "none"}
    held(engine, tmp_path, "overlay2", "app:1")
    towline.push("docker-daemon:app:1", place, **options)
    held(engine, tmp_path, "overlay2", "app:2", layers=(LAYERS[0], {"app": b"new"}))
    result = towline.push("docker-daemon:app:2", place, **options)
    assert [layer.outcome for layer in result.layers] == ["exists", "pushed"]
    assert result.learned_from == place
    oci_registry.fail("POST", "/blobs/uploads/", 403, times=9)
    with pytest.raises(towline.AuthError):
        towline.push("docker-daemon:app:1", f"{oci_registry.name('other')}:1", **options)


def test_what_a_containerd_store_exports_passes_without_a_byte_on_any_disk(
    engine: ScriptedEngine, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    noise = ({"a": os.urandom(6 << 20)}, {"b": b"b"})
    platforms = ["linux/amd64", "linux/arm64"]
    image = held(engine, tmp_path, "containerd", "app:1", layers=noise, platforms=platforms)
    place = f"{oci_registry.name('app')}:1"
    words = ["-m", "towline", "push", "docker-daemon:app:1", place, "--engine", engine.url]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", sys.executable, *words, "--cache", "none"],
        capture_output=True,
        check=False,
        text=True,
        env={**os.environ, "TMPDIR": "/nowhere"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{oci_registry.name('app')}@{image.id}\n"
    assert "prepares its export of app:1" in done.stderr
    assert (len(engine.exports), "spool" in done.stderr) == (1, False)


ONE = {"platforms": ["linux/amd64"], "absent": ["linux/arm64"], "attestations": True}


@pytest.mark.parametrize(
    ("store", "spec", "passes"),
    [
        ("containerd", ONE, True),
        ("containerd", {"platforms": ["linux/amd64", "linux/arm64"], "attestations": True}, True),
        ("overlay2", {}, False),
    ],
)
def test_of_one_platform_alone_a_containerd_store_exports_what_passes(
    engine: ScriptedEngine,
    oci_registry: OciRegistry,
    tmp_path: Path,
    store: str,
    spec: dict[str, Any],
    *,
    passes: bool,
) -> None:
    notes = Notes()
    layers = ({"a": os.urandom(6 << 20)},)
    image = held(engine, tmp_path, store, "app:1", layers=layers, **spec)
    place = f"{oci_registry.name('app')}:1"
    options: Any = {"engine": engine.url, "cache": "none", "on_event": notes.hear}
    with pytest.raises(SourceError, match="linux/s390x"):
        towline.push("docker-daemon:app:1", place, platform="linux/s390x", **options)
    assert not [each for each in oci_registry.requests if "digest=" in each.path]
    notes.clear()
    result = towline.push("docker-daemon:app:1", place, platform="linux/amd64", **options)
    assert result.digest == towline.digest(image.archive, platform="linux/amd64")
    assert result.digest_differs == ("platforms" if store == "containerd" else None)
    assert passes == (not notes.spooled)
    assert engine.exports[-1].endswith("linux%22%7D") == (store == "containerd")


@pytest.mark.parametrize("version", ["25.0", "28"])
def test_an_export_is_hung_up_on_after_the_last_blob_that_is_wanted(
    tmp_path: Path, oci_registry: OciRegistry, version: str
) -> None:
    with scripted_engine.serving(tmp_path, version) as engine:
        image = held(engine, tmp_path, "containerd", "app:1")
        stray = member(f"blobs/sha256/{'0' * 64}", gzip.compress(os.urandom(32 << 20), 0))
        end = bytes(1024)
        engine.bend_export = lambda content: (
            content.rstrip(b"\0") + (bytes(-len(content.rstrip(b"\0")) % 512) + tar_of(stray) + end)
        )
        place = f"{oci_registry.name('app')}:1"
        result = towline.push("docker-daemon:app:1", place, engine=engine.url, cache="none")
        assert result.digest == image.id
        assert engine.sent < 16 << 20


def test_an_engine_is_asked_again_for_a_blob_that_has_passed_and_did_not_arrive(
    engine: ScriptedEngine, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    notes = Notes()
    noise = ({"a": os.urandom(28 << 20)}, {"b": b"b"}, {"c": os.urandom(6 << 20)})
    image = held(engine, tmp_path, "containerd", "app:1", layers=noise, compression="zstd")
    oci_registry.cut(after_bytes=26 << 20)
    options: Any = {"engine": engine.url, "cache": tmp_path / "cache", "on_event": notes.hear}
    place = f"{oci_registry.name('app')}:1"
    result = towline.push("docker-daemon:app:1", place, verify="full", **options)
    assert (result.digest, len(engine.exports)) == (image.id, 2)
    assert 28 << 20 < notes.spooled[0] < 29 << 20


def test_a_registry_that_is_left_behind_is_served_by_a_second_export(
    engine: ScriptedEngine, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    noise = ({"a": os.urandom(6 << 20)}, {"b": b"b"}, {"c": os.urandom(5 << 20)})
    image = held(engine, tmp_path, "containerd", "app:1", layers=noise, compression="zstd")
    with (
        scripted() as hanging,
        towline.Pusher(engine=engine.url, cache="none", timeout=300) as pusher,
    ):
        pusher._resources.wait_for_takers = 2.0
        hanging.on("POST", "/uploads/", HANG)
        places = [f"{oci_registry.name('app')}:1", f"{hanging.host}/app:1"]
        both = pusher.push("docker-daemon:app:1", places)
    assert [result.digest for result in both] == [image.id] * 2
    assert len(engine.exports) == 2


def test_plain_layers_of_a_containerd_store_are_kept_and_compressed(
    engine: ScriptedEngine, pusher: towline.Pusher, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    plain = ({"a": bytes(6 << 20)}, {"b": b"b" * (5 << 20)})
    image = held(engine, tmp_path, "containerd", "app:1", layers=plain, compression="none")
    result = pusher.push("docker-daemon:app:1", f"{oci_registry.name('app')}:1", verify="full")
    assert result.digest == towline.digest(image.archive)
    assert result.sent_bytes < 1 << 20


def test_a_known_image_passes_to_another_registry(
    engine: ScriptedEngine, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    notes = Notes()
    image = held(engine, tmp_path, "containerd", "app:1")
    options: Any = {"engine": engine.url, "cache": tmp_path / "cache", "on_event": notes.hear}
    with towline.Pusher(**options) as pusher, Server() as other:
        for place in (oci_registry.name("app"), f"{other.host}/app"):
            assert pusher.push("docker-daemon:app:1", f"{place}:1").digest == image.id
    assert notes.spooled == []
    assert len(engine.exports) == 2


@stores
def test_what_an_engine_says_at_the_end_of_a_torn_export_is_shown(
    engine: ScriptedEngine,
    pusher: towline.Pusher,
    oci_registry: OciRegistry,
    tmp_path: Path,
    store: str,
) -> None:
    noise = ({"noise": os.urandom(100_000)},)
    held(engine, tmp_path, store, "app:1", layers=noise)
    said = (
        b'{"errorDetail":{"message":"write /x: no space left"},"error":"write /x: no space left"}'
    )
    for cut in (700, 5000, 90_000):
        engine.bend_export = lambda content, cut=cut: content[:cut] + said + b"\r\n"  # type: ignore[misc]
        with pytest.raises(
            SourceError, match="could not export the image: write /x: no space left"
        ):
            pusher.push("docker-daemon:app:1", f"{oci_registry.name('app')}:1")
    assert oci_registry.tags(oci_registry.name("app")) == []


@stores
def test_an_engine_that_goes_away_in_the_middle_ends_the_push_with_nothing_under_the_tag(
    engine: ScriptedEngine,
    pusher: towline.Pusher,
    oci_registry: OciRegistry,
    tmp_path: Path,
    store: str,
) -> None:
    noise = ({"noise": os.urandom(100_000)},)
    held(engine, tmp_path, store, "app:1", layers=noise)
    engine.breaks_off = 65536
    with pytest.raises(SourceError, match=r"is gone: .* after \d+ bytes of its export") as caught:
        pusher.push("docker-daemon:app:1", f"{oci_registry.name('app')}:1")
    assert caught.value.hint == "see whether it still runs"
    assert oci_registry.tags(oci_registry.name("app")) == []


def test_no_time_runs_out_before_the_first_byte_of_an_export(
    engine: ScriptedEngine, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    held(engine, tmp_path, "overlay2", "app:1")
    engine.before_export = lambda: time.sleep(1.0)
    place = f"{oci_registry.name('app')}:1"
    result = towline.push("docker-daemon:app:1", place, engine=engine.url, timeout=0.5)
    assert result.status == "pushed"


def test_a_push_that_waits_for_an_export_can_be_cancelled(
    engine: ScriptedEngine, pusher: towline.Pusher, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    held(engine, tmp_path, "overlay2", "app:1")
    cancel = towline.Cancel()

    def cancel_and_wait() -> None:
        cancel.cancel()
        time.sleep(0.5)

    engine.before_export = cancel_and_wait
    with pytest.raises(TransferCancelled):
        pusher.push("docker-daemon:app:1", f"{oci_registry.name('app')}:1", cancel=cancel)


def unnamed_files() -> set[str]:
    """The open files of this process that have no name any more."""
    opened = (os.path.realpath(each) for each in Path("/proc/self/fd").iterdir())
    return {name for name in opened if "(deleted)" in name}


def test_a_push_that_is_cancelled_at_any_moment_leaves_no_export_open(
    engine: ScriptedEngine, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    held(engine, tmp_path, "overlay2", "app:1")
    before = unnamed_files()
    for moment in range(40):
        with (
            towline.Pusher(engine=engine.url, cache="none") as pusher,
            suppress(TransferCancelled),
        ):
            cancel = towline.Cancel()
            timer = threading.Timer(moment / 400, cancel.cancel)
            timer.start()
            pusher.push(
                "docker-daemon:app:1", f"{oci_registry.name(f'app{moment}')}:1", cancel=cancel
            )
        timer.join()
        assert unnamed_files() == before


def test_an_image_that_is_not_there_is_told_with_names_that_are_alike(
    engine: ScriptedEngine, pusher: towline.Pusher, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    held(engine, tmp_path, "overlay2", "team/app:1")
    with pytest.raises(SourceError, match="team/ap:1 is no image of the engine at unix:") as caught:
        pusher.push("docker-daemon:team/ap:1", f"{oci_registry.name('app')}:1")
    assert caught.value.hint == "is it one of these? team/app:1"


def test_an_engine_that_is_too_old_is_refused(tmp_path: Path, oci_registry: OciRegistry) -> None:
    with (
        scripted_engine.serving(tmp_path, "ancient") as engine,
        pytest.raises(SourceError, match=r"is too old: its API is 1\.18"),
    ):
        towline.push("docker-daemon:app", f"{oci_registry.name('app')}:1", engine=engine.url)


def test_what_is_no_engine_is_told_so(oci_registry: OciRegistry) -> None:
    with pytest.raises(SourceError, match=r"is no Docker engine: it says 404 to a ping"):
        towline.digest("docker-daemon:app", engine=f"tcp://{oci_registry.host}/behind")
    assert {request.path for request in oci_registry.requests} == {"/behind/_ping"}


def test_where_no_engine_answers_it_is_told_where_was_looked(tmp_path: Path) -> None:
    gone = f"unix://{tmp_path}/gone.sock"
    with pytest.raises(SourceError) as caught:
        towline.digest("docker-daemon:app:1", environ={"DOCKER_HOST": gone})
    assert caught.value.message == (
        f"app:1 cannot be read: no engine answers (looked at {gone} (DOCKER_HOST))"
    )
    assert caught.value.hint == "docker save app:1 | towline push - REGISTRY/app:1"
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "deaf.sock"))
        with pytest.raises(SourceError, match=r"deaf\.sock \(DOCKER_HOST\): connection refused"):
            towline.digest(
                "docker-daemon:app", environ={"DOCKER_HOST": f"unix://{tmp_path}/deaf.sock"}
            )


def test_a_socket_that_may_not_be_opened_is_told_with_what_to_do(
    engine: ScriptedEngine, tmp_path: Path
) -> None:
    with pytest.raises(SourceError, match="is no image of"):  # and all that is needed is imported
        towline.digest("docker-daemon:none", engine=engine.url)
    tmp_path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)
        with pytest.raises(SourceError, match="it may not be opened by this user") as caught:
            towline.digest("docker-daemon:none", engine=engine.url, cache="none")
    finally:
        os.seteuid(user)
        tmp_path.chmod(0o700)
    assert "join the group docker" in (caught.value.hint or "")


@pytest.mark.parametrize("trusted", [True, False])
def test_an_engine_is_spoken_to_over_tls(
    oci_registry: OciRegistry, tmp_path: Path, *, trusted: bool
) -> None:
    folder = tmp_path / "certificates"
    folder.mkdir()
    authority = make_authority(folder)
    if trusted:
        shutil.copy(authority.ca, folder / "ca.pem")
    with scripted_engine.serving(tmp_path, tls=authority.issue()) as engine:
        held(engine, tmp_path, "overlay2", "app:1")
        environ = {
            "DOCKER_HOST": engine.url,
            "DOCKER_TLS_VERIFY": "1",
            "DOCKER_CERT_PATH": str(folder),
        }
        place = f"{oci_registry.name('app')}:1"
        if trusted:
            result = towline.push("docker-daemon:app:1", place, environ=environ, cache="none")
            assert result.status == "pushed"
        else:
            with pytest.raises(SourceError, match=r"no engine answers .*is not trusted"):
                towline.push("docker-daemon:app:1", place, environ=environ, cache="none")


def test_an_engine_is_spoken_to_through_ssh(
    engine: ScriptedEngine, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    held(engine, tmp_path, "overlay2", "app:1")
    environ = fake_ssh.to_a_socket(tmp_path, engine.url, tmp_path / "words")
    result = towline.push(
        "docker-daemon:app:1",
        f"{oci_registry.name('app')}:1",
        engine="ssh://me@far.example:2222",
        environ=environ,
        cache="none",
    )
    assert result.status == "pushed"
    words = (tmp_path / "words").read_text()
    assert (
        "'-l', 'me', '-p', '2222', '--', 'far.example', 'docker', 'system', 'dial-stdio'" in words
    )
    assert "BatchMode=yes" in words


def test_an_ssh_that_wants_a_password_is_told_so(tmp_path: Path) -> None:
    said = "me@far.example: Permission denied (publickey,password)."
    environ = fake_ssh.environ(
        tmp_path, f"import sys; print({said!r}, file=sys.stderr); sys.exit(255)"
    )
    with pytest.raises(SourceError, match="ssh is not let in without a password: me@far") as caught:
        towline.digest("docker-daemon:app", engine="ssh://me@far.example", environ=environ)
    assert "ssh agent" in (caught.value.hint or "")
