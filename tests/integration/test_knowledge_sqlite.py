"""What only a file can suffer: damage, locks, no room, no rights, somebody else's content."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.knowledge import BLOB, DIFF_ID, OURS, entry
from towline.knowledge import sqlite
from towline.knowledge.base import Entry, KnowledgeError, is_sound
from towline.knowledge.open import open_knowledge
from towline.knowledge.sqlite import MAX_VALUES, SqliteKnowledge
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some" / "folders" / "knowledge.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteKnowledge]:
    store = SqliteKnowledge(path, OURS)
    yield store
    store.close()


def fill(path: Path) -> None:
    store = SqliteKnowledge(path, OURS)
    for number in range(200):
        store.record([entry(diff_id=Digest.of(b"%d" % number))])
    store.close()


def test_the_file_is_the_users_alone(store: SqliteKnowledge, path: Path) -> None:
    store.record([entry()])
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_empty_file_becomes_a_cache(tmp_path: Path) -> None:
    path = tmp_path / "made-by-mktemp"
    path.touch()
    fill(path)
    with closing(SqliteKnowledge(path, OURS)) as store:
        assert store.stats().entries == 200


def test_writers_and_readers_do_not_wait_for_each_other(store: SqliteKnowledge, path: Path) -> None:
    store.record([entry()])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        other.execute("BEGIN IMMEDIATE")
        assert store.entries([DIFF_ID])[DIFF_ID] == [entry()]
        other.execute("ROLLBACK")


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"\0" * 4096, b"x"])
def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image.tar"
    path.write_bytes(content)
    with pytest.raises(KnowledgeError, match="is no cache of towline's, so it was left alone"):
        SqliteKnowledge(path, OURS)
    assert path.read_bytes() == content


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "places.sqlite"
    with closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE bookmarks (url TEXT)")
        theirs.commit()
    with pytest.raises(KnowledgeError, match="is no cache of towline's, so it was left alone"):
        SqliteKnowledge(path, OURS)
    with closing(sqlite3.connect(path)) as theirs:
        assert theirs.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]


def test_a_cache_of_another_version_is_left_alone(path: Path) -> None:
    fill(path)
    with closing(sqlite3.connect(path)) as later:
        later.execute("PRAGMA user_version = 999")
    with pytest.raises(KnowledgeError, match="made by another version of towline"):
        SqliteKnowledge(path, OURS)


def test_a_cache_of_an_earlier_version_is_gone_on_with(path: Path) -> None:
    fill(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as earlier:
        earlier.execute("DROP TABLE value")
        earlier.execute("CREATE TABLE session (key TEXT, address TEXT)")
        earlier.execute("CREATE TABLE secret (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
        earlier.execute("INSERT INTO secret VALUES ('account', x'2b2b')")
        earlier.execute("PRAGMA user_version = 1")
    with closing(SqliteKnowledge(path, OURS)) as store:
        assert store.account_key() == b"++"
        store.record_host("reg", {"mounts": "1"})
        assert store.host_facts("reg") == {"mounts": "1"}
        assert store.stats().entries == 200
    with closing(sqlite3.connect(path)) as now:
        tables = now.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    assert sorted(tables) == [("entry",), ("value",)]  # nothing is left that `clear` would not drop


def test_a_damaged_page_is_one_sentence_with_its_cure(path: Path) -> None:
    fill(path)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with (
        pytest.raises(KnowledgeError, match="malformed; delete the file to begin a new one"),
        closing(SqliteKnowledge(path, OURS)) as store,
    ):
        store.entries([DIFF_ID])


def test_an_entry_that_makes_no_sense_is_damage_too(store: SqliteKnowledge, path: Path) -> None:
    store.record([entry()])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE entry SET digest = 'md5:0123'")
    with pytest.raises(KnowledgeError, match="malformed entry"):
        store.entries([DIFF_ID])


COLUMNS = [
    *(("entry", name) for name in Entry._fields if name != "diff_id"),
    *(("entry", "mac"), ("entry", "place"), ("value", "content"), ("value", "until")),
]
ODD = [None, "text", b"bytes", -1, 2**63 - 1, float("nan"), float("inf")]


@pytest.mark.parametrize(("table", "column"), COLUMNS)
@pytest.mark.parametrize("value", ODD, ids=repr)
def test_a_value_of_another_kind_is_one_warning_at_most(
    path: Path, table: str, column: str, value: object
) -> None:
    with closing(SqliteKnowledge(path, OURS)) as store:
        store.record([entry(), entry(repository="reg/b")])
        store.record_host("reg", {"mounts": "1"})
        store.record_config(Digest.of(b"{}"), b"{}")
        store.account_key()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        schema = other.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        for words in (f"ALTER TABLE {table} RENAME TO old", schema[0].replace("NOT NULL", "")):
            other.execute(words)
        other.execute(f"INSERT INTO {table} SELECT * FROM old")  # noqa: S608 - a word of ours
        some = "repository = 'reg/b'" if table == "entry" else "1"
        other.execute(f"UPDATE OR IGNORE {table} SET {column} = ? WHERE {some}", (value,))  # noqa: S608 - as above
    warnings: list[str] = []
    with closing(open_knowledge(str(path), {}, warnings.append)) as knowledge:
        for found in knowledge.entries([DIFF_ID]).values():
            assert all(type(one.size) is int for one in filter(is_sound, found))
        assert isinstance(knowledge.account_key(), bytes)
        assert knowledge.config(Digest.of(b"{}")) in {b"{}", None}
        assert set(knowledge.host_facts("reg").values()) <= {"1"}
        knowledge.record([entry()])
        knowledge.record_config(Digest.of(b"[]"), b"[]")
        knowledge.stats()
        knowledge.prune(older_than=1.0)
        knowledge.forget(DIFF_ID, BLOB, "reg/b")
        knowledge.clear()
    assert all("malformed" in warning for warning in warnings)
    assert len(warnings) <= 1


def test_a_locked_file_is_waited_for_and_then_given_up(store: SqliteKnowledge, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(KnowledgeError, match="database is locked"):
            store.record([entry()])
        other.execute("ROLLBACK")
    store.record([entry()])
    assert sqlite.PATIENCE <= 2.0


def test_a_folder_in_its_place_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="cannot be used: unable to open database file"):
        SqliteKnowledge(tmp_path, OURS)


def test_a_closed_store_says_so(path: Path) -> None:
    store = SqliteKnowledge(path, OURS)
    store.close()
    store.close()
    with pytest.raises(KnowledgeError, match="closed"):
        store.entries([DIFF_ID])
    with pytest.raises(KnowledgeError, match="closed"):
        store.record([entry()])


def test_a_failed_transaction_leaves_nothing(store: SqliteKnowledge) -> None:
    broken = entry(diff_id=Digest.of(b"broken"), size=1 << 70)  # too large for SQLite
    with pytest.raises(OverflowError):
        store.record([entry(), broken])
    assert store.stats().entries == 0
    store.record([entry()])


def test_only_the_newest_configs_are_kept(store: SqliteKnowledge) -> None:
    configs = [b"%d" % number for number in range(MAX_VALUES + 5)]
    for config in configs:
        store.record_config(Digest.of(config), config)
    kept = [config for config in configs if store.config(Digest.of(config)) is not None]
    assert kept == configs[5:]
    store.prune(time.time() + 1)
    assert store.config(Digest.of(configs[-1])) is None


def test_clearing_gives_the_room_back(store: SqliteKnowledge, path: Path) -> None:
    for number in range(500):
        store.record([entry(diff_id=Digest.of(b"%d" % number))])
    before = store.stats().bytes
    store.clear()
    assert store.stats().bytes < before / 4
    assert path.exists()


def child(script: str, *words: str) -> str:
    """Run a script in a process of its own; what it printed."""
    source = f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'src')]!r}\n"
    command = [sys.executable, "-c", source + textwrap.dedent(script), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_is_one_warning(tmp_path: Path) -> None:
    script = """
        import resource, signal, sys
        from tests.support.knowledge import entry
        from towline.knowledge.open import open_knowledge
        from towline.spec.digest import Digest
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, 1 << 17))
        knowledge = open_knowledge(sys.argv[1], {}, print)
        for number in range(3000):
            knowledge.record([entry(diff_id=Digest.of(b"%d" % number))])
        knowledge.close()
    """
    warnings = child(script, str(tmp_path / "cache")).splitlines()
    assert len(warnings) == 1
    assert warnings[0].endswith("; going on without it")


READ_ONLY = """
    import os, pathlib, sqlite3, sys  # what is loaded later must not need root's Python
    import towline.knowledge.sqlite  # now: nobody may not be allowed to read Python's own files
    from tests.support.knowledge import DIFF_ID, entry
    from towline.knowledge.open import open_knowledge
    home = sys.argv[1]
    if os.getuid() == 0:  # root minds no modes
        os.setuid(65534)
    knowledge = open_knowledge(None, {"HOME": home}, print)
    knowledge.record([entry()])
    assert knowledge.entries([DIFF_ID]) == {}
    assert knowledge.account_key() == knowledge.account_key()
    knowledge.close()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A home that others can see into; pytest's own folders do not let them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        home = Path(folder) / "home"
        home.mkdir()
        yield home
        for place in (home, *home.rglob("*")):
            place.chmod(0o755)


def test_a_read_only_home_is_one_warning(home: Path) -> None:
    home.chmod(0o555)
    (line,) = child(READ_ONLY, str(home)).splitlines()
    assert line.startswith(f"the cache {home}/.cache/towline/knowledge.sqlite cannot be used: ")


def test_a_read_only_cache_is_one_warning(home: Path) -> None:
    path = home / ".cache" / "towline" / "knowledge.sqlite"
    fill(path)
    for place in (*home.rglob("*"), home):
        place.chmod(0o555)
    (line,) = child(READ_ONLY, str(home)).splitlines()
    assert line.startswith(f"the cache {path} cannot be used: ")


def test_a_home_that_is_a_file_is_one_warning(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.touch()
    warnings: list[str] = []
    with closing(open_knowledge(None, {"HOME": str(home)}, warnings.append)) as knowledge:
        knowledge.record([entry()])
        assert knowledge.entries([DIFF_ID]) == {}
    assert len(warnings) == 1
    assert "Not a directory" in warnings[0]


def test_a_python_without_sqlite_is_one_warning(tmp_path: Path) -> None:
    script = """
        import sys
        sys.modules["sqlite3"] = None
        from tests.support.knowledge import entry
        from towline.knowledge.open import open_knowledge
        knowledge = open_knowledge(sys.argv[1], {}, print)
        knowledge.record([entry()])
        knowledge.close()
    """
    (line,) = child(script, str(tmp_path / "cache")).splitlines()
    assert "this Python was built without sqlite3" in line


def test_a_file_deleted_under_a_push_costs_nothing_but_its_knowledge(path: Path) -> None:
    warnings: list[str] = []
    with closing(open_knowledge(str(path), dict(os.environ), warnings.append)) as knowledge:
        knowledge.record([entry()])
        path.unlink()
        knowledge.record([entry(repository="reg/b")])
    assert len(warnings) <= 1
