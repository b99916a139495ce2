"""What a client has found out of a host, as the next one will hear of it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.scripted import scripted
from towline.context import Context
from towline.reference import RepositoryName
from towline.registry.client import RegistryClient, Settings
from towline.registry.facts import REMEMBERED, HostFacts, recalled_scheme, scheme_to_recall
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.errors import Side
    from towline.registry.repository import Repository

HOST = "registry.example"
DAY = 24 * 3600.0


class Store:
    """Keeps facts as stores do: by name, each beside what there was."""

    def __init__(self, **facts: str) -> None:
        self.facts = facts

    @contextmanager
    def used(
        self, host: str = HOST, side: Side = "destination", **settings: Any
    ) -> Iterator[Repository]:
        """A client's repository; what it learned is kept at the end."""
        client = RegistryClient(Settings(environ={}, **settings), recall=lambda _: self.facts)
        yield client.repository(RepositoryName(host, "app"), side)
        self.facts.update(client.learned().get(host, {}))
        client.close()


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
        repository._facts.too_large(20 << 20)
    with store.used() as repository:
        assert "16777216" in repository.limits[0]


def test_what_was_known_before_does_not_become_newer_by_being_used() -> None:
    store = Store(**learned(HostFacts(chunks_refused=True), days=6))
    with store.used() as repository:
        assert repository.limits
    at_the_end = time.time() - 6 * DAY + REMEMBERED
    assert HostFacts.recalled(store.facts, at_the_end - 60) == HostFacts(chunks_refused=True)
    assert HostFacts.recalled(store.facts, at_the_end + 60) == HostFacts()


def test_what_has_turned_out_otherwise_is_known_no_more() -> None:
    store = Store(**learned(HostFacts(oci_refused=True), days=1))
    with store.used() as repository:
        repository.note_format("oci", refused=False)
    with store.used() as repository:
        assert repository.limits == []


def test_a_fact_too_old_is_not_revived_by_a_new_one() -> None:
    store = Store(**learned(HostFacts(oci_refused=True), days=8))
    with store.used() as repository:
        repository._facts.lost()
    with store.used() as repository:
        assert repository.resumes is False
        assert repository.limits == []


def ask(repository: Repository) -> None:
    assert repository.has_blob(Digest.of(b"nothing"), Context()) is False


class TestScheme:
    """What a host on this machine speaks, where an earlier run has found that out."""

    def test_it_is_asked_for_once_and_known_for_a_week(self) -> None:
        store = Store()
        with scripted() as server:
            with store.used(server.host) as repository:
                ask(repository)
            found = dict(store.facts)
            now = int(found["greeted"])
            assert recalled_scheme(found, now + REMEMBERED - 1) == "http"
            assert recalled_scheme(found, now + REMEMBERED + 1) is None
            with store.used(server.host) as repository:
                ask(repository)
            assert server.greeted == 1
        assert store.facts == found, "being used makes it no newer"

    def test_it_is_asked_for_again_when_it_is_too_old(self) -> None:
        store = Store(**scheme_to_recall("http", time.time() - 8 * DAY))
        with scripted() as server, store.used(server.host) as repository:
            ask(repository)
            assert server.greeted == 1
        assert recalled_scheme(store.facts, time.time()) == "http"

    @pytest.mark.parametrize(
        "facts",
        [
            {"scheme": "http"},
            {"scheme": "http", "greeted": "soon"},
            {"scheme": "ftp", "greeted": str(int(time.time()))},
            {"greeted": str(int(time.time()))},
        ],
    )
    def test_what_is_no_such_fact_is_none(self, facts: dict[str, str]) -> None:
        assert recalled_scheme(facts, time.time()) is None

    def test_what_an_option_says_is_not_found_out(self) -> None:
        store = Store()
        with scripted() as server, store.used(server.host, plain_http=True) as repository:
            ask(repository)
        assert store.facts == {}

    def test_of_a_host_that_is_only_read_nothing_is_kept_or_used(self) -> None:
        store = Store()
        with scripted() as server:
            with store.used(server.host, "source") as repository:
                ask(repository)
            assert store.facts == {}
            store.facts.update(scheme_to_recall("http", time.time()))
            with store.used(server.host, "source") as repository:
                ask(repository)
            assert server.greeted == 2

    def test_http_is_not_used_with_credentials_nor_where_tokens_were_asked_for(self) -> None:
        known = scheme_to_recall("http", time.time() - DAY)
        asked = {"realm": "http://127.0.0.1:1/", "service": "", "asked": known["greeted"]}
        store = Store(**known)
        with scripted() as server:
            with store.used(server.host, creds=("me", "secret")) as repository:
                ask(repository)
            assert server.greeted == 1
            assert store.facts == known, "and being found again makes it no newer"
            with Store(**known, **asked).used(server.host) as repository:
                ask(repository)
            assert server.greeted == 2
