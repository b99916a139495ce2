from __future__ import annotations

from typing import cast

import pytest

from towline.errors import SourceError
from towline.sources.base import SourceEntry, SourceImage
from towline.sources.select import select, tagged

IMAGE = cast("SourceImage", None)


def entry(*names: str) -> SourceEntry:
    return SourceEntry(names, lambda: IMAGE)


APP = entry("app:1", "app:latest")
OTHER = entry("reg.example:5000/team/other:2")
UNNAMED = entry()
LAYOUT = entry("docker.io/library/web:3", "3")
ALL = [APP, OTHER, UNNAMED, LAYOUT]


def test_a_single_image_needs_no_name() -> None:
    assert select([UNNAMED], None, "x.tar") is UNNAMED


@pytest.mark.parametrize(
    ("ref", "meant"),
    [
        ("app:1", APP),
        ("app", APP),
        ("docker.io/library/app:1", APP),
        ("library/app", APP),
        ("reg.example:5000/team/other:2", OTHER),
        ("2", OTHER),
        ("web:3", LAYOUT),
        ("3", LAYOUT),
        ("@0", APP),
        ("@2", UNNAMED),
    ],
)
def test_an_image_is_found_by_any_name_that_means_it(ref: str, meant: SourceEntry) -> None:
    assert select(ALL, ref, "x.tar") is meant


@pytest.mark.parametrize("ref", ["app:2", "other", "nothing", "@9", "Wrong Name", "@x"])
def test_a_name_that_is_not_there_is_told_with_those_that_are(ref: str) -> None:
    with pytest.raises(SourceError) as caught:
        select(ALL, ref, "x.tar")
    assert str(caught.value) == (
        f"tag does not exist: {ref} in x.tar, which holds app:1, app:latest, "
        "reg.example:5000/team/other:2, @2 without a name, docker.io/library/web:3"
    )


def test_several_images_without_a_name_are_all_told() -> None:
    with pytest.raises(SourceError, match=r"several images: app:1, app:latest, reg") as caught:
        select(ALL, None, "x.tar", "docker-archive:x.tar")
    assert caught.value.hint == "name one: docker-archive:x.tar:app:1"


def test_very_many_images_are_not_all_told() -> None:
    many = [entry(f"app:{number}") for number in range(500)]
    with pytest.raises(SourceError, match=r"app:19 and 480 more$"):
        select(many, None, "x.tar")


def test_a_name_that_two_images_have_is_refused() -> None:
    with pytest.raises(SourceError, match=r"app:1 means 2 images in x\.tar"):
        select([entry("app:1"), entry("app:1")], "app:1", "x.tar")


def test_all_tags_of_one_repository_come_sorted() -> None:
    one, two = entry("app:b", "app:a"), entry("docker.io/library/app:c", "c")
    assert tagged([one, two, UNNAMED], None, "x.tar") == (("a", one), ("b", one), ("c", two))


def test_bare_tags_of_a_layout_are_tags() -> None:
    one, two = entry("v1"), entry("v2")
    assert tagged([one, two], None, "x") == (("v1", one), ("v2", two))


def test_tags_of_several_repositories_need_one_of_them() -> None:
    with pytest.raises(
        SourceError,
        match=r"x\.tar holds several repositories: app, reg\.example:5000/team/other, web$",
    ):
        tagged(ALL, None, "x.tar")
    assert tagged(ALL, "app", "x.tar") == (("1", APP), ("latest", APP))
    assert tagged(ALL, "docker.io/library/web", "x.tar") == (("3", LAYOUT),)
    assert tagged(ALL, "app:1", "x.tar") == (("1", APP),)


def test_tags_are_picked_by_patterns() -> None:
    one, two = entry("app:1.0", "app:latest"), entry("app:1.1")
    assert tagged([one, two], None, "x.tar", "", ["1.*"]) == (("1.0", one), ("1.1", two))
    with pytest.raises(SourceError, match=r"no tags to push for x\.tar: it has none that fits 2"):
        tagged([one, two], None, "x.tar", "", ["2*"])


@pytest.mark.parametrize(("entries", "ref"), [([UNNAMED], None), (ALL, "nothing"), (ALL, "UP")])
def test_no_tags_is_an_error(entries: list[SourceEntry], ref: str | None) -> None:
    with pytest.raises(SourceError, match=f"no tags to push for {ref or 'x.tar'}"):
        tagged(entries, ref, "x.tar")


def test_a_repository_that_is_not_there_is_told_in_dockers_words_with_those_that_are() -> None:
    with pytest.raises(
        SourceError,
        match=r"An image does not exist locally with the tag: nothing \(x\.tar holds app:1, ",
    ):
        tagged(ALL, "nothing", "x.tar")
    with pytest.raises(SourceError, match=r"^no tags to push for app:9$"):
        tagged(ALL, "app:9", "x.tar")


def test_a_tag_of_two_images_is_refused() -> None:
    with pytest.raises(SourceError, match=r"the tag 1 stands for two images in x\.tar"):
        tagged([entry("app:1"), entry("app:1")], None, "x.tar")
