"""What a client has found out of a host, as the next one will hear of it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from towline.reference import RepositoryName
from towline.registry.capabilities import REMEMBERED, HostFacts
from towline.registry.client import RegistryClient, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.registry.repository import Repository

HOST = "registry.example"
DAY = 24 * 3600.0


class Store:
    """Keeps facts as stores do: by name, each beside what there was."""

    def __init__(self, **facts: str) -> None:
        self.facts = facts

    @contextmanager
    def used(self) -> Iterator[Repository]:
        """A client's repository; what it learned is kept at the end."""
        client = RegistryClient(Settings(), recall=lambda _: self.facts)
        yield client.repository(RepositoryName(HOST, "app"))
        self.facts.update(client.facts().get(HOST, {}))
        client.close()


def stored(facts: HostFacts) -> dict[str, str]:
    return facts.to_recall(0.0)


def learned(facts: HostFacts, days: float) -> dict[str, str]:
    """Facts that were found out so many days ago."""
    return facts.to_recall(time.time() - days * DAY)


def test_of_a_host_that_does_all_nothing_is_kept() -> None:
    store = Store()
    with store.used():
        pass
    assert store.facts == {}


def test_what_is_found_out_is_known_to_the_next() -> None:
    store = Store()
    with store.used() as repository:
        repository.facts.too_large("put", 20 << 20)
    with store.used() as repository:
        assert "16777216" in repository.facts.limits()[0]


def test_what_was_known_before_does_not_become_newer_by_being_used() -> None:
    store = Store(**learned(HostFacts(chunks_refused=True), days=6))
    with store.used() as repository:
        assert repository.facts.limits()
    at_the_end = time.time() - 6 * DAY + REMEMBERED
    before, after = (HostFacts.recalled(store.facts, at_the_end + late) for late in (-60, 60))
    assert stored(before) == stored(HostFacts(chunks_refused=True))
    assert stored(after) == stored(HostFacts())


def test_what_has_turned_out_otherwise_is_known_no_more() -> None:
    store = Store(**learned(HostFacts(oci_refused=True), days=1))
    with store.used() as repository:
        repository.facts.note_format("oci", refused=False)
    with store.used() as repository:
        assert repository.facts.limits() == []


def test_a_fact_too_old_is_not_revived_by_a_new_one() -> None:
    store = Store(**learned(HostFacts(oci_refused=True), days=8))
    with store.used() as repository:
        repository.facts.note_cut(in_chunks=False, went_on=False)
    with store.used() as repository:
        assert repository.facts.resumes is False
        assert repository.facts.limits() == []
