"""Images of real engines, with overlay2 and with a containerd store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support import components, docker_engine, fake_ssh
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.docker_engine import DockerEngine, Store
    from towline.testing.registry import TestRegistry as OciRegistry

LAYERS = ({"base": bytes(range(256)) * 400}, {"app": b"x" * 20_000})


@pytest.fixture(scope="module", params=["overlay2", "containerd", "podman"])
def engine(request: pytest.FixtureRequest) -> Iterator[DockerEngine]:
    """An engine for each kind of store."""
    store: Store = request.param
    program = docker_engine.program(store)
    if program is None:
        pytest.skip(f"no engine with {store} on PATH or in PEERS")
    try:
        with docker_engine.serving(store, program) as found:
            yield found
    except docker_engine.NotAllowedError as error:
        pytest.skip(f"no engine with {store} may run here: {error}")


@pytest.fixture
def pusher(engine: DockerEngine, tmp_path: Path) -> Iterator[towline.Pusher]:
    with towline.Pusher(engine=engine.url, cache=tmp_path / "cache") as found:
        yield found


def notes(told: list[towline.Event]) -> list[str]:
    return [event.message for event in told if isinstance(event, towline.Note)]


@pytest.mark.parametrize("form", ["docker", "docker-containerd"])
def test_an_image_is_pushed_as_what_the_engine_saves_is_and_again_without_an_export(
    engine: DockerEngine, oci_registry: OciRegistry, tmp_path: Path, form: Any
) -> None:
    name = f"pushed-{form}:1"
    engine.load(make_image(tmp_path / "image.tar", LAYERS, format=form, names=[name]).path)
    saved = tmp_path / "saved.tar"
    status, content = docker_engine.ask(engine.url, "GET", f"/images/get?names={name}")
    assert status == 200
    saved.write_bytes(content)
    told: list[towline.Event] = []
    options: Any = {"engine": engine.url, "cache": tmp_path / "cache", "on_event": told.append}
    with towline.Pusher(**options) as pusher:
        place = oci_registry.name("app")
        first = pusher.push(f"docker-daemon:{name}", f"{place}:1", verify="full")
        assert first.digest == towline.digest(saved)
        # Root may read the files of a containerd store.
        at_hand = engine.store == "containerd"
        assert any("prepares its export" in note for note in notes(told)) != at_hand
        told.clear()
        again = pusher.push(f"docker-daemon:{name}", f"{place}:1")
        assert (again.status, again.digest, again.requests) == ("unchanged", first.digest, 1)
        for other in (f"{place}:2", f"{oci_registry.name('sister')}:1"):
            result = pusher.push(f"docker-daemon:{name}", other)
            assert (result.digest, result.sent_bytes) == (first.digest, 0)
        engine.tag(name, "other", "9")
        renamed = pusher.push("docker-daemon:other:9", f"{place}:9")
        assert (renamed.digest, renamed.sent_bytes) == (first.digest, 0)
        assert notes(told) == []


def test_of_a_changed_image_one_layer_is_sent(
    engine: DockerEngine, pusher: towline.Pusher, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    for tag, top in (("1", {"app": b"old"}), ("2", {"app": b"new"})):
        path = tmp_path / f"{tag}.tar"
        engine.load(make_image(path, (LAYERS[0], top), names=[f"changed:{tag}"]).path)
        result = pusher.push(f"docker-daemon:changed:{tag}", f"{oci_registry.name('app')}:{tag}")
    assert [layer.outcome for layer in result.layers] == ["exists", "pushed"]


def test_an_index_of_platforms_is_pushed_byte_for_byte_from_a_containerd_store(
    engine: DockerEngine, pusher: towline.Pusher, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    platforms = ["linux/amd64", "linux/arm64"]
    made = make_image(
        tmp_path / "many.tar",
        LAYERS,
        platforms,
        "docker-containerd",
        names=["many:1"],
        attestations=True,
    )
    engine.load(made.path)
    result = pusher.push("docker-daemon:many:1", f"{oci_registry.name('app')}:1", verify="full")
    if result.manifests:
        assert result.digest == made.digest
        again = pusher.push("docker-daemon:many:1", f"{oci_registry.name('app')}:1")
        assert (again.status, again.digest) == ("unchanged", made.digest)
    else:
        assert len(result.layers) == len(LAYERS)  # overlay2 keeps one platform


def test_all_tags_go_and_an_id_is_a_name(
    engine: DockerEngine, pusher: towline.Pusher, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    for tag in ("one", "two"):
        layers = (LAYERS[0], {"app": tag.encode()})
        engine.load(make_image(tmp_path / tag, layers, names=[f"tags:{tag}"]).path)
    results = pusher.push("docker-daemon:tags", oci_registry.name("app"), all_tags=True)
    assert [result.tag for result in results] == ["one", "two"]
    _, said = docker_engine.ask(engine.url, "GET", "/images/tags:one/json")
    found = json.loads(said)["Id"].removeprefix("sha256:")[:12]
    by_id = pusher.push(f"docker-daemon:{found}", f"{oci_registry.name('app')}:id")
    assert by_id.digest == results[0].digest


def test_a_plan_exports_nothing(
    engine: DockerEngine, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    engine.load(make_image(tmp_path / "image.tar", LAYERS, names=["planned:1"]).path)
    told: list[towline.Event] = []
    plan = towline.plan(
        "docker-daemon:planned:1",
        f"{oci_registry.name('app')}:1",
        engine=engine.url,
        cache="none",
        on_event=told.append,
    )
    at_hand = engine.store == "containerd"
    assert any("would have to export" in warning for warning in plan.warnings) != at_hand
    assert notes(told) == []


def test_an_engine_on_another_machine_exports_what_is_pushed(
    engine: DockerEngine, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    form: Any = "docker-containerd" if engine.store == "containerd" else "docker"
    made = make_image(tmp_path / "image.tar", LAYERS, names=["far:1"], format=form)
    engine.load(made.path)
    told: list[towline.Event] = []
    result = towline.push(
        "docker-daemon:far:1",
        f"{oci_registry.name('app')}:1",
        engine="ssh://far.example",
        environ=fake_ssh.to_a_socket(tmp_path, engine.url, tmp_path / "words"),
        cache="none",
        verify="full",
        on_event=told.append,
    )
    assert any("prepares its export" in note for note in notes(told))
    if engine.store == "containerd":
        assert result.digest == made.digest


@pytest.mark.parametrize("engine", ["containerd"], indirect=True)
def test_of_one_platform_a_containerd_store_on_another_machine_exports_no_other(
    engine: DockerEngine, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    made = make_image(
        tmp_path / "parts.tar",
        LAYERS,
        ["linux/amd64", "linux/arm64", "linux/arm/v6"],
        "docker-containerd",
        names=["parts:1"],
        attestations=True,
    )
    engine.load(made.path)
    environ = fake_ssh.to_a_socket(tmp_path, engine.url, tmp_path / "words")
    told: list[towline.Event] = []
    for platform in ("linux/arm64", "linux/arm"):
        result = towline.push(
            "docker-daemon:parts:1",
            f"{oci_registry.name('app')}:1",
            engine="ssh://far.example",
            environ=environ,
            cache="none",
            on_event=told.append,
            platform=platform,
        )
        assert result.digest == towline.digest(made.path, platform=platform)
    # It is read as it passes: an export that is kept is told of by a second note.
    assert [note for note in notes(told) if "prepares its export" not in note] == []


@pytest.mark.peer("docker")
@pytest.mark.parametrize("engine", ["containerd"], indirect=True)
def test_what_docker_saves_of_a_containerd_store_passes_through_a_pipe(
    engine: DockerEngine, oci_registry: OciRegistry, tmp_path: Path
) -> None:
    docker = components.find("docker")
    noise = (LAYERS[0], {"noise": os.urandom(6 << 20)})
    made = make_image(tmp_path / "x.tar", noise, names=["saved:1"], format="docker-containerd")
    engine.load(made.path)
    script = (
        f"set -o pipefail; {docker} --host {engine.url} save saved:1 | "
        f"(ulimit -f 0; {sys.executable} -m towline push - {oci_registry.name('app')}:1)"
    )
    done = subprocess.run(
        ["bash", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": "/nowhere", "TOWLINE_CACHE": "none"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{oci_registry.name('app')}@{made.digest}\n"


def test_an_image_that_the_engine_lacks_is_named(
    engine: DockerEngine, pusher: towline.Pusher, oci_registry: OciRegistry
) -> None:
    with pytest.raises(towline.SourceError, match=r"none:1 is no image of .* at unix:"):
        pusher.push("docker-daemon:none:1", f"{oci_registry.name('app')}:1")
