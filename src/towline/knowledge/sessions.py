"""How an upload session lies in a store, so that a later process can go on with it.

One text a session, the same in every store. It begins with who writes the session: a store lets go
of it, or changes it, for its owner alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from towline.knowledge.base import SavedSession

if TYPE_CHECKING:
    from towline.knowledge.signing import Signer

LIFE = 7 * 24 * 3600
"""Seconds for which a session is kept that nobody has gone on with: Distribution purges it then."""
LEASE = 10
"""Seconds for which an owner counts as alive after it has said so."""
_NO_SESSION = (ValueError, TypeError, OverflowError, RecursionError)
"""What reading a text that is none of ours may raise."""


def written(session: SavedSession, key: str, signer: Signer) -> str:
    """The text of a session."""
    parts = session[:-1]
    return json.dumps([*parts, signer.mac("session", key, json.dumps(parts))])


def beginning(owner: str) -> str:
    """What the text of a session of that owner begins with."""
    return json.dumps([owner])[:-1] + ","


def read(text: str | bytes, key: str, signer: Signer) -> SavedSession | None:
    """The session of a text as far as it is to be believed; None for not at all."""
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
