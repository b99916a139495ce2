"""Image configs (image-spec, "Image Configuration"): the fields that a push reads."""

from __future__ import annotations

from typing import NamedTuple

from towline.spec import reading
from towline.spec.descriptor import Platform
from towline.spec.digest import Digest

MAX_SIZE = 4 << 20
"""Bytes; registries fetch configs too, and refuse larger ones."""


class ImageConfig(NamedTuple):
    """The parts of a config that a push reads; its bytes are never re-encoded."""

    diff_ids: tuple[Digest, ...]
    """Digests of the uncompressed layers, base first (`rootfs.diff_ids`)."""
    platform: Platform
    filled: tuple[bool, ...]
    """For each `history` entry whether it made a layer (not `empty_layer`)."""


def parse(content: bytes) -> ImageConfig:
    """Read an image config; raises ValueError, one clause, when the content is not one."""
    document = reading.document(content)
    rootfs = document.get("rootfs") if isinstance(document, dict) else None
    if not isinstance(rootfs, dict):
        raise ValueError("no image config: it has no `rootfs`")  # noqa: TRY004 - bad data, not a bad call
    history = [entry for entry in reading.array(document, "history") if isinstance(entry, dict)]
    return ImageConfig(
        diff_ids=tuple(Digest(text) for text in reading.texts(rootfs, "diff_ids")),
        platform=Platform.from_json(document),
        # Entries of `ENV` or `CMD` are empty: only the others pair with a DiffID, in order.
        filled=tuple(not entry.get("empty_layer") for entry in history),
    )
