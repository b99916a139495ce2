from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.registry.capabilities import CHUNK, REMEMBERED, HostFacts, MiB

NOW = 2_000_000_000.0


def stored(facts: HostFacts) -> dict[str, str]:
    return facts.to_recall(NOW)


FACTS = [
    HostFacts(),
    HostFacts(patch_refused=True),
    HostFacts(put_refused=True),
    HostFacts(chunks_refused=True),
    HostFacts(length_wanted=True),
    HostFacts(body_max=4 * MiB),
    HostFacts(chunk_min=MiB),
    HostFacts(head_refused=True),
    HostFacts(bodies_survive=True),
    HostFacts(bodies_survive=False),
    HostFacts(bodies_survive=False, chunks_survive=True),
    HostFacts(chunks_survive=False),
    HostFacts(docker_refused=True),
    HostFacts(mounts=True),
    HostFacts(posts=True),
    HostFacts(posts=False),
    HostFacts(tags_together=True),
    HostFacts(tags_together=False),
    HostFacts(oci_refused=True, body_max=1 << 16),
]


def test_every_fact_is_among_those_that_are_tried() -> None:
    stored = HostFacts.__annotations__
    assert all(len({getattr(one, name) for one in FACTS}) > 1 for name in stored)


NO_LIMITS = {"head_refused", "bodies_survive", "chunks_survive", "mounts", "posts", "tags_together"}


@pytest.mark.parametrize("facts", FACTS)
def test_every_limit_is_told_in_words(facts: HostFacts) -> None:
    """What only changes how towline asks is no limit."""
    names = [name for name in HostFacts.__annotations__ if name not in NO_LIMITS]
    known = [name for name in names if getattr(facts, name)]
    assert len(facts.limits()) == len(known)


@pytest.mark.parametrize("facts", FACTS)
def test_what_is_remembered_is_recalled_for_a_week(facts: HostFacts) -> None:
    kept = facts.to_recall(NOW)
    assert stored(HostFacts.recalled(kept, NOW + REMEMBERED - 1)) == stored(facts)
    assert stored(HostFacts.recalled(kept, NOW + REMEMBERED + 1)) == stored(HostFacts())
    assert stored(HostFacts.recalled(kept, NOW - 5)) == stored(HostFacts())


@given(
    st.dictionaries(
        st.sampled_from([*HostFacts.__annotations__, "rate", "seen", "x"]), st.text(max_size=9)
    )
)
def test_whatever_a_store_gives_is_no_harm(facts: dict[str, str]) -> None:
    recalled = HostFacts.recalled({**facts, "seen": str(int(NOW))}, NOW)
    assert not (recalled.patch_refused and recalled.put_refused)
    assert 1 << 16 <= recalled.chunk(None) <= max(CHUNK, recalled.body_max or 0)


def test_a_number_too_long_to_be_one_is_none() -> None:
    long = "9" * 5000
    recalled = HostFacts.recalled({"chunk_min": long, "seen": str(int(NOW))}, NOW)
    assert stored(recalled) == stored(HostFacts())
    assert stored(HostFacts.recalled({"chunk_min": "1", "seen": long}, NOW)) == stored(HostFacts())


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
    assert facts.too_large("chunk", size, words)
    assert facts.body_max == then


def test_a_body_is_not_made_smaller_without_end() -> None:
    facts = HostFacts()
    assert not facts.too_large("chunk", 1 << 16)
    facts = HostFacts(chunk_min=5 * MiB)
    assert not facts.too_large("chunk", 5 * MiB)


@pytest.mark.parametrize("in_chunks", [False, True])
def test_an_upload_that_goes_on_counts_more_than_one_that_was_lost(*, in_chunks: bool) -> None:
    facts = HostFacts()
    facts.note_cut(in_chunks=in_chunks, went_on=False)
    assert facts.limits() == []
    assert not facts.resumes
    facts.note_cut(in_chunks=in_chunks, went_on=True)
    facts.note_cut(in_chunks=in_chunks, went_on=False)
    assert facts.resumes


def test_what_becomes_of_a_body_says_nothing_of_chunks() -> None:
    facts = HostFacts()
    facts.note_cut(in_chunks=False, went_on=False)
    assert stored(facts) == stored(HostFacts(bodies_survive=False))
    facts.note_cut(in_chunks=True, went_on=True)
    assert stored(facts) == stored(HostFacts(bodies_survive=False, chunks_survive=True))
    assert facts.resumes


def test_chunks_that_are_refused_leave_one_body_unless_a_body_is_limited() -> None:
    facts = HostFacts()
    assert facts.shape_refused("chunk")
    assert facts.chunks_refused
    facts = HostFacts(body_max=MiB)
    assert facts.shape_refused("chunk"), "one of the two ways of one body may not be limited"
    assert not facts.chunks_refused, "that is not known yet"
    assert facts.too_large("put", 2 * MiB)
    assert not facts.too_large("patch", 2 * MiB)
    assert stored(facts) == stored(HostFacts(body_max=MiB))


def test_both_shapes_refused_leave_nothing_to_try() -> None:
    facts = HostFacts()
    assert facts.shape_refused("put")
    assert not facts.shape_refused("patch")
