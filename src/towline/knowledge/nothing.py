"""`--cache none`, and what is left when a store fails: knows nothing, remembers nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from towline.knowledge.base import Stats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from towline.knowledge.base import Entry
    from towline.knowledge.sessions import SavedSession
    from towline.spec.digest import Digest


class Nothing:
    """A `Knowledge` without any."""

    def __init__(self) -> None:
        self._account_key: bytes | None = None

    def entries(self, diff_ids: Sequence[Digest]) -> Mapping[Digest, Sequence[Entry]]:
        """None."""
        del diff_ids
        return {}

    def record(self, entries: Sequence[Entry]) -> None:
        """Nothing."""

    def forget(self, diff_id: Digest, digest: Digest, repository: str) -> None:
        """Nothing."""

    def host_facts(self, host: str) -> Mapping[str, str]:
        """None."""
        del host
        return {}

    def record_host(self, host: str, facts: Mapping[str, str]) -> None:
        """Nothing."""

    def config(self, digest: Digest) -> bytes | None:
        """None."""
        del digest
        return None

    def record_config(self, digest: Digest, content: bytes) -> None:
        """Nothing."""

    def account_key(self) -> bytes:
        """A key for as long as this object lives."""
        if self._account_key is None:
            self._account_key = os.urandom(32)
        return self._account_key

    def session(self, key: str) -> None:
        """None."""

    def sessions(self) -> Sequence[SavedSession]:
        """None."""
        return ()

    def swap_session(self, key: str, owner: str | None, after: SavedSession | None) -> bool:
        """Never: there is no place to put it."""
        del key, owner, after
        return False

    def beat(self, owner: str) -> None:
        """Nothing."""

    def is_alive(self, owner: str) -> bool:
        """Nobody."""
        del owner
        return False

    def stats(self) -> Stats:
        """Zeros."""
        return Stats("none", 0, 0, 0)

    def prune(self, older_than: float) -> int:
        """Nothing."""
        del older_than
        return 0

    def clear(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
