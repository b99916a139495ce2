"""Images of a Docker engine, or of Podman's service, described without an export where possible.

An engine tells an image's digest, but gives no single layers: all of an image, or nothing. So
config and manifests are looked for, by their digests, where they may be known already. Only if a
layer has to be sent does the engine export the image, once.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING

from towline.errors import SourceError
from towline.sources import engine_images
from towline.sources.base import (
    SourceEntry,
    SourceImage,
    SourceIndex,
    SourceLayer,
    images_of,
)
from towline.sources.engine_content import EngineContent
from towline.sources.engine_documents import (
    DescribedFiles,
    config_of,
    gather,
    named_by,
    without_manifest,
)
from towline.sources.engine_exporter import Exporter
from towline.sources.oci_layout import OciLayout, path_of
from towline.sources.select import may_be, select
from towline.spec.descriptor import Descriptor, Platform
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping, Sequence

    from towline.context import Context
    from towline.layers.reader import Reader
    from towline.reference import Reference
    from towline.sources.base import ImageSource
    from towline.sources.engine_client import EngineClient
    from towline.sources.engine_documents import Find
    from towline.sources.engine_export import EngineExport
    from towline.sources.engine_images import Listed
    from towline.sources.passing import PassingTar
    from towline.sources.passing_blob import PassingBlob


class EngineSource:
    """An ImageSource of an engine; a subclass finds documents of its images elsewhere."""

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
    ) -> None:
        """`name`: an image's name or ID; with `all_tags`, that of a repository.

        `platforms` are wanted, all where there is none; `outline`: describe an image roughly rather
        than export it.
        """
        self.name = name
        self._client = client
        self._context = context
        self._platforms = platforms
        self._all_tags = all_tags
        self._wants_outline = outline
        self._exporter = Exporter(client, context, environ, self.held)
        self._layers_of: dict[Digest, set[str]] = {}
        """By images that are described: the digests of their layers, without the algorithm."""
        self._contents: dict[Digest, SourceImage | SourceIndex] = {}
        """Images that could be described without an export."""

    # What a subclass knows of documents (configs and manifests), by their digests.

    def remembered(self, digest: Digest) -> bytes | None:
        """A document that was kept, also by an earlier push, its digest checked; or None."""
        raise NotImplementedError

    def fetch(self, digest: Digest, *, manifest: bool) -> bytes | None:
        """A document from a registry to which it may have been pushed; None: it is not there.

        `manifest`: it is a manifest or an index, not a config.
        """
        raise NotImplementedError

    def keep(self, content: bytes) -> None:
        """Keep a document, for later pushes too."""
        raise NotImplementedError

    def held(self, diff_ids: Collection[Digest]) -> Collection[Digest]:
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
        self._exporter.close()
        self._client.close()

    def entries(self) -> Sequence[SourceEntry]:
        """See `ImageSource`."""
        images = self._images
        described = {image.id: self._without_export(image) for image in images}
        unknown = [image for image in images if described[image.id] is None]
        if self._wants_outline:
            described |= {each.id: self._outline(each) for each in unknown if not each.is_index}
            unknown = [each for each in unknown if each.is_index]
        if unknown:
            described |= self._by_export(unknown)

        def entry(image: Listed, content: SourceImage | SourceIndex) -> SourceEntry:
            return SourceEntry(image.names, lambda: content)

        return [entry(image, content) for image in images if (content := described[image.id])]

    @cached_property
    def _images(self) -> list[Listed]:
        if self._all_tags:
            return engine_images.all_tags(self._client, self.name)
        image = engine_images.one(self._client, self.name)
        return [image.of(self._platforms[0]) if len(self._platforms) == 1 else image]

    @property
    def origins(self) -> tuple[Reference, ...]:
        """The repositories from which the engine has its images, or to which it has pushed them."""
        return tuple(dict.fromkeys(place for image in self._images for place in image.origins))

    @property
    def export_size(self) -> int:
        """Bytes of an export, about; 0: no export is needed."""
        return sum(image.size for image in self._images if not self._at_hand(image))

    # Without an export.

    def _find(
        self, image: Listed, digest: Digest, *, manifest: bool, anywhere: bool = True
    ) -> bytes | None:
        """A document of an image, from anywhere but an export; None: it was not found."""
        content = self.remembered(digest)
        if content is None and image.root is not None:
            content = self._content.read(digest.hex)
            # Read from the store's own files, which nobody has checked on the way.
            if content is not None and Digest.of(content) != digest:
                content = None
        if content is None and anywhere:
            content = self.fetch(digest, manifest=manifest)
        return content

    def _at_hand(self, image: Listed) -> bool:
        """Whether the image's layers can be read without an export."""
        layers = self._layers_of.get(image.id)
        if not layers:
            return layers is not None
        return image.root is not None and self._content.holds(layers)

    @cached_property
    def _content(self) -> EngineContent:
        return EngineContent(self._client.info())

    def _without_export(self, image: Listed) -> SourceImage | SourceIndex | None:
        """The image, if its documents are known or can be had elsewhere; else None."""
        content = self._contents.get(image.id) or self._described(image, partial(self._find, image))
        if content is not None:
            self._contents[image.id] = content
        return content

    def _described(self, image: Listed, find: Find) -> SourceImage | SourceIndex | None:
        """The image by its documents, which `find` finds; None: one of them is missing."""
        top = find(image.id, manifest=image.root is not None)
        if top is None:
            return None
        if image.root is None and (config := config_of(top)):
            layers = self._layers(image, config.diff_ids, config.filled)
            self._layers_of[image.id] = {diff_id.hex for diff_id in config.diff_ids}
            return SourceImage(top, None, layers, None, config.platform, oci=False)
        root = image.root or Descriptor("", image.id, len(top))
        gathered = gather(
            root, find, image.absent, lambda digest: self._content.holds([digest.hex])
        )
        if gathered is None:
            return None
        self._layers_of[image.id] = set(map(named_by, gathered.sizes))
        open_blob = partial(self._open_blob, image)
        layout = OciLayout(DescribedFiles(self._client.name, root, gathered, open_blob))
        content = layout.entries()[0].content
        if image.within:
            return content._replace(for_index=True)
        return content if layout.says_most() else without_manifest(content)

    def _outline(self, image: Listed) -> SourceImage:
        """The image as far as it is known without its config."""
        layers = self._layers(image, image.diff_ids, ())
        return SourceImage(b"", None, layers, None, image.platform, oci=False, outline=True)

    def early_outline(self) -> SourceImage | None:
        """An image whose layers can be sent before its config has come; None: it is none.

        Only an export has its config, which may come last, while inspect tells the DiffIDs.
        """
        (image, *more) = self._images
        if more or image.containerd or self._all_tags or not image.diff_ids:
            return None
        if not self._all_wanted(image):
            return None
        return self._outline(image) if self._without_export(image) is None else None

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
        """Whether to take the blobs from `passing`, as an export will hardly be avoided."""
        if len(self._images) != 1 or not self._images[0].containerd:
            return False
        (image,) = self._images
        if not self._all_wanted(image):
            return False
        content = self._without_export(image)
        if content is None:
            return True
        layers = [layer for each in images_of(content) for layer in each.layers]
        if self._at_hand(image) or not all(layer.stored for layer in layers):
            return False
        digests = {
            layer.diff_id: layer.stored.digest for layer in layers if layer.diff_id and layer.stored
        }
        return not self.near(image.id, digests)

    def _all_wanted(self, image: Listed) -> bool:
        """Whether everything that the engine holds of the image is of a wanted platform."""
        fits = all(may_be(image.platform, wanted) for wanted in self._platforms)
        return not self._platforms or (image.alone and fits)

    def passing(self) -> Generator[PassingBlob, None, None]:
        """See `PassesBy`. Ends behind the last wanted blob; missed ones are exported once more."""
        (image,) = self._images
        held = {digest.hex for digest in self.held(image.diff_ids)}
        return self._exporter.passing(image, lambda tar: self._has_passed(image, tar, held))

    def _has_passed(self, image: Listed, tar: PassingTar, held: set[str]) -> bool:
        """Whether the image's documents are known, and all blobs that must be sent have passed."""

        def find(digest: Digest, **_: bool) -> bytes | None:
            return self._checked(digest, tar.documents.get(path_of(digest)))

        if image.id not in self._layers_of and self._described(image, find) is None:
            return False
        wanted = self._layers_of[image.id] - held
        return all(tar.size(f"blobs/sha256/{name}") is not None for name in wanted)

    # By an export that is kept.

    def _by_export(self, images: Sequence[Listed]) -> dict[Digest, SourceImage | SourceIndex]:
        """Images by an export; their documents are kept for later pushes."""
        if len(images) == 1:
            (image,) = images
            export = self._export(images)
            if content := self._described(image, partial(self._find_in, export)):
                export.want_only(self._layers_of[image.id])
                return {image.id: content}
            if image.id in image.absent:
                raise SourceError(
                    f"{self._client.name} does not hold all of {image.title}",
                    hint="copy it from its registry, or pull it anew",
                )
        archive = self._exporter.archive(images)
        found = {}
        for image in images:
            content = _content(archive, image)
            self._keep_documents(image, content, images)
            found[image.id] = content
        return found

    def _find_in(self, export: EngineExport, digest: Digest, **_: bool) -> bytes | None:
        """A document of an export, waited for; None: the export does not have it."""
        return self._checked(digest, export.read(digest.hex))

    def _checked(self, digest: Digest, content: bytes | None) -> bytes | None:
        """The document, which is kept for later pushes, if it has that digest; else None."""
        if content is None or Digest.of(content) != digest:
            return None
        self.keep(content)
        return content

    def _keep_documents(
        self, image: Listed, content: SourceImage | SourceIndex, images: Sequence[Listed]
    ) -> None:
        """Keep the documents of an image of an export for later pushes."""
        if isinstance(content, SourceImage):
            self.keep(content.config)
        find = partial(self._find_in, self._export(images))
        top = find(image.id, manifest=True)
        if top is not None and config_of(top) is None:
            gather(Descriptor("", image.id, len(top)), find)

    def _open_layer(self, image: Listed, diff_id: Digest, place: int) -> Reader:
        """Open a plain layer of an export. Raises SourceError, Cancelled."""
        # Docker names the layer's file by its DiffID; else its place in `manifest.json` tells.
        if reader := self._export([image]).open(diff_id.hex):
            return reader
        content = _content(self._exporter.archive([image]), image)
        if isinstance(content, SourceIndex) or len(content.layers) <= place:
            raise SourceError(f"{image.title} has changed in {self._client.name} meanwhile")
        return content.layers[place].open()

    def _open_blob(self, image: Listed, path: str) -> Reader:
        if reader := self._content.open(named_by(path)):
            return reader
        export = self._export([image])
        reader = export.open(named_by(path))
        if reader is None:
            raise SourceError(f"{export.name} lacks {path}")
        return reader

    def _export(self, images: Sequence[Listed]) -> EngineExport:
        """The export of these images that is kept; of a single image only the wanted layers."""
        wanted = self._layers_of.get(images[0].id) if len(images) == 1 else None
        return self._exporter.kept(images, wanted)


def _content(archive: ImageSource, image: Listed) -> SourceImage | SourceIndex:
    """That image in an export. Raises SourceError."""
    entries = archive.entries()
    entry = entries[0] if len(entries) == 1 else select(entries, image.names[0], image.title)
    return entry.content
