"""The rate of a host: what is noted, what is recalled, and what is no rate."""

from __future__ import annotations

import pytest

from towline.registry.capabilities import Rates

MIB = 1 << 20


def test_the_last_push_that_tells_of_a_rate_is_what_is_estimated_by() -> None:
    rates = Rates()
    assert rates.seconds("reg", MIB) is None
    rates.note("reg", 10 * MIB, 5.0)
    rates.note("reg", 8 * MIB, 2.0)
    rates.note("reg", 8 * MIB - 1, 100.0)
    rates.note("reg", 10 * MIB, 0.0)
    assert rates.seconds("reg", 8 * MIB) == 2.0
    assert rates.seconds("other", 8 * MIB) is None


def test_a_rate_is_handed_to_a_later_run_once_it_is_seen() -> None:
    first, second = Rates(), Rates()
    first.note("reg", 8 * MIB, 2.0)
    second.recall("reg", first.to_recall("reg"))
    assert second.seconds("reg", 4 * MIB) == 1.0
    assert second.to_recall("reg") == {}


@pytest.mark.parametrize("text", ["", "0", "-5", "1.5", "fast", "1e9", "9" * 5000])
def test_what_a_store_gives_that_is_no_rate_counts_for_nothing(text: str) -> None:
    rates = Rates()
    rates.recall("reg", {"rate": text})
    assert rates.seconds("reg", 1) is None


def test_what_was_seen_counts_more_than_what_is_recalled() -> None:
    rates = Rates()
    rates.note("reg", 8 * MIB, 2.0)
    rates.recall("reg", {"rate": "1"})
    assert rates.seconds("reg", 4 * MIB) == 1.0
