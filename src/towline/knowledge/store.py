"""What stores have in common: lists of entries, and values, each of a kind and with a name.

Facts of a host, image configs, upload sessions and the key of accounts are such values. A store
never fails a push: it raises `KnowledgeError`, which `safe` turns into one warning.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from towline.knowledge.base import Entry, SavedSession, Signed, Signer, Stats
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


MAX_CONFIG_SIZE = 64 << 10
"""Bytes of the largest image config that is remembered; a larger one is fetched again."""
CONFIG_LIFE = 90 * 24 * 3600
"""Seconds for which an image config is kept."""
SESSION_LIFE = 7 * 24 * 3600
"""Seconds for which an unused session is kept: distribution purges it then."""
LEASE = 10
"""Seconds for which an owner counts as alive after it has said so, every three seconds."""
_RACES_MAX = 20
"""Attempts to write facts of a host, where another process writes some meanwhile each time."""
_KINDS_OF_ENTRY = (str, str, str, int, int, str, str, str | None, int | float, str)
_KINDS_OF_SESSION = (str, str, str, str, int, str, int, int, int | float)
"""The types of the values that are kept, in their order."""
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
"""Errors of reading values that are not ours."""


class Knowledge:
    """What is remembered. This class itself keeps nothing: a subclass says how that is done.

    As it is it serves as `--cache none`, and stands in for a store that fails. Stores are safe from
    any thread; those in SQLite and Redis are safe from several processes, and every method of
    theirs, `__init__` too, raises KnowledgeError when the store cannot be used.
    """

    _account_key: bytes | None = None
    _signer = Signer(b"", shared=False)

    # What a subclass has to do.

    def _signed(self, diff_ids: Sequence[Digest]) -> Iterable[tuple[Digest, list[Signed]]]:
        """The entries of each DiffID with their MACs, oldest first."""
        del diff_ids
        return ()

    def record(self, entries: Sequence[Entry]) -> None:
        """Add entries; one that is there already moves to the newest place.

        It is the same entry if DiffID, digest, repository, account and `learned` are equal.
        """

    def forget(self, diff_id: Digest, digest: Digest, repository: str) -> None:
        """Drop the entries of that blob in that repository."""

    def _get(self, kind: str, name: str) -> bytes | None:
        """A value; None: there is none, or its time is over."""
        del kind, name
        return None

    def _all(self, kind: str) -> Iterable[tuple[str, bytes]]:
        """The names and values of that kind."""
        del kind
        return ()

    def _put(self, kind: str, name: str, value: bytes, life: int = 0) -> None:
        """Keep a value, for `life` seconds or, with 0, for good."""

    def _swap(
        self, kind: str, name: str, before: bytes, after: bytes, life: int = 0
    ) -> bool | None:
        """If the value begins with `before` (empty: if there is none), put `after` in its place.

        An empty `after` drops it. Returns whether it was so; None: nothing is kept here. This is
        one atomic operation.
        """
        del kind, name, before, after, life
        return None

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

    # What is made of that.

    def entries(self, diff_ids: Sequence[Digest]) -> Mapping[Digest, Sequence[Entry]]:
        """The entries of each DiffID, oldest first; DiffIDs without entries are left out.

        Entries that others wrote into a shared store are marked as `learned`, or left out (see
        `Signer`).
        """
        found = {
            diff_id: self._signer.admit_all(signed) for diff_id, signed in self._signed(diff_ids)
        }
        return {diff_id: entries for diff_id, entries in found.items() if entries}

    def host_facts(self, host: str) -> Mapping[str, str]:
        """Facts of a registry host, by name; never a secret.

        Those that this machine wrote or, with a key that machines share, its holders.
        """
        return self._own_facts(host, self._get("facts", host))

    def record_host(self, host: str, facts: Mapping[str, str]) -> None:
        """Add or replace facts of a host; others that are written at the same time stay."""
        for _ in range(_RACES_MAX if facts else 0):
            before = self._get("facts", host)
            text = json.dumps({**self._own_facts(host, before), **facts})
            signed = json.dumps([text, self._signer.mac("facts", host, text)])
            if self._swap("facts", host, before or b"", signed.encode()):
                return

    def _row(self, entry: Entry) -> tuple[object, ...]:
        """What is kept of an entry beside its DiffID; the first four values tell it from others."""
        return (
            entry.digest,
            entry.repository,
            entry.account,
            int(entry.learned),
            entry.size,
            entry.media_type,
            entry.compression,
            entry.profile,
            entry.seen or time.time(),
            self._signer.sign(entry),
        )

    def _own_facts(self, host: str, value: bytes | None) -> dict[str, str]:
        try:
            text, mac = json.loads(value or b"[0, 0]")
            if self._signer.is_ours(mac, "facts", host, text):
                facts: dict[str, str] = json.loads(text)
                return facts
        except UNREADABLE:
            pass
        return {}

    def config(self, digest: Digest) -> bytes | None:
        """The image config with that digest, which is checked; None: it is not remembered."""
        content = self._get("config", digest)
        return content if content and Digest.of(content, digest.algorithm) == digest else None

    def record_config(self, digest: Digest, content: bytes) -> None:
        """Remember an image config for 90 days, if it is small enough."""
        if len(content) <= MAX_CONFIG_SIZE:
            self._put("config", digest, content, CONFIG_LIFE)

    def account_key(self) -> bytes:
        """The key of the credentials' HMAC. It is kept in the store, so that machines agree."""
        if self._account_key is None:
            found = self._get("secret", "account")
            if not found:
                fresh = os.urandom(32)
                self._swap("secret", "account", b"", fresh)
                found = self._get("secret", "account") or fresh
            self._account_key = found
        return self._account_key

    def session(self, key: str) -> SavedSession | None:
        """The upload session of a transfer, if one is under way or was left behind.

        One that others wrote into a shared store is marked as `learned`, or left out (`Signer`).
        """
        text = self._get("session", key)
        return read(text, key, self._signer) if text else None

    def sessions(self) -> Sequence[SavedSession]:
        """All upload sessions, in any order."""
        found = (read(text, key, self._signer) for key, text in self._all("session"))
        return [session for session in found if session]

    def swap_session(self, key: str, owner: str | None, after: SavedSession | None) -> bool | None:
        """If the session belongs to `owner` (None: there is no session), put `after` in its place.

        `after` None drops it. Returns False, and changes nothing, where it belongs to another; None
        where no sessions are kept, so that nobody else can have it. Of two processes that want the
        same session one gets it: this is one atomic operation.
        """
        before = "" if owner is None else beginning([owner])
        text = written(after, key, self._signer) if after else ""
        return self._swap("session", key, before.encode(), text.encode(), SESSION_LIFE)

    def _prune_sessions(self, older_than: float) -> int:
        """Drop sessions that were written before that time, or cannot be read; their number."""
        dropped = 0
        for key, text in [*self._all("session")]:
            session = read(text, key, self._signer)
            if session is None or session.saved < older_than:
                # One that was written meanwhile stays.
                dropped += bool(self._swap("session", key, text, b""))
        return dropped

    def beat(self, owner: str) -> None:
        """Note that this owner of sessions lives, for the next ten seconds (`LEASE`)."""
        self._put("alive", owner, b"1", LEASE)

    def is_alive(self, owner: str) -> bool:
        """Whether the owner has called `beat` in the last ten seconds."""
        return self._get("alive", owner) is not None


def entry_of(diff_id: Digest, row: Sequence[Any]) -> Signed:
    """The entry of a row, and its MAC. Raises one of `UNREADABLE`."""
    if not all(map(isinstance, row, _KINDS_OF_ENTRY)):
        raise ValueError("a value is of another kind")
    digest, repository, account, learned, size, media_type, compression, profile, seen, mac = row
    of_blob = (Digest(digest), size, media_type, compression, profile)
    return Entry(diff_id, *of_blob, repository, account, bool(learned), float(seen)), mac


def written(session: SavedSession, key: str, signer: Signer) -> str:
    """The text of a session."""
    parts = session[:-1]
    return json.dumps([*parts, signer.mac("session", key, json.dumps(parts))])


def beginning(parts: Sequence[object]) -> str:
    """The beginning of the text of a longer JSON array with these first elements."""
    return json.dumps(parts, separators=(",", ":"))[:-1] + ","


def read(text: str | bytes, key: str, signer: Signer) -> SavedSession | None:
    """The session in a text; None: it is damaged, or not to be believed at all."""
    try:
        *parts, (digest, length), mac = json.loads(text)
        if not all(map(isinstance, parts, _KINDS_OF_SESSION)):
            return None
        session = SavedSession._make([*parts, (str(digest), int(length)), False])
        session = session._replace(acknowledged=max(0, session.acknowledged))
    except UNREADABLE:
        return None
    if signer.is_ours(str(mac), "session", key, json.dumps(session[:-1])):
        return session
    return None if signer.shared else session._replace(learned=True)
