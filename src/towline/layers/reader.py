"""What a layer's bytes are read from, wherever that is."""

from __future__ import annotations

from typing import Protocol


class Reader(Protocol):
    """An open layer: sequential, owned by who opened it."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer from the front; 0 at the end. Raises SourceError when it cannot."""
        ...

    def close(self) -> None:
        """Give back what it holds; a second call does nothing."""
        ...
