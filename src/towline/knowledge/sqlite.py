"""Knowledge in a SQLite file, shared by all of a user's processes.

One connection behind a lock serves all threads: a statement takes some microseconds, and a thread
that ends leaves no connection behind. SQLite itself keeps processes apart, in WAL mode.
"""

from __future__ import annotations

import math
import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from towline.knowledge.base import MAX_ENTRIES, KnowledgeError, Signer, Stats
from towline.knowledge.store import CONFIG_LIFE, UNREADABLE, Knowledge, entry_of
from towline.spec.media_types import layer_compression

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from towline.knowledge.base import Entry, Signed
    from towline.spec.digest import Digest

APPLICATION_ID = 0x746F776C
"""Marks the file in its header ("towl"), so that no other database is taken for ours."""
VERSION = 2
PATIENCE = 2.0
"""Seconds to wait for another process that writes; a write takes well under a millisecond."""
_SMALLEST_DATABASE = 512
"""Bytes. SQLite takes a shorter file for an empty database and would write over it, whatever it
is."""
MAX_VALUES = 1000
"""Values of one kind that are kept, if they have a life: 64 MB of configs at the most."""
_NO_DATABASE = "not a database"
"""SQLite's words for a file with another beginning: perhaps the user's image."""

# `place` orders the entries of a DiffID, because clocks may be set back. Without a rowid the
# entries of a DiffID lie side by side, so that a look-up reads one page or two. The tables that are
# dropped are those of version 1, whose values had one each. The key of accounts is taken over: no
# entry that an account has made would be its own with another one.
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS entry (
    diff_id BLOB NOT NULL, digest BLOB NOT NULL, repository TEXT NOT NULL, account TEXT NOT NULL,
    learned INTEGER NOT NULL, place INTEGER NOT NULL, size INTEGER NOT NULL,
    media_type TEXT NOT NULL, compression TEXT NOT NULL, profile TEXT, seen REAL NOT NULL,
    mac TEXT NOT NULL,
    PRIMARY KEY (diff_id, digest, repository, account, learned)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS value (
    kind TEXT NOT NULL, name TEXT NOT NULL, until REAL NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (kind, name)
);
CREATE INDEX IF NOT EXISTS value_until ON value (kind, until);
CREATE TABLE IF NOT EXISTS secret (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO value SELECT 'secret', name, 9e999, value FROM secret;
DROP TABLE secret;
DROP TABLE IF EXISTS session;
DROP TABLE IF EXISTS config;
DROP TABLE IF EXISTS host;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""  # noqa: S608 - two numbers of our own

_ENTRIES = """
SELECT CASE typeof(digest) WHEN 'blob' THEN 'sha256:' || lower(hex(digest)) ELSE digest END,
    repository, account, learned, size, media_type, compression, profile, seen, mac
FROM entry WHERE diff_id = ? ORDER BY place
"""
_RECORD = """
INSERT OR REPLACE INTO entry VALUES (
    ?, ?, ?, ?, ?, (SELECT coalesce(max(place), 0) + 1 FROM entry WHERE diff_id = ?),
    ?, ?, ?, ?, ?, ?
)
"""
_DROP_OLDEST = """
DELETE FROM entry WHERE diff_id = :diff_id AND place <= (
    SELECT place FROM entry WHERE diff_id = :diff_id ORDER BY place DESC LIMIT 1 OFFSET :kept
)
"""
_DROP_SOONEST = """
DELETE FROM value WHERE kind = :kind AND until < (
    SELECT until FROM value WHERE kind = :kind ORDER BY until DESC LIMIT 1 OFFSET :kept
)
"""


class SqliteKnowledge(Knowledge):
    """A `Knowledge` in the file at `path`, which is made if it does not exist."""

    def __init__(self, path: str | os.PathLike[str], signer: Signer) -> None:
        self._signer = signer
        self._path = os.fspath(path)
        self._lock = threading.Lock()
        self._database = _open(self._path)

    def _signed(self, diff_ids: Sequence[Digest]) -> Iterator[tuple[Digest, list[Signed]]]:
        for diff_id in diff_ids:
            with self._using() as database:
                rows = database.execute(_ENTRIES, (_packed(diff_id),)).fetchall()
            try:
                yield diff_id, [entry_of(diff_id, row) for row in rows]
            except UNREADABLE as error:
                raise _unusable(self._path, f"malformed entry: {error}") from error

    def record(self, entries: Sequence[Entry]) -> None:
        """One transaction for all of them."""
        with self._writing() as database:
            for entry in entries:
                diff_id, (_, *row) = _packed(entry.diff_id), self._row(entry)
                same = (diff_id, _packed(entry.digest), *row[:3])
                database.execute(_RECORD, (*same, diff_id, *row[3:]))
                database.execute(_DROP_OLDEST, {"diff_id": diff_id, "kept": MAX_ENTRIES})

    def forget(self, diff_id: Digest, digest: Digest, repository: str) -> None:
        """Whatever the account, and however it was known."""
        key = (_packed(diff_id), _packed(digest), repository)
        with self._writing() as database:
            database.execute(
                "DELETE FROM entry WHERE diff_id = ? AND digest = ? AND repository = ?", key
            )

    def _get(self, kind: str, name: str) -> bytes | None:
        query = "SELECT content FROM value WHERE kind = ? AND name = ? AND until > ?"
        rows = self._rows((bytes,), query, kind, name, time.time())
        return rows[0][0] if rows else None

    def _all(self, kind: str) -> list[tuple[str, bytes]]:
        query = "SELECT name, content FROM value WHERE kind = ? AND until > ?"
        return self._rows((str, bytes), query, kind, time.time())

    def _put(self, kind: str, name: str, value: bytes, life: int = 0) -> None:
        with self._writing() as database:
            _replace(database, kind, name, value, life)

    def _swap(self, kind: str, name: str, before: bytes, after: bytes, life: int = 0) -> bool:
        with self._writing() as database:
            query = (
                "SELECT CAST(content AS BLOB) FROM value WHERE kind = ? AND name = ? AND until > ?"
            )
            found = database.execute(query, (kind, name, time.time())).fetchone()
            old = (found and found[0]) or b""
            if bool(old) != bool(before) or not old.startswith(before):
                return False
            _replace(database, kind, name, after, life)
            return True

    def stats(self) -> Stats:
        """Reads the whole table."""
        with self._using() as database:
            known = database.execute("SELECT diff_id, media_type FROM entry").fetchall()
        # A config has an entry too, by its digest.
        layers = {diff_id for diff_id, kind in known if layer_compression(kind)}
        size = 0
        for path in (self._path, f"{self._path}-wal"):
            with suppress(OSError):
                size += os.stat(path).st_size  # noqa: PTH116 - pathlib costs start-up
        return Stats(self._path, len(layers), len(known), size)

    def prune(self, older_than: float) -> int:
        """Also gives the room back to the file system."""
        with self._writing() as database:
            dropped = database.execute("DELETE FROM entry WHERE seen < ?", (older_than,)).rowcount
            ends = older_than + CONFIG_LIFE
            database.execute("DELETE FROM value WHERE kind = 'config' AND until < ?", (ends,))
        dropped += self._prune_sessions(older_than)
        self._shrink()
        return dropped

    def clear(self) -> None:
        """Also gives the room back to the file system."""
        with self._writing() as database:
            database.execute("DELETE FROM entry")
            database.execute("DELETE FROM value WHERE kind != 'secret'")
        self._shrink()

    def _shrink(self) -> None:
        with self._using() as database:
            database.execute("PRAGMA incremental_vacuum").fetchall()
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the file. No other method may be called afterwards."""
        with self._lock:
            self._database.close()

    def _rows(self, kinds: tuple[type, ...], query: str, *values: object) -> list[Any]:
        """The rows of a query, their values checked: any SQLite column may hold any type."""
        with self._using() as database:
            rows = database.execute(query, values).fetchall()
        for row in rows:
            if not all(map(isinstance, row, kinds)):
                raise _unusable(self._path, "malformed entry: a value is of another kind")
        return rows

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        import sqlite3

        with self._lock:
            try:
                yield self._database
            except sqlite3.Error as error:
                raise _unusable(self._path, error) from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._using() as database:
            # IMMEDIATE: a transaction that begins by reading cannot write once another process has
            # written since (SQLITE_BUSY_SNAPSHOT).
            database.execute("BEGIN IMMEDIATE")
            try:
                yield database
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")


def _open(path: str) -> sqlite3.Connection:
    """A connection to the file at `path`, which is made if it does not exist or is empty.

    Any thread may use it, one at a time. Raises KnowledgeError.
    """
    # Nothing but SQLite may open and close the file: that would drop the locks that another
    # connection of this process holds ("How To Corrupt An SQLite Database File", 2.2). So its size
    # is asked for by `stat`.
    try:
        import sqlite3
    except ImportError:
        raise _unusable(path, "this Python was built without sqlite3") from None
    try:
        try:
            size = os.stat(path).st_size  # noqa: PTH116 - pathlib costs start-up
        except FileNotFoundError:
            from pathlib import Path

            size = 0
            Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):
                # SQLite gives the files beside it (`-wal`, `-shm`) the same mode.
                Path(path).touch(mode=0o600, exist_ok=False)
        if 0 < size < _SMALLEST_DATABASE:
            raise _not_ours(path)
        database = sqlite3.connect(
            path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(database, path)
        except BaseException:
            database.close()
            raise
    except OSError as error:
        raise _unusable(path, error.strerror or error) from error
    except sqlite3.Error as error:
        if _NO_DATABASE in str(error):
            raise _not_ours(path) from error
        raise _unusable(path, error) from error
    return database


def _prepare(database: sqlite3.Connection, path: str) -> None:
    """Make the tables in an empty file; refuse one that is not ours."""
    import sqlite3

    application, version = _marks(database)
    # An earlier version's file lacks a table. What it has in others is mostly learned anew.
    earlier = application == APPLICATION_ID and version < VERSION
    if earlier or (application, version) == (0, 0):
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("BEGIN EXCLUSIVE")
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if earlier or tables == 0:  # else another process has made them at this moment
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
        database.execute("COMMIT")
    application, version = _marks(database)
    if application != APPLICATION_ID:
        raise _not_ours(path)
    if version != VERSION:
        raise KnowledgeError(f"the cache {path} was made by another version of towline")
    # It stays so from the first time on. Where another process is at work just now, a later
    # opening does it.
    with suppress(sqlite3.OperationalError):
        database.execute("PRAGMA journal_mode = WAL")
    # No wait for the disk: a crash of the machine costs knowledge of the last pushes, no more.
    database.execute("PRAGMA synchronous = NORMAL")


def _marks(database: sqlite3.Connection) -> tuple[int, int]:
    """The application id and the version in the file's header."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    return application, version


def _unusable(path: str, reason: object) -> KnowledgeError:
    """The error to raise when SQLite or the system cannot use the file."""
    cure = "; delete the file to begin a new one" if "malformed" in str(reason) else ""
    return KnowledgeError(f"the cache {path} cannot be used: {reason}{cure}")


def _not_ours(path: str) -> KnowledgeError:
    return KnowledgeError(f"{path} is no cache of towline's, so it was left alone")


def _replace(database: sqlite3.Connection, kind: str, name: str, value: bytes, life: int) -> None:
    """Put a value, or nothing where it is empty; those of its kind that are over are dropped."""
    now = time.time()
    drop = "DELETE FROM value WHERE kind = ? AND (name = ? OR until <= ?)"
    database.execute(drop, (kind, name, now))
    if value:
        until = now + life if life else math.inf
        database.execute("INSERT INTO value VALUES (?, ?, ?, ?)", (kind, name, until, value))
        database.execute(_DROP_SOONEST, {"kind": kind, "kept": MAX_VALUES - 1})


def _packed(digest: Digest) -> bytes | str:
    """A SHA-256 in half the room, as bytes; a digest of another algorithm as its text."""
    return bytes.fromhex(digest.hex) if digest.algorithm == "sha256" else str(digest)
