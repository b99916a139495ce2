"""The SQLite file itself: made whole or not at all, recognised, opened."""

from __future__ import annotations

import os
import secrets
from contextlib import closing
from typing import TYPE_CHECKING

from towline.knowledge.base import KnowledgeError

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

APPLICATION_ID = 0x746F776C
"""Stands in the file's header, so that nobody else's database is taken for ours ("towl")."""
VERSION = 1
PATIENCE = 2.0
"""Seconds to wait for another process that writes; that takes it well under a millisecond."""

# `place` orders the entries of a DiffID; no clock is trusted with that. Without a rowid the
# entries of a DiffID lie side by side, so that a look-up reads one page or two.
_SCHEMA = f"""
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
BEGIN;
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
COMMIT;
"""


def open_file(path: Path) -> sqlite3.Connection:
    """A connection to the file at `path`, which is made if it is not there or empty.

    Any thread may use it, one at a time. Raises KnowledgeError.
    """
    import sqlite3

    try:
        if not _is_begun(path):
            _make(path)
        return _recognised(_connect(path), path)
    except OSError as error:
        raise unusable(path, error.strerror or error) from error
    except sqlite3.Error as error:
        raise unusable(path, error) from error


def unusable(path: Path, reason: object) -> KnowledgeError:
    """What to raise when SQLite or the system cannot use the file."""
    damaged = "not a database" in str(reason) or "malformed" in str(reason)
    cure = "; delete the file to begin a new one" if damaged else ""
    return KnowledgeError(f"the cache {path} cannot be used: {reason}{cure}")


def _is_begun(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def _connect(path: Path) -> sqlite3.Connection:
    import sqlite3

    return sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)


def _recognised(database: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    try:
        _check(database, path)
        # What a crash of the machine takes is knowledge of the last pushes; no wait for the disk.
        database.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        database.close()
        raise
    return database


def _check(database: sqlite3.Connection, path: Path) -> None:
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise KnowledgeError(f"{path} is no cache of towline's, so it was left alone")
    if version != VERSION:
        raise KnowledgeError(f"the cache {path} was made by another version of towline")


def _make(path: Path) -> None:
    """Make it beside and move it into place, so that no other process sees half of it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    try:
        # SQLite's own files beside it take over the mode.
        beside.touch(mode=0o600, exist_ok=False)
        with closing(_connect(beside)) as database:
            database.executescript(_SCHEMA)
        _move(beside, path)
    finally:
        for ending in ("", "-wal", "-shm"):
            beside.with_name(beside.name + ending).unlink(missing_ok=True)


def _move(beside: Path, path: Path) -> None:
    if path.exists():  # empty, as `mktemp` leaves it
        beside.replace(path)
        return
    try:
        os.link(beside, path)  # never over the file of a process that was quicker
    except FileExistsError:
        return
    except OSError:  # a file system without links
        beside.replace(path)
