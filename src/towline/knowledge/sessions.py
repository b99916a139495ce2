"""The form of an upload session in a store, for a later process that resumes it.

A session is one text, the same in every store. The text begins with the session's owner, the
process that writes it: a store compares that, because only the owner may change or drop it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from towline.knowledge.base import SavedSession

if TYPE_CHECKING:
    from towline.knowledge.signing import Signer

LIFE = 7 * 24 * 3600
"""Seconds for which an unused session is kept: distribution purges it then."""
LEASE = 10
"""Seconds for which an owner counts as alive after it has said so, every three seconds."""
_NO_SESSION = (ValueError, TypeError, OverflowError, RecursionError)
"""Errors of reading a text that is not ours."""


def written(session: SavedSession, key: str, signer: Signer) -> str:
    """The text of a session."""
    parts = session[:-1]
    return json.dumps([*parts, signer.mac("session", key, json.dumps(parts))])


def beginning(owner: str) -> str:
    """The beginning of the text of any session of that owner."""
    return json.dumps([owner])[:-1] + ","


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
    except _NO_SESSION:
        return None
    if signer.is_ours(str(mac), "session", key, json.dumps(session[:-1])):
        return session
    return None if signer.shared else session._replace(learned=True)
