from __future__ import annotations

import pytest

from towline.errors import UsageError
from towline.layers import profile


@pytest.mark.parametrize(
    ("text", "name", "compression", "level"),
    [
        ("gzip", "gzip", "gzip", 0),
        ("none", "none", "none", 0),
        ("zstd", "zstd:3", "zstd", 3),
        ("zstd:1", "zstd:1", "zstd", 1),
        ("zstd:019", "zstd:19", "zstd", 19),
        ("gzip:best", "gzip:best", "gzip", 6),
    ],
)
def test_a_profile_is_known_by_its_name(text: str, name: str, compression: str, level: int) -> None:
    found = profile.parse(text)
    assert (found.name, found.compression, found.level) == (name, compression, level)


@pytest.mark.parametrize(
    "text",
    ["", "gz", "gzip:", "gzip:9", "none:1", "zstd:", "zstd:0", "zstd:20", "zstd:-1", "zstd:²"],
)
def test_what_is_no_profile_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        profile.parse(text)
    assert "zstd:1 to zstd:19" in (refused.value.hint or "")


def test_what_is_recorded_says_what_fixes_the_bytes() -> None:
    assert profile.parse("gzip").recorded == f"gzip/3@{profile.family()}"
    assert profile.parse("gzip:best").recorded == "gzip:best/1"
    assert profile.parse("zstd:7").recorded.startswith("zstd:7/1")
    assert profile.parse("zstd").recorded == profile.parse("zstd:3").recorded
