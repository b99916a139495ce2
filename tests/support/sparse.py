"""Sources that lack what they describe."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING

from tests.support.raw_client import sha256

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


def without(path: Path, digests: Collection[str]) -> Path:
    """Take every file whose content has one of these digests out of a layout or a plain tar."""
    if path.is_dir():
        for file in [each for each in path.rglob("*") if each.is_file()]:
            if sha256(file.read_bytes()) in digests:
                file.unlink()
        return path
    with tarfile.open(path) as tar:
        members = [(each, _content(tar, each)) for each in tar]
    with tarfile.open(path, "w") as tar:
        for member, content in members:
            if not member.isreg() or sha256(content) not in digests:
                tar.addfile(member, io.BytesIO(content))
    return path


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member) if member.isreg() else None
    return file.read() if file else b""
