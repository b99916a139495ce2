"""A blob whose digest is not known yet, for a host that takes none without.

It is held while it is small. Of a larger one nothing is kept: once all of it has been written its
digest and size are known, and then it is written again.
"""

from __future__ import annotations


class Held:
    """Keeps what it is given, up to `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._content: bytearray | None = bytearray()

    def write(self, block: memoryview) -> None:
        """Take a block."""
        if self._content is None or len(self._content) + len(block) > self._most:
            self._content = None
        else:
            self._content += block

    def whole(self) -> memoryview | None:
        """All that was written; None where that was too much."""
        return None if self._content is None else memoryview(self._content)
