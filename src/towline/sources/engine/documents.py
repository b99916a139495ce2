"""Describes a containerd store's image by its manifests and configs, wherever those are found.

The engine's API gives no single ones. The store's own files do, if the engine is on this machine
and they may be read: only root may, or the user of a rootless engine.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from towline.errors import SourceError
from towline.sources.base import SourceImage, SourceIndex
from towline.sources.files import Folder, read_all
from towline.sources.oci_images import Absent, OciImages
from towline.spec import media_types
from towline.spec.digest import Digest
from towline.spec.manifest import MAX_SIZE, parse_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from towline.layers.reader import Reader
    from towline.sources.engine.images import Listed
    from towline.spec.descriptor import Descriptor, Platform
    from towline.spec.manifest import Manifest, RawManifest

_STORE = "io.containerd.content.v1.content/blobs/sha256"
_OF_THE_SYSTEM = "/var/lib/containerd"
"""The folder of a containerd that the engine has not started itself."""


class StoreFiles:
    """The files of a containerd store: blobs, byte for byte as they came, under their digests."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        """`info`: the engine's answer to `/info`."""
        # A containerd that dockerd starts is below dockerd's own folder.
        root = info.get("DockerRootDir")
        places = [f"{root}/containerd/daemon", _OF_THE_SYSTEM] if root else [_OF_THE_SYSTEM]
        self._folders = [Folder(f"{place}/{_STORE}") for place in places]

    def holds(self, blobs: Iterable[Digest]) -> bool:
        """Whether all of these blobs can be read."""
        for blob in blobs:
            if (reader := self.open(blob)) is None:
                return False
            reader.close()
        return True

    def document(self, digest: Digest) -> bytes | None:
        """A config or manifest; None: it is not there, or is another by its digest."""
        reader = self.open(digest)
        content = read_all(reader, MAX_SIZE) if reader else b""
        return content if reader and Digest.of(content) == digest else None

    def open(self, blob: Digest) -> Reader | None:
        """A reader of a blob; None: it is not there, or may not be read."""
        for folder in self._folders:
            with suppress(SourceError):
                return folder.open(blob.hex)
        return None


class Find(Protocol):
    """Finds a document by its digest."""

    def __call__(self, digest: Digest, *, manifest: bool, anywhere: bool = True) -> bytes | None:
        """The document's bytes; None: not found. Without `anywhere` no registry is asked."""
        ...


class UnknownDocument(Exception):
    """A document of an image that the engine holds was not found."""


class StoreImage(OciImages):
    """An image of a containerd store; `find` finds what is not in the store's files."""

    def __init__(
        self,
        name: str,
        image: Listed,
        find: Find,
        files: StoreFiles,
        open_layer: Callable[[Digest], Reader],
    ) -> None:
        """`name`: the engine's, in errors."""
        super().__init__(name)
        self._image = image
        self._find = find
        self._files = files
        self._open_layer = open_layer
        self._manifest = image.id
        """That of the image that is being read."""

    def read(self) -> SourceImage | SourceIndex:
        """The image or index. Raises UnknownDocument, SourceError."""
        assert self._image.root is not None  # noqa: S101 - it is in such a store
        content = self.entry(self._image.root)
        if isinstance(content, SourceIndex):
            return content
        if self._image.within:
            return content._replace(part_of=self._image.within)
        if all(layer.stored or not layer.diff_id for layer in content.layers):
            return content
        # With plain layers it takes the form in which an export's `manifest.json` describes it: so
        # it gets the same digest, whether its bytes come by an export or not.
        kinds = [layer.stored.media_type for layer in content.layers if layer.stored]
        zstd = "zstd" in map(media_types.layer_compression, kinds)
        platform = parse_config(content.config).platform
        return SourceImage(content.config, None, content.layers, None, platform, oci=zstd)

    def content(self, listed: Descriptor, what: str) -> bytes:
        """See `OciImages`. Raises UnknownDocument for one that should be found."""
        self.check_algorithm(listed, what)
        manifest = listed.digest if what == "manifest" else self._manifest
        anywhere = manifest not in self._image.absent or manifest == self._image.id
        found = self._files.document(listed.digest) or self._find(
            listed.digest, manifest=what == "manifest", anywhere=anywhere
        )
        if found is not None:
            return found
        if anywhere:
            raise UnknownDocument
        raise Absent(f"{self.name} lacks the {what} {listed.digest}")

    def image(self, raw: RawManifest, manifest: Manifest, platform: Platform | None) -> SourceImage:
        """See `OciImages`."""
        self._manifest = raw.digest
        return super().image(raw, manifest, platform)

    def holds(self, listed: Descriptor) -> bool:
        """See `OciImages`."""
        # Of an image that is not whole some layers may be held: an engine does not pull a layer
        # whose unpacked files it has already.
        whole = self._manifest not in self._image.absent
        return whole or self._files.holds([listed.digest])

    def open(self, listed: Descriptor) -> Reader:
        """See `OciImages`."""
        return self._open_layer(listed.digest)
