"""Compressions of layers and archives, known by their first bytes (image-spec, "Layer")."""

from __future__ import annotations

from typing import Literal

Compression = Literal["none", "gzip", "zstd"]

MAGIC_LENGTH = 4
"""Bytes of the head that `detect` needs."""
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = frozenset(bytes((0x50 + n, 0x2A, 0x4D, 0x18)) for n in range(16))


def detect(head: bytes) -> Compression:
    """The compression of a stream by its first `MAGIC_LENGTH` bytes; `none` if they match none."""
    if head.startswith(_GZIP):
        return "gzip"
    # zstd:chunked and seekable files may open with a skippable frame (RFC 8878, section 3.1.2).
    return "zstd" if head.startswith(_ZSTD) or head[:4] in _ZSTD_SKIPPABLE else "none"
