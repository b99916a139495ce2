"""What a registry host has turned out not to do, so that nobody asks it twice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class HostFacts:
    """Learned in this run. Flags alone: a race between two writers ends in the same state."""

    patch_refused: bool = False
    """It takes no PATCH: blobs go as one PUT, for which digest and size must be known."""
    put_refused: bool = False
    """It takes no PUT with a body: blobs go as PATCH and an empty PUT."""
    head_refused: bool = False
    """It does not answer HEAD for manifests."""

    def shape_refused(self, *, in_one_put: bool) -> bool:
        """Note that a shape of upload was refused; whether the other one is left to be tried."""
        if in_one_put:
            self.put_refused = True
        else:
            self.patch_refused = True
        return not (self.put_refused and self.patch_refused)
