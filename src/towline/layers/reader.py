"""The interface that a layer's bytes are read through."""

from __future__ import annotations

from typing import Protocol


class Reader(Protocol):
    """An open layer, read from the front to the end; whoever opened it closes it."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Put bytes at the buffer's front. Returns their number, 0 at the end.

        Raises SourceError when the layer cannot be read.
        """
        ...

    def close(self) -> None:
        """Release files and connections; a second call does nothing."""
        ...
