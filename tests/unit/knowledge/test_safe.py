from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.given_time import GivenTime
from tests.support.knowledge import BLOB, DIFF_ID, OURS, entry
from towline.knowledge.base import KnowledgeError
from towline.knowledge.safe import QUICK, SafeKnowledge
from towline.knowledge.sqlite import SqliteKnowledge
from towline.knowledge.store import Knowledge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def file(tmp_path: Path) -> Iterator[SqliteKnowledge]:
    store = SqliteKnowledge(tmp_path / "cache", OURS)
    yield store
    store.close()


class Slow(Knowledge):
    """A store that takes its time over each answer, and says when it was closed."""

    def __init__(self, seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__()
        self.seconds = seconds
        self.sleep = sleep
        self.asked = 0
        self.closed = 0

    def prune(self, older_than: float) -> int:
        self.asked += 1
        self.sleep(self.seconds)
        return 1

    def beat(self, owner: str) -> None:
        self.prune(0.0)

    def close(self) -> None:
        self.closed += 1
        raise KnowledgeError("not even closing works")


def ask_everything(knowledge: Knowledge) -> None:
    knowledge.record([entry()])
    knowledge.record_host("reg", {"scheme": "https"})
    knowledge.record_config(BLOB, b"")
    assert knowledge.entries([DIFF_ID]) == {}
    assert knowledge.host_facts("reg") == {}
    assert knowledge.config(BLOB) is None
    assert knowledge.prune(time.time()) == 0
    assert knowledge.stats().entries == 0
    assert knowledge.account_key() == knowledge.account_key()
    knowledge.forget(DIFF_ID, BLOB, "reg/app")
    knowledge.clear()


def unreachable() -> Knowledge:
    raise KnowledgeError("the cache cannot be reached")


@pytest.mark.parametrize("deadline", [None, 2.0])
def test_a_store_that_cannot_be_opened_is_one_warning(
    warnings: list[str], deadline: float | None
) -> None:
    knowledge = SafeKnowledge(unreachable, warnings.append, deadline=deadline)
    assert warnings == []  # it has not been asked anything yet
    ask_everything(knowledge)
    ask_everything(knowledge)
    knowledge.close()
    assert warnings == ["the cache cannot be reached; going on without it"]


@pytest.mark.parametrize("deadline", [None, 2.0])
def test_a_store_that_works_is_asked(
    file: SqliteKnowledge, warnings: list[str], deadline: float | None
) -> None:
    knowledge = SafeKnowledge(lambda: file, warnings.append, deadline=deadline)
    knowledge.record([entry()])
    assert knowledge.entries([DIFF_ID]) == {DIFF_ID: [entry()]}
    assert knowledge.account_key() == file.account_key()
    knowledge.forget(DIFF_ID, BLOB, entry().repository)
    assert knowledge.stats().entries == 0
    assert warnings == []


def test_a_store_that_fails_later_is_one_warning_from_many_threads(
    file: SqliteKnowledge, warnings: list[str]
) -> None:
    knowledge = SafeKnowledge(lambda: file, warnings.append)
    knowledge.record([entry()])
    file.close()
    threads = [threading.Thread(target=ask_everything, args=(knowledge,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(warnings) == 1
    assert warnings[0].endswith("; going on without it")


def test_it_is_opened_once_however_many_ask(file: SqliteKnowledge, warnings: list[str]) -> None:
    opened: list[int] = []

    def connect() -> Knowledge:
        opened.append(1)
        time.sleep(0.01)
        return file

    knowledge = SafeKnowledge(connect, warnings.append)
    threads = [threading.Thread(target=knowledge.stats) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [1]


def test_a_hanging_store_is_left_behind_at_the_deadline(warnings: list[str]) -> None:
    release, left = threading.Event(), Slow(0)

    def connect() -> Knowledge:
        release.wait(10)  # as a name server that does not answer
        return left

    knowledge = SafeKnowledge(connect, warnings.append, deadline=0.02)
    assert knowledge.prune(0.0) == 0
    assert warnings == ["the cache did not answer in time; going on without it"]
    release.set()
    (thread,) = [one for one in threading.enumerate() if one.name == "knowledge"]
    thread.join(10)
    assert left.closed == 1


def test_a_store_that_fails_while_it_is_closed_is_no_warning(warnings: list[str]) -> None:
    def connect() -> Knowledge:
        knowledge.close()
        raise KnowledgeError("the cache cannot be reached")

    knowledge = SafeKnowledge(connect, warnings.append)
    assert knowledge.prune(0.0) == 0
    assert warnings == []


def test_slow_answers_cost_a_push_its_budget_and_no_more(warnings: list[str]) -> None:
    given = GivenTime()
    slow = Slow(QUICK + 1.5, sleep=given.context().cancel.wait)
    knowledge = SafeKnowledge(lambda: slow, warnings.append, clock=given.clock)
    assert [knowledge.prune(0.0) for _ in range(4)] == [1, 1, 0, 0]
    assert slow.asked == 2
    assert slow.closed == 1
    assert warnings == ["the cache is too slow; going on without it"]


def test_what_nobody_waits_for_costs_no_budget(warnings: list[str]) -> None:
    given = GivenTime()
    slow = Slow(QUICK + 1.5, sleep=given.context().cancel.wait)
    knowledge = SafeKnowledge(lambda: slow, warnings.append, clock=given.clock)
    for _ in range(9):
        knowledge.beat("an owner")
    assert slow.asked == 9
    assert warnings == []


def test_closing_closes_what_was_opened_and_says_nothing(warnings: list[str]) -> None:
    store = Slow(0)
    SafeKnowledge(lambda: store, warnings.append).close()
    assert store.closed == 0
    opened = SafeKnowledge(lambda: store, warnings.append)
    opened.prune(0.0)
    opened.close()
    opened.close()
    assert store.closed == 1
    assert opened.prune(0.0) == 0
    assert warnings == []
