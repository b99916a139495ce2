from __future__ import annotations

import pytest

from tests.support.knowledge import AGREED, BLOB, DIFF_ID, OTHER_DIFF_ID, OURS, THEIRS, entry
from towline.knowledge.base import Entry
from towline.spec.digest import Digest

CHANGED = {
    "diff_id": OTHER_DIFF_ID,
    "digest": Digest.of(b"false"),
    "size": 1,
    "media_type": "application/octet-stream",
    "compression": "zstd",
    "profile": None,
    "repository": "reg/false",
    "account": "1",
    "learned": True,
    "seen": 0.0,
}


def test_our_own_entry_is_believed() -> None:
    assert OURS.admit(entry(), OURS.sign(entry())) == entry()


@pytest.mark.parametrize("name", Entry._fields)
def test_the_mac_covers_everything_but_the_time(name: str) -> None:
    changed = entry()._replace(**{name: CHANGED[name]})  # type: ignore[arg-type] # any one field
    assert (AGREED.admit(changed, AGREED.sign(entry())) is not None) == (name == "seen")


def test_no_text_can_pass_for_two() -> None:
    assert OURS.mac("ab", "c") != OURS.mac("a", "bc")
    assert OURS.mac("1:a") != OURS.mac("a")
    assert OURS.sign(entry()._replace(repository="a", account="bc")) != OURS.sign(
        entry()._replace(repository="ab", account="c")
    )


@pytest.mark.parametrize("mac", ["", "no hex", "ü", THEIRS.sign(entry()), OURS.sign(entry())[:-1]])
def test_any_other_mac_makes_it_learned_or_nothing(mac: str) -> None:
    assert OURS.admit(entry(), mac) == entry()._replace(learned=True)
    assert AGREED.admit(entry(), mac) is None


def test_the_order_is_kept_and_what_we_saw_ourselves_wins() -> None:
    ours, learned = entry(), entry()._replace(learned=True)
    other = entry(repository="reg/b")
    signed = [(one, OURS.sign(one)) for one in (learned, other, ours)]
    assert OURS.admit_all(signed) == [other, ours]
    assert OURS.admit_all(reversed(signed)) == [other, ours]
    assert OURS.admit_all([]) == []


def test_a_fact_never_passes_for_an_entry() -> None:
    assert DIFF_ID not in BLOB
    assert OURS.mac("fact", "a") != OURS.mac("entry", "a")
