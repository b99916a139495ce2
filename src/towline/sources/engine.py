"""Images of a Docker engine, or of Podman's service: described without an export where they can be.

An engine says what an image is, by digest, and has no single layers to give: all of an image, or
nothing. So its config and manifests are looked for by their digests where they may be known
already (`Documents`), and a layer is opened only if somebody has to send it; then, once, the
engine exports the image.
"""

from __future__ import annotations

import io
import json
import threading
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from towline import reference as references
from towline.context import acquired
from towline.errors import InvalidReference, SourceError
from towline.events import Note
from towline.sources import engine_client, files
from towline.sources.base import SourceEntry, SourceImage, SourceIndex
from towline.sources.engine_content import EngineContent
from towline.sources.engine_export import EngineExport, ExportStream
from towline.sources.oci_layout import INDEX, OciLayout
from towline.sources.select import select
from towline.spec import config as configs
from towline.spec import manifest as manifests
from towline.spec import media_types, reading
from towline.spec.descriptor import Descriptor, Platform
from towline.spec.digest import Digest
from towline.spec.manifest import Index, Manifest
from towline.wire.log import silent

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Generator, Mapping, Sequence

    from towline.context import Context
    from towline.layers.reader import Reader
    from towline.reference import Reference
    from towline.sources.base import ImageSource, SourceLayer
    from towline.sources.passing import PassingBlob, PassingTar
    from towline.wire.exchange import Unread
    from towline.wire.log import Log
    from towline.wire.secrets import Secrets

_ALIKE = 5
"""Names that are suggested."""


class Documents(Protocol):
    """Configs and manifests by their digests, wherever they are known from."""

    def remembered(self, digest: Digest) -> bytes | None:
        """One of them, from the last time; its digest is checked."""
        ...

    def fetch(self, digest: Digest, *, manifest: bool) -> bytes | None:
        """Likewise from where it may have been pushed to; `manifest`: it is one, or an index."""
        ...

    def keep(self, content: bytes) -> None:
        """Remember one for the next time."""
        ...

    def held(self, diff_ids: Collection[Digest]) -> Collection[Digest]:
        """Those layers, and the blobs that they became, which will hardly have to be sent."""
        ...

    def near(self, root: Digest, diff_ids: Collection[Digest]) -> bool:
        """Whether what is wanted of an image may well be where it is to go."""
        ...


class NoDocuments:
    """Nothing is known."""

    def remembered(self, digest: Digest) -> bytes | None:
        """See `Documents`."""
        del digest
        return None

    def fetch(self, digest: Digest, *, manifest: bool) -> bytes | None:
        """See `Documents`."""
        del digest, manifest
        return None

    def keep(self, content: bytes) -> None:
        """See `Documents`."""

    def held(self, diff_ids: Collection[Digest]) -> Collection[Digest]:
        """See `Documents`."""
        del diff_ids
        return ()

    def near(self, root: Digest, diff_ids: Collection[Digest]) -> bool:
        """See `Documents`."""
        del root, diff_ids
        return False


@dataclass(frozen=True, slots=True)
class Access:
    """How an engine is reached, and what is wanted of it."""

    url: str | None = None
    timeout: float = 30.0
    log: Log = silent
    secrets: Secrets | None = None
    documents: Documents = NoDocuments()  # noqa: RUF009 - it has no state
    all_tags: bool = False
    """Every tag of the repository that is named, not the one image."""
    outline: bool = False
    """Rather a rough description than an export."""


@dataclass(frozen=True, slots=True)
class Listed:
    """What the engine says of an image."""

    id: Digest
    """Of the config; in a containerd store of the manifest or index."""
    names: tuple[str, ...]
    diff_ids: tuple[Digest, ...]
    size: int
    """Bytes of an export, more or less."""
    platform: Platform
    root: Descriptor | None
    """The manifest or index of an image in a containerd store, where the engine tells of it."""
    containerd: bool
    """Whether it is in a containerd store, which sends blobs as they are, by their digests."""
    origins: tuple[Reference, ...]
    """By digest, in the repositories that the engine knows it from."""
    absent: frozenset[Digest]
    """What the index lists and the engine does not hold, or not whole."""

    @property
    def title(self) -> str:
        """What messages call it."""
        return self.names[0] if self.names else self.id.short

    @property
    def is_index(self) -> bool:
        """Whether it is an image for several platforms, or one with attestations."""
        return self.root is not None and self.root.media_type in media_types.INDEXES


class EngineSource:
    """An ImageSource."""

    transport = "docker-daemon"
    once = False

    def __init__(
        self, name: str, access: Access, context: Context, environ: Mapping[str, str]
    ) -> None:
        """`name` is an image's name or ID. Raises SourceError."""
        self.name = name
        self._access = access
        self._documents = access.documents
        self._context = context
        self._environ = environ
        self._client = engine_client.connect(
            access.url,
            name,
            context,
            environ,
            timeout=access.timeout,
            log=access.log,
            secrets=access.secrets,
        )
        self._turn = threading.Lock()
        self._exports: dict[tuple[Digest, ...], EngineExport] = {}
        self._archives: dict[tuple[Digest, ...], ImageSource] = {}
        """The same, by their own lists of what is in them."""
        self._layers_of: dict[Digest, set[str]] = {}
        """Digests, without their algorithm, of the layers of images that are described."""
        self._passed: dict[Digest, bytes] = {}
        """Documents of an export that has passed by."""
        self._contents: dict[Digest, SourceImage | SourceIndex] = {}
        """What images are by what is known of them without an export."""

    def close(self) -> None:
        """See `ImageSource`."""
        for archive in self._archives.values():
            archive.close()
        for export in self._exports.values():
            export.release()
        self._client.close()

    def entries(self) -> Sequence[SourceEntry]:
        """See `ImageSource`."""
        images = self._images
        described = {image.id: self._without_export(image) for image in images}
        unknown = [image for image in images if described[image.id] is None]
        if self._access.outline:
            described |= {each.id: self._outline(each) for each in unknown if not each.is_index}
            unknown = [each for each in unknown if each.is_index]
        if unknown:
            described |= self._by_export(unknown)
        return [
            SourceEntry(image.names, content)
            for image in images
            if (content := described[image.id])
        ]

    @cached_property
    def _images(self) -> list[Listed]:
        return self._all_tags() if self._access.all_tags else [self._one()]

    @property
    def origins(self) -> tuple[Reference, ...]:
        """Where the engine has its images from, or has pushed them to."""
        return tuple(dict.fromkeys(place for image in self._images for place in image.origins))

    @property
    def export_size(self) -> int:
        """Bytes that an export would have, more or less; 0: none is needed."""
        return sum(image.size for image in self._images if not self._at_hand(image))

    # Which images.

    def _one(self) -> Listed:
        found = self._client.inspect(self.name)
        if found is None:
            raise self._no_such_image()
        return _listed(found)

    def _no_such_image(self) -> SourceError:
        import difflib

        images = self._client.images()
        names = dict.fromkeys(str(name) for each in images for name in each.get("RepoTags") or ())
        alike = difflib.get_close_matches(self.name, names, _ALIKE, cutoff=0.5)
        hint = f"is it one of these? {', '.join(alike)}" if alike else "docker images lists them"
        return SourceError(f"{self.name} is no image of {self._client.name}", hint=hint)

    def _all_tags(self) -> list[Listed]:
        """The images under all tags of a repository, each once, with those names of theirs."""
        wanted = references.parse(self.name)
        tags: set[str] = set()
        for listed in self._client.images({"reference": [wanted.repository.familiar]}):
            for name in map(str, listed.get("RepoTags") or ()):
                found = _reference(name)
                if found and wanted in {found, found.with_tag(None)}:
                    tags.add(name)
        images: dict[Digest, Listed] = {}
        for tag in sorted(tags):
            if said := self._client.inspect(tag):
                image = _listed(said)
                names = images[image.id].names if image.id in images else ()
                images[image.id] = replace(image, names=(*names, tag))
        if not images:
            raise SourceError(
                f"no tags to push for {self.name}: {self._client.name} has no image of that name"
            )
        return list(images.values())

    # Without an export.

    def _find(
        self, image: Listed, digest: Digest, *, manifest: bool, anywhere: bool = True
    ) -> bytes | None:
        """A document of an image, from wherever it is known without an export."""
        content = self._passed.get(digest) or self._documents.remembered(digest)
        if content is None and image.root is not None:
            content = self._content.read(digest.hex)
            if content is not None and Digest.of(content) != digest:
                content = None
        if content is None and anywhere:
            content = self._documents.fetch(digest, manifest=manifest)
        return content

    def _at_hand(self, image: Listed) -> bool:
        """Whether its layers can be had without an export."""
        layers = self._layers_of.get(image.id)
        if not layers:
            return layers is not None
        return image.root is not None and self._content.holds(layers)

    @cached_property
    def _content(self) -> EngineContent:
        return EngineContent(self._client.info())

    def _without_export(self, image: Listed) -> SourceImage | SourceIndex | None:
        """The image as far as its documents are known, or can be asked for elsewhere."""
        content = self._contents.get(image.id) or self._described(image, partial(self._find, image))
        if content is not None:
            self._contents[image.id] = content
        return content

    def _described(self, image: Listed, find: _Find) -> SourceImage | SourceIndex | None:
        """The image as its documents describe it; None where one of them is not found."""
        top = find(image.id, manifest=image.root is not None)
        if top is None:
            return None
        if image.root is None and (config := _config(top)):
            layers = self._layers(image, config.diff_ids, config.filled)
            self._layers_of[image.id] = {diff_id.hex for diff_id in config.diff_ids}
            return SourceImage(top, None, layers, None, config.platform, oci=False)
        root = image.root or Descriptor("", image.id, len(top))
        gathered = _gather(
            root, find, image.absent, lambda digest: self._content.holds([digest.hex])
        )
        if gathered is None:
            return None
        self._layers_of[image.id] = set(map(_named_by, gathered.sizes))
        open_blob = partial(self._open_blob, image)
        layout = OciLayout(_KnownFiles(self._client.name, root, gathered, open_blob))
        content = layout.entries()[0].content
        return content if layout.says_most() else _without_manifest(content)

    def _outline(self, image: Listed) -> SourceImage:
        """The image as far as it can be told without its config."""
        layers = self._layers(image, image.diff_ids, ())
        return SourceImage(b"", None, layers, None, image.platform, oci=False, outline=True)

    def early_outline(self) -> SourceImage | None:
        """An image of which only an export tells more, whose layers can be sent before that.

        Its config may come last, while the layers are known by their DiffIDs.
        """
        (image, *more) = self._images
        if more or image.containerd or self._access.all_tags or not image.diff_ids:
            return None
        return self._outline(image) if self._without_export(image) is None else None

    def _layers(
        self, image: Listed, diff_ids: Sequence[Digest], filled: Sequence[bool]
    ) -> tuple[SourceLayer, ...]:
        """Plain tars, of about these sizes: the engine makes them anew for each export."""
        sizes = self._client.layer_sizes(image.id)
        if len(sizes) == len(filled):
            sizes = [size for size, is_layer in zip(sizes, filled, strict=True) if is_layer]
        if len(sizes) != len(diff_ids):
            sizes = [image.size // max(1, len(diff_ids))] * len(diff_ids)
        return tuple(
            EngineLayer(diff_id, size, partial(self._open_layer, image, diff_id, place))
            for place, (diff_id, size) in enumerate(zip(diff_ids, sizes, strict=True))
        )

    # By an export that passes by.

    def passes(self) -> bool:
        """Whether to take its blobs from `passing` first: an export will hardly be avoided."""
        if len(self._images) != 1 or not self._images[0].containerd:
            return False
        (image,) = self._images
        content = self._without_export(image)
        if content is None:
            return True
        if self._at_hand(image):
            return False
        diff_ids = {layer.diff_id for each in _leaves(content) for layer in each.layers}
        return not self._documents.near(image.id, [diff_id for diff_id in diff_ids if diff_id])

    def passing(self) -> Generator[PassingBlob, None, None]:
        """See `PassesBy`: until the last that is wanted; what is missed is exported once more."""
        from towline.sources.passing import PassingTar

        (image,) = self._images
        unread = self._ask([image], self._context)
        name = f"the export of {image.title}"
        stream = ExportStream(unread, name, self._client.gone_in_export)
        tar = PassingTar(stream, name, self._context.cancel)
        held = {digest.hex for digest in self._documents.held(image.diff_ids)}
        try:
            yield from tar.passing(lambda: self._has_passed(image, tar, held))
        except SourceError as error:
            raise stream.explained(error) from error
        finally:
            stream.close()

    def _has_passed(self, image: Listed, tar: PassingTar, held: Collection[str]) -> bool:
        """Whether all is here that describes the image, and has passed that has to be sent."""

        def find(digest: Digest, **_: bool) -> bytes | None:
            content = tar.documents.get(_path(digest))
            if content is not None and Digest.of(content) == digest:
                self._passed[digest] = content
                self._documents.keep(content)
            return self._passed.get(digest)

        if image.id not in self._layers_of and self._described(image, find) is None:
            return False
        names = map(_named_by, tar.files)
        return self._layers_of[image.id] <= {*held, *names}

    # By an export that is kept.

    def _by_export(self, images: Sequence[Listed]) -> dict[Digest, SourceImage | SourceIndex]:
        """What an export says of images; it is remembered for the next time."""
        if len(images) == 1:
            (image,) = images
            export = self._export(images)
            if content := self._described(image, partial(self._find_in, export)):
                export.want_only(self._layers_of[image.id])
                return {image.id: content}
            if image.id in image.absent:
                raise SourceError(
                    f"{self._client.name} does not hold all of {image.title}, and exports none of it",
                    hint="pull it again where nothing of it is unpacked, or copy it from its registry",
                )
        archive = self._archive(images)
        found = {}
        for image in images:
            content = _content(archive, image)
            self._keep_documents(image, content, images)
            found[image.id] = content
        return found

    def _find_in(self, export: EngineExport, digest: Digest, **_: bool) -> bytes | None:
        """A document of an export, as soon as it has come."""
        content = export.read(digest.hex)
        if content is None or Digest.of(content) != digest:
            return None
        self._documents.keep(content)
        return content

    def _keep_documents(
        self, image: Listed, content: SourceImage | SourceIndex, images: Sequence[Listed]
    ) -> None:
        """Remember what describes an image of an export."""
        if isinstance(content, SourceImage):
            self._documents.keep(content.config)
        find = partial(self._find_in, self._export(images))
        top = find(image.id, manifest=True)
        if top is not None and _config(top) is None:
            _gather(Descriptor("", image.id, len(top)), find)

    def _open_layer(self, image: Listed, diff_id: Digest, place: int) -> Reader:
        """A plain layer: by its DiffID, else by its place in the archive's own list."""
        if reader := self._export([image]).open(diff_id.hex):
            return reader
        content = _content(self._archive([image]), image)
        if isinstance(content, SourceIndex) or len(content.layers) <= place:
            raise SourceError(f"{image.title} has changed in {self._client.name} meanwhile")
        return content.layers[place].open()

    def _open_blob(self, image: Listed, path: str) -> Reader:
        if reader := self._content.open(_named_by(path)):
            return reader
        export = self._export([image])
        reader = export.open(_named_by(path))
        if reader is None:
            raise SourceError(f"{export.name} lacks {path}")
        return reader

    def _export(self, images: Sequence[Listed]) -> EngineExport:
        """Have the engine export images, once."""
        key = tuple(image.id for image in images)
        with acquired(self._turn, self._context):
            if key not in self._exports:
                self._exports[key] = self._new_export(images)
            return self._exports[key]

    def _ask(self, images: Sequence[Listed], context: Context) -> Unread:
        """Begin an export."""
        title = ", ".join(image.title for image in images)
        size = sum(image.size for image in images)
        message = f"{self._client.name} prepares its export of {title}, about {size} bytes"
        self._context.emit(Note(reference="", message=message))
        # By its ID: a name may be another image's by now. Only names tell several apart.
        asked = [images[0].id] if len(images) == 1 else [n for each in images for n in each.names]
        return self._client.export(asked, context)

    def _new_export(self, images: Sequence[Listed]) -> EngineExport:
        title = ", ".join(image.title for image in images)
        held = self._documents.held({diff_id for each in images for diff_id in each.diff_ids})
        export = EngineExport(
            partial(self._ask, images),
            self._client.gone_in_export,
            f"the export of {title}",
            self._context,
            self._environ,
            expected=sum(image.size for image in images),
            unwanted={digest.hex for digest in held},
        )
        if len(images) == 1 and images[0].id in self._layers_of:
            export.want_only(self._layers_of[images[0].id])
        return export

    def _archive(self, images: Sequence[Listed]) -> ImageSource:
        """An export by its own list of what is in it, which comes last."""
        from towline.sources.open_source import by_its_list
        from towline.sources.tar_members import TarMembers

        export = self._export(images)
        key = tuple(image.id for image in images)
        with acquired(self._turn, self._context):
            if key not in self._archives:
                export.await_end()
                export.hold()
                try:
                    members = TarMembers(export, export.name, self._context.cancel)
                    self._archives[key] = by_its_list(members, None, self._context)
                except BaseException:
                    export.release()
                    raise
            return self._archives[key]


@dataclass(frozen=True, slots=True)
class EngineLayer:
    """A layer that is plain in the engine; it is opened by an export."""

    diff_id: Digest
    size: int
    open: Callable[[], Reader]
    stored: Descriptor | None = None
    foreign: Descriptor | None = None
    held: bool = True


def _leaves(content: SourceImage | SourceIndex) -> list[SourceImage]:
    """The image, or those of an index and of the indexes in it."""
    if isinstance(content, SourceImage):
        return [content]
    return [image for child in content.children for image in _leaves(child)]


def _content(archive: ImageSource, image: Listed) -> SourceImage | SourceIndex:
    """That image in an export. Raises SourceError."""
    entries = archive.entries()
    entry = entries[0] if len(entries) == 1 else select(entries, image.names[0], image.title)
    return entry.content


class _Gathered(NamedTuple):
    """What describes an image of a containerd store."""

    documents: dict[str, bytes]
    """By their paths in a layout."""
    sizes: dict[str, int]
    """Of the blobs that they list."""


class _Find(Protocol):
    def __call__(
        self, digest: Digest, *, manifest: bool, anywhere: bool = True
    ) -> bytes | None: ...


def _gather(
    root: Descriptor,
    find: _Find,
    absent: Container[Digest] | None = None,
    holds: Callable[[Digest], bool] = lambda _: True,
) -> _Gathered | None:
    """The manifests and configs below a descriptor.

    What is `absent` is left out where it is not here; if it is, so are those of its layers that the
    engine `holds`: it pulls none whose unpacked files it has already. None where another one is not
    found; with `absent` None that one is left out.
    """
    gathered = _Gathered({}, {})
    todo = [root]
    while todo:
        listed = todo.pop()
        incomplete = absent is not None and listed.digest in absent
        anywhere = listed is root or not incomplete
        content = find(listed.digest, manifest=True, anywhere=anywhere)
        document = _manifest(content, listed.media_type) if content is not None else None
        below = [document.config.digest] if isinstance(document, Manifest) else []
        configs_below = {
            digest: find(digest, manifest=False, anywhere=anywhere) for digest in below
        }
        if content is None or document is None or None in configs_below.values():
            if absent is None or not anywhere:
                continue
            return None
        gathered.documents[_path(listed.digest)] = content
        if isinstance(document, Index):
            todo += document.manifests
            continue
        gathered.documents.update((_path(d), c) for d, c in configs_below.items() if c is not None)
        held = (each for each in document.layers if not incomplete or holds(each.digest))
        gathered.sizes.update((_path(layer.digest), layer.size) for layer in held)
    return gathered


class _KnownFiles:
    """A layout of which everything is known but its layers, which an export holds."""

    def __init__(
        self, name: str, root: Descriptor, gathered: _Gathered, open_blob: Callable[[str], Reader]
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


def _without_manifest(content: SourceImage | SourceIndex) -> SourceImage | SourceIndex:
    """An image with plain layers, as its `manifest.json` describes it in an archive.

    The same image is to have the same digest, whether its bytes come by an export or not.
    """
    if isinstance(content, SourceIndex):
        return content
    zstd = any(
        layer.stored and media_types.layer_compression(layer.stored.media_type) == "zstd"
        for layer in content.layers
    )
    platform = configs.parse(content.config).platform
    return SourceImage(content.config, None, content.layers, None, platform, oci=zstd)


def _listed(found: Mapping[str, Any]) -> Listed:
    """What an inspect says. Raises SourceError."""
    return files.understood("what the engine says of its image", lambda: _read(found))


def _read(found: Mapping[str, Any]) -> Listed:
    rootfs = found.get("RootFS")
    root, driver = found.get("Descriptor"), found.get("GraphDriver")
    driver_name = driver.get("Name") if isinstance(driver, dict) else ""
    layers = reading.texts(rootfs, "Layers") if isinstance(rootfs, dict) else ()
    digest = Digest(str(found.get("Id")))
    parts = [each for each in reading.array(found, "Manifests") if isinstance(each, dict)]
    return Listed(
        id=digest,
        names=reading.texts(found, "RepoTags"),
        diff_ids=tuple(map(Digest, layers)),
        size=_content_size(parts) or int(found.get("Size") or 0),
        platform=Platform(
            str(found.get("Os") or ""),
            str(found.get("Architecture") or ""),
            reading.text(found, "Variant") or None,
        ),
        root=Descriptor.from_json(root) if isinstance(root, dict) else None,
        # Before API 1.48 the snapshotter's name tells: the graph driver's is overlay2.
        containerd=isinstance(root, dict) or driver_name == "overlayfs",
        origins=_origins(found, digest),
        absent=frozenset(Digest(str(each["ID"])) for each in parts if not each.get("Available")),
    )


def _origins(found: Mapping[str, Any], digest: Digest) -> tuple[Reference, ...]:
    """`RepoDigests`, and `Identity.Pull` of a containerd store (API 1.53)."""
    identity = found.get("Identity")
    pulls = reading.array(identity, "Pull") if isinstance(identity, dict) else []
    places = [each.get("Repository") for each in pulls if isinstance(each, dict)]
    names = [*reading.texts(found, "RepoDigests"), *(f"{place}@{digest}" for place in places)]
    parsed = (_reference(name) for name in names)
    return tuple(dict.fromkeys(place for place in parsed if place and place.digest))


def _content_size(parts: Sequence[Mapping[str, Any]]) -> int:
    """Bytes of what a containerd store holds of an image, all platforms together."""
    sizes = [each.get("Size") for each in parts if each.get("Available")]
    return sum(int(size.get("Content") or 0) for size in sizes if isinstance(size, dict))


def _config(content: bytes) -> configs.ImageConfig | None:
    try:
        return configs.parse(content)
    except ValueError:
        return None


def _manifest(content: bytes, media_type: str) -> Manifest | Index | None:
    try:
        return manifests.parse(content, media_type)
    except ValueError:
        return None


def _reference(name: object) -> Reference | None:
    try:
        return references.parse(str(name))
    except InvalidReference:
        return None


def _named_by(path: str) -> str:
    """The digest in a blob's path, without its algorithm."""
    return path.rpartition("/")[2]


def _path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"
