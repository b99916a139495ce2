"""Which tags of a repository are taken for likely to share layers with a new one."""

from __future__ import annotations

import pytest

from towline.push.learning import alike

SHA, OTHER = "3f2a9bc", "0c1d2e3f4a5b6c7d8e9f0a1b2c3d4e5f60718293"


@pytest.mark.parametrize(
    ("tag", "there", "first"),
    [
        ("1.4.3", ["1.10.0", "1.4.2", "1.4.1", "2.0"], ["1.4.2", "1.4.1"]),
        ("1.11", ["1.9", "1.10", "2.0", "main"], ["1.10", "1.9"]),
        ("3.0", ["1.9", "1.10", "main"], ["1.10", "1.9"]),
        ("v1.4", ["1.3", "main"], ["1.3", "main"]),
        ("1.4-alpine", ["1.4", "1.3-alpine", "latest-alpine", "main"], ["1.3-alpine"]),
        ("1.4-rc2", ["1.3", "1.4-rc1"], ["1.4-rc1", "1.3"]),
        ("pr-12", ["1.0", "pr-11", "pr-9", "main"], ["pr-11", "pr-9"]),
        (SHA, ["1.0", "1.1", OTHER, "main"], ["main", "1.1"]),
        (f"sha-{SHA}", [f"sha-{OTHER}", "master"], ["master", f"sha-{OTHER}"]),
        (f"main-{SHA}", [OTHER, f"main-{OTHER[:7]}", "main"], ["main", f"main-{OTHER[:7]}"]),
        (SHA, ["aaaaaa1", "bbbbbb2", "cccccc3"], ["cccccc3", "bbbbbb2"]),
        ("20240607", ["20231201", "20240601"], ["20240601", "20231201"]),
    ],
)
def test_likeness_counts_before_version(tag: str, there: list[str], first: list[str]) -> None:
    assert alike(tag, there)[: len(first)] == first


def test_what_refers_to_an_image_is_no_image() -> None:
    beside = "sha256-" + "a" * 64
    assert alike("2", [beside, f"{beside}.sig", f"{beside}.att", "1"]) == ["1"]
