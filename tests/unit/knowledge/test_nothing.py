from __future__ import annotations

from tests.support.knowledge import BLOB, DIFF_ID, entry
from towline.knowledge.store import Knowledge


def test_nothing_is_remembered() -> None:
    nothing = Knowledge()
    nothing.record([entry()])
    nothing.record_host("reg", {"scheme": "https"})
    nothing.record_config(BLOB, b"")
    nothing.forget(DIFF_ID, BLOB, "reg/app")
    assert nothing.entries([DIFF_ID]) == {}
    assert nothing.host_facts("reg") == {}
    assert nothing.config(BLOB) is None
    assert nothing.prune(0.0) == 0
    nothing.clear()
    assert (nothing.stats().entries, nothing.stats().bytes) == (0, 0)
    nothing.close()


def test_its_account_key_is_as_good_as_any_while_it_lives() -> None:
    nothing = Knowledge()
    assert len(nothing.account_key()) == 32
    assert nothing.account_key() == nothing.account_key()
    assert nothing.account_key() != Knowledge().account_key()
