"""Finds where the frames and blocks of a zstd stream end (RFC 8878, section 3.1). Pure.

The library tells neither whether a stream was cut inside a frame, nor how many plain bytes a piece
of input will make. Both follow from the lengths in the headers of frames and blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

BLOCK_LIMIT = 128 << 10
"""Plain bytes of a block at most (section 3.1.1.2.4)."""

_MAGIC = 0xFD2FB528
_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
_WINDOW, _DICTIONARY, _CONTENT_SIZE = 1, (0, 1, 2, 4), (0, 2, 4, 8)
"""Bytes of the fields of a frame's header; two by their flags (section 3.1.1.1)."""
_SINGLE_SEGMENT, _CHECKSUM = 0x20, 0x04
"""Flags of a frame's header (section 3.1.1.1.1)."""
_RLE, _RESERVED = 1, 3
"""Types of a block: one byte to repeat, and one that must not be used (section 3.1.1.2.2)."""


class FrameWalker:
    """Follows the frames of a stream that comes in pieces of any size."""

    def __init__(self) -> None:
        self.frames = 0
        """Frames begun so far, skippable ones not counted."""
        self._open = False
        self._blocks = 0
        self._skip = 0
        self._field = bytearray()
        self._steps = self._walk()
        self._wanted = next(self._steps)

    @property
    def between(self) -> bool:
        """Whether the stream may end here: no frame is open."""
        return not (self._open or self._field or self._skip)

    def advance(self, data: memoryview, blocks: int) -> int:
        """Follow `data` until so many `blocks` have begun. Returns the bytes that this took.

        Raises ValueError where a frame should begin and none does.
        """
        self._blocks = blocks
        at = 0
        while at < len(data) and (self._skip or self._blocks):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
            else:
                step = min(self._wanted - len(self._field), len(data) - at)
                self._field += data[at : at + step]
                if len(self._field) == self._wanted:
                    value = int.from_bytes(self._field, "little")
                    self._field.clear()
                    self._wanted = self._steps.send(value)
            at += step
        return at

    def _walk(self) -> Generator[int, int, None]:
        """Asks for one field after the other by its bytes, behind `_skip` bytes without meaning."""
        while True:
            self._open = False
            magic = yield 4
            self._open = True
            if magic in _SKIPPABLE:
                self._skip = yield 4
                continue
            if magic != _MAGIC:
                raise ValueError("it does not begin as zstd does")
            self.frames += 1
            descriptor = yield 1
            single = bool(descriptor & _SINGLE_SEGMENT)
            # A frame of a single segment has no window, but a size: one byte where the flag is 0.
            content_size = _CONTENT_SIZE[descriptor >> 6] or int(single)
            self._skip = (not single) * _WINDOW + _DICTIONARY[descriptor & 3] + content_size
            last = 0
            while not last:
                header = yield 3
                self._blocks -= 1
                last, kind, size = header & 1, header >> 1 & 3, header >> 3
                if kind == _RESERVED:
                    raise ValueError("it has a block of a kind that does not exist")
                # The size of a repeated byte is how often it is repeated: the block has that alone.
                self._skip = 1 if kind == _RLE else size
            self._skip += 4 if descriptor & _CHECKSUM else 0
