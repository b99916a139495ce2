"""What is remembered: a layer's blob in a repository, and an upload that a registry has open.

Which entry is worth trying is decided by `push/plan`. Everything that a store keeps for us has a
MAC, which is checked when it is read. A store that several machines share is a trust boundary:
whoever can write to it can claim that a layer is another layer's blob. With a key that the machines
share, anything without its MAC is ignored. Without a key, each machine signs with a secret of its
own, and entries of other machines count as learned: they are believed no further than the
repository that they name.
"""

# No `from __future__ import annotations`: at every start Python would compile each text that
# annotates a field of a named tuple.

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple, get_args

from towline.errors import InvalidReference
from towline.reference import parse
from towline.spec.digest import Digest
from towline.spec.media_types import Compression

MAX_ENTRIES = 50
"""Entries kept of one DiffID; the oldest is dropped first."""
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


Signed = tuple[Entry, str]
"""An entry and the MAC that was kept with it."""


class Stats(NamedTuple):
    """What `cache stats` prints."""

    path: str
    diff_ids: int
    entries: int
    bytes: int
    """On disk, or in the shared cache's memory."""


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


class Signer(NamedTuple):
    """Signs what is written, and checks what is read, with one key."""

    key: bytes
    shared: bool
    """Whether the machines share the key: then anything without its MAC is ignored."""

    def mac(self, *parts: str) -> str:
        """HMAC-SHA-256 (hex) over the parts."""
        import hmac

        # With their lengths, so that no two lists of parts have one message.
        message = "".join(f"{len(part)}:{part}" for part in parts)
        # Others may have written halves of surrogate pairs, which only `surrogatepass` encodes.
        return hmac.digest(self.key, message.encode("utf-8", "surrogatepass"), "sha256").hex()

    def is_ours(self, mac: str, *parts: str) -> bool:
        """Whether these parts were signed with our key."""
        import hmac

        expected = self.mac(*parts).encode()
        return hmac.compare_digest(mac.encode("utf-8", "surrogatepass"), expected)

    def sign(self, entry: Entry) -> str:
        """The MAC of an entry."""
        return self.mac(*_parts(entry))

    def admit(self, entry: Entry, mac: str) -> Entry | None:
        """The entry, marked as learned if it is another machine's; None: it is to be ignored."""
        if self.is_ours(mac, *_parts(entry)):
            return entry
        return None if self.shared else entry._replace(learned=True)

    def admit_all(self, signed: Iterable[Signed]) -> list[Entry]:
        """The entries to be believed, in their order.

        An entry that was learned, and later recorded by ourselves, is one entry in the later place.
        """
        admitted: dict[tuple[str, ...], Entry] = {}
        for entry, mac in signed:
            if (believed := self.admit(entry, mac)) is not None:
                same = (believed.digest, believed.repository, believed.account)
                known = admitted.pop(same, believed)
                admitted[same] = believed if known.learned else known
        return list(admitted.values())


def _parts(entry: Entry) -> tuple[str, ...]:
    """What is signed of an entry: all but the time, so that moving it needs no new MAC."""
    return (
        "entry",
        entry.diff_id,
        entry.digest,
        str(entry.size),
        entry.media_type,
        entry.compression,
        entry.profile or "",
        entry.repository,
        entry.account,
        "learned" if entry.learned else "own",
    )
