"""Further tags, manifests without a tag, and indexes out of several images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support import readback
from towline.cli.main import main
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Place
    from towline.testing import TestRegistry


def made(folder: Path, platform: str, form: Any = "oci", **more: Any) -> Path:
    name = platform.replace("/", "-")
    layers = [{"all": b"the same\n" * 999}, {"own": platform.encode()}]
    return make_image(folder / name, layers, [platform], form, **more).path


def test_further_tags_are_set_and_no_blob_moves(registry: Place, tmp_path: Path) -> None:
    name = registry.name("app")
    pushed = towline.push(made(tmp_path, "linux/amd64"), f"{name}:1")
    before = len(registry.requests())
    results = towline.tag(f"{name}:1", ["2", "1", "stable", "2"])
    assert [(one.tag, one.status) for one in results] == [
        ("2", "pushed"),
        ("1", "unchanged"),
        ("stable", "pushed"),
    ]
    assert {one.digest for one in results} == {pushed.digest}
    asked = registry.requests()[before:]
    assert not [path for _, path in asked if "/blobs/" in path]
    assert len([method for method, path in asked if method == "GET" and "manif" in path]) == 1
    assert towline.tags(name) == ["1", "2", "stable"]
    assert towline.tag(f"{name}@{pushed.digest}", "stable").status == "unchanged"
    assert [one.tag for one in towline.tag(f"{name}:1", ["stable"])] == ["stable"]


def test_a_tag_of_nothing_and_what_is_no_tag_are_refused(oci_registry: TestRegistry) -> None:
    name = oci_registry.name("app")
    with pytest.raises(towline.RegistryError, match="there is no"):
        towline.tag(f"{name}:none", "2")
    for odd in (f"{name}:2", "a/b", "-x", ""):
        with pytest.raises(towline.UsageError):
            towline.tag(f"{name}:1", odd)
    with pytest.raises(towline.UsageError, match="no tag is given"):
        towline.tag(f"{name}:1", [])


def test_a_word_that_is_a_file_is_no_image_at_a_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path, "linux/amd64")
    monkeypatch.chdir(tmp_path)
    assert main(["tag", "linux-amd64", "2"]) == 2
    assert "hint: ./linux-amd64 is the path" in capsys.readouterr().err
    for word in ("./linux-amd64", "oci:linux-amd64", "-"):
        assert main(["tag", word, "2"]) == 2
        assert f"{word} is not at a registry" in capsys.readouterr().err


def test_a_manifest_can_be_put_without_a_tag(registry: Place, tmp_path: Path) -> None:
    name = registry.name("app")
    source = made(tmp_path, "linux/amd64")
    result = towline.push(source, name, by_digest=True, verify=True)
    assert (result.tag, result.reference) == (None, f"{name}@{result.digest}")
    assert result.pinned == result.reference
    image = readback.read(registry.url, registry.path("app"), result.digest)
    assert image.digest == result.digest
    assert towline.push(source, name, by_digest=True).status == "unchanged"
    other = registry.name("other")
    copied = towline.copy(result.reference, other, by_digest=True)
    assert (copied.reference, copied.status) == (f"{other}@{result.digest}", "pushed")
    assert towline.copy(result.reference, other, by_digest=True).status == "unchanged"


def test_without_a_tag_a_tag_is_refused(tmp_path: Path, oci_registry: TestRegistry) -> None:
    source = made(tmp_path, "linux/amd64")
    with pytest.raises(towline.UsageError, match="by_digest"):
        towline.push(source, f"{oci_registry.name('app')}:1", by_digest=True)
    with pytest.raises(towline.UsageError, match="by_digest"):
        towline.push(source, oci_registry.name("app"), by_digest=True, all_tags=True)


def test_an_index_lists_images_of_any_kind_byte_for_byte(registry: Place, tmp_path: Path) -> None:
    name = registry.name("app")
    arm = towline.push(made(tmp_path, "linux/arm64"), f"{registry.name('arm')}:1")
    both = make_image(tmp_path / "both", [{"a": b"b"}], ["linux/s390x", "linux/ppc64le"], "oci")
    sources: list[Any] = [
        made(tmp_path, "linux/amd64", "docker-legacy"),
        f"{registry.name('arm')}:1",
        both.path,
    ]
    # Without a cache: a slow one is given up, and what it knew decides on plain layers' digests.
    result = towline.index(sources, f"{name}:1", cache="none")
    assert isinstance(result, towline.PushResult)
    assert result.digest_differs is None
    index = readback.read(registry.url, registry.path("app"), "1")
    assert isinstance(index, readback.Index)
    assert index.digest == result.digest
    listed = {
        "/".join((one["platform"]["os"], one["platform"]["architecture"])): one["digest"]
        for one in index.manifest["manifests"]
    }
    assert list(listed) == ["linux/amd64", "linux/arm64", "linux/s390x", "linux/ppc64le"]
    assert listed["linux/arm64"] == arm.manifests[0].digest
    outcomes = {one.outcome for one in result.layers if one.mounted_from}
    assert outcomes == {"mounted"}
    unnamed = towline.index(sources, registry.name("other"), by_digest=True, cache="none")
    assert isinstance(unnamed, towline.PushResult)
    assert (unnamed.digest, unnamed.reference.partition("@")[2]) == (index.digest, index.digest)


def test_a_list_is_dockers_only_where_all_images_are(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    name = oci_registry.name("app")
    docker = [
        made(tmp_path, platform, "docker-legacy") for platform in ("linux/amd64", "linux/arm64")
    ]
    towline.index(docker, f"{name}:docker")
    towline.index([docker[0], made(tmp_path, "linux/s390x")], f"{name}:oci")
    assert "manifest.list" in oci_registry.manifest(f"{name}:docker")["mediaType"]
    assert "oci.image.index" in oci_registry.manifest(f"{name}:oci")["mediaType"]


def test_two_images_of_one_platform_are_refused(oci_registry: TestRegistry, tmp_path: Path) -> None:
    one = made(tmp_path, "linux/amd64")
    other = make_image(tmp_path / "other", [{"a": b"b"}], ["linux/amd64"], "oci").path
    with pytest.raises(towline.SourceError, match="both of the platform linux/amd64"):
        towline.index([one, other], f"{oci_registry.name('app')}:1")
    with pytest.raises(towline.SourceError, match="both of the platform linux/amd64"):
        towline.index([one, one], f"{oci_registry.name('app')}:1")
    assert not [asked for asked in oci_registry.requests if asked.method == "PUT"]


def test_the_commands_print_what_they_have_set(
    oci_registry: TestRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = oci_registry.name("app")
    images = [str(made(tmp_path, platform)) for platform in ("linux/amd64", "linux/arm64")]
    assert main(["index", *images, "-q", "--to", f"{name}:1", f"{oci_registry.name('b')}:1"]) == 0
    digest = towline.digest(f"{name}:1")
    assert capsys.readouterr().out.splitlines() == [
        f"{name}@{digest}",
        f"{oci_registry.name('b')}@{digest}",
    ]
    assert main(["tag", f"{name}:1", "2", "3", "-q", "--output", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(one["tag"], one["digest"], one["status"]) for one in shown] == [
        ("2", digest, "pushed"),
        ("3", digest, "pushed"),
    ]
    assert main(["push", images[0], name, "--by-digest", "-q"]) == 0
    assert capsys.readouterr().out.startswith(f"{name}@sha256:")
    for words in (["tag", name], ["tag"], ["index", *images], ["index", "--to", name]):
        assert main(words) == 2
