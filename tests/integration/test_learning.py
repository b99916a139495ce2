"""What a registry teaches a machine that has never pushed, and how far that is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import towline
from tests.support import readback
from towline.testing.images import make_image

if TYPE_CHECKING:
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


def test_a_tag_that_holds_the_image_already_is_three_requests(
    registry: Place, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    name = registry.name("app") + ":1"
    push(made.path, name)
    before = len(registry.requests())
    result = push(made.path, name)
    assert (result.status, result.requests) == ("unchanged", 3)
    assert [method for method, _ in registry.requests()[before:]] == ["HEAD", "GET", "GET"]


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
