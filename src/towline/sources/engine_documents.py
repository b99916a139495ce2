"""The manifests and configs of an engine's image, found anywhere, read as those of a layout."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, NamedTuple, Protocol

from towline.sources.base import SourceImage, SourceIndex
from towline.sources.oci_layout import INDEX, path_of
from towline.spec import manifest as manifests
from towline.spec import media_types
from towline.spec.manifest import ImageConfig, Index, Manifest, parse_config

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from towline.layers.reader import Reader
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest


class Find(Protocol):
    """Finds a document by its digest."""

    def __call__(self, digest: Digest, *, manifest: bool, anywhere: bool = True) -> bytes | None:
        """The document's bytes; None: not found. Without `anywhere` no registry is asked."""
        ...


class Gathered(NamedTuple):
    """The documents of an image of a containerd store."""

    documents: dict[str, bytes]
    """Manifests and configs, by their paths in a layout."""
    sizes: dict[str, int]
    """Bytes of the layers that the engine holds, by their paths."""


def gather(
    root: Descriptor,
    find: Find,
    absent: Container[Digest] | None = None,
    holds: Callable[[Digest], bool] = lambda _: True,
) -> Gathered | None:
    """The manifests and configs below a descriptor; None: one is missing.

    `absent`: manifests that the engine has not, or not whole; one that is missing is left out. With
    `absent` None any that is missing is left out. `holds`: whether the engine holds a layer.
    """
    # Of an image that is not whole some layers may be held: an engine does not pull a layer whose
    # unpacked files it has already.
    gathered = Gathered({}, {})
    todo = [root]
    while todo:
        listed = todo.pop()
        incomplete = absent is not None and listed.digest in absent
        anywhere = listed is root or not incomplete
        content = find(listed.digest, manifest=True, anywhere=anywhere)
        document = None if content is None else _document(content, listed.media_type)
        config: bytes | None = b""
        if isinstance(document, Manifest):
            config = find(document.config.digest, manifest=False, anywhere=anywhere)
        if content is None or document is None or config is None:
            if absent is None or not anywhere:
                continue
            return None
        gathered.documents[path_of(listed.digest)] = content
        if isinstance(document, Index):
            todo += document.manifests
            continue
        gathered.documents[path_of(document.config.digest)] = config
        held = (each for each in document.layers if not incomplete or holds(each.digest))
        gathered.sizes.update((path_of(layer.digest), layer.size) for layer in held)
    return gathered


class DescribedFiles:
    """The `Files` of a layout whose documents are known, and whose layers an export has."""

    def __init__(
        self, name: str, root: Descriptor, gathered: Gathered, open_blob: Callable[[str], Reader]
    ) -> None:
        self.name = name
        listed = {"schemaVersion": 2, "manifests": [root.as_json()]}
        self._documents = {**gathered.documents, INDEX: json.dumps(listed).encode()}
        self._sizes = gathered.sizes
        self._open = open_blob

    def size(self, path: str) -> int | None:
        """See `Files`."""
        content = self._documents.get(path)
        return self._sizes.get(path) if content is None else len(content)

    def open(self, path: str) -> Reader:
        """See `Files`."""
        content = self._documents.get(path)
        return self._open(path) if content is None else io.BytesIO(content)

    def close(self) -> None:
        """See `Files`."""


def without_manifest(content: SourceImage | SourceIndex) -> SourceImage | SourceIndex:
    """An image with plain layers in the form in which an export's `manifest.json` describes it."""
    # So the same image gets the same digest, whether its bytes come by an export or not.
    if isinstance(content, SourceIndex):
        return content
    zstd = any(
        layer.stored and media_types.layer_compression(layer.stored.media_type) == "zstd"
        for layer in content.layers
    )
    platform = parse_config(content.config).platform
    return SourceImage(content.config, None, content.layers, None, platform, oci=zstd)


def config_of(content: bytes) -> ImageConfig | None:
    """A config, parsed; None: the content is none."""
    try:
        return parse_config(content)
    except ValueError:
        return None


def _document(content: bytes, media_type: str) -> Manifest | Index | None:
    try:
        return manifests.parse(content, media_type)
    except ValueError:
        return None


def named_by(path: str) -> str:
    """The digest in a blob's path, without the algorithm."""
    return path.rpartition("/")[2]
