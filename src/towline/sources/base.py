"""What a push needs of an image, wherever it comes from.

A source reads metadata when it is opened and layers when they are asked for. It promises that a
layer can be opened as often as wanted, from any thread, with the same bytes each time; a source
that cannot seek keeps that promise by spooling.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

from towline.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from towline.layers.reader import Reader
    from towline.reference import RepositoryName
    from towline.spec.descriptor import Descriptor, Platform
    from towline.spec.digest import Digest
    from towline.spec.manifest import RawManifest


class PassedBy(SourceError):
    """The bytes of a blob have gone by in what is read only once, and nobody has kept them."""


class SourceLayer(Protocol):
    """One layer, or any other blob that a manifest lists."""

    @property
    def diff_id(self) -> Digest | None:
        """Digest of the uncompressed tar by the config; None for blobs that are no layers."""
        ...

    @property
    def stored(self) -> Descriptor | None:
        """The blob as it lies in the source, if it is to be sent byte for byte; else None.

        Its digest is that of the bytes `open` gives. None means: `open` gives the plain tar, to
        be compressed.
        """
        ...

    @property
    def size(self) -> int:
        """Bytes that `open` gives: of the stored blob, else of the plain tar."""
        ...

    @property
    def foreign(self) -> Descriptor | None:
        """The manifest's descriptor of a foreign layer: skipped, its `urls` kept."""
        ...

    @property
    def held(self) -> bool:
        """Whether the source has the bytes; what it lacks is asked for at the destination."""
        ...

    def open(self) -> Reader:
        """A new reader at the first byte. Raises SourceError."""
        ...


class MissingLayer(NamedTuple):
    """A layer that the source describes and does not have."""

    source: str
    """What errors call the source."""
    name: str
    """What the source calls the layer."""
    diff_id: Digest | None
    stored: Descriptor | None
    size: int = 0
    """Bytes, as far as the source tells."""
    foreign: Descriptor | None = None
    held: bool = False

    def open(self) -> Reader:
        """Raises SourceError: there is nothing here."""
        raise SourceError(f"{self.source} lacks the layer {self.name}")


class ForeignLayer(NamedTuple):
    """A layer that lies elsewhere: only what the manifest says of it is known."""

    foreign: Descriptor
    diff_id: Digest | None
    held: bool = False

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


class SourceImage(NamedTuple):
    """One image: config, layers, and its manifest where it came with one."""

    config: bytes
    """As stored, never re-encoded."""
    config_type: str | None
    """Media type of the config where the source says it; None: the format's own."""
    layers: tuple[SourceLayer, ...]
    """Base first; as many as the manifest has layers."""
    manifest: RawManifest | None
    """As it came. It goes byte for byte when every layer is stored; else it is built anew."""
    platform: Platform
    """By the index that lists the image where there is one, else by the config."""
    oci: bool
    """The source knows it as OCI only: a manifest that is built is an OCI one."""
    annotations: tuple[tuple[str, str], ...] = ()
    """Of the manifest; kept when it is built anew."""
    for_index: bool = False
    """It goes in the place of an index, whose other images are not here."""
    origin: RepositoryName | None = None
    """The repository that holds it, where it is at a registry."""
    seen_in: tuple[RepositoryName, ...] = ()
    """Where the source says that its content has been, whose hosts may lack their ports."""
    outline: bool = False
    """Its config is not known, only which layers it has: enough to plan by, and to send those."""


class SourceIndex(NamedTuple):
    """An index and what it lists, in its order.

    Until `platforms` has chosen among them, some of them may be absent.
    """

    manifest: RawManifest
    children: tuple[SourceImage | SourceIndex, ...]
    descriptors: tuple[Descriptor, ...]
    """What the index says of each child, in the same order."""
    absent: tuple[Descriptor, ...] = ()
    """What it lists and the source lacks, wholly or in part."""
    for_index: bool = False
    """It goes in the place of an index that lists more."""
    sparse: bool = False
    """Layers of its images were left out on purpose."""
    assembled: bool = False
    """It is made of what several sources hold, and is none of theirs."""


class Found(NamedTuple):
    """What an entry of a source is, once it is read."""

    content: SourceImage | SourceIndex
    warnings: tuple[str, ...] = ()
    """What a user should hear of how this was chosen (an index that is not whole)."""


class SourceEntry:
    """One image or index of a source, and the names it goes by there.

    It is read when its content is asked for: a source may hold a thousand others.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        read: Callable[[], Found],
        known: Descriptor | None = None,
    ) -> None:
        self.names = names
        """As written in the source: `app:1`, `docker.io/library/app:1`, or a layout's bare tag."""
        self.known = known
        """What stands there, where its digest is known unread; its size may be unknown (0)."""
        self._read = read

    @cached_property
    def _found(self) -> Found:
        return self._read()

    @property
    def content(self) -> SourceImage | SourceIndex:
        """Read it. Raises SourceError; of a source in a registry whatever that raises."""
        return self._found.content

    @property
    def warnings(self) -> tuple[str, ...]:
        """As those of what it is. Raises as `content` does."""
        return self._found.warnings

    def then(self, change: Callable[[Found], Found]) -> SourceEntry:
        """The same, with what is to be done once its content is asked for."""
        return SourceEntry(self.names, lambda: change(self._found), self.known)


class Referrer(NamedTuple):
    """What refers to an image and is none: a signature, an SBOM, an attestation."""

    subject: Digest
    """What it refers to."""
    listed: Descriptor
    tag: str | None
    """Where it lies, if that is what says whose it is."""
    read: Callable[[], SourceImage | SourceIndex]
    """Raises SourceError; of a source at a registry whatever that raises."""


class ImageSource(Protocol):
    """An opened source."""

    @property
    def transport(self) -> str:
        """By which it would be named, such as `docker-archive`."""
        ...

    def entries(self) -> Sequence[SourceEntry]:
        """Everything it holds, in its own order. Raises SourceError."""
        ...

    def close(self) -> None:
        """Close files; readers that are still open keep working until they are closed."""
        ...
