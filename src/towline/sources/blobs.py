"""Layers as they lie in a source."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from towline.errors import SourceError
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from towline.context import Cancel
    from towline.layers.reader import Reader
    from towline.sources.files import Files

_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class FileLayer:
    """A layer, or another blob, in a file of its own."""

    files: Files
    path: str
    size: int
    diff_id: Digest | None
    stored: Descriptor | None
    foreign: Descriptor | None = None

    def open(self) -> Reader:
        """See `SourceLayer`."""
        return self.files.open(self.path)


@dataclass(frozen=True, slots=True)
class ForeignLayer:
    """A layer that lies elsewhere: only what the manifest says of it is known."""

    foreign: Descriptor
    diff_id: Digest | None

    @property
    def stored(self) -> Descriptor:
        """As the manifest has it: it goes into the new one unchanged."""
        return self.foreign

    @property
    def size(self) -> int:
        """As the manifest has it."""
        return self.foreign.size

    def open(self) -> Reader:
        """Raises SourceError: there is nothing here."""
        raise SourceError(f"the foreign layer {self.foreign.digest} is not in the source")


class UnnamedLayer:
    """A compressed layer whose file does not tell its digest: it is read once to know it."""

    foreign: Descriptor | None = None

    def __init__(
        self, files: Files, path: str, *, diff_id: Digest, media_type: str, cancel: Cancel
    ) -> None:
        self.diff_id: Digest | None = diff_id
        self.size = files.size(path) or 0
        self._files = files
        self._path = path
        self._media_type = media_type
        self._cancel = cancel
        self._turn = threading.Lock()
        self._stored: Descriptor | None = None

    @property
    def stored(self) -> Descriptor:
        """Its blob, hashed at the first question. Raises SourceError."""
        with self._turn:
            if self._stored is None:
                self._stored = Descriptor(self._media_type, self._hash(), self.size)
            return self._stored

    def _hash(self) -> Digest:
        digest = hashlib.sha256()
        reader = self.open()
        try:
            with memoryview(bytearray(_BLOCK)) as block:
                while got := reader.readinto(block):
                    self._cancel.check()
                    digest.update(block[:got])
        finally:
            reader.close()
        return Digest(f"sha256:{digest.hexdigest()}")

    def open(self) -> Reader:
        """See `SourceLayer`."""
        return self._files.open(self._path)
