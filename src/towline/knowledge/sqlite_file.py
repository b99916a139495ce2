"""The SQLite file itself: made, recognised, opened.

Nothing here opens and closes the file beside SQLite: that would drop the locks that this process
holds on it by another connection (SQLite, "How To Corrupt An SQLite Database File", 2.2).
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from towline.knowledge.base import KnowledgeError

if TYPE_CHECKING:
    import sqlite3

APPLICATION_ID = 0x746F776C
"""Stands in the file's header, so that nobody else's database is taken for ours ("towl")."""
VERSION = 1
PATIENCE = 2.0
"""Seconds to wait for another process that writes; that takes it well under a millisecond."""
_SMALLEST_DATABASE = 512
"""Bytes; SQLite takes a shorter file for an empty one and writes over it."""
_NO_DATABASE = "not a database"
"""What SQLite says of a file that begins in another way: perhaps the user's image."""

# `place` orders the entries of a DiffID; no clock is trusted with that. Without a rowid the
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


def open_file(path: str) -> sqlite3.Connection:
    """A connection to the file at `path`, which is made if it is not there, or empty.

    Any thread may use it, one at a time. Raises KnowledgeError.
    """
    try:
        import sqlite3
    except ImportError:
        raise unusable(path, "this Python was built without sqlite3") from None
    try:
        try:
            size = os.stat(path).st_size  # noqa: PTH116 - pathlib costs start-up
        except FileNotFoundError:
            size = 0
            _touch(path)
        if 0 < size < _SMALLEST_DATABASE:
            raise _not_ours(path)
        return _opened(path)
    except OSError as error:
        raise unusable(path, error.strerror or error) from error
    except sqlite3.Error as error:
        if _NO_DATABASE in str(error):
            raise _not_ours(path) from error
        raise unusable(path, error) from error


def _touch(name: str) -> None:
    from pathlib import Path

    path = Path(name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.touch(mode=0o600, exist_ok=False)  # SQLite's files beside it take over the mode


def unusable(path: str, reason: object) -> KnowledgeError:
    """What to raise when SQLite or the system cannot use the file."""
    cure = "; delete the file to begin a new one" if "malformed" in str(reason) else ""
    return KnowledgeError(f"the cache {path} cannot be used: {reason}{cure}")


def _not_ours(path: str) -> KnowledgeError:
    return KnowledgeError(f"{path} is no cache of towline's, so it was left alone")


def _opened(path: str) -> sqlite3.Connection:
    import sqlite3

    database = sqlite3.connect(
        path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
    )
    try:
        if _marks(database) == (0, 0):
            _make(database)
        _check(database, path)
        _tune(database)
    except BaseException:
        database.close()
        raise
    return database


def _marks(database: sqlite3.Connection) -> tuple[int, int]:
    """Whose file it is, and in which version."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    return application, version


def _make(database: sqlite3.Connection) -> None:
    """Make the tables in an empty file, unless another process does at this moment."""
    database.execute("PRAGMA auto_vacuum = INCREMENTAL")
    database.execute("BEGIN EXCLUSIVE")
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables == 0:
        for statement in _SCHEMA.split(";"):
            database.execute(statement)
    database.execute("COMMIT")


def _check(database: sqlite3.Connection, path: str) -> None:
    application, version = _marks(database)
    if application != APPLICATION_ID:
        raise _not_ours(path)
    if version != VERSION:
        raise KnowledgeError(f"the cache {path} was made by another version of towline")


def _tune(database: sqlite3.Connection) -> None:
    import sqlite3

    # Already so but for the first time; while another process is at work, a later opening does it.
    with suppress(sqlite3.OperationalError):
        database.execute("PRAGMA journal_mode = WAL")
    # What a crash of the machine takes is knowledge of the last pushes; no wait for the disk.
    database.execute("PRAGMA synchronous = NORMAL")
