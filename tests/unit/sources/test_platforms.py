from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.sources import chosen, docker_archive, image_of, images_of, member, tar_of
from towline.errors import SourceError, UsageError
from towline.sources.base import SourceIndex
from towline.sources.select import parse_platform
from towline.spec.descriptor import Platform
from towline.spec.manifest import parse
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from towline.sources.base import SourceEntry
    from towline.testing.image_formats import Form

ALL = ["linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8", "windows/amd64"]
FORMS: list[Form] = ["docker", "docker-containerd", "oci", "oci-archive"]


def shown(entry: SourceEntry) -> list[str]:
    return [str(image.platform) for image in images_of(entry)]


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("Linux/x86_64", Platform("linux", "amd64")),
        ("linux/aarch64", Platform("linux", "arm64")),
        ("linux/armhf", Platform("linux", "arm", "v7")),
        ("linux/arm/v6", Platform("linux", "arm", "v6")),
    ],
)
def test_a_platform_is_read_as_people_write_it(text: str, platform: Platform) -> None:
    assert parse_platform(text) == platform


@pytest.mark.parametrize("between", [",", " ", "\n"])
def test_several_in_one_text_are_no_platform(between: str) -> None:
    with pytest.raises(UsageError, match="a platform is OS/ARCH or OS/ARCH/VARIANT"):
        parse_platform(f"linux/amd64{between}linux/arm64")


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "all"])
def test_what_is_no_platform_is_a_wrong_use(text: str) -> None:
    with pytest.raises(UsageError, match="a platform is OS/ARCH or OS/ARCH/VARIANT") as caught:
        parse_platform(text)
    assert caught.value.hint


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wanted", ["linux/amd64", "linux/arm64", "linux/arm64/8", "linux/arm"])
def test_one_platform_is_its_image(tmp_path: Path, form: Form, wanted: str) -> None:
    made = make_image(tmp_path / "x", platforms=ALL, format=form, attestations=True)
    [entry] = chosen(made.path, wanted)
    image = image_of(entry)
    meant = {"linux/arm64/8": "linux/arm64/v8", "linux/arm64": "linux/arm64/v8"}
    meant["linux/arm"] = "linux/arm/v7"
    assert str(image.platform) == meant.get(wanted, wanted)
    assert image.manifest in [each.manifest for each in made.images]
    assert image.part_of
    assert entry.content.warnings == ()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("attestations", [True, False])
def test_several_platforms_are_an_index_of_those_with_what_is_said_of_them(
    tmp_path: Path, form: Form, *, attestations: bool
) -> None:
    made = make_image(tmp_path / "x", platforms=ALL, format=form, attestations=True)
    [entry] = chosen(made.path, "windows/amd64", "linux/amd64", attestations=attestations)
    index = entry.content
    assert isinstance(index, SourceIndex)
    said = ["unknown/unknown"] * attestations
    assert shown(entry) == ["linux/amd64", *said, "windows/amd64", *said]
    assert index.part_of
    before = json.loads(made.root.content)
    after = json.loads(index.manifest.content)
    kept = [each for each in before["manifests"] if each in after["manifests"]]
    assert after == {**before, "manifests": kept}
    parsed = parse(index.manifest.content)
    assert [child.manifest.digest for child in index.children if child.manifest] == [
        each.digest for each in getattr(parsed, "manifests", ())
    ]


def test_all_platforms_that_there_are_leave_the_index_as_it_is(tmp_path: Path) -> None:
    made = make_image(tmp_path / "x", platforms=ALL, format="oci", attestations=True)
    [entry] = chosen(made.path, *ALL)
    assert entry.content.manifest == made.root


def test_attestations_are_dropped_from_an_index_that_stays_one(tmp_path: Path) -> None:
    made = make_image(tmp_path / "x", platforms=["linux/amd64"], format="oci", attestations=True)
    [entry] = chosen(made.path, attestations=False)
    assert isinstance(entry.content, SourceIndex)
    assert shown(entry) == ["linux/amd64"]
    make_image(tmp_path / "y", platforms=ALL, format="oci")
    [entry] = chosen(tmp_path / "y", attestations=False)
    assert not isinstance(entry.content, SourceIndex) or not entry.content.part_of


@pytest.mark.parametrize("form", [*FORMS, "docker-legacy"])
def test_a_platform_that_is_not_there_is_told_with_those_that_are(
    tmp_path: Path, form: Form
) -> None:
    listed = None if form == "docker-legacy" else ALL[:2]
    made = make_image(tmp_path / "x", platforms=listed, format=form)
    [entry] = chosen(made.path, "linux/amd64", "linux/riscv64")
    held = "linux/amd64" + (", linux/arm/v6" if listed else "")
    with pytest.raises(SourceError) as caught:
        _ = entry.content
    assert str(caught.value) == f"x has no linux/riscv64; it holds {held}"


@pytest.mark.parametrize("form", FORMS)
def test_platforms_that_are_not_wanted_may_be_absent(tmp_path: Path, form: Form) -> None:
    make_image(tmp_path / "x", platforms=ALL, format=form, absent=ALL[2:], attestations=True)
    [entry] = chosen(tmp_path / "x", *ALL[:2])
    assert shown(entry) == [ALL[0], "unknown/unknown", ALL[1], "unknown/unknown"]
    assert entry.content.warnings == ()
    [entry] = chosen(tmp_path / "x", ALL[4])
    with pytest.raises(SourceError, match="x names windows/amd64, but does not hold it; it holds"):
        _ = entry.content


def test_the_only_variant_is_meant_and_several_are_to_be_told_apart(tmp_path: Path) -> None:
    make_image(tmp_path / "x", platforms=["linux/arm/v5"], format="oci")
    assert shown(chosen(tmp_path / "x", "linux/arm")[0]) == ["linux/arm/v5"]
    make_image(tmp_path / "y", platforms=["linux/arm/v5", "linux/arm/v6"], format="oci")
    [entry] = chosen(tmp_path / "y", "linux/arm")
    with pytest.raises(SourceError, match="in several variants: linux/arm/v5, linux/arm/v6"):
        _ = entry.content


def test_an_image_without_an_index_has_the_platform_of_its_config(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "x.tar", {"a": tar_of(member("a"))})
    [entry] = chosen(path, "linux/arm64/v8")
    assert not image_of(entry).part_of
