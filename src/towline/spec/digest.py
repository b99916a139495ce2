"""Digests (image-spec, "Digests"): the algorithm, a colon, the encoded hash."""

from __future__ import annotations

from typing import Self

HEX_LENGTHS = {"sha256": 64, "sha512": 128}
"""Registered algorithms and the length of their lower-case hex encoding."""
SHORT = 12
"""Hex digits of a digest that docker shows."""
_HEX = "0123456789abcdef"


class Digest(str):
    """A well-formed digest; equal to its own text.

    Raises ValueError when made from a text of another form, an unregistered algorithm, or a hash
    of the wrong length.
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Check the form, here since the value of a str is fixed before `__init__`."""
        algorithm, colon, encoded = text.partition(":")
        length = HEX_LENGTHS.get(algorithm)
        if not colon or length is None or len(encoded) != length or encoded.strip(_HEX):
            raise ValueError(
                f"{text[:140]!r} is no digest: expected sha256: and 64 lower-case hex digits"
            )
        return super().__new__(cls, text)

    @property
    def algorithm(self) -> str:
        """`sha256` or `sha512`."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The encoded hash alone."""
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """The first 12 hex digits, as docker shows them."""
        return self.hex[:SHORT]

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Self:
        """The digest of `data`."""
        import hashlib

        return cls(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")


EMPTY_LAYER_DIFF_ID = Digest(
    "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
)
"""DiffID of docker's empty layer: 1,024 zero bytes."""
