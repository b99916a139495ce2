"""A store against the simplest thing that could be one: a list of entries for each DiffID."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from tests.support.knowledge import OURS, entry
from towline.knowledge.base import MAX_ENTRIES
from towline.knowledge.sqlite import SqliteKnowledge
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from towline.knowledge.base import Entry

DIFF_IDS = [Digest.of(b"layer %d" % number) for number in range(2)]
BLOBS = [Digest.of(b"blob %d" % number) for number in range(2)]

entries = st.builds(
    entry,
    diff_id=st.sampled_from(DIFF_IDS),
    digest=st.sampled_from(BLOBS),
    size=st.integers(0, 2**62),
    profile=st.none() | st.text(max_size=3),
    repository=st.sampled_from([f"reg/{number}" for number in range(40)]) | st.text(max_size=3),
    account=st.sampled_from(["", "x"]),
    seen=st.floats(1, 1e10),
)
records = st.tuples(st.just("record"), st.lists(entries, max_size=80))
forgets = st.tuples(st.just("forget"), entries)
prunes = st.tuples(st.just("prune"), st.floats(1, 1e10))


class Model:
    def __init__(self) -> None:
        self.lists: dict[Digest, list[Entry]] = {diff_id: [] for diff_id in DIFF_IDS}

    def record(self, recorded: list[Entry]) -> None:
        for one in recorded:
            same = (one.digest, one.repository, one.account)
            kept = [
                other
                for other in self.lists[one.diff_id]
                if (other.digest, other.repository, other.account) != same
            ]
            self.lists[one.diff_id] = [*kept, one][-MAX_ENTRIES:]

    def drop(self, doomed: set[int]) -> int:
        before = sum(map(len, self.lists.values()))
        for diff_id, known in self.lists.items():
            self.lists[diff_id] = [one for one in known if id(one) not in doomed]
        return before - sum(map(len, self.lists.values()))

    def all(self) -> list[Entry]:
        return [one for known in self.lists.values() for one in known]


@given(st.lists(records | forgets | prunes, max_size=8))
def test_any_history_leaves_what_the_rules_say(history: list[tuple[str, object]]) -> None:
    model = Model()
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteKnowledge(Path(folder) / "cache", OURS)
        try:
            for _, argument in history:
                carry_out(argument, store, model)
                expected = {diff_id: known for diff_id, known in model.lists.items() if known}
                assert store.entries(DIFF_IDS) == expected
            assert store.stats().entries == len(model.all())
        finally:
            store.close()


def carry_out(argument: object, store: SqliteKnowledge, model: Model) -> None:
    if isinstance(argument, list):
        store.record(argument)
        model.record(argument)
    elif isinstance(argument, float):
        doomed = {id(one) for one in model.all() if one.seen < argument}
        assert store.prune(argument) == model.drop(doomed)
    else:
        forgotten: Entry = argument  # type: ignore[assignment] # the only kind that is left
        store.forget(forgotten.diff_id, forgotten.digest, forgotten.repository)
        same = (forgotten.digest, forgotten.repository)
        of_it = model.lists[forgotten.diff_id]
        model.drop({id(one) for one in of_it if (one.digest, one.repository) == same})
