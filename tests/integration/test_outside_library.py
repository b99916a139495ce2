"""What a program meets that uses the library otherwise than meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack, assert_type

import pytest

import towline
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from towline.testing import TestRegistry


def test_a_closed_pusher_refuses_all_it_is_asked(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    image = make_image(tmp_path / "image.tar").path
    name = oci_registry.name("app")
    with towline.Pusher(cache="none") as pusher:
        pusher.push(image, f"{name}:1")
    pusher.close()  # once more does no harm
    for ask in (
        lambda: pusher.push(image, f"{name}:2"),
        lambda: pusher.plan(image, f"{name}:2"),
        lambda: pusher.digest(image),
        lambda: pusher.tags(name),
    ):
        with pytest.raises(towline.UsageError, match="closed"):
            ask()
    assert oci_registry.tags(name) == ["1"]


def test_a_plan_is_typed_as_a_push_is(oci_registry: TestRegistry, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image.tar").path
    name = oci_registry.name("app")
    one = towline.plan(image, f"{name}:1", cache="none")
    several = towline.plan(image, [f"{name}:1", f"{name}:2"], cache="none")
    tagged = towline.plan(image, name, all_tags=True, cache="none")
    assert_type(one, towline.PlanResult)
    assert_type(several, list[towline.PlanResult])
    assert_type(tagged, list[towline.PlanResult])
    assert [len(several), len(tagged)] == [2, 1]


class Options(towline.PusherOptions, towline.PushOptions, total=False):
    """What a wrapper takes."""


def wrapped(image: Path, name: str, **options: Unpack[Options]) -> str:
    return towline.push(image, name, **options).status


def test_a_wrapper_can_be_typed_and_a_wrong_word_is_seen_before_it_runs(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    image = make_image(tmp_path / "image.tar").path
    name = f"{oci_registry.name('app')}:1"
    assert wrapped(image, name, cache="none", verify="full", if_exists="fail") == "pushed"
    for wrong in (
        lambda: towline.push(image, name, verify="ful"),  # type: ignore[call-overload]
        lambda: wrapped(image, name, if_exists="maybe"),  # type: ignore[arg-type]
        lambda: wrapped(image, name, format="dockr"),  # type: ignore[arg-type]
        lambda: towline.push(image, name, check_push=True),
    ):
        with pytest.raises(towline.UsageError):
            wrong()
