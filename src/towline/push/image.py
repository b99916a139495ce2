"""The blobs that a destination must hold in the end, and the trees of images that list them.

A blob is one `Blob`, however many layers, images and tags use it, so that none is asked for or sent
twice.
"""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING, cast

from towline.errors import SourceError
from towline.sources.base import SourceImage, SourceIndex, SourceLayer
from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from towline.layers.profile import Profile
    from towline.layers.reader import Reader
    from towline.reference import RepositoryName
    from towline.spec.media_types import Compression


class Blob:
    """Bytes that the destination must hold."""

    def __init__(
        self,
        identity: Digest,
        stored: Descriptor | None,
        size: int,
        open: Callable[[], Reader],  # noqa: A002 - as sources have it
        *,
        is_layer: bool,
        shown: bool = True,
        held: bool = True,
    ) -> None:
        self.identity = identity
        """The DiffID of a layer, the digest of anything else."""
        self.stored = stored
        """The blob that is sent byte for byte; None: the plain tar is compressed on the way."""
        self.size = size
        """Bytes that `open` gives."""
        self.open = open
        self.is_layer = is_layer
        self.shown = shown
        """Whether progress shows it; as docker's does not show configs, ours does not."""
        self.held = held
        """Whether the source has the bytes; if not, it is asked for and mounted, and never sent."""
        self.origin: RepositoryName | None = None
        """The repository that it is read from, if that is at a registry."""
        self.seen_in: tuple[RepositoryName, ...] = ()
        """Repositories that hold it, by the source's word; their hosts may lack their ports."""

    @property
    def key(self) -> str:
        """A text that is equal for equal bytes within one push."""
        return self.stored.digest if self.stored else self.identity

    @property
    def id(self) -> str:
        """Its short name in progress."""
        return self.identity.short

    @property
    def name(self) -> str:
        """Its name in messages, which tells a config."""
        return self.id if self.shown else f"the config {self.id}"

    @property
    def diff_id(self) -> Digest | None:
        """The digest of a layer's uncompressed tar; None for anything else."""
        return self.identity if self.is_layer else None

    @property
    def stored_compression(self) -> Compression | None:
        """How the stored bytes are compressed; None: not known, or nothing is stored."""
        return media_types.layer_compression(self.stored.media_type) if self.stored else None

    @property
    def label(self) -> str | None:
        """The word for the stored bytes in results; None: nothing is stored."""
        if self.stored is None:
            return None
        # A plain tar is stored only with the profile `none`.
        return "none" if self.stored_compression == "none" else "source"

    def check(self, digest: Digest, diff_id: Digest | None) -> None:
        """Raise SourceError if the bytes read have another digest or DiffID than the image says."""
        if self.stored and digest != self.stored.digest:
            raise SourceError(
                f"the blob {self.stored.digest} is not what the source holds under that digest: "
                f"its bytes have {digest}",
                hint="the source is damaged: make it again",
            )
        if self.is_layer and diff_id and diff_id != self.identity:
            raise SourceError(
                f"layer {self.id} is not what the image config says: its DiffID is {diff_id}, "
                f"the config lists {self.identity}",
                hint="the image is damaged or was edited: make it again",
            )


def nowhere(blobs: Sequence[Blob], repository: RepositoryName) -> SourceError:
    """The error for layers that neither the source nor the destination has."""
    first, *more = (blob.stored.digest if blob.stored else blob.identity for blob in blobs)
    said = f"the source lacks the layer {first}"
    try:
        next(iter(blobs)).open().close()
    except SourceError as error:  # in the source's own words
        said = error.message
    others = f"; nor {', '.join(more)}" if more else ""
    return SourceError(
        f"{said}, and {repository} does not have it{others}",
        hint="make the source with all its layers, or push first the image that it is built on",
    )


Layer = Blob | Descriptor
"""A blob, or the descriptor of a foreign layer, which stays where its `urls` say."""


class Image:
    """One image, of which a manifest will be made; its layers the base first."""

    def __init__(self, source: SourceImage, config: Blob, layers: tuple[Layer, ...]) -> None:
        self.source = source
        self.config = config
        self.layers = layers
        self.annotations: Mapping[str, str] = {}
        """Annotations that are added to the manifest's own."""

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """All blobs that the registry must hold for the manifest."""
        layers = tuple(layer for layer in self.layers if isinstance(layer, Blob))
        return layers if self.source.outline else (*layers, self.config)

    @property
    def whole(self) -> bool:
        """Whether every blob goes byte for byte, so that the manifest can, too."""
        return all(blob.stored is not None for blob in self.blobs)


class Index:
    """One index, with its children in its order."""

    def __init__(self, source: SourceIndex, children: tuple[Image | Index, ...]) -> None:
        self.source = source
        self.children = children
        self.annotations: Mapping[str, str] = {}
        """Annotations that are added to its own."""

    @property
    def blobs(self) -> tuple[Blob, ...]:
        """The blobs of all children."""
        return tuple(blob for child in self.children for blob in child.blobs)


Tree = Image | Index
"""The content of a tag: an image, or an index with its images."""


def images(tree: Tree) -> tuple[Image, ...]:
    """The image itself, or all images of an index and of the indexes in it."""
    if isinstance(tree, Index):
        return tuple(image for child in tree.children for image in images(child))
    return (tree,)


class Gatherer:
    """Turns what sources describe into trees that share their blobs."""

    def __init__(self, profile: Profile, *, recompress: bool = False) -> None:
        """`recompress` layers that are compressed already."""
        self._profile = profile
        self._recompress = recompress
        self._blobs: dict[str, Blob] = {}

    def tree(self, content: SourceImage | SourceIndex) -> Tree:
        """Gather one image or index. Raises SourceError where it contradicts itself."""
        if isinstance(content, SourceIndex):
            return Index(content, tuple(self.tree(child) for child in content.children))
        layers = tuple(layer.foreign or self._layer(layer, content) for layer in content.layers)
        return Image(content, self._share(_config(content)), layers)

    def _layer(self, layer: SourceLayer, source: SourceImage) -> Blob:
        stored, diff_id = layer.stored, layer.diff_id
        if self._recompress and layer.held and stored and diff_id:
            plain = partial(_plain, layer, stored)
            return self._share(Blob(diff_id, None, layer.size, plain, is_layer=True))
        if stored is None and diff_id and self._profile.compression == "none":
            stored = Descriptor(media_types.OCI_LAYER, diff_id, layer.size)
        if not (identity := diff_id or (stored and stored.digest)):
            msg = "a layer has neither a digest nor a DiffID: the source says too little of it"
            raise SourceError(msg)
        held, is_layer = layer.held, diff_id is not None
        blob = Blob(identity, stored, layer.size, layer.open, is_layer=is_layer, held=held)
        blob.origin, blob.seen_in = source.origin, source.seen_in
        return self._share(blob)

    def _share(self, blob: Blob) -> Blob:
        shared = self._blobs.setdefault(blob.key, blob)
        if blob.held and not shared.held:  # one image lacks it, and another has it
            shared.held, shared.open, shared.size = True, blob.open, blob.size
        return shared


def _plain(layer: SourceLayer, stored: Descriptor) -> Reader:
    """A reader of a stored layer's tar."""
    from towline.layers.decoders import decoded  # what goes as it is needs none

    kind = media_types.layer_compression(stored.media_type) or "none"
    return decoded(layer.open(), kind, f"the layer {stored.digest.short}")


def _config(source: SourceImage) -> Blob:
    content, digest = source.config, Digest.of(source.config)
    stored = Descriptor(source.config_type or media_types.OCI_CONFIG, digest, len(content))
    blob = in_memory(content, stored, digest, is_layer=False)
    blob.origin, blob.seen_in = source.origin, source.seen_in
    return blob


def in_memory(content: bytes, stored: Descriptor, identity: Digest, *, is_layer: bool) -> Blob:
    """A small blob whose bytes are in memory; progress does not show it."""
    # Its `readinto` takes more kinds of buffers than a Reader's.
    opened = cast("Callable[[], Reader]", partial(io.BytesIO, content))
    return Blob(identity, stored, len(content), opened, is_layer=is_layer, shown=False)


def tree_blobs(trees: Iterable[Tree]) -> tuple[Blob, ...]:
    """The blobs of several trees, each once."""
    return tuple(dict.fromkeys(blob for tree in trees for blob in tree.blobs))
