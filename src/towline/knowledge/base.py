"""What is remembered, and the interface of every store that remembers it.

A store never fails a push: it raises `KnowledgeError`, which `safe` turns into one warning. Which
entry is worth trying is decided by `push/plan`.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, get_args

from towline.errors import InvalidReference
from towline.reference import parse
from towline.spec.media_types import Compression

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from towline.spec.digest import Digest

MAX_ENTRIES = 50
"""Entries kept of one DiffID; the oldest is dropped first."""
MAX_CONFIG_SIZE = 64 << 10
"""Bytes of the largest image config that is remembered; a larger one is fetched again."""
_TOO_LARGE = 1 << 63
"""Bytes of no blob: sizes in registries and in SQLite are signed numbers of 64 bits."""
_COMPRESSIONS = frozenset(get_args(Compression))
_PROFILE = r"[!-~]{1,100}"


class SavedSession(NamedTuple):
    """An upload session that a registry has open, and what is known of it."""

    owner: str
    """The process that writes it; empty: none does."""
    repository: str
    """Full name, registry host and port included."""
    blob: str
    """The DiffID of a layer that is compressed on the way, the digest of any other blob."""
    profile: str
    """The profile that makes the bytes, with version and family; empty: they go as they are."""
    size: int
    """Bytes of the blob in its source."""
    url: str
    """The address of the session's next request."""
    acknowledged: int = 0
    """Bytes that the registry has said it holds."""
    sent: int = 0
    """Bytes that were sent, or more."""
    saved: float = 0.0
    """When it was written: seconds since the epoch."""
    made: tuple[str, int] = ("", 0)
    """Digest and size of the whole blob, once all of it was sent."""
    learned: bool = False
    """Written by another machine, without a key that is shared."""


class KnowledgeError(Exception):
    """The store cannot be read or written. `str()` is a sentence for a warning."""


class Entry(NamedTuple):
    """A layer was seen as this blob in this repository."""

    diff_id: Digest
    digest: Digest
    size: int
    """Bytes of the blob."""
    media_type: str
    compression: Compression
    """How the bytes are compressed: `gzip`, `zstd` or `none`."""
    profile: str | None
    """The profile, with version and family, of a blob that we made; None: made elsewhere."""
    repository: str
    """Full name, registry host and port included."""
    account: str
    """HMAC of the credentials with which it was seen; empty: anonymously."""
    learned: bool = False
    """DiffID and digest were paired by others (a registry's documents), not by our own hashing."""
    seen: float = 0.0
    """Seconds since the epoch; 0 in `record` means now."""


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
    """The interface of a store. This class itself knows nothing, and remembers nothing.

    It serves as `--cache none`, and stands in for a store that fails. Stores are safe from any
    thread; those in SQLite and Redis are safe from several processes.
    """

    _account_key: bytes | None = None

    def entries(self, diff_ids: Sequence[Digest]) -> Mapping[Digest, Sequence[Entry]]:
        """The entries of each DiffID, oldest first; DiffIDs without entries are left out.

        Entries that others wrote into a shared store are marked as `learned`, or left out (see
        `signing`).
        """
        del diff_ids
        return {}

    def record(self, entries: Sequence[Entry]) -> None:
        """Add entries; one that is there already moves to the newest place.

        It is the same entry if DiffID, digest, repository, account and `learned` are equal.
        """

    def forget(self, diff_id: Digest, digest: Digest, repository: str) -> None:
        """Drop the entries of that blob in that repository."""

    def host_facts(self, host: str) -> Mapping[str, str]:
        """Facts of a registry host, by name; never a secret."""
        del host
        return {}

    def record_host(self, host: str, facts: Mapping[str, str]) -> None:
        """Add or replace facts of a host."""

    def config(self, digest: Digest) -> bytes | None:
        """The image config with that digest, which is checked; None: it is not remembered."""
        del digest
        return None

    def record_config(self, digest: Digest, content: bytes) -> None:
        """Remember an image config, if it is small enough."""

    def account_key(self) -> bytes:
        """The key of the credentials' HMAC. It is kept in the store, so that machines agree."""
        if self._account_key is None:
            self._account_key = os.urandom(32)
        return self._account_key

    def session(self, key: str) -> SavedSession | None:
        """The upload session of a transfer, if one is under way or was left behind.

        One that others wrote into a shared store is marked as `learned`, or left out (`signing`).
        """
        del key
        return None

    def sessions(self) -> Sequence[SavedSession]:
        """All upload sessions, in any order."""
        return ()

    def swap_session(self, key: str, owner: str | None, after: SavedSession | None) -> bool:
        """If the session belongs to `owner` (None: there is no session), put `after` in its place.

        `after` None drops it. Returns False, and changes nothing, where it belongs to another. Of
        two processes that want the same session one gets it: this is one atomic operation.
        """
        del key, owner, after
        return False

    def beat(self, owner: str) -> None:
        """Note that this owner of sessions lives, for the next ten seconds (`store.LEASE`)."""

    def is_alive(self, owner: str) -> bool:
        """Whether the owner has called `beat` in the last ten seconds."""
        del owner
        return False

    def stats(self) -> Stats:
        """The store's place and counts."""
        return Stats("none", 0, 0, 0)

    def prune(self, older_than: float) -> int:
        """Drop what was last seen before that time (seconds since the epoch).

        Returns the number of entries and sessions that were dropped.
        """
        del older_than
        return 0

    def clear(self) -> None:
        """Drop everything but the store itself and the account key."""

    def close(self) -> None:
        """Close files and connections."""


def is_sound(entry: Entry) -> bool:
    """Whether the values of an entry have the right form, whoever wrote it."""
    # The repository goes into paths and scopes, the size into a manifest. Digests are checked when
    # they are made, and the account is only compared.
    return (
        _is_repository(entry.repository)
        and 0 <= entry.size < _TOO_LARGE
        and entry.compression in _COMPRESSIONS
        and (entry.profile is None or re.fullmatch(_PROFILE, entry.profile) is not None)
    )


@lru_cache(maxsize=1024)
def _is_repository(name: str) -> bool:
    """Whether the text is the full name of a repository, and nothing more."""
    try:
        reference = parse(name)
    except InvalidReference:
        return False
    return str(reference.repository) == name == str(reference)
