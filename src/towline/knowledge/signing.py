"""A MAC on everything that a store keeps for us, checked when it is read.

A store that several machines share is a trust boundary: whoever can write to it can claim that a
layer is another layer's blob. With a key that the machines share, anything without its MAC is
ignored. Without a key, each machine signs with a secret of its own, and entries of other machines
count as learned: they are believed no further than the repository that they name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from towline.knowledge.base import Entry


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

    def admit_all(self, signed: Iterable[tuple[Entry, str]]) -> list[Entry]:
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
