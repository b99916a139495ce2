"""The main job: an image of any form is pushed, and what a puller reads back is that image."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support import readback
from towline.server import Server
from towline.testing.images import ImageSpec, make_image, make_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.conftest import Place
    from towline.events import Event
    from towline.testing import TestRegistry

MiB = 1 << 20
BIG = b"".join(hashlib.sha256(str(n).encode()).digest() * 64 for n in range(1600))
"""Some 3 MiB that compress, but not to nothing."""
LAYERS = [
    {"etc/os-release": b"ID=towline\n", "usr/lib/big": BIG},
    {"app/hello": b"hello\n"},
    {"app/hello": b"hello again\n"},
]
FORMS: list[tuple[str, dict[str, Any]]] = [
    ("docker", {}),
    ("docker", {"archive": "gzip"}),
    ("docker", {"archive": "zstd"}),
    ("docker-containerd", {}),
    ("docker-legacy", {}),
    ("docker-legacy", {"compression": "gzip"}),
    ("oci", {}),
    ("oci", {"compression": "zstd"}),
    ("oci", {"compression": "none"}),
    ("oci-archive", {}),
]


def push(source: object, destination: str, **options: Any) -> towline.PushResult:
    result: towline.PushResult = towline.push(source, destination, **options)  # type: ignore[call-overload]  # any
    return result


@pytest.mark.parametrize(
    ("form", "options"), FORMS, ids=[f"{f}-{'-'.join(o.values()) or 'usual'}" for f, o in FORMS]
)
def test_what_is_pushed_is_what_is_pulled(
    registry: Place, tmp_path: Path, form: Any, options: dict[str, Any]
) -> None:
    made = make_image(tmp_path / "image", LAYERS, format=form, **options)
    result = push(made.path, registry.name("app") + ":1")
    image = readback.image(registry.url, registry.path("app"), "1")
    assert image.digest == result.digest
    assert image.config_bytes == made.config
    assert [layer.diff_id for layer in result.layers] == list(made.diff_ids)
    assert [layer.digest for layer in result.layers] == [
        layer["digest"] for layer in image.manifest["layers"]
    ]
    assert {layer.outcome for layer in result.layers} == {"pushed"}
    assert result.status == "pushed"


def test_layers_that_came_compressed_go_byte_for_byte_with_their_manifest(
    registry: Place, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image", LAYERS, format="oci")
    result = push(made.path, registry.name("app") + ":1")
    assert result.digest == made.digest
    assert result.digest_differs is None
    assert {layer.compression for layer in result.layers} == {"source"}


def test_an_index_is_pushed_with_all_its_platforms(registry: Place, tmp_path: Path) -> None:
    platforms = ["linux/amd64", "linux/arm64/v8"]
    made = make_image(tmp_path / "image", LAYERS, platforms, "oci", attestations=True)
    result = push(made.path, registry.name("app") + ":1")
    index = readback.read(registry.url, registry.path("app"), "1")
    assert isinstance(index, readback.Index)
    assert index.digest == result.digest == made.digest
    assert [child["digest"] for child in index.manifest["manifests"]] == [
        child.digest for child in result.manifests
    ]
    assert {"linux/amd64", "linux/arm64/v8"} <= {child.platform for child in result.manifests}


@pytest.mark.parametrize("form", ["docker-containerd", "oci"])
def test_the_one_platform_that_is_there_goes_under_the_tag_with_a_warning(
    registry: Place, tmp_path: Path, form: Any
) -> None:
    both = ["linux/amd64", "linux/arm64"]
    make_image(tmp_path / "image", LAYERS, both, form, absent=both[1:])
    result = push(tmp_path / "image", registry.name("app") + ":1")
    image = readback.image(registry.url, registry.path("app"), "1")
    assert (image.digest, result.manifests) == (result.digest, ())
    assert result.digest_differs == "platforms"
    (warning,) = result.warnings
    assert "linux/amd64" in warning
    assert "linux/arm64" in warning


def test_an_index_of_plain_layers_is_compressed_and_written_anew(
    registry: Place, tmp_path: Path
) -> None:
    made = make_image(
        tmp_path / "image", LAYERS, ["linux/amd64", "linux/arm64"], "oci", compression="none"
    )
    result = push(made.path, registry.name("app") + ":1")
    index = readback.read(registry.url, registry.path("app"), "1")
    assert isinstance(index, readback.Index)
    assert index.digest == result.digest != made.digest
    assert result.digest_differs == "recompressed"


def test_the_same_layer_twice_is_sent_once(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image", [LAYERS[1], LAYERS[0], LAYERS[1]])
    result = push(made.path, registry.name("app") + ":1")
    assert len(result.layers) == 3
    assert result.layers[0].digest == result.layers[2].digest
    posts = [path for method, path in registry.requests() if method == "POST"]
    assert len(posts) == 3  # two layers and the config
    assert readback.image(registry.url, registry.path("app"), "1").digest == result.digest


def test_a_repeat_reads_no_layer_and_sends_no_blob_byte(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    destination = registry.name("app") + ":1"
    first = push(made.path, destination)
    before = len(registry.requests())
    second = push(made.path, destination)
    assert second.status == "unchanged"
    assert second.digest == first.digest
    assert second.sent_bytes == 0
    assert {layer.outcome for layer in second.layers} == {"exists"}
    assert all(method in {"HEAD", "GET"} for method, _ in registry.requests()[before:])
    assert second.requests <= 2


def test_another_tag_asks_once_a_blob(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    push(made.path, registry.name("app") + ":1")
    second = push(made.path, registry.name("app") + ":2")
    assert second.sent_bytes == 0
    assert second.status == "pushed"
    assert second.requests <= len(made.diff_ids) + 3
    assert readback.image(registry.url, registry.path("app"), "2").digest == second.digest


def test_another_repository_mounts(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    first = push(made.path, registry.name("base") + ":1")
    second = push(made.path, registry.name("app") + ":1")
    assert second.digest == first.digest
    assert {layer.outcome for layer in second.layers} == {"mounted"}
    assert {layer.mounted_from for layer in second.layers} == {registry.path("base")}
    assert second.sent_bytes == 0
    assert readback.image(registry.url, registry.path("app"), "1").digest == first.digest


def test_a_machine_without_memory_learns_from_the_registry(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    destination = registry.name("app") + ":1"
    first = push(made.path, destination, cache="none")
    second = push(made.path, destination, cache="none")
    assert second.digest == first.digest
    assert second.sent_bytes == 0
    third = push(made.path, destination, cache="none", no_learn=True)
    assert third.sent_bytes > MiB


@pytest.mark.parametrize("profile", ["gzip", "gzip:best", "none", "zstd", "zstd:9"])
def test_every_profile_reads_back(registry: Place, tmp_path: Path, profile: str) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    result = push(made.path, registry.name("app") + ":1", compression=profile)
    image = readback.image(registry.url, registry.path("app"), "1")
    assert image.digest == result.digest
    assert {layer.compression for layer in result.layers} == {
        {"zstd": "zstd:3"}.get(profile, profile)
    }
    suffix = {"gzip": "gzip", "none": "tar"}.get(profile.partition(":")[0], "zstd")
    assert all(layer["mediaType"].endswith(suffix) for layer in image.manifest["layers"])


def test_an_explicit_format_is_what_is_pushed(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    push(made.path, registry.name("app") + ":oci", format="oci")
    push(made.path, registry.name("app") + ":docker", format="docker")
    for tag in ("oci", "docker"):
        image = readback.image(registry.url, registry.path("app"), tag)
        assert tag in image.manifest["mediaType"]


def test_the_digest_is_known_without_pushing(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    expected = towline.digest(made.path, compression="zstd:3")
    result = push(made.path, registry.name("app") + ":1", compression="zstd:3")
    assert result.digest == expected
    assert towline.digest(registry.name("app") + ":1") == expected


def test_a_layer_that_is_not_what_its_config_says_ends_the_push(
    registry: Place, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS, format="docker-legacy")
    content = made.path.read_bytes()
    assert content.count(b"hello again\n") == 1
    made.path.write_bytes(content.replace(b"hello again\n", b"hello agaim\n"))
    with pytest.raises(towline.SourceError, match=r"DiffID"):
        push(made.path, registry.name("app") + ":1")
    assert not any("/manifests/" in path for method, path in registry.requests() if method == "PUT")


def test_check_diffids_looks_into_layers_that_came_compressed(
    registry: Place, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image", LAYERS, format="oci")
    result = push(made.path, registry.name("app") + ":1", check_diffids=True)
    assert result.digest == made.digest


@pytest.mark.parametrize("held", [False, True], ids=["sent", "held already"])
def test_check_diffids_finds_a_layer_that_its_config_lies_about(
    registry: Place, tmp_path: Path, *, held: bool
) -> None:
    made = make_image(tmp_path / "image", LAYERS, format="oci")
    lie = _lying_layout(made.path, made.config, made.root.content)
    if held:
        push(lie, registry.name("app") + ":before")
    with pytest.raises(towline.SourceError, match="DiffID"):
        push(lie, registry.name("app") + ":1", check_diffids=True)
    assert "1" not in (towline.tags(registry.name("app")) if held else [])


def _lying_layout(layout: Path, config: bytes, manifest: bytes) -> Path:
    """Name another DiffID for the last layer; every digest of the layout stays right."""
    blobs = layout / "blobs" / "sha256"

    def stored(content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return f"sha256:{digest}"

    document = json.loads(config)
    document["rootfs"]["diff_ids"][-1] = "sha256:" + "0" * 64
    told = json.loads(manifest)
    lie = json.dumps(document).encode()
    told["config"].update(digest=stored(lie), size=len(lie))
    content = json.dumps(told).encode()
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"][0].update(digest=stored(content), size=len(content))
    (layout / "index.json").write_text(json.dumps(index))
    return layout


@pytest.mark.parametrize("how", ["head", "full"])
def test_what_was_pushed_is_verified(registry: Place, tmp_path: Path, how: str) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    told: list[towline.Event] = []
    result = push(made.path, registry.name("app") + ":1", verify=how, on_event=told.append)
    assert result.status == "pushed"
    size = len(made.config) + sum(layer.size for layer in result.layers)
    read = (len(LAYERS), size) if how == "full" else (0, 0)
    assert result.verified == towline.Verification(1, len(LAYERS) + 1, *read)
    (said,) = (event for event in told if isinstance(event, towline.Verified))
    assert (said.blobs, said.diff_ids, said.bytes) == (len(LAYERS) + 1, *read)
    assert push(made.path, registry.name("app") + ":2").verified is None


def test_bytes_that_are_told_of_as_sent_are_those_on_the_wire(
    registry: Place, tmp_path: Path
) -> None:
    told: list[towline.Event] = []
    half = os.urandom(2 << 20) + bytes(2 << 20)
    made = make_image(tmp_path / "image.tar", [{"a": half}])
    result = push(made.path, registry.name("app") + ":1", on_event=told.append)
    moved = [one for one in told if isinstance(one, towline.LayerProgress) and one.sent]
    assert moved[-1].sent == pytest.approx(result.layers[0].sent_bytes, rel=0.01)
    assert moved[-1].current == moved[-1].total
    assert moved[-1].sent is not None
    assert moved[-1].total is not None
    assert moved[-1].sent < 0.6 * moved[-1].total


def test_a_layer_that_is_used_in_another_compression_than_wanted_is_told_of(
    registry: Place, tmp_path: Path
) -> None:
    made = make_image(
        tmp_path / "image", [{"a": b"bytes" * 1000}], format="oci", compression="none"
    )
    name = registry.name("app")
    push(made.path, f"{name}:1", compression="zstd")
    told: list[towline.Event] = []
    result = push(made.path, f"{name}:2", format="oci", on_event=told.append)
    assert [layer.compression for layer in result.layers] == ["reused"]
    (note,) = (event for event in told if isinstance(event, towline.Note))
    assert note.reference == f"{name}:2"
    shown = made.diff_ids[0].short
    assert note.message == (
        f"not compressed with gzip but used as the registry holds them, in zstd: {shown}"
    )


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[tuple[str, Path, Callable[[towline.PushResult], Path]]]:
    """A place at a registry, an image, and the file in which the registry keeps its first layer."""
    made = make_image(tmp_path / "image.tar", LAYERS)

    def file(result: towline.PushResult) -> Path:
        name = str(result.layers[0].digest).partition(":")[2]
        return tmp_path / "root" / "blobs" / "sha256" / name

    with Server(tmp_path / "root") as server:
        yield f"{server.host}/app:1", made.path, file


Kept = tuple[str, "Path", "Callable[[towline.PushResult], Path]"]


@pytest.mark.parametrize("how", ["head", "full"])
def test_what_a_registry_has_lost_is_sent_again_by_a_push_that_verifies(
    kept: Kept, how: str
) -> None:
    name, image, file = kept
    file(push(image, name)).unlink()
    assert push(image, name).status == "unchanged", "nobody has looked"
    again = push(image, name, verify=how)
    assert again.status == "unchanged", "the tag is"
    assert [layer.outcome for layer in again.layers] == ["pushed", "exists", "exists"]
    assert push(image, name, verify="full").sent_bytes == 0


def test_bytes_that_are_not_those_of_their_digest_fail_the_verification(kept: Kept) -> None:
    name, image, file = kept
    first = push(image, name)
    blob = file(first)
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    with pytest.raises(towline.RegistryError) as caught:
        push(image, name, verify="full", retries=0)
    host = name.partition("/")[0]
    assert str(caught.value) == (
        f"verification of {name} failed: {host} gave other bytes for blob {first.layers[0].digest}"
    )
    assert caught.value.hint


def test_bytes_that_cannot_even_be_decompressed_are_told_by_their_digest(
    kept: Kept, tmp_path: Path
) -> None:
    name, _, file = kept
    image = str(make_image(tmp_path / "large.tar", [{"a": os.urandom(3 << 20)}]).path)
    first = push(image, name)
    blob = file(first)
    blob.write_bytes(b"no" + blob.read_bytes()[2:])
    with pytest.raises(towline.RegistryError, match="gave other bytes for blob") as caught:
        push(image, name, verify="full", retries=0)
    assert "the registry has lost or changed" in str(caught.value.hint)


def test_a_plan_verifies_nothing(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    name = registry.name("app") + ":1"
    push(made.path, name)
    before = len(registry.requests())
    assert towline.plan(made.path, name, verify="full").status == "unchanged"
    assert not [path for _, path in registry.requests()[before:] if "/blobs/" in path]


@pytest.mark.parametrize("kind", [towline.PushStarted, towline.LayerProgress, towline.Summary])
def test_a_listener_that_fails_fails_no_push(
    oci_registry: TestRegistry, tmp_path: Path, kind: type[Event]
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    name = oci_registry.name("app")
    told: list[Event] = []

    def hear(event: Event) -> None:
        told.append(event)
        if event.event == kind.event:
            raise RuntimeError("no room left in the window")

    with towline.Pusher(cache="none", on_event=hear) as pusher:
        first, second = pusher.push(made.path, [f"{name}:1", f"{name}:2"])
        planned = pusher.plan(made.path, f"{name}:1")
    said = "on_event raised RuntimeError: no room left in the window, and is told no more"
    assert said in second.warnings
    assert planned.warnings == (said,)
    assert [type(event) for event in told].count(kind) == 1
    assert isinstance(told[-1], kind)
    assert set(oci_registry.tags(name)) == {"1", "2"}
    assert oci_registry.manifest(f"{name}:2") == oci_registry.manifest(f"{name}:1")
    assert first.digest == second.digest


def test_a_result_as_a_dict_is_what_json_would_give(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image", LAYERS, ["linux/amd64", "linux/arm64"], "oci")
    name = oci_registry.name("app") + ":1"
    for result in (push(made.path, name), towline.plan(made.path, name), towline.inspect(name)):
        assert result.as_dict() == json.loads(json.dumps(result.as_dict()))


@pytest.mark.parametrize("form", ["docker", "docker-legacy", "oci"])
def test_a_layer_that_is_left_plain_is_told_by_the_profile_that_leaves_it_so(
    oci_registry: TestRegistry, tmp_path: Path, form: Any
) -> None:
    made = make_image(tmp_path / "image", LAYERS, format=form, compression="none")
    name = oci_registry.name("app") + ":1"
    planned = towline.plan(made.path, name, compression="none")
    first = push(made.path, name, compression="none")
    again = push(made.path, name, compression="none", cache="none")
    for result in (planned, first, again):
        assert {layer.compression for layer in result.layers} == {"none"}


def test_what_was_warned_of_during_a_push_is_in_its_results(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    names = [oci_registry.name("a"), oci_registry.name("b")]
    with towline.Pusher(cache=tmp_path) as pusher:  # a folder is no cache
        for result in pusher.push(made.path, names):
            assert [said[:9] for said in result.warnings] == ["the cache"]
        assert pusher.push(made.path, names[0]).warnings == ()  # it is warned of once
    with towline.Pusher(cache=tmp_path) as pusher:
        assert len(pusher.plan(made.path, names[0]).warnings) == 1


def test_a_log_that_fails_fails_no_push(oci_registry: TestRegistry, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)

    def write(line: str) -> None:
        raise OSError(28, "No space left on device", line)

    result = push(made.path, oci_registry.name("app") + ":1", log=write)
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith("log raised OSError: [Errno 28] No space left on device")


def test_events_tell_the_push_in_dockers_words(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    events: list[Event] = []
    result = push(made.path, registry.name("app") + ":1", on_event=events.append)
    kinds = [event.event for event in events]
    assert kinds[0] == "push"
    assert kinds[-2:] == ["tag", "summary"]
    layer = [e for e in events if isinstance(e, towline.LayerProgress)]
    assert {e.id for e in layer} == {diff_id.short for diff_id in made.diff_ids}
    assert {e.status for e in layer} >= {"Preparing", "Pushing", "Pushed"}
    assert {e.reference for e in events} == {result.reference}
    json.dumps([event.as_dict() for event in events])


def test_layers_are_told_in_dockers_order_the_top_one_first(
    registry: Place, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    words: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, towline.LayerProgress):
            words.append(f"{event.id} {event.status}")

    push(made.path, registry.name("app") + ":1", on_event=hear)
    from_the_top = [diff_id.short for diff_id in reversed(made.diff_ids)]
    assert words[:3] == [f"{name} Preparing" for name in from_the_top]
    words.clear()
    push(made.path, registry.name("app") + ":1", on_event=hear)
    assert [word for word in words if word.endswith("exists")] != []


def test_a_layer_that_is_through_moves_no_more_and_its_bytes_were_all_told(
    registry: Place, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    places = [registry.name("one") + ":1", registry.name("two") + ":1"]
    told: dict[tuple[str, str], list[towline.LayerProgress]] = {}

    def hear(event: Event) -> None:
        if isinstance(event, towline.LayerProgress):
            told.setdefault((event.reference, event.id), []).append(event)

    towline.push(made.path, places, on_event=hear)
    assert len(told) == len(places) * len(made.diff_ids)
    for events in told.values():
        last = events.pop()
        assert last.status == "Pushed" or last.status.startswith("Mounted from ")
        assert last.status not in {event.status for event in events}
        moved = [event for event in events if event.status == "Pushing"]
        assert [event.current for event in moved] == sorted(event.current or 0 for event in moved)
        if last.status == "Pushed":
            assert moved[-1].current == moved[-1].total


def test_one_platform_instead_of_an_index_takes_the_tag(registry: Place, tmp_path: Path) -> None:
    both = ["linux/amd64", "linux/arm64/v8"]
    whole = make_image(tmp_path / "whole", LAYERS, both, "oci")
    part = make_image(tmp_path / "part", LAYERS, both, "oci", absent=both[:1])
    name = registry.name("app") + ":1"
    assert push(whole.path, name).digest == whole.digest
    result = push(part.path, name)
    assert result.digest == part.images[0].manifest.digest != whole.digest
    assert readback.image(registry.url, registry.path("app"), "1").digest == result.digest
    assert any("linux/arm64/v8 alone" in warning for warning in result.warnings)


def test_inspect_and_tags_see_what_was_pushed(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    name = registry.name("app")
    result = push(made.path, f"{name}:b")
    push(made.path, f"{name}:a")
    assert towline.tags(name) == ["a", "b"]
    seen = towline.inspect(f"{name}:b")
    assert seen.digest == result.digest
    assert [layer.diff_id for layer in seen.layers] == list(made.diff_ids)
    assert seen.platform == "linux/amd64"
    local = towline.inspect(made.path)
    assert [layer.diff_id for layer in local.layers] == list(made.diff_ids)


def test_a_plan_writes_nothing_and_says_what_a_push_would_do(
    registry: Place, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    destination = registry.name("app") + ":1"
    before = towline.plan(made.path, destination)
    assert isinstance(before, towline.PlanResult)
    assert before.digest is None
    assert {layer.outcome for layer in before.layers} == {"pushed"}
    assert before.send_bytes > MiB
    assert {method for method, _ in registry.requests()} <= {"GET", "HEAD"}
    pushed = push(made.path, destination)
    after = towline.plan(made.path, destination)
    assert isinstance(after, towline.PlanResult)
    assert (after.digest, after.status, after.send_bytes) == (pushed.digest, "unchanged", 0)
    moved = towline.plan(made.path, registry.name("other") + ":1")
    assert isinstance(moved, towline.PlanResult)
    assert {layer.outcome for layer in moved.layers} == {"mounted"}
    assert moved.digest == pushed.digest


def test_a_small_blob_costs_one_request_where_the_registry_takes_it_so(
    request: pytest.FixtureRequest, registry: Place, tmp_path: Path
) -> None:
    with towline.Pusher(cache="none") as pusher:
        for number in range(2):
            layers = [{"f": bytes([number, layer])} for layer in range(20)]
            made = make_image(tmp_path / f"{number}.tar", layers)
            before = len(registry.requests())
            pusher.push(made.path, f"{registry.name('app')}:{number}")
    asked = [one for one in registry.requests()[before:] if "/blobs/uploads/" in one[1]]
    whole = [one for one in asked if one[0] == "POST" and "?digest=" in one[1]]
    if "embedded" in request.node.name:
        assert (len(whole), len(asked)) == (21, 21)
    else:
        assert (len(whole), len(asked)) == (0, 42)


def test_tags_of_one_repository_share_what_their_push_costs(
    request: pytest.FixtureRequest, registry: Place, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    name = registry.name("app")
    before = len(registry.asked())
    events: list[Event] = []
    with towline.Pusher(cache="none", on_event=events.append) as pusher:
        first, second = pusher.push(made.path, [f"{name}:1", f"{name}:2"])
        asked = len(registry.asked()) - before
        planned = pusher.plan(made.path, [f"{name}:3", f"{name}:4"])
    assert first.requests + second.requests == asked
    # The manifest; Debian's does not take several tags by one request, which was tried.
    assert second.requests == (1 if "embedded" in request.node.name else 2)
    # Debian's gets one small blob twice: it takes none with the request that opens a session.
    bodies = Counter(path[-64:] for _, path in registry.requests() if "digest=" in path)
    for layer in first.layers:
        assert layer.sent_bytes == (layer.size or 0) * bodies[str(layer.digest)[-64:]]
    assert bodies.total() == len(bodies) + (0 if "embedded" in request.node.name else 1)
    assert [layer.sent_bytes for layer in second.layers] == [0] * len(LAYERS)
    assert {layer.outcome for layer in second.layers} == {"pushed"}
    sent = sum(layer.sent_bytes for layer in first.layers)
    config = hashlib.sha256(made.config).hexdigest()
    assert first.sent_bytes == sent + len(made.config) * bodies[config]
    assert second.sent_bytes == 0
    assert min(first.seconds, second.seconds) > 0
    told = [event for event in events if isinstance(event, towline.Summary)]
    assert [(one.sent_bytes, one.requests) for one in told] == [
        (one.sent_bytes, one.requests) for one in (first, second)
    ]
    assert sum(one.requests for one in planned) == len(registry.asked()) - before - asked


def test_all_tags_are_pushed_and_their_blobs_asked_for_once(
    registry: Place, tmp_path: Path
) -> None:
    specs = [
        ImageSpec(LAYERS[:2], names=("app:b",)),
        ImageSpec(LAYERS, names=("app:a",)),
    ]
    make_images(tmp_path / "image.tar", specs)
    name = registry.name("app")
    results = towline.push(tmp_path / "image.tar", name, all_tags=True)
    assert [result.tag for result in results] == ["a", "b"]
    assert towline.tags(name) == ["a", "b"]
    posts = [path for method, path in registry.requests() if method == "POST"]
    assert len(posts) == 3 + 2  # three layers, two configs
    for result in results:
        found = readback.image(registry.url, registry.path("app"), str(result.tag))
        assert found.digest == result.digest


def lacking(path: Path, *tags: str) -> Path:
    """Three images under the tags a, b and c; the configs of some are not there."""
    specs = [
        ImageSpec([layer], names=(f"app:{tag}",)) for tag, layer in zip("abc", LAYERS, strict=True)
    ]
    make_images(path, specs, "docker-legacy")
    with tarfile.open(path) as archive:
        files = {
            member.name: file.read() for member in archive if (file := archive.extractfile(member))
        }
    for listed in json.loads(files["manifest.json"]):
        if listed["RepoTags"][0].partition(":")[2] in tags:
            del files[listed["Config"]]
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_a_tag_whose_image_cannot_be_read_does_not_hide_the_others(
    registry: Place, tmp_path: Path
) -> None:
    source, name = lacking(tmp_path / "image.tar", "b"), registry.name("app")
    with pytest.raises(towline.PartialFailure, match="1 of 3 pushes failed") as caught:
        towline.push(source, name, all_tags=True)
    first, failed, last = caught.value.results
    assert str(failed).startswith(f"could not find image from tag app:b: {source} has no ")
    assert isinstance(failed, towline.SourceError)
    assert isinstance(first, towline.PushResult)
    assert isinstance(last, towline.PushResult)
    assert towline.tags(name) == ["a", "c"] == [first.tag, last.tag]
    for plan in (True, False):
        with pytest.raises(towline.PartialFailure) as caught:
            (towline.plan if plan else towline.push)(source, name, all_tags=True)
        assert [getattr(one, "status", None) for one in caught.value.results] == [
            "unchanged",
            None,
            "unchanged",
        ]


def test_where_no_image_of_several_can_be_read_each_is_named(
    registry: Place, tmp_path: Path
) -> None:
    source = lacking(tmp_path / "image.tar", *"abc")
    for ask in (towline.push, towline.plan):
        with pytest.raises(towline.PartialFailure) as caught:
            ask(source, registry.name("app"), all_tags=True)
        assert [str(error).partition(": ")[0] for error in caught.value.exceptions] == [
            f"could not find image from tag app:{tag}" for tag in "abc"
        ]
    assert registry.requests() == []


def test_all_tags_of_several_repositories_need_a_choice(registry: Place, tmp_path: Path) -> None:
    specs = [ImageSpec(names=("one:1",)), ImageSpec(LAYERS[1:2], names=("two:1",))]
    make_images(tmp_path / "image.tar", specs)
    with pytest.raises(towline.SourceError, match=r"one.*two"):
        towline.push(tmp_path / "image.tar", registry.name("app"), all_tags=True)
    source = f"docker-archive:{tmp_path / 'image.tar'}:two"
    (result,) = towline.push(source, registry.name("app"), all_tags=True)
    assert result.tag == "1"


def test_what_has_no_tag_is_latest(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar")
    result = push(made.path, registry.name("app"))
    assert (result.tag, result.reference) == ("latest", registry.name("app") + ":latest")
    assert towline.tags(registry.name("app")) == ["latest"]


def test_a_tag_does_not_go_with_all_tags(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar")
    with pytest.raises(towline.UsageError, match="`all_tags`"):
        towline.push(made.path, registry.name("app") + ":1", all_tags=True)
    with pytest.raises(towline.UsageError, match="cannot push a digest reference"):
        towline.push(made.path, registry.name("app") + "@" + made.digest)
