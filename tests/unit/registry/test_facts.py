from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.registry.facts import CHUNK, REMEMBERED, HostFacts, MiB

NOW = 2_000_000_000.0


def test_a_host_that_does_all_is_not_worth_remembering() -> None:
    assert HostFacts().to_recall(NOW) == {}


def test_what_is_remembered_is_recalled_for_a_week() -> None:
    facts = HostFacts(
        patch_refused=True,
        length_wanted=True,
        body_max=4 * MiB,
        chunk_min=MiB,
        docker_refused=True,
        oci_refused=True,
    )
    kept = facts.to_recall(NOW)
    assert HostFacts.recalled(kept, NOW + REMEMBERED - 1) == facts
    assert HostFacts.recalled(kept, NOW + REMEMBERED + 1) == HostFacts()
    assert HostFacts.recalled(kept, NOW - 5) == HostFacts()


@given(st.dictionaries(st.sampled_from([*HostFacts.__slots__, "seen", "x"]), st.text(max_size=9)))
def test_whatever_a_store_gives_is_no_harm(facts: dict[str, str]) -> None:
    recalled = HostFacts.recalled({**facts, "seen": str(int(NOW))}, NOW)
    assert not (recalled.patch_refused and recalled.put_refused)
    assert 1 << 16 <= recalled.chunk(None) <= max(CHUNK, recalled.body_max or 0)


@pytest.mark.parametrize(
    ("size", "words", "then"),
    [
        (None, "", 16 * MiB),
        (3 * MiB, "", MiB),
        (MiB, "", 1 << 18),
        (200 * MiB, "body is too large; the limit is 100 MiB", 100 * MiB),
        (5 * MiB, "request body is too large: 4.00MiB", 4 * MiB),
        (5 * MiB, "5 mb of something else", 4 * MiB),
        (None, "exceeds 512 kb", 512 << 10),
    ],
)
def test_a_body_that_is_too_large_is_made_smaller(size: int | None, words: str, then: int) -> None:
    facts = HostFacts()
    assert facts.too_large(size, words)
    assert facts.body_max == then


def test_a_body_is_not_made_smaller_without_end() -> None:
    facts = HostFacts()
    assert not facts.too_large(1 << 16)
    facts = HostFacts(chunk_min=5 * MiB)
    assert not facts.too_large(5 * MiB)


def test_both_shapes_refused_leave_nothing_to_try() -> None:
    facts = HostFacts()
    assert facts.shape_refused("put")
    assert not facts.shape_refused("patch")
