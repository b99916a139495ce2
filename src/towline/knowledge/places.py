"""Where things of the user's are kept (XDG Base Directory Specification), and this machine's id."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from towline.knowledge.base import KnowledgeError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ID_SIZE = 32


def default_cache_path(environ: Mapping[str, str]) -> Path:
    """The SQLite file in the user's cache directory.

    Raises KnowledgeError when the environment names no such directory.
    """
    return _folder(environ, "XDG_CACHE_HOME", ".cache") / "knowledge.sqlite"


def machine_id(environ: Mapping[str, str]) -> bytes:
    """A secret made once and kept in the user's data folder; where there is none, made now.

    Without a place for it, what this process writes will be another machine's to the next one,
    which costs trust and nothing else.
    """
    fresh = os.urandom(_ID_SIZE)
    try:
        path = _folder(environ, "XDG_DATA_HOME", ".local/share") / "machine-id"
        return _read_id(path) or _keep_id(path, fresh)
    except (KnowledgeError, OSError, ValueError):
        return fresh


def _folder(environ: Mapping[str, str], variable: str, below_home: str) -> Path:
    base = Path(environ.get(variable, ""))
    home = Path(environ.get("HOME", ""))
    if not base.is_absolute():  # the specification: relative paths are to be ignored
        if not home.is_absolute():
            raise KnowledgeError(
                f"there is no place for a cache: neither {variable} nor HOME is set"
            )
        base = home / below_home
    return base / "towline"


def _read_id(path: Path) -> bytes | None:
    """Raises ValueError for one that is damaged."""
    try:
        kept = bytes.fromhex(path.read_text("ascii"))
    except FileNotFoundError:
        return None
    if len(kept) != _ID_SIZE:
        raise ValueError(f"{path} holds {len(kept)} bytes instead of {_ID_SIZE}")
    return kept


def _keep_id(path: Path, fresh: bytes) -> bytes:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
    beside.touch(mode=0o600, exist_ok=False)
    try:
        beside.write_text(fresh.hex() + "\n", "ascii")
        os.link(beside, path)  # fails where another process was quicker: then its id counts
    except FileExistsError:
        return _read_id(path) or fresh
    finally:
        beside.unlink()
    return fresh
