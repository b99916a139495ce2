from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.support.knowledge import DIFF_ID, entry
from towline.errors import UsageError
from towline.knowledge.base import KnowledgeError
from towline.knowledge.open import open_knowledge, open_store
from towline.knowledge.redis import Address
from towline.knowledge.store import Knowledge

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home")}


@pytest.mark.parametrize("text", [None, ""])
def test_by_default_it_is_a_file_among_the_users_caches(
    text: str | None, environ: dict[str, str], warnings: list[str]
) -> None:
    with closing(open_knowledge(text, environ, warnings.append)) as knowledge:
        knowledge.record([entry()])
        assert knowledge.stats().path == f"{environ['HOME']}/.cache/towline/knowledge.sqlite"
    with closing(open_store(text, environ)) as store:
        assert store.entries([DIFF_ID]) == {DIFF_ID: [entry()]}
    assert warnings == []


def test_a_path_is_a_file_of_that_name(
    tmp_path: Path, environ: dict[str, str], warnings: list[str]
) -> None:
    path = str(tmp_path / "a:b?c=d")
    with closing(open_knowledge(path, environ, warnings.append)) as knowledge:
        knowledge.record([entry()])
        assert knowledge.stats().path == path
    assert warnings == []


def test_none_is_none(environ: dict[str, str], warnings: list[str]) -> None:
    assert type(open_knowledge("none", environ, warnings.append)) is Knowledge
    assert type(open_store("none", environ)) is Knowledge


def test_opening_touches_nothing(tmp_path: Path, environ: dict[str, str]) -> None:
    for text in (None, str(tmp_path / "cache"), "redis://nowhere.invalid"):
        open_knowledge(text, environ, pytest.fail).close()
    assert list(tmp_path.iterdir()) == [tmp_path / "home"]


def test_without_a_home_the_push_goes_on_with_one_warning(warnings: list[str]) -> None:
    knowledge = open_knowledge(None, {}, warnings.append)
    knowledge.record([entry()])
    assert knowledge.entries([DIFF_ID]) == {}
    assert len(warnings) == 1
    with pytest.raises(KnowledgeError, match="HOME"):
        open_store(None, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("memcached://localhost", "no cache can be kept at memcached://"),
        ("redis://", "the cache redis:// names no host"),
        ("rediss:///0", "the cache rediss:// names no host"),
        ("unix://", "the cache unix:// names no path"),
        ("redis://:hunter2@localhost:none", "the address given with `cache` is wrong"),
        ("redis://[::1", "the address given with `cache` is wrong"),
    ],
)
def test_what_can_be_no_store_is_refused_at_once(text: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        open_knowledge(text, {}, pytest.fail)
    assert raised.value.message.startswith(message)
    assert "hunter2" not in raised.value.message


@pytest.mark.parametrize(
    ("text", "url", "shown", "prefix"),
    [
        ("redis://h", "redis://h", "redis://h", "towline:"),
        ("redis://h:1/2?prefix=p%3A", "redis://h:1/2", "redis://h:1/2", "p:"),
        ("rediss://u:p@h?prefix=&db=3", "rediss://u:p@h?db=3", "rediss://h", ""),
        ("unix:///run/r.sock?db=1", "unix:///run/r.sock?db=1", "unix:///run/r.sock", "towline:"),
        ("REDIS://h", "redis://h", "redis://h", "towline:"),
    ],
)
def test_an_address_is_for_the_library_and_shown_without_secrets(
    text: str, url: str, shown: str, prefix: str
) -> None:
    assert Address.parse(text) == Address(url, shown, prefix)


def test_machines_with_a_key_believe_each_other(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    key = {"TOWLINE_CACHE_KEY": "what they agree on"}
    homes = [{"HOME": str(tmp_path / name)} for name in ("one", "two")]
    with closing(open_store(cache, homes[0])) as store:
        store.record([entry(repository="reg/unsigned")])
    with closing(open_store(cache, {**homes[0], **key})) as store:
        store.record([entry()])
    with closing(open_store(cache, {**homes[1], **key})) as store:
        assert store.entries([DIFF_ID]) == {DIFF_ID: [entry()]}
    with closing(open_store(cache, homes[1])) as store:
        assert [one.learned for one in store.entries([DIFF_ID])[DIFF_ID]] == [True, True]
    with closing(open_store(cache, homes[0])) as store:
        assert [one.learned for one in store.entries([DIFF_ID])[DIFF_ID]] == [False, True]
