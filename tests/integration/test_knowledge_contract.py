"""What every `Knowledge` that remembers promises, on a real file and on a real Redis."""

from __future__ import annotations

import sys
import textwrap
import threading
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING

import pytest

from tests.support.knowledge import (
    AGREED,
    BLOB,
    DIFF_ID,
    OTHER_DIFF_ID,
    OURS,
    THEIRS,
    Place,
    entry,
    opener,
)
from tests.support.processes import until
from towline.knowledge.base import SavedSession
from towline.knowledge.store import MAX_CONFIG_SIZE, read, written
from towline.spec import media_types
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.redis_server import RedisServer
    from towline.knowledge.base import Entry
    from towline.knowledge.store import Knowledge

NEEDS_REDIS = pytest.mark.needs("redis-server")


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("redis", marks=NEEDS_REDIS),
        pytest.param("unix", marks=NEEDS_REDIS),
    ]
)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What `--cache` would name."""
    if request.param == "sqlite":
        return str(tmp_path / "cache" / "knowledge.sqlite")
    server: RedisServer = request.getfixturevalue("redis_server")
    url = server.url if request.param == "redis" else server.unix_url
    return f"{url}?prefix={uuid.uuid4()}:"


@pytest.fixture
def place(address: str) -> Iterator[Place]:
    with Place(opener(address)) as place:
        yield place


@pytest.fixture
def store(place: Place) -> Knowledge:
    return place.open()


def known(store: Knowledge, diff_id: Digest = DIFF_ID) -> list[Entry]:
    return list(store.entries([diff_id]).get(diff_id, []))


def repositories(store: Knowledge, diff_id: Digest = DIFF_ID) -> list[str]:
    return [found.repository for found in known(store, diff_id)]


def test_nothing_is_known_of_an_unknown_layer(store: Knowledge) -> None:
    assert store.entries([DIFF_ID]) == {}
    assert store.entries([]) == {}
    assert store.config(BLOB) is None
    assert store.host_facts("registry.example") == {}


def test_an_entry_comes_back_as_it_was_recorded(place: Place) -> None:
    recorded = [
        entry(account="0" * 64),
        entry(digest=Digest.of(b"plain"), profile=None, learned=True, size=0),
        entry(digest=Digest("sha512:" + "ab" * 64), repository="[::1]:5000/ünï"),
    ]
    place.open().record(recorded)
    assert known(place.open()) == recorded


def test_an_entry_without_a_time_was_seen_now(store: Knowledge) -> None:
    before = time.time()
    store.record([entry(seen=0.0)])
    assert before <= known(store)[0].seen <= time.time()


def test_layers_are_asked_for_together_and_those_unknown_are_left_out(store: Knowledge) -> None:
    store.record([entry(), entry(diff_id=OTHER_DIFF_ID)])
    unknown = Digest.of(b"unknown")
    assert set(store.entries([DIFF_ID, unknown, OTHER_DIFF_ID])) == {DIFF_ID, OTHER_DIFF_ID}


def test_entries_come_oldest_first_whatever_their_clocks_say(store: Knowledge) -> None:
    names = [f"reg/{number}" for number in range(12)]
    store.record([entry(repository=name, seen=1e9 - number) for number, name in enumerate(names)])
    assert repositories(store) == names


def test_an_equal_entry_moves_to_the_newest_place_with_what_is_new(store: Knowledge) -> None:
    store.record([entry(repository=name) for name in ("a", "b", "c")])
    store.record([entry(repository="a", size=99, profile="gzip/2", seen=1_800_000_000.0)])
    assert repositories(store) == ["b", "c", "a"]
    assert known(store)[-1].size == 99
    assert known(store)[-1].seen == 1_800_000_000.0


def test_of_a_hundred_entries_the_last_fifty_are_kept(store: Knowledge) -> None:
    names = [f"reg/{number}" for number in range(100)]
    store.record([entry(diff_id=OTHER_DIFF_ID)])
    for name in names[:60]:
        store.record([entry(repository=name)])
    store.record([entry(repository=name) for name in names[60:]])
    assert repositories(store) == names[-50:]
    assert len(known(store, OTHER_DIFF_ID)) == 1


def test_accounts_and_blobs_of_one_repository_are_told_apart(store: Knowledge) -> None:
    store.record(
        [entry(account="x"), entry(account="y"), entry(account="x", digest=Digest.of(b"other"))]
    )
    assert [(e.account, e.digest == BLOB) for e in known(store)] == [
        ("x", True),
        ("y", True),
        ("x", False),
    ]


def test_forgetting_names_a_layer_a_blob_and_a_repository(store: Knowledge) -> None:
    kept = [
        entry(repository="reg/app2"),
        entry(repository="reg/ap"),
        entry(repository="reg/app", digest=Digest.of(b"other")),
    ]
    twin = entry(diff_id=OTHER_DIFF_ID, repository="reg/app")  # one blob under two DiffIDs
    gone = [entry(repository="reg/app", account=account) for account in ("", "x")]
    learned = entry(repository="reg/app", learned=True)
    store.record([*gone, *kept, learned, twin])
    store.forget(DIFF_ID, BLOB, "reg/app")
    assert known(store) == kept
    assert known(store, OTHER_DIFF_ID) == [twin]


def test_forgetting_what_is_not_known_changes_nothing(store: Knowledge) -> None:
    store.forget(DIFF_ID, BLOB, "reg/app")
    assert store.entries([DIFF_ID]) == {}


def test_what_was_learned_and_then_seen_is_one_entry_of_our_own(store: Knowledge) -> None:
    store.record([entry(learned=True), entry(repository="reg/b"), entry()])
    assert [(e.repository, e.learned) for e in known(store)] == [
        ("reg/b", False),
        (entry().repository, False),
    ]


def test_learning_what_we_have_seen_takes_nothing_from_it(store: Knowledge) -> None:
    store.record([entry(), entry(repository="reg/b"), entry(learned=True, profile=None)])
    assert [(e.repository, e.learned) for e in known(store)] == [
        ("reg/b", False),
        (entry().repository, False),
    ]
    assert known(store)[-1].profile == entry().profile


def test_what_another_machine_wrote_counts_as_learned(place: Place) -> None:
    place.open(THEIRS).record([entry()])
    assert [e.learned for e in known(place.open(OURS))] == [True]
    assert [e.learned for e in known(place.open(THEIRS))] == [False]


def test_with_a_key_the_machines_believe_each_other_and_nobody_else(place: Place) -> None:
    place.open(THEIRS).record([entry(repository="reg/false")])
    place.open(AGREED).record([entry(repository="reg/true")])
    assert known(place.open(AGREED)) == [entry(repository="reg/true")]


def test_facts_of_a_host_are_added_and_replaced(place: Place) -> None:
    store = place.open()
    store.record_host("reg:5000", {"scheme": "https", "rate": "1"})
    store.record_host("reg:5000", {"rate": "2", "challenge": 'Bearer realm="ä"'})
    store.record_host("reg:5000", {})
    store.record_host("reg:5001", {"scheme": "http"})
    assert place.open().host_facts("reg:5000") == {
        "scheme": "https",
        "rate": "2",
        "challenge": 'Bearer realm="ä"',
    }


def test_facts_of_a_host_that_several_write_at_once_are_all_kept(place: Place) -> None:
    store, together = place.open(), threading.Barrier(4)

    def write(writer: int) -> None:
        together.wait()
        for number in range(5):
            store.record_host("reg:5000", {f"{writer}.{number}": "1"})

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.host_facts("reg:5000")) == 4 * 5


def test_facts_from_another_machine_are_no_facts(place: Place) -> None:
    place.open(THEIRS).record_host("reg:5000", {"scheme": "http"})
    assert place.open(OURS).host_facts("reg:5000") == {}


def test_small_configs_are_remembered_and_large_ones_are_not(place: Place) -> None:
    small, large = b'{"os":"linux"}', b" " * (MAX_CONFIG_SIZE + 1)
    store = place.open()
    store.record_config(Digest.of(small), small)
    store.record_config(Digest.of(small), small)
    store.record_config(Digest.of(large), large)
    assert place.open(THEIRS).config(Digest.of(small)) == small
    assert store.config(Digest.of(large)) is None


def test_a_config_that_is_not_what_its_digest_says_is_no_config(store: Knowledge) -> None:
    store.record_config(BLOB, b"something else")
    assert store.config(BLOB) is None


def test_all_who_open_it_agree_on_the_account_key(place: Place) -> None:
    key = place.open(OURS).account_key()
    assert len(key) == 32
    theirs = place.open(THEIRS)
    assert theirs.account_key() == theirs.account_key() == key
    place.open(OURS).clear()
    assert place.open(OURS).account_key() == key


def test_it_can_be_counted_pruned_and_cleared(store: Knowledge) -> None:
    store.record([entry(repository="reg/old", seen=100.0), entry(repository="reg/new", seen=200.0)])
    store.record([entry(diff_id=OTHER_DIFF_ID, seen=100.0)])
    store.record_host("reg", {"scheme": "https"})
    stats = store.stats()
    assert (stats.diff_ids, stats.entries) == (2, 3)
    assert stats.bytes > 0
    assert "knowledge.sqlite" in stats.path or "://" in stats.path
    assert store.prune(older_than=150.0) == 2
    assert repositories(store) == ["reg/new"]
    assert store.stats().diff_ids == 1
    store.clear()
    assert store.stats().entries == 0
    assert store.host_facts("reg") == {}
    store.clear()
    assert store.prune(older_than=time.time()) == 0


def test_a_config_is_counted_as_an_entry_and_not_as_a_layer(store: Knowledge) -> None:
    store.record([entry(), entry(diff_id=BLOB)._replace(media_type=media_types.DOCKER_CONFIG)])
    stats = store.stats()
    assert (stats.diff_ids, stats.entries) == (1, 2)


def test_many_layers_are_counted_pruned_and_cleared_too(store: Knowledge) -> None:
    numbers = range(1200)
    store.record([entry(diff_id=Digest.of(b"%d" % n), seen=float(1 + n % 3)) for n in numbers])
    assert store.stats().diff_ids == 1200
    assert store.prune(older_than=2.0) == 400
    assert store.stats().entries == 800
    store.clear()
    assert store.stats().diff_ids == 0


def test_recording_nothing_is_nothing(store: Knowledge) -> None:
    store.record([])
    assert store.stats().entries == 0


def test_threads_lose_nothing_to_each_other(store: Knowledge) -> None:
    def record(thread: int) -> None:
        for number in range(6):
            store.record([entry(repository=f"reg/{thread}/{number}")])
            store.record([entry(diff_id=Digest.of(b"%d %d" % (thread, number)))])
            store.entries([DIFF_ID])

    threads = [threading.Thread(target=record, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(known(store)) == 48
    assert store.stats().diff_ids == 49


WRITER = textwrap.dedent("""
    import sys
    from tests.support.knowledge import OURS, entry, opener
    from towline.spec.digest import Digest

    address, process = sys.argv[1:]
    print("ready", flush=True)
    sys.stdin.readline()
    store = opener(address)(OURS)  # also the making of it is a race
    print(store.account_key().hex())
    for number in range(25):
        store.record([entry(repository=f"reg/{process}/{number % 8}")])
        store.record([entry(diff_id=Digest.of(f"{process} {number}".encode()))])
    store.close()
""")


@pytest.fixture
def writers(address: str) -> Iterator[list[Popen[str]]]:
    """Processes that stand ready to write."""
    root = Path(__file__).parents[2]
    with ExitStack() as stack:
        processes: list[Popen[str]] = []
        for number in range(6):
            command = [sys.executable, "-c", WRITER, address, str(number)]
            process = Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=root)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        yield processes


def test_processes_lose_nothing_to_each_other(
    writers: list[Popen[str]], address: str, place: Place
) -> None:
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:  # all at once: they have been waiting for this
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    keys = {writer.communicate(timeout=60)[0].strip() for writer in writers}
    assert [writer.returncode for writer in writers] == [0] * len(writers)
    store = place.open()
    assert keys == {store.account_key().hex()}
    assert sorted(repositories(store)) == sorted(f"reg/{p}/{n}" for p in range(6) for n in range(8))
    assert store.stats().diff_ids == 6 * 25 + 1
    assert all(not found.learned for found in known(store))


def test_only_ours_is_believed_after_a_hostile_rewrite(place: Place) -> None:
    """Another machine overwrites our entry with one of its own that names a wrong size."""
    place.open(OURS).record([entry()])
    place.open(THEIRS).record([entry(size=1)])
    assert [(e.size, e.learned) for e in known(place.open(OURS))] == [(1, True)]
    assert OURS.admit(entry(size=1), OURS.sign(entry())) == entry(size=1, learned=True)


def session(
    owner: str = "", acknowledged: int = 0, url: str = "https://reg/v2/a/1"
) -> SavedSession:
    return SavedSession(
        owner, "reg/app", str(DIFF_ID), "gzip/2@x86-64", 9000, url, acknowledged, 0, 1_700_000_000.5
    )


def test_of_two_that_want_a_session_one_gets_it(place: Place) -> None:
    one, other = place.open(), place.open()
    assert one.swap_session("key", None, session())
    assert one.session("key") == other.session("key") == session()
    assert one.swap_session("key", "", session("one"))
    assert not other.swap_session("key", "", session("other"))
    assert not other.swap_session("key", None, session("other"))
    assert not other.swap_session("key", "on", None)
    assert other.session("key") == session("one")


def test_a_session_is_changed_and_dropped_by_its_owner_alone(store: Knowledge) -> None:
    assert not store.swap_session("key", "me", session("me", 1))  # there is none yet
    assert store.swap_session("key", None, session("me"))
    assert store.swap_session("key", "me", session("me", 16))
    assert not store.swap_session("key", "you", None)
    assert store.sessions() == [session("me", 16)]
    assert store.session("another") is None
    assert store.swap_session("key", "me", None)
    assert not store.swap_session("key", "me", session("me"))
    assert store.sessions() == []


def test_an_owner_is_alive_for_a_while_after_each_time_that_it_says_so(store: Knowledge) -> None:
    store.swap_session("key", None, session("me"))
    store.beat("me")
    assert store.is_alive("me")
    assert not store.is_alive("you")


def test_an_owner_that_says_nothing_is_dead_when_its_time_is_over(place: Place) -> None:
    place.open()._put("alive", "me", b"1", life=1)
    store = place.open()
    until(lambda: not store.is_alive("me"))


def test_sessions_are_pruned_and_cleared_too(store: Knowledge) -> None:
    store.swap_session("key", None, session()._replace(saved=time.time()))
    assert store.prune(older_than=time.time() - 60) == 0
    assert store.prune(older_than=time.time() + 60) == 1
    assert store.sessions() == []
    store.swap_session("key", None, session())
    store.clear()
    assert store.session("key") is None


def test_what_others_say_of_a_session_counts_as_learned_or_not_at_all(place: Place) -> None:
    place.open(THEIRS).swap_session("key", None, session())
    assert place.open(OURS).session("key") == session()._replace(learned=True)
    assert place.open(AGREED).session("key") is None
    assert place.open(AGREED).sessions() == []


def test_a_session_counts_for_its_key_alone() -> None:
    """Whoever can write to the store moves it to another transfer."""
    text = written(session(), "another", AGREED)
    assert read(text, "another", AGREED) == session()
    assert read(text, "key", AGREED) is None
    assert read(text, "key", OURS) == session()._replace(learned=True)
    assert read(text.replace("9000", "9001"), "another", AGREED) is None
    for broken in (
        "",
        "[]",
        "{}",
        "[" * 100_000,
        text.replace("9000", '"many"'),
        text[:-9] + '1"]',
    ):
        assert read(broken, "another", AGREED) is None
