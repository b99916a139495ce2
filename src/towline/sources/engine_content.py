"""The files of a containerd store, if the engine is on this machine and they may be read.

A blob lies there under its digest, byte for byte as it came, so that no export is needed. Only root
may read them, or the user of a rootless engine.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from towline.sources.files import OpenFile, Section, read_all
from towline.spec.manifest import MAX_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from towline.layers.reader import Reader

_STORE = "io.containerd.content.v1.content/blobs/sha256"
_OF_THE_SYSTEM = "/var/lib/containerd"
"""The folder of a containerd that the engine has not started itself."""


class EngineContent:
    """Blobs by their digests, without the algorithm."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        """`info`: the engine's answer to `/info`."""
        # A containerd that dockerd starts is below dockerd's own folder.
        places = (f"{info.get('DockerRootDir')}/containerd/daemon", _OF_THE_SYSTEM)
        self._folders = [f"{place}/{_STORE}" for place in places]

    def holds(self, names: Iterable[str]) -> bool:
        """Whether all of these blobs can be read."""
        return all(any(os.access(path, os.R_OK) for path in self._paths(name)) for name in names)

    def read(self, name: str) -> bytes | None:
        """A config or manifest; None: it is not there. Of a larger blob only a part is read."""
        reader = self.open(name)
        return read_all(reader, MAX_SIZE) if reader else None

    def open(self, name: str) -> Reader | None:
        """A reader of a blob; None: it is not there, or may not be read."""
        for path in self._paths(name):
            try:
                file = OpenFile(os.open(path, os.O_RDONLY), path)
            except OSError:
                continue
            try:
                return Section(file, 0, file.size, path)
            finally:
                file.release()
        return None

    def _paths(self, name: str) -> list[str]:
        return [f"{folder}/{name}" for folder in self._folders]
