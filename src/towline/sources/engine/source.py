"""Images of a Docker engine, or of Podman's service, described without an export where possible.

An engine tells an image's digest, but gives no single layers: all of an image, or nothing. So
config and manifests are looked for, by their digests, where they may be known already. Only if a
layer has to be sent does the engine export the image, once.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING

from towline.errors import SourceError
from towline.sources.base import (
    SourceEntry,
    SourceImage,
    SourceIndex,
    SourceLayer,
    images_of,
)
from towline.sources.engine import images
from towline.sources.engine.documents import StoreFiles, StoreImage, UnknownDocument
from towline.sources.engine.exports import Exports
from towline.sources.image_source import ImageSource
from towline.sources.oci_layout import path_of
from towline.sources.select import may_be, select
from towline.spec.digest import Digest
from towline.spec.manifest import parse_config

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Mapping, Sequence

    from towline.context import Context
    from towline.layers.reader import Reader
    from towline.sources.engine.client import EngineClient
    from towline.sources.engine.documents import Find
    from towline.sources.engine.images import Listed
    from towline.sources.engine.kept_export import KeptExport
    from towline.sources.passing import PassingTar
    from towline.sources.passing_blob import Held, PassingBlob
    from towline.spec.descriptor import Platform


class EngineSource(ImageSource):
    """Images of an engine; a subclass finds documents of its images elsewhere."""

    transport = "docker-daemon"
    once = False

    def __init__(
        self,
        name: str,
        client: EngineClient,
        context: Context,
        environ: Mapping[str, str],
        *,
        platforms: Sequence[Platform],
        all_tags: bool,
        outline: bool,
        ahead: bool,
    ) -> None:
        """`name`: an image's name or ID; with `all_tags`, that of a repository.

        `platforms` are wanted, all where there is none; `outline`: describe an image roughly rather
        than export it. `ahead`: blobs may be sent before it is known what lists them.
        """
        self.name = name
        self._client = client
        self._platforms = platforms
        self._all_tags = all_tags
        self._wants_outline = outline
        self._ahead = ahead
        self._exports = Exports(client, context, environ, self.at_targets)
        self._contents: dict[Digest, SourceImage | SourceIndex] = {}
        """Images that are described."""

    # What a subclass knows of documents (configs and manifests), by their digests.

    def find(self, digest: Digest, *, manifest: bool, anywhere: bool = True) -> bytes | None:
        """See `Find`: what was kept, also by an earlier push, or is where it may have gone."""
        raise NotImplementedError

    def keep(self, content: bytes) -> None:
        """Keep a document, for later pushes too."""
        raise NotImplementedError

    def at_targets(self, diff_ids: Collection[Digest]) -> Collection[Digest]:
        """Those of the layers, and of the blobs made of them, that need hardly be sent."""
        raise NotImplementedError

    def near(self, root: Digest, layers: Mapping[Digest, Digest]) -> bool:
        """Whether the image is probably at its destination already.

        `layers`: their digests, by DiffIDs.
        """
        raise NotImplementedError

    # What is pushed.

    def close(self) -> None:
        """See `ImageSource`."""
        self._exports.close()
        self._client.close()

    def entries(self) -> Sequence[SourceEntry]:
        """See `ImageSource`."""
        unknown = [image for image in self.listed if self._describe(image, self.find) is None]
        outlines: dict[Digest, SourceImage] = {}
        if self._wants_outline:
            outlines = {image.id: self._outline(image) for image in unknown if not image.is_index}
            unknown = [image for image in unknown if image.is_index]
        if unknown:
            self._describe_by_export(unknown)
        contents = self._contents | outlines
        return [
            SourceEntry(image.names, partial(contents.__getitem__, image.id))
            for image in self.listed
        ]

    @cached_property
    def listed(self) -> list[Listed]:
        """What the engine says of the images."""
        if self._all_tags:
            return images.all_tags(self._client, self.name)
        image = images.one(self._client, self.name)
        return [image.of(self._platforms[0]) if len(self._platforms) == 1 else image]

    @property
    def export_size(self) -> int:
        """Bytes of an export, about; 0: no export is needed."""
        return sum(image.size for image in self.listed if not self._at_hand(image))

    # Without an export.

    def _describe(self, image: Listed, find: Find) -> SourceImage | SourceIndex | None:
        """The image, once it is described by documents that `find` finds; None: one is missing."""
        if image.id not in self._contents and (content := self._by_documents(image, find)):
            self._contents[image.id] = content
        return self._contents.get(image.id)

    @cached_property
    def _files(self) -> StoreFiles:
        return StoreFiles(self._client.info())

    def _at_hand(self, image: Listed) -> bool:
        """Whether the image's layers can be read without an export."""
        if (content := self._contents.get(image.id)) is None:
            return False
        blobs = _blobs(content)
        return not blobs or (image.root is not None and self._files.holds(blobs))

    def _by_documents(self, image: Listed, find: Find) -> SourceImage | SourceIndex | None:
        if image.root is None:
            content = find(image.id, manifest=False) or b""
            try:
                config = parse_config(content)
            except ValueError:
                return None
            layers = self._layers(image, config.diff_ids, config.filled)
            return SourceImage(content, None, layers, None, config.platform, oci=False)
        open_blob = partial(self._open_blob, image)
        try:
            return StoreImage(self._client.name, image, find, self._files, open_blob).read()
        except UnknownDocument:
            return None

    def _outline(self, image: Listed) -> SourceImage:
        """The image as far as it is known without its config."""
        layers = self._layers(image, image.diff_ids, ())
        return SourceImage(b"", None, layers, None, image.platform, oci=False, outline=True)

    @cached_property
    def early_outline(self) -> SourceImage | None:
        """See `ImageSource`. Only an export has the config, while inspect tells the DiffIDs."""
        image = self._only if self._ahead and not self._all_tags else None
        if image is None or image.root or not image.diff_ids or self._describe(image, self.find):
            return None
        return self._outline(image)

    def _layers(
        self, image: Listed, diff_ids: Sequence[Digest], filled: Sequence[bool]
    ) -> tuple[SourceLayer, ...]:
        """The layers as plain tars, which the engine makes for each export; sizes are about so."""
        # The history has a size for each step; steps without a layer are left out, if the config
        # tells them. Where the numbers do not fit, each layer gets its share of the whole.
        sizes = self._client.layer_sizes(image.id)
        if len(sizes) == len(filled):
            sizes = [size for size, is_layer in zip(sizes, filled, strict=True) if is_layer]
        if len(sizes) != len(diff_ids):
            sizes = [image.size // max(1, len(diff_ids))] * len(diff_ids)
        return tuple(
            SourceLayer(diff_id, None, size, partial(self._open_layer, image, diff_id, place))
            for place, (diff_id, size) in enumerate(zip(diff_ids, sizes, strict=True))
        )

    # By an export that passes by.

    def passes(self) -> bool:
        """See `ImageSource`."""
        return self._ahead and self.needs_export

    @cached_property
    def needs_export(self) -> bool:
        """Whether an export of the only image, by its digests, will hardly be avoided."""
        image = self._only
        if image is None or image.root is None:
            return False
        content = self._describe(image, self.find)
        if content is None:
            return True
        layers = [layer for each in images_of(content) for layer in each.layers]
        if self._at_hand(image) or not all(layer.stored for layer in layers):
            return False
        digests = {
            layer.diff_id: layer.stored.digest for layer in layers if layer.diff_id and layer.stored
        }
        return not self.near(image.id, digests)

    @property
    def _only(self) -> Listed | None:
        """The only image, if all that the engine holds of it is of a wanted platform."""
        image, *more = self.listed
        fits = image.alone and all(may_be(image.platform, each) for each in self._platforms)
        return image if not more and (fits or not self._platforms) else None

    def passing(self, held: Held) -> Generator[PassingBlob | None, None, None]:
        """See `ImageSource`. Ends behind the last wanted blob; what was missed is exported anew."""
        (image,) = self.listed
        there = self.at_targets(image.diff_ids)
        wanted: set[Digest] | None = None

        def have_passed(tar: PassingTar) -> bool:
            """Whether the documents are known, and all blobs that must be sent have passed."""
            nonlocal wanted
            if wanted is None:
                find = self._keeping(lambda digest: tar.documents.get(path_of(digest)))
                content = self._describe(image, find)
                wanted = _blobs(content).difference(there) if content else None
            return wanted is not None and all(tar.size(path_of(it)) is not None for it in wanted)

        return self._exports.passing(image, held, have_passed)

    # By an export that is kept.

    def _describe_by_export(self, unknown: Sequence[Listed]) -> None:
        """Describe images by an export of all of them."""
        export = self._exports.kept(unknown)
        for image in unknown:
            content = self._describe(image, self._keeping(export.document))
            if content is None and image.id in image.absent:
                raise SourceError(
                    f"{self._client.name} does not hold all of {image.title}",
                    hint="copy it from its registry, or pull it anew",
                )
            self._contents[image.id] = content or _listed_in(export, image)
        blobs = (_blobs(self._contents[image.id]) for image in unknown)
        export.want_only(set[Digest]().union(*blobs))

    def _keeping(self, look: Callable[[Digest], bytes | None]) -> Find:
        """Finds documents in an export, checks them, and keeps them for later pushes."""

        def find(digest: Digest, **_: bool) -> bytes | None:
            content = look(digest)
            if content is None or Digest.of(content) != digest:
                return None
            self.keep(content)
            return content

        return find

    def _export(self, image: Listed) -> KeptExport:
        """An export of the image, of which only the layers are wanted where those are known."""
        content = self._contents.get(image.id)
        return self._exports.kept([image], _blobs(content) if content else None)

    def _open_layer(self, image: Listed, diff_id: Digest, place: int) -> Reader:
        """Open a plain layer of an export. Raises SourceError, Cancelled."""
        # Docker names the layer's file by its DiffID; else its place in `manifest.json` tells.
        export = self._export(image)
        if reader := export.open(diff_id):
            return reader
        content = _listed_in(export, image)
        if isinstance(content, SourceIndex) or len(content.layers) <= place:
            raise SourceError(f"{image.title} has changed in {self._client.name} meanwhile")
        return content.layers[place].open()

    def _open_blob(self, image: Listed, digest: Digest) -> Reader:
        """Open a blob of a containerd store. Raises SourceError, Cancelled."""
        if reader := self._files.open(digest):
            return reader
        export = self._export(image)
        if reader := export.open(digest):
            return reader
        raise SourceError(f"{export.name} lacks the layer {digest}")


def _blobs(content: SourceImage | SourceIndex) -> set[Digest]:
    """The layers that an engine holds, by the digests that name them in its store and exports."""
    layers = [layer for image in images_of(content) for layer in image.layers if layer.held]
    digests = (layer.stored.digest if layer.stored else layer.diff_id for layer in layers)
    return {digest for digest in digests if digest}


def _listed_in(export: KeptExport, image: Listed) -> SourceImage | SourceIndex:
    """That image in an export, by the export's list. Raises SourceError."""
    entries = export.listed().entries()
    entry = entries[0] if len(entries) == 1 else select(entries, image.names[0], image.title)
    return entry.content
