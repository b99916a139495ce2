"""What a registry host has turned out to do or not to do, so that nobody asks it twice."""

from __future__ import annotations

import re
from dataclasses import dataclass

MiB = 1 << 20
CHUNK = 16 * MiB
"""Bytes of a chunk where nobody says otherwise."""
_SMALLER = (CHUNK, 4 * MiB, MiB, 1 << 18, 1 << 16)
"""Bytes to come down to; below the last, a refusal must have another cause than the size."""
_PARTS_OF_ECR = 5 * MiB
_SAID = re.compile(r"(\d+(?:\.\d+)?)\s*(kib|kb|k|mib|mb|m)\b")
_UNITS = {"k": 1 << 10, "m": MiB}


@dataclass(slots=True)
class HostFacts:
    """Learned in this run. Single values: a race between two writers ends in a good state."""

    patch_refused: bool = False
    """It takes no PATCH: blobs go as one PUT, for which digest and size must be known."""
    put_refused: bool = False
    """It takes no PUT with a body: blobs go as PATCH and an empty PUT."""
    length_wanted: bool = False
    """It takes no body of open length."""
    body_max: int | None = None
    """Bytes of the largest body that it, or what stands before it, may take."""
    chunk_min: int = 0
    """Bytes of the least chunk, but for the last."""
    head_refused: bool = False
    """It does not answer HEAD for manifests."""

    def shape_refused(self, *, in_one_put: bool) -> bool:
        """Note that a shape of upload was refused; whether the other one is left to be tried."""
        if in_one_put:
            self.put_refused = True
        else:
            self.patch_refused = True
        return not (self.put_refused and self.patch_refused)

    def too_large(self, size: int | None, words: str = "") -> bool:
        """Note that a body of that many bytes was too large; whether a smaller one may do.

        `words` may name the limit itself. None: a body of open length.
        """
        limit = _limit(words)
        smaller = [step for step in _SMALLER if size is None or step < size]
        if limit and (size is None or limit < size):
            smaller.insert(0, limit)
        if not smaller or smaller[0] < self.chunk_min:
            return False
        self.body_max = min(smaller[0], self.body_max or smaller[0])
        return True

    def too_small(self, least: int = _PARTS_OF_ECR) -> None:
        """Note that a chunk was too small."""
        self.chunk_min = max(self.chunk_min, least)

    def chunk(self, wanted: int | None) -> int:
        """Bytes of a chunk, where `wanted` are asked for."""
        size = wanted or CHUNK
        if self.body_max is not None:
            size = min(size, self.body_max)
        return max(size, self.chunk_min)


def _limit(words: str) -> int | None:
    """A size that a refusal names (GHCR: "request body is too large … 4.00MiB")."""
    if "large" not in words and "limit" not in words and "exceed" not in words:
        return None
    found = [float(n) * _UNITS[unit[0]] for n, unit in _SAID.findall(words)]
    return int(min(found)) if found else None
