"""Annotations that are asked for, in the document that they are meant for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support import choosy
from towline.cli.main import main
from towline.testing import make_image

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from towline.testing import TestRegistry

PLATFORMS = ["linux/amd64", "linux/arm64"]


def archive(folder: Path) -> Path:
    return make_image(folder / "image.tar").path


def index(folder: Path) -> Path:
    made = make_image(
        folder / "index.tar", platforms=PLATFORMS, format="oci-archive", attestations=True
    )
    return made.path


def children(registry: TestRegistry, name: str) -> list[tuple[Mapping[str, Any], dict[str, Any]]]:
    """What an index says of each child, and the child."""
    listed = registry.manifest(name)["manifests"]
    repository = name.rpartition(":")[0]
    return [(one, registry.manifest(f"{repository}@{one['digest']}")) for one in listed]


def test_an_archive_without_a_manifest_gets_one_of_ocis_format(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    name = oci_registry.name("app:1")
    result = towline.push(archive(tmp_path), name, annotation={"org.example.a": "b=c", "z": ""})
    manifest = oci_registry.manifest(name)
    assert manifest["annotations"] == {"org.example.a": "b=c", "z": ""}
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert result.digest_differs is None  # there was none
    again = towline.push(archive(tmp_path), name, annotation=["z=", "org.example.a=b=c"])
    assert (again.status, again.digest) == ("unchanged", result.digest)
    planned = towline.plan(archive(tmp_path), name, annotation=["z=", "org.example.a=b=c"])
    assert planned.digest == result.digest
    told = towline.digest(archive(tmp_path), annotation=["z=", "org.example.a=b=c"])
    assert told == result.digest


def test_all_else_of_a_manifest_that_came_stays(oci_registry: TestRegistry, tmp_path: Path) -> None:
    layout = make_image(tmp_path / "layout", format="oci").path
    name = oci_registry.name("app:1")
    towline.push(layout, name)
    before = oci_registry.manifest(name)
    other = oci_registry.name("app:2")
    result = towline.copy(name, other, annotation="manifest:a=b")
    after = oci_registry.manifest(other)
    assert after.pop("annotations") == {"a": "b"}
    assert after == before
    assert result.digest_differs == "annotations"
    assert result.sent_bytes == 0
    third = towline.copy(other, oci_registry.name("app:3"), annotation="a=b")
    assert (third.digest, third.digest_differs) == (result.digest, None)
    assert towline.copy(name, other, annotation="a=c").status == "pushed"


def test_without_a_word_before_it_an_index_gets_it_and_its_children_stay(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    plain, annotated = oci_registry.name("app:1"), oci_registry.name("app:2")
    towline.push(index(tmp_path), plain)
    for given in ("a=b", "index:a=b"):
        result = towline.push(index(tmp_path), annotated, annotation=given)
        assert oci_registry.manifest(annotated)["annotations"] == {"a": "b"}
        assert children(oci_registry, annotated) == children(oci_registry, plain)
        assert result.digest_differs == "annotations"


def test_with_manifest_before_it_each_image_gets_it_and_what_is_said_of_it_follows(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    name = oci_registry.name("app:1")
    result = towline.push(index(tmp_path), name, annotation=["manifest:a=b", "index:c=d", "e=f"])
    assert oci_registry.manifest(name)["annotations"] == {"c": "d", "e": "f"}
    digests = []
    for listed, child in children(oci_registry, name):
        said = listed.get("annotations", {}).get("vnd.docker.reference.digest")
        if said is None:
            digests.append(listed["digest"])
            assert child["annotations"] == {"a": "b"}
        else:
            assert said == digests[-1]
            assert "annotations" not in child
    assert len(digests) == 2
    assert result.digest_differs == "annotations"


def test_dockers_children_of_an_annotated_index_stay_as_they_are(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    images = [
        make_image(tmp_path / f"{place}.tar", platforms=[platform], format="docker-legacy").path
        for place, platform in enumerate(PLATFORMS)
    ]
    plain, annotated = oci_registry.name("app:1"), oci_registry.name("app:2")
    towline.index(images, plain)
    towline.index(images, annotated, annotation="a=b")
    assert "manifest.list" in oci_registry.manifest(plain)["mediaType"]
    made = oci_registry.manifest(annotated)
    assert made["mediaType"] == "application/vnd.oci.image.index.v1+json"
    assert made["annotations"] == {"a": "b"}
    assert made["manifests"] == oci_registry.manifest(plain)["manifests"]


def test_a_manifest_of_dockers_is_converted_for_it(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    plain, annotated = oci_registry.name("app:1"), oci_registry.name("app:2")
    towline.push(archive(tmp_path), plain)
    result = towline.copy(plain, annotated, annotation="a=b")
    assert oci_registry.manifest(annotated)["annotations"] == {"a": "b"}
    assert result.media_type == "application/vnd.oci.image.manifest.v1+json"
    assert result.digest_differs == "converted"


def test_annotations_are_not_lost_where_a_registry_takes_dockers_formats_alone(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    with choosy.before(oci_registry.host, choosy.OCI) as proxy:
        name = oci_registry.name("app:1").replace(oci_registry.host, proxy.host)
        with pytest.raises(towline.RegistryError, match="annotations are wanted"):
            towline.push(archive(tmp_path), name, annotation="a=b")
    assert oci_registry.tags(oci_registry.name("app")) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"annotation": "a"}, "needs a key and a value"),
        ({"annotation": {"a": 5}}, "a text, not 5"),
        ({"annotation": {"a": None}}, "a text, not None"),
        ({"annotation": "=b"}, "no annotation's key"),
        ({"annotation": "index:=b"}, "no annotation's key"),
        ({"annotation": "manifest-descriptor:a=b"}, "no annotation's key"),
        ({"annotation": "manifest[linux/arm64]:a=b"}, "no annotation's key"),
        ({"annotation": "index:a=b"}, "there is no index"),
        ({"annotation": "a=b", "format": "docker"}, "no annotations"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(
    oci_registry: TestRegistry, tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(towline.UsageError, match=said):
        towline.push(archive(tmp_path), oci_registry.name("app:1"), **given)
    assert not [asked for asked in oci_registry.requests if asked.method in {"POST", "PUT"}]


def test_with_preserved_digests_and_in_docker_archives_they_are_refused(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"annotation": "a=b", "preserve_digests": True}
    for source, kept in ((index(tmp_path), "sha256:.*"), (archive(tmp_path), "the manifest")):
        said = f"keeps {kept} as it is, but annotations are added to it"
        with pytest.raises(towline.UsageError, match=said):
            towline.push(source, oci_registry.name("app"), **given)
    with pytest.raises(towline.UsageError, match="not for a docker archive"):
        towline.copy(f"{archive(tmp_path)}", f"docker-archive:{tmp_path}/o.tar", annotation="a=b")


def test_the_command_takes_several(
    oci_registry: TestRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = oci_registry.name("app:1")
    words = ["--annotation", "index:a=b", "--annotation=manifest:c=d", "--output", "json", "-q"]
    assert main(["push", str(index(tmp_path)), name, *words]) == 0
    assert json.loads(capsys.readouterr().out)["digest_differs"] == "annotations"
    assert oci_registry.manifest(name)["annotations"] == {"a": "b"}
    assert main(["push", str(archive(tmp_path)), name, "--annotation", "index:a=b"]) == 2
    assert "there is no index to annotate" in capsys.readouterr().err
