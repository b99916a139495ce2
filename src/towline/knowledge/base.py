"""What is remembered, and what can be asked of everything that remembers.

A store never fails a push: its errors are `KnowledgeError`s that whoever opened it turns into one
warning. Which entry is worth trying is `push/plan`'s to say.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, get_args

from towline.errors import InvalidReference
from towline.reference import parse
from towline.spec.compression import Compression

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from towline.spec.digest import Digest

MAX_ENTRIES = 50
"""Entries kept of one DiffID; the oldest goes first."""
MAX_CONFIG_SIZE = 64 << 10
"""Bytes of an image config worth remembering; larger ones are fetched again."""
_TOO_LARGE = 1 << 63
_COMPRESSIONS = frozenset(get_args(Compression))
_PROFILE = r"[!-~]{1,100}"


class SavedSession(NamedTuple):
    """An upload session that a registry has open, and what is known of it."""

    owner: str
    """Which process writes it; empty: none does."""
    repository: str
    """Full name, registry host and port included."""
    blob: str
    """DiffID of a layer that is compressed on the way, the digest of any other blob."""
    profile: str
    """With version and family: what the bytes are made by; empty where they go as they are."""
    size: int
    """Bytes of the blob as its source has it."""
    url: str
    """Where it goes on."""
    acknowledged: int = 0
    """Bytes that the registry has said it holds."""
    sent: int = 0
    """Bytes that were sent at least."""
    saved: float = 0.0
    """Seconds since the epoch."""
    made: tuple[str, int] = ("", 0)
    """Digest and size of the whole, once all of it was sent."""
    learned: bool = False
    """Written by another machine, with which no key is shared."""


class KnowledgeError(Exception):
    """The store cannot be read or written; its text is for one warning."""


class Entry(NamedTuple):
    """A layer was seen as this blob in this repository."""

    diff_id: Digest
    digest: Digest
    size: int
    """Bytes of the blob."""
    media_type: str
    compression: Compression
    """`gzip`, `zstd` or `none`: what the bytes are."""
    profile: str | None
    """Profile with version and family when it was made by us; None for blobs made elsewhere."""
    repository: str
    """Full name, registry host and port included."""
    account: str
    """HMAC of the credentials it was seen with; empty for anonymous."""
    learned: bool = False
    """Paired by a registry's manifest and config, not by our own hashing."""
    seen: float = 0.0
    """Seconds since the epoch; 0 when it is recorded stands for now."""


class Stats(NamedTuple):
    """What `cache stats` prints."""

    path: str
    diff_ids: int
    entries: int
    bytes: int
    """On disk, or in the shared cache's memory."""
    sessions: int = 0
    """Uploads that are under way, or can be gone on with."""


class Knowledge:
    """What can be asked of a store; by itself it knows nothing, and remembers nothing.

    So it is `--cache none`, and what is left when a store fails. Safe from many threads, and
    (SQLite, Redis) from many processes.
    """

    _account_key: bytes | None = None

    def entries(self, diff_ids: Sequence[Digest]) -> Mapping[Digest, Sequence[Entry]]:
        """What is known of each DiffID, oldest first; DiffIDs without entries are left out.

        What others wrote into a shared store is marked as `learned`, or left out (`signing`).
        """
        del diff_ids
        return {}

    def record(self, entries: Sequence[Entry]) -> None:
        """Add entries, or move equal ones to the newest place.

        Equal are those of one DiffID, digest, repository, account and way of knowing (`learned`).
        """

    def forget(self, diff_id: Digest, digest: Digest, repository: str) -> None:
        """Drop what is known of that blob in that repository."""

    def host_facts(self, host: str) -> Mapping[str, str]:
        """Facts of a registry host by name; never a token."""
        del host
        return {}

    def record_host(self, host: str, facts: Mapping[str, str]) -> None:
        """Add or replace facts of a host."""

    def config(self, digest: Digest) -> bytes | None:
        """An image config by its digest, which was checked; None when it is not remembered."""
        del digest
        return None

    def record_config(self, digest: Digest, content: bytes) -> None:
        """Remember an image config, if it is small enough."""

    def account_key(self) -> bytes:
        """The key of the credentials' HMAC; kept in the store, so that machines agree."""
        if self._account_key is None:
            self._account_key = os.urandom(32)
        return self._account_key

    def session(self, key: str) -> SavedSession | None:
        """The upload session of a transfer, if one is under way or was left.

        What others wrote into a shared store is marked as `learned`, or left out (`signing`).
        """
        del key
        return None

    def sessions(self) -> Sequence[SavedSession]:
        """All of them, in any order."""
        return ()

    def swap_session(self, key: str, owner: str | None, after: SavedSession | None) -> bool:
        """Put `after` in the place of that owner's session; None: of none, or nothing instead.

        False, and nothing is changed, where it is another's by now. What makes two processes that
        want one session agree.
        """
        del key, owner, after
        return False

    def beat(self, owner: str) -> None:
        """Note that the owner of sessions is alive, for the next ten seconds (`sessions.LEASE`)."""

    def is_alive(self, owner: str) -> bool:
        """Whether it has said so of itself."""
        del owner
        return False

    def stats(self) -> Stats:
        """Counts."""
        return Stats("none", 0, 0, 0)

    def prune(self, older_than: float) -> int:
        """Drop what was last seen before that time (seconds since the epoch); how many entries.

        Sessions count as entries.
        """
        del older_than
        return 0

    def clear(self) -> None:
        """Drop everything but the store itself and the account key."""

    def close(self) -> None:
        """Give back what it holds."""


def is_sound(entry: Entry) -> bool:
    """Whether it is an entry at all, whoever wrote it: its name goes into paths and scopes.

    Its digests are checked by their making; its account is only compared.
    """
    return (
        _is_repository(entry.repository)
        and 0 <= entry.size < _TOO_LARGE
        and entry.compression in _COMPRESSIONS
        and (entry.profile is None or re.fullmatch(_PROFILE, entry.profile) is not None)
    )


@lru_cache(maxsize=1024)
def _is_repository(name: str) -> bool:
    """Whether it is the full name of a repository, and nothing more."""
    try:
        reference = parse(name)
    except InvalidReference:
        return False
    return str(reference.repository) == name == str(reference)


def is_content_of(digest: Digest, content: bytes) -> bool:
    """Whether a store gives back what was put in under this digest."""
    import hashlib

    return hashlib.new(digest.algorithm, content).hexdigest() == digest.hex
