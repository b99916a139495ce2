"""The rate of a host: what is noted, what is recalled, and what is no rate."""

from __future__ import annotations

import pytest

from towline.registry.capabilities import REMEMBERED, HostFacts

MIB = 1 << 20


def test_the_last_push_that_tells_of_a_rate_is_what_is_estimated_by() -> None:
    facts = HostFacts()
    assert facts.seconds(MIB) is None
    facts.note_rate(10 * MIB, 5.0)
    facts.note_rate(8 * MIB, 2.0)
    facts.note_rate(8 * MIB - 1, 100.0)
    facts.note_rate(10 * MIB, 0.0)
    assert facts.seconds(8 * MIB) == 2.0


def test_a_rate_is_handed_to_a_later_run_once_it_is_seen() -> None:
    first = HostFacts()
    first.note_rate(8 * MIB, 2.0)
    news = first.news(now=1.0)
    assert news == {"rate": str(4 * MIB)}, "it makes other facts no newer"
    second = HostFacts.recalled(news, now=2 * REMEMBERED)
    assert second.seconds(4 * MIB) == 1.0
    assert second.news(now=1.0) == {}


@pytest.mark.parametrize("text", ["", "0", "-5", "1.5", "fast", "1e9", "9" * 5000])
def test_what_a_store_gives_that_is_no_rate_counts_for_nothing(text: str) -> None:
    assert HostFacts.recalled({"rate": text}, now=1.0).seconds(1) is None
