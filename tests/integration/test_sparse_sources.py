"""Layers that a source describes and lacks: asked for at the registry, sent by nobody."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from typing import TYPE_CHECKING

import pytest

import towline
from tests.support import readback
from tests.support.sparse import without
from towline.cli.main import main
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.integration.conftest import Place
    from towline.testing.image_formats import Form, Made
    from towline.testing.registry import TestRegistry

BASE = [{"etc/a": b"a" * 5000}, {"etc/b": b"b" * 900}]
TOP = {"app/c": b"c" * 7000}
FORMS: list[Form] = ["docker", "docker-containerd", "docker-legacy", "oci", "oci-archive"]
STORED: list[Form] = ["docker-containerd", "oci", "oci-archive"]


def image(path: Path, form: Form, layers: Sequence[dict[str, bytes]] = (*BASE, TOP)) -> Made:
    return make_image(path, layers, format=form)


def lacking(made: Made, *places: int) -> list[str]:
    """Take these layers out of its source; their digests there."""
    layers = [made.images[0].layers[place] for place in places]
    digests = [layer.blob.digest for layer in layers]
    without(made.path, digests)
    return [str(digest) for digest in digests]


@pytest.mark.parametrize("form", FORMS)
def test_what_a_source_lacks_is_taken_as_it_is_at_the_destination(
    registry: Place, tmp_path: Path, form: Form
) -> None:
    name = registry.name("app")
    base = towline.push(image(tmp_path / "base", form, BASE).path, f"{name}:base")
    made = image(tmp_path / "x", form)
    lacking(made, 0, 1)
    result = towline.push(made.path, f"{name}:1", verify="full")
    assert [layer.outcome for layer in result.layers] == ["exists", "exists", "pushed"]
    assert [layer.digest for layer in result.layers[:2]] == [each.digest for each in base.layers]
    whole = towline.push(image(tmp_path / "y", form).path, f"{name}:2")
    assert whole.digest == result.digest
    if form in STORED:
        assert result.digest == made.digest


@pytest.mark.parametrize("form", FORMS)
def test_what_a_source_lacks_is_mounted_from_where_it_was_pushed(
    registry: Place, tmp_path: Path, form: Form
) -> None:
    towline.push(image(tmp_path / "base", form, BASE).path, registry.name("base") + ":1")
    made = image(tmp_path / "x", form)
    lacking(made, 0, 1)
    result = towline.push(made.path, registry.name("app") + ":1", verify="full")
    assert [layer.outcome for layer in result.layers] == ["mounted", "mounted", "pushed"]
    assert {layer.mounted_from for layer in result.layers[:2]} == {registry.path("base")}


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_another_machine_learns_from_the_base_image_what_a_source_lacks(
    registry: Place, tmp_path: Path, form: Form
) -> None:
    base = registry.name("base") + ":1"
    towline.push(image(tmp_path / "base", form, BASE).path, base)
    made = image(tmp_path / "x", form)
    lacking(made, 0, 1)
    cache = str(tmp_path / "other.sqlite")
    result = towline.push(made.path, registry.name("app") + ":1", cache=cache, cache_from=base)
    assert [layer.outcome for layer in result.layers] == ["mounted", "mounted", "pushed"]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_nowhere_is_named_before_any_tag_is_written(
    registry: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: Form
) -> None:
    name = registry.name("app") + ":1"
    made = image(tmp_path / "x", form)
    gone = lacking(made, 0, 2)
    for command in ("plan", "push"):
        assert main([command, str(made.path), name]) == 3
        error = capsys.readouterr().err
        assert "x lacks the layer" in error
        assert f", and {registry.name('app')} does not have it; nor {gone[1]}\n" in error
        if form != "docker-legacy":  # which calls its layers by names of its own
            assert gone[0].partition(":")[2] in error
    puts = [path for method, path in registry.requests() if method == "PUT"]
    assert not [path for path in puts if "/manifests/" in path]


def test_a_push_to_two_places_needs_what_the_source_lacks_at_each(
    registry: Place, tmp_path: Path, oci_registry: TestRegistry
) -> None:
    made = image(tmp_path / "x", "oci")
    one, other = registry.name("one"), oci_registry.name("other")
    towline.push(made.path, f"{one}:0")
    towline.push(made.path, f"{other}:0")
    lacking(made, 1)
    both = towline.push(made.path, [f"{one}:1", f"{other}:1"])
    assert [result.digest for result in both] == [made.digest] * 2
    with pytest.raises(towline.PartialFailure) as caught:
        towline.push(made.path, [f"{one}:2", oci_registry.name("third") + ":2"], cache="none")
    [error] = caught.value.exceptions
    assert isinstance(error, towline.SourceError)


@pytest.mark.parametrize("form", STORED)
def test_a_source_that_lacks_layers_is_looked_at_and_planned_as_a_whole_one(
    registry: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: Form
) -> None:
    name = registry.name("app")
    made = image(tmp_path / "x", form)
    towline.push(made.path, f"{name}:0")
    gone = lacking(made, 1)
    assert towline.digest(made.path) == made.digest
    assert main(["inspect", "--output", "json", str(made.path)]) == 0
    assert json.loads(capsys.readouterr().out)["layers"][1]["digest"] == gone[0]
    planned = towline.plan(made.path, f"{name}:1", cache="none")
    assert (planned.digest, planned.send_bytes) == (made.digest, 0)


def test_an_archive_of_dockers_that_lacks_a_layer_is_told_by_diff_ids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = image(tmp_path / "x", "docker-legacy")
    [gone] = lacking(made, 1)
    assert main(["inspect", "--output", "json", str(made.path)]) == 0
    layer = json.loads(capsys.readouterr().out)["layers"][1]
    assert (layer["diff_id"], layer["size"]) == (gone, None)
    assert main(["inspect", str(made.path)]) == 0
    with pytest.raises(towline.SourceError, match="lacks the layer"):
        towline.digest(made.path)


def test_each_platform_of_an_index_may_lack_layers(registry: Place, tmp_path: Path) -> None:
    platforms = ["linux/amd64", "linux/arm64"]
    made = make_image(tmp_path / "x", [*BASE, TOP], platforms, "oci")
    towline.push(made.path, registry.name("app") + ":0")
    lacking(made, 0)
    result = towline.push(made.path, registry.name("app") + ":1", cache="none")
    assert result.digest == made.digest
    one = towline.push(made.path, registry.name("app") + ":2", platform="linux/arm64")
    assert one.digest == made.images[1].manifest.digest


def test_what_one_image_of_a_source_lacks_another_may_have(registry: Place, tmp_path: Path) -> None:
    made = image(tmp_path / "x.tar", "docker-legacy")
    with tarfile.open(made.path) as tar:
        [listed] = json.load(tar.extractfile("manifest.json") or io.BytesIO())
    layers = ["gone", *listed["Layers"][1:]]
    images = [
        {**listed, "RepoTags": ["app:1"], "Layers": layers},
        {**listed, "RepoTags": ["app:2"]},
    ]
    with tarfile.open(made.path, "a") as tar:
        content = json.dumps(images).encode()
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    one, two = towline.push(made.path, registry.name("app"), all_tags=True, verify="full")
    assert one.digest == two.digest


@pytest.mark.parametrize("whole_first", [True, False])
def test_a_registry_that_has_lost_what_a_source_lacks_gets_no_tag(
    oci_registry: TestRegistry, tmp_path: Path, *, whole_first: bool
) -> None:
    name = oci_registry.name("app")
    made = image(tmp_path / "x", "oci")
    other = tmp_path / "other"
    if whole_first:
        shutil.copytree(made.path, other)
        towline.push(other, oci_registry.name("elsewhere") + ":1")
    lacking(made, 0)
    # Mounts are answered with a session, as where the blob is gone.
    oci_registry.fail("POST", "mount=", 202, times=9, headers={"Location": f"/v2/{name}/x"})
    with pytest.raises(towline.SourceError, match=r"x lacks the layer sha256:\w+, and .* does not"):
        towline.push(made.path, f"{name}:1")
    assert oci_registry.tags(name) == []


def test_what_a_source_lacks_and_the_registry_has_is_read_back_whole(
    registry: Place, tmp_path: Path
) -> None:
    made = image(tmp_path / "x", "oci-archive")
    towline.push(made.path, registry.name("app") + ":0")
    lacking(made, 0, 1, 2)
    towline.push(made.path, registry.name("app") + ":1", cache="none", check_diffids=True)
    found = readback.image(registry.url, registry.path("app"), "1")
    assert found.digest == made.digest
