"""Finds the end of a gzip member's header (RFC 1952, section 2.3). Pure."""

from __future__ import annotations

LIMIT = 1 << 17
"""Bytes of the longest header: an extra field of 64 KiB and two long texts fit."""

_MAGIC = b"\x1f\x8b"
_DEFLATE = 8
"""The only compression method that gzip has."""
_FIXED = 10
"""Bytes before the optional fields: magic, method, flags, time, extra flags, system."""
_HEADER_CHECK, _EXTRA, _NAME, _COMMENT = 0x02, 0x04, 0x08, 0x10
"""Flags of the optional fields (section 2.3.1)."""
_RESERVED = 0xE0
"""Flags that must be zero: they may stand for fields that we could not skip."""


def length(data: bytes | bytearray) -> int | None:
    """The length of the header at the beginning of `data`; None: more bytes are needed.

    Raises ValueError when that is no header, or one that does not end within `LIMIT` bytes.
    """
    if data[:2] != _MAGIC[: len(data)]:
        raise ValueError("it does not begin as gzip does")
    end = _end(data)
    if end is None and len(data) >= LIMIT:
        raise ValueError("its header does not end")
    return end


def _end(data: bytes | bytearray) -> int | None:
    if len(data) < _FIXED:
        return None
    flags, end = data[3], _FIXED
    if data[2] != _DEFLATE or flags & _RESERVED:
        raise ValueError("its header names a method that nobody uses")
    # The order of the fields: extra, name, comment, check sum of the header.
    if flags & _EXTRA:
        end += 2 + int.from_bytes(data[end : end + 2], "little")
    for text in (_NAME, _COMMENT):
        if flags & text:
            end = data.find(0, end) + 1
            if not end:
                return None
    if flags & _HEADER_CHECK:
        end += 2
    return end if end <= len(data) else None
