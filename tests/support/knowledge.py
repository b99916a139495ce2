"""Entries for tests, and places where several machines can open one store."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from towline.knowledge.base import Entry, Signer
from towline.knowledge.redis import Address, RedisKnowledge
from towline.knowledge.sqlite import SqliteKnowledge
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from towline.knowledge.store import Knowledge

DIFF_ID = Digest.of(b"a layer")
OTHER_DIFF_ID = Digest.of(b"another layer")
BLOB = Digest.of(b"a blob")
OURS = Signer(b"this machine", shared=False)
THEIRS = Signer(b"another machine", shared=False)
AGREED = Signer(b"what the machines agree on", shared=True)


def entry(  # noqa: PLR0917 - in the order of the class
    diff_id: Digest = DIFF_ID,
    digest: Digest = BLOB,
    size: int = 1234,
    profile: str | None = "gzip/2@x86-64",
    repository: str = "registry.example:5000/team/app",
    account: str = "",
    *,
    learned: bool = False,
    seen: float = 1_700_000_000.5,
) -> Entry:
    """An entry; what a test does not care about is chosen here."""
    return Entry(
        diff_id=diff_id,
        digest=digest,
        size=size,
        media_type="application/vnd.docker.image.rootfs.diff.tar.gzip",
        compression="gzip",
        profile=profile,
        repository=repository,
        account=account,
        learned=learned,
        seen=seen,
    )


def opener(address: str) -> Callable[[Signer], Knowledge]:
    """How to open what `--cache` would name."""
    if "://" in address:
        return lambda signer: RedisKnowledge(Address.parse(address), signer)
    return lambda signer: SqliteKnowledge(Path(address), signer)


class Place:
    """Where a store is. It can be opened often, as by many processes; all are closed at the end."""

    def __init__(self, opener: Callable[[Signer], Knowledge]) -> None:
        self._opener = opener
        self._opened = ExitStack()

    def open(self, signer: Signer = OURS) -> Knowledge:
        """Open it as the machine that signs so."""
        store = self._opener(signer)
        self._opened.callback(store.close)
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()
