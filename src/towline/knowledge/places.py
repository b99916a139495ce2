"""The user's folders (XDG Base Directory Specification), and this machine's id in one of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from towline.knowledge.base import KnowledgeError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ID_SIZE = 32
"""Bytes of this machine's secret: the length that HMAC-SHA256 wants (RFC 2104, section 3)."""


def default_cache_path(environ: Mapping[str, str]) -> str:
    """The SQLite file in the user's cache directory.

    Raises KnowledgeError when the environment names no such directory.
    """
    return f"{_folder(environ, 'XDG_CACHE_HOME', '.cache')}/knowledge.sqlite"


def machine_id(environ: Mapping[str, str]) -> bytes:
    """This machine's secret, made once and kept in the user's data folder."""
    # Where it cannot be kept, the next process has another one: what this process writes into the
    # cache then counts as another machine's, which costs trust and nothing else.
    fresh = os.urandom(_ID_SIZE)
    try:
        text = kept(environ, "machine-id", f"{fresh.hex()}\n".encode())
        found = bytes.fromhex(text.decode("ascii"))
    except (KnowledgeError, OSError, ValueError):
        return fresh
    return found if len(found) == _ID_SIZE else fresh  # a file that was cut short is no secret


def kept(environ: Mapping[str, str], name: str, fresh: bytes) -> bytes:
    """The content of a file in the user's data folder. If there is none, `fresh` is written there.

    Only the user can read the file, and nobody ever sees a part of it. Raises KnowledgeError when
    the environment names no such folder, and OSError.
    """
    path = f"{_folder(environ, 'XDG_DATA_HOME', '.local/share')}/{name}"
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs start-up
            return file.read()
    except FileNotFoundError:
        return _put(path, fresh)


def _folder(environ: Mapping[str, str], variable: str, below_home: str) -> str:
    base, home = environ.get(variable, ""), environ.get("HOME", "")
    if not base.startswith("/"):  # the specification has relative paths ignored
        if not home.startswith("/"):
            raise KnowledgeError(
                f"there is no place for a cache: neither {variable} nor HOME is an absolute path"
            )
        base = f"{home.rstrip('/')}/{below_home}"
    return f"{base.rstrip('/')}/towline"


def _put(name: str, fresh: bytes) -> bytes:
    from pathlib import Path

    path = Path(name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
    beside.touch(mode=0o600, exist_ok=False)
    try:
        beside.write_bytes(fresh)
        # A link and not a rename: of two processes the first wins, and its file is never replaced.
        os.link(beside, path)
    except FileExistsError:  # another process was faster: its content counts
        return path.read_bytes()
    finally:
        beside.unlink()
    return fresh
