"""The values that an image source gives: images, indexes, layers, and what refers to them."""

# No `from __future__ import annotations`: at every start Python would compile each text that
# annotates a field of a named tuple.

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import SourceError
from towline.reference import RepositoryName
from towline.spec.descriptor import Descriptor, Platform
from towline.spec.digest import Digest
from towline.spec.manifest import RawManifest

if TYPE_CHECKING:
    from towline.layers.reader import Reader


class PassedBy(SourceError):
    """The bytes of a blob have passed in a source that is read only once, and are not kept."""


class SourceLayer(NamedTuple):
    """One layer, or any other blob that a manifest lists."""

    diff_id: Digest | None
    """The digest of the uncompressed tar, by the config; None for a blob that is no layer."""
    stored: Descriptor | None
    """The blob that is sent byte for byte, with the digest of the bytes that `open` gives.

    None: `open` gives the plain tar, which is compressed on the way.
    """
    size: int
    """Bytes that `open` gives: those of the stored blob, else of the plain tar."""
    open: "Callable[[], Reader]"
    """Gives a new reader at the first byte; the caller closes it. Raises SourceError."""
    foreign: Descriptor | None = None
    """The descriptor of a foreign layer, which is not sent: the manifest keeps its `urls`."""
    held: bool = True
    """Whether the source has the bytes. If not, the blob is looked for at the destination."""


def missing_layer(
    source: str, name: str, diff_id: Digest | None, stored: Descriptor | None, size: int = 0
) -> SourceLayer:
    """A layer that the source describes and does not have; `size` as far as it tells."""
    lacking = _nothing(f"{source} lacks the layer {name}")
    return SourceLayer(diff_id, stored, size, lacking, held=False)


def foreign_layer(listed: Descriptor, diff_id: Digest | None) -> SourceLayer:
    """A layer that lies elsewhere: only its descriptor in the manifest is known."""
    elsewhere = _nothing(f"the foreign layer {listed.digest} is not in the source")
    return SourceLayer(diff_id, listed, listed.size, elsewhere, foreign=listed, held=False)


def _nothing(why: str) -> "Callable[[], Reader]":
    def fail() -> "Reader":
        raise SourceError(why)

    return fail


class SourceImage(NamedTuple):
    """One image: config, layers, and its manifest if it came with one."""

    config: bytes
    """As it is stored, never re-encoded: its digest is the image's ID."""
    config_type: str | None
    """The media type of the config, if the source tells it; None: the format's own."""
    layers: tuple[SourceLayer, ...]
    """The base first; as many as the manifest lists."""
    manifest: RawManifest | None
    """The manifest of the source. It goes byte for byte if every layer is stored; else it is built
    anew."""
    platform: Platform
    """By the index that lists the image, else by the config."""
    oci: bool
    """Whether the source has it in OCI's format alone: then a new manifest is OCI's, too."""
    annotations: tuple[tuple[str, str], ...] = ()
    """Of the manifest; kept when it is built anew."""
    part_of: Digest | None = None
    """The index for which it stands, whose other images are left out."""
    origin: RepositoryName | None = None
    """The repository that holds it, if the source is a registry."""
    seen_in: tuple[RepositoryName, ...] = ()
    """Repositories that hold its content, by the source's word; their hosts may lack their
    ports."""
    outline: bool = False
    """Whether the config is not known yet, only the layers: they can be planned and sent."""
    warnings: tuple[str, ...] = ()
    """Sentences for the user about how it was chosen (an index that is not whole)."""


class SourceIndex(NamedTuple):
    """An index and the manifests that it lists, in its order.

    Some may be absent, until `select.chosen` has chosen among them.
    """

    manifest: RawManifest
    children: "tuple[SourceImage | SourceIndex, ...]"
    descriptors: tuple[Descriptor, ...]
    """The index's descriptor of each child, in the same order."""
    absent: tuple[Descriptor, ...] = ()
    """Manifests that it lists and the source lacks, wholly or in part."""
    part_of: Digest | None = None
    """The index for which it stands, which lists more."""
    sparse: bool = False
    """Whether layers of its images were left out on purpose."""
    assembled: bool = False
    """Whether it was made here, of images from several sources."""
    warnings: tuple[str, ...] = ()
    """As an image's."""


def images_of(content: SourceImage | SourceIndex) -> list[SourceImage]:
    """The image itself, or the images of an index and of the indexes in it."""
    if isinstance(content, SourceImage):
        return [content]
    return [image for child in content.children for image in images_of(child)]


class SourceEntry:
    """One image or index of a source, and its names there.

    It is read only when its content is asked for: a source may hold a thousand others.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        read: Callable[[], SourceImage | SourceIndex],
        know: Callable[[], Descriptor | None] = lambda: None,
    ) -> None:
        self.names = names
        """As written in the source: `app:1`, `docker.io/library/app:1`, or a layout's bare tag."""
        self._read = read
        self._know = know

    @cached_property
    def known(self) -> Descriptor | None:
        """Its descriptor, if the digest is known before it is read; size 0: not known.

        A registry has been asked for it before, and is awaited: raises as `content` does.
        """
        return self._know()

    @cached_property
    def content(self) -> SourceImage | SourceIndex:
        """The content, read at the first call. Raises SourceError, and a registry's errors."""
        return self._read()


class Referrer(NamedTuple):
    """A manifest that refers to an image: a signature, an SBOM, an attestation."""

    subject: Digest
    """The manifest to which it refers."""
    listed: Descriptor
    tag: str | None
    """Its tag, if only that tells its subject (cosign's)."""
    read: Callable[[], SourceImage | SourceIndex]
    """Raises SourceError; at a registry its errors, too."""
