"""What a registry teaches a machine that has never pushed, and how far that is believed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import towline
from tests.support import readback
from tests.support.certificates import make_authority
from tests.support.proxies import leading_to
from tests.support.scripted import Scripted, scripted
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.integration.conftest import Place
    from towline.testing import TestRegistry

LAYERS = [{"one": b"1" * 5000}, {"two": b"2" * 5000}, {"three": b"3" * 50}]


def push(path: Path, destination: str, *, cache_from: str = "") -> towline.PushResult:
    """A push by a machine without any memory."""
    more = [cache_from] if cache_from else []
    return towline.push(path, destination, cache="none", cache_from=more)


def outcomes(result: towline.PushResult) -> list[str]:
    return [str(layer.outcome) for layer in result.layers]


def test_layers_of_another_repository_are_mounted_where_it_is_named(
    registry: Place, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    base = registry.name("base") + ":1"
    first = push(made.path, base)
    second = push(made.path, registry.name("app") + ":1", cache_from=base)
    assert outcomes(second) == ["mounted"] * 3
    assert second.digest == first.digest
    assert {layer.mounted_from for layer in second.layers} == {registry.path("base")}
    assert readback.image(registry.url, registry.path("app"), "1").digest == first.digest


def test_what_was_learned_is_remembered_as_learned_wherever_it_is_mounted_to(
    registry: Place, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    base, app = registry.name("base"), registry.name("app")
    push(made.path, f"{base}:1")
    with towline.Pusher(cache=tmp_path / "cache") as pusher:
        pusher.push(made.path, f"{app}:1", cache_from=[f"{base}:1"])
        known = pusher._resources.knowledge.entries(made.diff_ids)
    assert {
        (entry.repository, entry.learned) for entries in known.values() for entry in entries
    } == {(base, True), (app, True)}


def test_a_new_image_on_a_known_base_sends_its_own_layer_alone(
    registry: Place, tmp_path: Path
) -> None:
    base = make_image(tmp_path / "base.tar", LAYERS[:2])
    app = make_image(tmp_path / "app.tar", LAYERS)
    push(base.path, registry.name("app") + ":base")
    result = push(app.path, registry.name("app") + ":1", cache_from=registry.name("app") + ":base")
    assert outcomes(result) == ["exists", "exists", "pushed"]


def test_the_tag_that_is_replaced_teaches_too(registry: Place, tmp_path: Path) -> None:
    old = make_image(tmp_path / "old.tar", LAYERS[:2])
    new = make_image(tmp_path / "new.tar", LAYERS)
    push(old.path, registry.name("app") + ":1")
    assert outcomes(push(new.path, registry.name("app") + ":1")) == ["exists", "exists", "pushed"]


def test_a_tag_that_holds_the_image_already_is_two_requests(
    registry: Place, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    name = registry.name("app") + ":1"
    push(made.path, name)
    before = len(registry.requests())
    result = push(made.path, name)
    assert (result.status, result.requests) == ("unchanged", 2)
    assert [method for method, _ in registry.requests()[before:]] == ["HEAD", "GET"]


def test_an_index_teaches_the_layers_of_its_images(registry: Place, tmp_path: Path) -> None:
    index = make_image(tmp_path / "index", LAYERS, ["linux/amd64", "linux/arm64"], "oci")
    image = make_image(tmp_path / "image.tar", LAYERS)
    push(index.path, registry.name("app") + ":1")
    assert outcomes(push(image.path, registry.name("app") + ":1")) == ["exists"] * 3


def test_what_was_learned_never_leaves_its_registry(
    registry: Place, oci_registry: TestRegistry, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    elsewhere = oci_registry.name("base") + ":1"
    push(made.path, elsewhere)
    before = len(oci_registry.requests)
    name = registry.name("app")
    result = push(made.path, f"{name}:1", cache_from=elsewhere)
    if registry.host != oci_registry.host:
        assert outcomes(result) == ["pushed"] * 3
        assert len(oci_registry.requests) == before, "nobody there was even asked"
        assert result.warnings == (f"nothing is learned from {elsewhere}: no destination is there",)
    assert readback.image(registry.url, registry.path("app"), "1").digest == result.digest


def test_a_learned_blob_that_is_gone_is_sent(oci_registry: TestRegistry, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    name = oci_registry.name("app")
    first = push(made.path, f"{name}:1")
    for layer in first.layers[:2]:
        oci_registry.fail("HEAD", f"/blobs/{layer.digest}", 404)
    result = towline.push(made.path, f"{name}:2", cache="none", cache_from=f"{name}:1")
    assert outcomes(result) == ["pushed", "pushed", "exists"]


def test_a_new_tag_of_an_image_that_is_there_sends_nothing(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    name = registry.name("app")
    first = push(made.path, f"{name}:latest")
    push(made.path, f"{name}:1")
    notes: list[towline.Event] = []
    result = towline.push(made.path, f"{name}:0a1b2c3", cache="none", on_event=notes.append)
    assert (outcomes(result), result.digest) == (["exists"] * 3, first.digest)
    assert (result.sent_bytes, result.learned_from) == (0, f"{name}:latest")
    assert result.requests <= len(LAYERS) + 8
    told = [note.message for note in notes if isinstance(note, towline.Note)]
    assert told == [f"3 layers are known from {name}:latest"]


def test_a_new_tag_of_an_image_with_one_new_layer_sends_that_layer_alone(
    registry: Place, tmp_path: Path
) -> None:
    old = make_image(tmp_path / "old.tar", LAYERS)
    new = make_image(tmp_path / "new.tar", [*LAYERS[:2], {"three": b"other"}])
    name = registry.name("app")
    push(old.path, f"{name}:latest")
    result = push(new.path, f"{name}:0a1b2c3")
    assert outcomes(result) == ["exists", "exists", "pushed"]
    assert result.learned_from == f"{name}:latest"


def test_where_there_is_no_latest_a_tag_that_is_alike_teaches(
    registry: Place, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    other = make_image(tmp_path / "other.tar", [{"other": b"o"}])
    name = registry.name("app")
    for tag in ("2.0", "1.3-alpine", "main"):
        push(other.path, f"{name}:{tag}")
    push(made.path, f"{name}:1.3")
    before = len(registry.requests())
    result = push(made.path, f"{name}:1.4")
    assert (outcomes(result), result.sent_bytes) == (["exists"] * 3, 0)
    assert result.learned_from == f"{name}:1.3"
    assert result.requests <= len(LAYERS) + 8
    lists = [path for _, path in registry.requests()[before:] if "/tags/list" in path]
    assert len(lists) == 1


def test_at_most_two_tags_are_guessed_at(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    other = make_image(tmp_path / "other.tar", [{"other": b"o"}])
    name = registry.name("app")
    for tag in ("1", "2", "3", "4"):
        push(other.path, f"{name}:{tag}")
    before = len(registry.requests())
    result = push(made.path, f"{name}:5")
    assert (outcomes(result), result.learned_from) == (["pushed"] * 3, None)
    asked = [path for method, path in registry.requests()[before:] if method == "HEAD"]
    tags = [path.rpartition("/")[2] for path in asked if "/manifests/" in path]
    assert tags == ["5", "latest", "4", "3"]
    reads = [path for method, path in registry.requests()[before:] if method == "GET"]
    assert len(reads) == 3, "the list of tags, and what both hold, once"


def test_what_is_named_teaches_instead_of_a_guess(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    name = registry.name("app")
    push(made.path, f"{name}:latest")
    push(made.path, f"{name}:base")
    before = len(registry.requests())
    result = push(made.path, f"{name}:0a1b2c3", cache_from=f"{name}:base")
    assert (outcomes(result), result.learned_from) == (["exists"] * 3, f"{name}:base")
    assert not [path for _, path in registry.requests()[before:] if path.endswith("/latest")]


def test_without_learning_no_other_tag_is_looked_at(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    name = registry.name("app")
    push(made.path, f"{name}:latest")
    before = len(registry.requests())
    result = towline.push(made.path, f"{name}:0a1b2c3", cache="none", no_learn=True)
    assert (outcomes(result), result.learned_from) == (["pushed"] * 3, None)
    asked = [path for method, path in registry.requests()[before:] if method in {"GET", "HEAD"}]
    assert not [path for path in asked if "/tags/list" in path or path.endswith("/latest")]


def test_layers_that_are_compressed_already_need_no_lesson(registry: Place, tmp_path: Path) -> None:
    image = make_image(tmp_path / "layout", LAYERS, format="oci")
    name = registry.name("app")
    push(image.path, f"{name}:latest")
    before = len(registry.requests())
    result = push(image.path, f"{name}:0a1b2c3")
    assert (outcomes(result), result.sent_bytes) == (["exists"] * 3, 0)
    assert not [path for _, path in registry.requests()[before:] if path.endswith("/latest")]


def test_of_an_index_that_is_guessed_at_the_images_of_our_platform_are_read(
    registry: Place, tmp_path: Path
) -> None:
    platforms = ["linux/arm64", "linux/s390x", "linux/amd64"]
    index = make_image(tmp_path / "index", LAYERS, platforms, "oci")
    image = make_image(tmp_path / "image.tar", LAYERS)
    name = registry.name("app")
    push(index.path, f"{name}:latest")
    result = push(image.path, f"{name}:0a1b2c3")
    assert (outcomes(result), result.learned_from) == (["exists"] * 3, f"{name}:latest")
    assert result.requests <= len(LAYERS) + 8


def test_tags_that_hold_one_image_teach_once(registry: Place, tmp_path: Path) -> None:
    names = [f"app:{number}" for number in range(10)]
    made = make_image(tmp_path / "image.tar", LAYERS, names=names)
    name = registry.name("app")
    towline.push(made.path, name, cache="none", all_tags=True)
    before = len(registry.requests())
    results = towline.push(made.path, name, cache="none", all_tags=True)
    assert {result.status for result in results} == {"unchanged"}
    assert {result.learned_from for result in results} == {f"{name}:0"}
    asked = [method for method, _ in registry.requests()[before:]]
    assert (asked.count("HEAD"), asked.count("GET")) == (10, 1)


MANY = [f"{number:02}" for number in range(40)]


def looks(requests: list[tuple[str, str]]) -> int:
    return sum(method == "HEAD" and "/manifests/" in path for method, path in requests)


def test_many_new_tags_are_not_looked_at_one_by_one(registry: Place, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS, names=[f"app:{tag}" for tag in MANY])
    results = towline.push(made.path, registry.name("app"), cache="none", all_tags=True)
    assert {result.status for result in results} == {"pushed"}
    assert looks(registry.requests()) < 20
    assert len([path for _, path in registry.requests() if "/tags/list" in path]) <= 2


def test_of_many_tags_those_that_are_there_teach_and_are_left_as_they_are(
    registry: Place, tmp_path: Path
) -> None:
    name = registry.name("app")
    made = make_image(tmp_path / "image.tar", LAYERS, names=[f"app:{tag}" for tag in MANY])
    other = make_image(tmp_path / "other.tar", [{"other": b"other"}])
    for tag in MANY[16:19]:
        push(other.path, f"{name}:{tag}")
    push(made.path, f"{name}:{MANY[-1]}")
    before = len(registry.requests())
    results = towline.push(made.path, name, cache="none", all_tags=True)
    assert [result.status for result in results] == ["pushed"] * 39 + ["unchanged"]
    assert (results[0].learned_from, results[0].sent_bytes) == (f"{name}:{MANY[-1]}", 0)
    asked = registry.requests()[before:]
    assert looks(asked) < 24
    assert len([path for _, path in asked if "/tags/list" in path]) == 1


@pytest.mark.parametrize("status", [403, 429, 500])
def test_where_no_list_is_given_each_of_many_tags_is_looked_at(
    oci_registry: TestRegistry, tmp_path: Path, status: int
) -> None:
    name = oci_registry.name("app")
    made = make_image(tmp_path / "image.tar", LAYERS, names=[f"app:{tag}" for tag in MANY])
    push(made.path, f"{name}:{MANY[-1]}")
    oci_registry.fail("GET", "/tags/list", status, times=9)
    results = towline.push(made.path, name, cache="none", all_tags=True)
    assert [result.status for result in results] == ["pushed"] * 39 + ["unchanged"]
    assert results[0].learned_from == f"{name}:{MANY[-1]}"


@pytest.mark.parametrize("rule", ["same", "skip", "fail"])
def test_under_other_rules_each_of_many_tags_is_looked_at(
    oci_registry: TestRegistry, tmp_path: Path, rule: str
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS, names=[f"app:{tag}" for tag in MANY])
    towline.push(made.path, oci_registry.name("app"), if_exists=rule, cache="none", all_tags=True)  # type: ignore[call-overload]
    asked = [(one.method, one.path) for one in oci_registry.requests]
    assert looks(asked) >= 2 * len(MANY), "before anything is sent, and before each is written"
    assert len([path for _, path in asked if "/tags/list" in path]) <= 2


@pytest.mark.parametrize("status", [403, 404, 429, 500])
def test_a_list_of_tags_that_is_refused_keeps_no_push(
    oci_registry: TestRegistry, tmp_path: Path, status: int
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    name = oci_registry.name("app")
    oci_registry.fail("GET", "/tags/list", status, times=9)
    result = push(made.path, f"{name}:1")
    assert outcomes(result) == ["pushed"] * 3
    assert len([one for one in oci_registry.requests if "/tags/list" in one.path]) == 1


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[Scripted, Callable[[Path, str], towline.PushResult]]]:
    """Something that is taken for Docker Hub, and a push to it from a fresh machine."""
    authority = make_authority(tmp_path)
    certificate = authority.issue("hub", "registry-1.docker.io")
    with scripted(certificate) as server, leading_to(server.host) as proxy:
        environ = {**os.environ, "HTTPS_PROXY": f"http://{proxy}"}

        def pushed(path: Path, tag: str) -> towline.PushResult:
            place = f"docker.io/team/app:{tag}"
            return towline.push(path, place, cache="none", ca=authority.ca, environ=environ)

        yield server, pushed


def test_at_docker_hub_latest_alone_teaches_and_one_manifest_is_read(
    hub: tuple[Scripted, Callable[[Path, str], towline.PushResult]], tmp_path: Path
) -> None:
    server, pushed = hub
    made = make_image(tmp_path / "image.tar", LAYERS)
    pushed(made.path, "latest")
    before = len(server.asked)
    result = pushed(made.path, "0a1b2c3")
    assert (outcomes(result), result.sent_bytes) == (["exists"] * 3, 0)
    assert result.learned_from == "docker.io/team/app:latest"
    asked = [(one.method, one.path) for one in server.asked[before:]]
    assert [path for method, path in asked if method == "GET" and "/manifests/" in path] == [
        f"/v2/team/app/manifests/{result.digest}"
    ]
    assert not [path for _, path in asked if "/tags/list" in path]


def test_at_docker_hub_no_index_is_read_for_a_guess_and_no_list_of_tags(
    hub: tuple[Scripted, Callable[[Path, str], towline.PushResult]], tmp_path: Path
) -> None:
    server, pushed = hub
    index = make_image(tmp_path / "index", LAYERS, ["linux/amd64", "linux/arm64"], "oci")
    image = make_image(tmp_path / "image.tar", LAYERS)
    pushed(index.path, "latest")
    before = len(server.asked)
    result = pushed(image.path, "0a1b2c3")
    assert (outcomes(result), result.learned_from) == (["pushed"] * 3, None)
    assert not [one for one in server.asked[before:] if one.method == "GET"]
