"""What all stores do alike: beside lists of entries they keep values, each of a kind, with a name.

Facts of a host, image configs, upload sessions and the key of accounts are such values.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from towline.knowledge.base import MAX_CONFIG_SIZE, Knowledge, SavedSession

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from towline.knowledge.signing import Signer
    from towline.spec.digest import Digest

CONFIG_LIFE = 90 * 24 * 3600
"""Seconds for which an image config is kept."""
SESSION_LIFE = 7 * 24 * 3600
"""Seconds for which an unused session is kept: distribution purges it then."""
LEASE = 10
"""Seconds for which an owner counts as alive after it has said so, every three seconds."""
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
"""Errors of reading values that are not ours."""


class Store(Knowledge):
    """A `Knowledge` that remembers. A subclass says how lists of entries and values are kept.

    Every method, `__init__` too, raises KnowledgeError when the store cannot be used.
    """

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def _get(self, kind: str, name: str) -> bytes | None:
        """A value; None: there is none, or its time is over."""
        raise NotImplementedError

    def _all(self, kind: str) -> Iterable[tuple[str, bytes]]:
        """The names and values of that kind."""
        raise NotImplementedError

    def _put(self, kind: str, name: str, value: bytes, life: int = 0) -> None:
        """Keep a value, for `life` seconds or, with 0, for good."""
        raise NotImplementedError

    def _swap(self, kind: str, name: str, before: bytes, after: bytes, life: int = 0) -> bool:
        """If the value begins with `before` (empty: if there is none), put `after` in its place.

        An empty `after` drops it. Returns whether it was so. This is one atomic operation.
        """
        raise NotImplementedError

    def host_facts(self, host: str) -> Mapping[str, str]:
        """Those that this machine wrote or, with a key that machines share, its holders."""
        try:
            text, mac = json.loads(self._get("facts", host) or b"[0, 0]")
            if self._signer.is_ours(mac, "facts", host, text):
                facts: dict[str, str] = json.loads(text)
                return facts
        except UNREADABLE:
            pass
        return {}

    def record_host(self, host: str, facts: Mapping[str, str]) -> None:
        """Read, changed and written: of two processes that write at once the last one counts."""
        if facts:
            text = json.dumps({**self.host_facts(host), **facts})
            signed = json.dumps([text, self._signer.mac("facts", host, text)])
            self._put("facts", host, signed.encode())

    def config(self, digest: Digest) -> bytes | None:
        """Checked against its digest, so it needs no MAC."""
        import hashlib

        content = self._get("config", digest)
        same = content and hashlib.new(digest.algorithm, content).hexdigest() == digest.hex
        return content if same else None

    def record_config(self, digest: Digest, content: bytes) -> None:
        """Kept for 90 days."""
        if len(content) <= MAX_CONFIG_SIZE:
            self._put("config", digest, content, CONFIG_LIFE)

    def account_key(self) -> bytes:
        """Made by whoever is the first to ask."""
        if self._account_key is None:
            found = self._get("secret", "account")
            if not found:
                fresh = os.urandom(32)
                self._swap("secret", "account", b"", fresh)
                found = self._get("secret", "account") or fresh
            self._account_key = found
        return self._account_key

    def session(self, key: str) -> SavedSession | None:
        """One look-up."""
        text = self._get("session", key)
        return read(text, key, self._signer) if text else None

    def sessions(self) -> Sequence[SavedSession]:
        """Those that can be read."""
        found = (read(text, key, self._signer) for key, text in self._all("session"))
        return [session for session in found if session]

    def swap_session(self, key: str, owner: str | None, after: SavedSession | None) -> bool:
        """The text of a session begins with its owner, which is compared."""
        before = "" if owner is None else beginning([owner])
        text = written(after, key, self._signer) if after else ""
        return self._swap("session", key, before.encode(), text.encode(), SESSION_LIFE)

    def _prune_sessions(self, older_than: float) -> int:
        """Drop sessions that were written before that time, or cannot be read; their number."""
        dropped = 0
        for key, text in [*self._all("session")]:
            session = read(text, key, self._signer)
            if session is None or session.saved < older_than:
                dropped += self._swap("session", key, text, b"")  # one written meanwhile stays
        return dropped

    def beat(self, owner: str) -> None:
        """A value that is soon over."""
        self._put("alive", owner, b"1", LEASE)

    def is_alive(self, owner: str) -> bool:
        """Whether the value of `beat` is not over yet."""
        return self._get("alive", owner) is not None


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
        owner, repository, blob, profile, size, url, acknowledged, *rest, mac = json.loads(text)
        sent, saved, (digest, length) = rest
        session = SavedSession(
            owner=str(owner),
            repository=str(repository),
            blob=str(blob),
            profile=str(profile),
            size=int(size),
            url=str(url),
            acknowledged=max(0, int(acknowledged)),
            sent=int(sent),
            saved=float(saved),
            made=(str(digest), int(length)),
        )
    except UNREADABLE:
        return None
    if signer.is_ours(str(mac), "session", key, json.dumps(session[:-1])):
        return session
    return None if signer.shared else session._replace(learned=True)
