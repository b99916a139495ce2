"""Who wrote it: a MAC on everything that a store keeps for us, checked when it is read.

A store that several machines share is a trust boundary: whoever can write to it can claim that a
layer is a blob which is none. With a key that the machines agree on, what does not carry its MAC
is no knowledge at all. Without one, each machine signs with a secret of its own, and entries of
others count as learned: they are believed no further than the repository they name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from towline.knowledge.base import Entry


class Signer(NamedTuple):
    """Signs and admits with one key."""

    key: bytes
    shared: bool
    """Whether all who may write have the key, so that what lacks its MAC is ignored."""

    def mac(self, *parts: str) -> str:
        """HMAC-SHA-256 in hex over the parts, told apart from each other."""
        import hmac

        message = "".join(f"{len(part)}:{part}" for part in parts)
        # Others' words may be no text that could be encoded otherwise.
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
        """The entry as far as it is to be believed; None for not at all."""
        if self.is_ours(mac, *_parts(entry)):
            return entry
        return None if self.shared else entry._replace(learned=True)

    def admit_all(self, signed: Iterable[tuple[Entry, str]]) -> list[Entry]:
        """The entries to be believed, in their order.

        What was learned and then seen to be so ourselves is one entry, in the later's place.
        """
        admitted: dict[tuple[str, ...], Entry] = {}
        for entry, mac in signed:
            if (believed := self.admit(entry, mac)) is not None:
                same = (believed.digest, believed.repository, believed.account)
                known = admitted.pop(same, believed)
                admitted[same] = believed if known.learned else known
        return list(admitted.values())

    def sign_facts(self, host: str, facts: Mapping[str, str]) -> list[tuple[str, str, str]]:
        """Name, value and MAC of each fact of a host."""
        return [(name, value, self.mac("fact", host, name, value)) for name, value in facts.items()]

    def admit_facts(self, host: str, signed: Iterable[tuple[str, str, str]]) -> dict[str, str]:
        """Our own facts alone: a false one (the scheme, say) could give credentials away."""
        return {
            name: value
            for name, value, mac in signed
            if self.is_ours(mac, "fact", host, name, value)
        }


def _parts(entry: Entry) -> tuple[str, ...]:
    """What is signed: all but the time, so that moving an entry costs no new MAC."""
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
