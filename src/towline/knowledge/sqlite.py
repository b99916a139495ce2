"""Knowledge in a SQLite file, shared by all of a user's processes.

One connection behind a lock serves all threads: a statement takes some microseconds, and a thread
that ends leaves no connection behind. SQLite itself keeps processes apart, in WAL mode.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from towline.knowledge.base import (
    MAX_CONFIG_SIZE,
    MAX_ENTRIES,
    Entry,
    Knowledge,
    KnowledgeError,
    Stats,
    is_content_of,
)
from towline.spec.digest import Digest
from towline.spec.media_types import layer_compression

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence
    from types import UnionType

    from towline.knowledge.base import SavedSession
    from towline.knowledge.signing import Signer

    _Kinds = tuple[type | UnionType, ...]

APPLICATION_ID = 0x746F776C
"""Marks the file in its header ("towl"), so that no other database is taken for ours."""
VERSION = 1
PATIENCE = 2.0
"""Seconds to wait for another process that writes; a write takes well under a millisecond."""
_SMALLEST_DATABASE = 512
"""Bytes. SQLite takes a shorter file for an empty database and would write over it, whatever it
is."""
_NO_DATABASE = "not a database"
"""SQLite's words for a file with another beginning: perhaps the user's image."""

# `place` orders the entries of a DiffID, because clocks may be set back. Without a rowid the
# entries of a DiffID lie side by side, so that a look-up reads one page or two.
_SCHEMA = f"""
CREATE TABLE entry (
    diff_id BLOB NOT NULL, digest BLOB NOT NULL, repository TEXT NOT NULL, account TEXT NOT NULL,
    learned INTEGER NOT NULL, place INTEGER NOT NULL, size INTEGER NOT NULL,
    media_type TEXT NOT NULL, compression TEXT NOT NULL, profile TEXT, seen REAL NOT NULL,
    mac TEXT NOT NULL,
    PRIMARY KEY (diff_id, digest, repository, account, learned)
) WITHOUT ROWID;
CREATE TABLE host (
    host TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, mac TEXT NOT NULL,
    PRIMARY KEY (host, name)
) WITHOUT ROWID;
CREATE TABLE config (
    place INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, content BLOB NOT NULL,
    seen REAL NOT NULL
);
CREATE TABLE secret (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""

MAX_CONFIGS = 1000
"""Image configs kept; the oldest is dropped first."""

_ENTRIES = """
SELECT digest, size, media_type, compression, profile, repository, account, learned, seen, mac
FROM entry WHERE diff_id = ? ORDER BY place
"""
_KINDS_OF_ENTRY = (bytes | str, int, str, str, str | None, str, str, int, float, str)
_RECORD = """
INSERT OR REPLACE INTO entry VALUES (
    :diff_id, :digest, :repository, :account, :learned,
    (SELECT coalesce(max(place), 0) + 1 FROM entry WHERE diff_id = :diff_id),
    :size, :media_type, :compression, :profile, :seen, :mac
)
"""
_DROP_OLDEST = """
DELETE FROM entry WHERE diff_id = :diff_id AND place <= (
    SELECT place FROM entry WHERE diff_id = :diff_id ORDER BY place DESC LIMIT 1 OFFSET :kept
)
"""
# Made when first needed, at the same `user_version`: older versions of towline go on using a file
# that has this table beside theirs.
_SESSIONS = """
CREATE TABLE IF NOT EXISTS session (
    key TEXT PRIMARY KEY, owner TEXT NOT NULL, text TEXT NOT NULL, alive REAL NOT NULL
) WITHOUT ROWID
"""
_HAS_SESSIONS = "SELECT 1 FROM sqlite_master WHERE name = 'session'"
_DROP_OLDEST_CONFIGS = "DELETE FROM config WHERE place <= (SELECT max(place) FROM config) - ?"


class SqliteKnowledge(Knowledge):
    """A `Knowledge` in the file at `path`, which is made if it does not exist.

    Every method, `__init__` too, raises KnowledgeError when the file cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str], signer: Signer) -> None:
        self._path = os.fspath(path)
        self._signer = signer
        self._lock = threading.Lock()
        self._database = _open(self._path)

    def entries(self, diff_ids: Sequence[Digest]) -> Mapping[Digest, Sequence[Entry]]:
        """One look-up for each DiffID."""
        rows = {
            diff_id: self._rows(_KINDS_OF_ENTRY, _ENTRIES, _packed(diff_id)) for diff_id in diff_ids
        }
        try:
            found = {
                diff_id: self._signer.admit_all(_signed(diff_id, row) for row in rows[diff_id])
                for diff_id in rows
            }
        except ValueError as error:
            raise _unusable(self._path, f"malformed entry: {error}") from error
        return {diff_id: entries for diff_id, entries in found.items() if entries}

    def record(self, entries: Sequence[Entry]) -> None:
        """One transaction for all of them."""
        now = time.time()
        with self._writing() as database:
            for entry in entries:
                row = {
                    **entry._asdict(),
                    "diff_id": _packed(entry.diff_id),
                    "digest": _packed(entry.digest),
                    "seen": entry.seen or now,
                    "mac": self._signer.sign(entry),
                }
                database.execute(_RECORD, row)
                database.execute(_DROP_OLDEST, {"diff_id": row["diff_id"], "kept": MAX_ENTRIES})

    def forget(self, diff_id: Digest, digest: Digest, repository: str) -> None:
        """Whatever the account, and however it was known."""
        key = (_packed(diff_id), _packed(digest), repository)
        with self._writing() as database:
            database.execute(
                "DELETE FROM entry WHERE diff_id = ? AND digest = ? AND repository = ?", key
            )

    def host_facts(self, host: str) -> Mapping[str, str]:
        """The facts of a host; those with another machine's MAC are left out."""
        query = "SELECT name, value, mac FROM host WHERE host = ?"
        return self._signer.admit_facts(host, self._rows((str, str, str), query, host))

    def record_host(self, host: str, facts: Mapping[str, str]) -> None:
        """One transaction for all of them."""
        signed = self._signer.sign_facts(host, facts)
        with self._writing() as database:
            database.executemany(
                "INSERT OR REPLACE INTO host VALUES (?, ?, ?, ?)",
                [(host, *fact) for fact in signed],
            )

    def config(self, digest: Digest) -> bytes | None:
        """Checked against its digest, so it needs no MAC."""
        query = "SELECT content FROM config WHERE digest = ?"
        found = (row[0] for row in self._rows((bytes,), query, _packed(digest)))
        return next((content for content in found if is_content_of(digest, content)), None)

    def record_config(self, digest: Digest, content: bytes) -> None:
        """The newest thousand are kept."""
        if len(content) > MAX_CONFIG_SIZE:
            return
        with self._writing() as database:
            database.execute(
                "INSERT OR REPLACE INTO config (digest, content, seen) VALUES (?, ?, ?)",
                (_packed(digest), content, time.time()),
            )
            database.execute(_DROP_OLDEST_CONFIGS, (MAX_CONFIGS,))

    def account_key(self) -> bytes:
        """Made by whichever process is the first to ask."""
        if self._account_key is None:
            fresh = os.urandom(32)
            if not (found := self._secret()):
                with self._writing() as database:
                    database.execute("INSERT OR IGNORE INTO secret VALUES ('account', ?)", (fresh,))
                found = self._secret()
            self._account_key = found or fresh
        return self._account_key

    def _secret(self) -> bytes | None:
        rows = self._rows((bytes,), "SELECT value FROM secret WHERE name = 'account'")
        return rows[0][0] if rows else None

    def session(self, key: str) -> SavedSession | None:
        """One look-up."""
        return next(iter(self._sessions(key)), None)

    def sessions(self) -> Sequence[SavedSession]:
        """Reads the whole table."""
        return self._sessions()

    def _sessions(self, key: str | None = None) -> list[SavedSession]:
        """The session of a key, or all of them."""
        from towline.knowledge.sessions import LIFE, read  # an unchanged push needs none

        with self._using() as database:
            if not database.execute(_HAS_SESSIONS).fetchone():
                return []
            query = "SELECT key, text FROM session WHERE key = coalesce(?, key) AND alive > ?"
            rows = database.execute(query, (key, time.time() - LIFE)).fetchall()
        found = (read(text, key, self._signer) for key, text in rows)
        return [session for session in found if session]

    def swap_session(self, key: str, owner: str | None, after: SavedSession | None) -> bool:
        """One transaction, in which sessions that are too old are dropped first."""
        from towline.knowledge.sessions import LIFE, written

        now = time.time()
        with self._writing() as database:
            database.execute(_SESSIONS)
            database.execute("DELETE FROM session WHERE alive <= ?", (now - LIFE,))
            found = database.execute("SELECT owner FROM session WHERE key = ?", (key,)).fetchone()
            if found != (None if owner is None else (owner,)):
                return False
            if after is None:
                database.execute("DELETE FROM session WHERE key = ?", (key,))
            else:
                row = (key, after.owner, written(after, key, self._signer), now)
                database.execute("INSERT OR REPLACE INTO session VALUES (?, ?, ?, ?)", row)
            return True

    def beat(self, owner: str) -> None:
        """Note the time at each session of the owner."""
        with self._writing() as database:
            database.execute(_SESSIONS)
            database.execute("UPDATE session SET alive = ? WHERE owner = ?", (time.time(), owner))

    def is_alive(self, owner: str) -> bool:
        """Whether the latest time at the owner's sessions is new enough."""
        from towline.knowledge.sessions import LEASE

        query = "SELECT max(alive) FROM session WHERE owner = ?"
        with self._using() as database:
            (alive,) = database.execute(query, (owner,)).fetchone()
        return alive is not None and alive > time.time() - LEASE

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
        return Stats(self._path, len(layers), len(known), size, len(self.sessions()))

    def prune(self, older_than: float) -> int:
        """Also gives the room back to the file system."""
        with self._writing() as database:
            dropped = database.execute("DELETE FROM entry WHERE seen < ?", (older_than,)).rowcount
            database.execute("DELETE FROM config WHERE seen < ?", (older_than,))
            database.execute(_SESSIONS)
            old = database.execute("DELETE FROM session WHERE alive < ?", (older_than,))
            dropped += old.rowcount
        self._shrink()
        return dropped

    def clear(self) -> None:
        """Also gives the room back to the file system."""
        with self._writing() as database:
            database.execute(_SESSIONS)
            for table in ("entry", "host", "config", "session"):
                database.execute(f"DELETE FROM {table}")  # noqa: S608 - words of our own
        self._shrink()

    def _shrink(self) -> None:
        with self._using() as database:
            database.execute("PRAGMA incremental_vacuum").fetchall()
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the file. No other method may be called afterwards."""
        with self._lock:
            self._database.close()

    def _rows(self, kinds: _Kinds, query: str, *values: object) -> list[Any]:
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

    if _marks(database) == (0, 0):
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("BEGIN EXCLUSIVE")
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables == 0:  # else another process has made them at this moment
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


def _packed(digest: Digest) -> bytes | str:
    """A SHA-256 in half the room, as bytes; a digest of another algorithm as its text."""
    return bytes.fromhex(digest.hex) if digest.algorithm == "sha256" else str(digest)


def _signed(diff_id: Digest, row: Sequence[Any]) -> tuple[Entry, str]:
    """The entry and the MAC of a row."""
    digest, *values, mac = row
    packed = digest if isinstance(digest, str) else "sha256:" + digest.hex()
    entry = Entry(diff_id, Digest(packed), *values)
    return entry._replace(learned=bool(entry.learned)), mac
