"""Compressions of layers and archives, known by their first bytes (image-spec, "Layer")."""

from __future__ import annotations

from typing import Literal

Compression = Literal["none", "gzip", "zstd"]

MAGIC_LENGTH = 4
"""Bytes that `detect` wants to see."""
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE_TAIL = b"\x2a\x4d\x18"


def detect(head: bytes) -> Compression:
    """The compression of a stream by its first `MAGIC_LENGTH` bytes; `none` for all unknown."""
    if head.startswith(_GZIP):
        return "gzip"
    # zstd:chunked and seekable files may open with a skippable frame (RFC 8878, section 3.1.2).
    skippable = head[1:4] == _ZSTD_SKIPPABLE_TAIL and head[:1] and 0x50 <= head[0] <= 0x5F
    return "zstd" if head.startswith(_ZSTD) or skippable else "none"
