"""OCI layouts that are written to (image-spec, "OCI Image Layout"), as a push sees a repository.

Blobs are files named by their digests, so that what is there is not fetched again; `index.json`
is read, changed and replaced under a lock, so that it keeps what others have put there.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from towline.errors import SourceError, TowlineError
from towline.registry.repository import BlobReader
from towline.sources.base import SourceIndex
from towline.sources.files import Folder, read, read_json, understood
from towline.sources.oci_layout import (
    CONTAINERD_NAME,
    INDEX,
    REF_NAME,
    REFERRER,
    LayoutBlobs,
    path_of,
)
from towline.spec import gojson, media_types
from towline.spec.digest import Digest
from towline.spec.manifest import MAX_SIZE, RawManifest, parse
from towline.targets.blob_files import BlobFile, remove_forgotten, write_whole, writing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from towline.context import Context
    from towline.errors import Side
    from towline.layers.reader import Reader
    from towline.sources.base import SourceImage
    from towline.sources.files import Files
    from towline.spec.descriptor import Descriptor
    from towline.spec.media_types import Format
    from towline.targets.place import Place

LAYOUT = "oci-layout"
LAYOUT_CONTENT = b'{"imageLayoutVersion":"1.0.0"}'
_BLOCK = 1 << 20


class Layout:
    """A folder in a repository's part: `registry.repository.Repository` tells the verbs.

    They raise TowlineError where the system refuses, or something else lies there.
    """

    side: Side = "destination"
    account = ""
    may_teach = False
    mounts = False
    resumes: bool | None = None
    limits: list[str] = []  # noqa: RUF012 - never changed
    formats_refused: frozenset[Format] = frozenset()
    begun = False
    """Whether another archive is on its way, so that what stands there does not count."""
    whole = False
    """Whether it is written as a whole, or not at all: an archive."""

    def __init__(self, name: Place, root: Path | None = None) -> None:
        """`root`: where blobs are kept, if that is not the folder of that name."""
        self.name = name
        self.omitted: Collection[str] = frozenset()
        """Digests of layers that are not wanted in an archive."""
        self.left_out: dict[Digest, int] = {}
        """Those that would be in it, with their sizes."""
        self._root = root or Path(name.file)
        self._prepared = False

    # Of its own: what is written at once, or at the end.

    def begin(self) -> None:
        """Something will be written."""

    def publish(self, context: Context) -> None:
        """All that is wanted is there: what was put is in its place already."""

    def close(self) -> None:
        """Nothing will be written any more."""

    def account_mac(self, key: bytes, digest: str) -> str:
        """There are no accounts."""
        del key, digest
        return ""

    def note_format(self, fmt: Format, *, refused: bool) -> None:
        """Every format is taken."""

    def some_tags(self, context: Context) -> tuple[str, ...]:
        """None: what is there costs nothing to ask for."""
        del context
        return ()

    # Blobs.

    def _path(self, digest: str) -> Path:
        return self._root / path_of(Digest(digest))

    def has_blob(
        self, digest: str, context: Context, *, size: int | None = None, in_storage: bool = False
    ) -> bool:
        """Whether the blob is there."""
        del context, in_storage
        try:
            return self._path(digest).stat().st_size == size or size is None
        except OSError:
            return False

    def mount(self, *_: object, **__: object) -> None:
        """Nothing is mounted: each folder is a host of its own."""

    def start_upload(
        self, context: Context, known: Descriptor | None = None, about: int = 0
    ) -> BlobFile:
        """Begin a blob."""
        del known, about
        self.prepare()
        return BlobFile(self._root, context)

    def prepare(self) -> None:
        """Make a layout where there is none. Raises TowlineError where something else is there."""
        if self._prepared:
            return
        if self._root.is_file():
            raise self._wrong("it is a file", hint=f"use oci-archive:{self._root}")
        blobs = self._root / "blobs" / "sha256"
        with writing(self._root):
            self._root.mkdir(parents=not self.whole, exist_ok=True)
            names = {each.name for each in self._root.iterdir()}
            if names and names.isdisjoint({LAYOUT, INDEX, "blobs"}):
                raise TowlineError(
                    f"{self._root} is a folder with other things in it, and no OCI layout",
                    side="destination",
                    hint="name an empty folder, or one that is not there yet",
                )
            blobs.mkdir(parents=True, exist_ok=True)
            remove_forgotten(blobs)
        write_whole(self._root / LAYOUT, [LAYOUT_CONTENT])
        self._prepared = True

    def read_blob(self, digest: str, context: Context, limit: int) -> bytes:
        """A small blob."""
        return self.open_blob(digest, context).read_all(limit)

    def open_blob(self, digest: str, context: Context) -> BlobReader:
        """A blob to be read; its digest is checked at the end."""
        del context
        with self._files() as before:
            found = self._found(Digest(digest), before)
        if found is None:
            raise self._wrong(f"it lacks the blob {digest}")
        _, reader = found
        return BlobReader(digest, str(self.name), reader)

    def _found(self, digest: Digest, files: Files | None) -> tuple[int, Reader] | None:
        """Size and content of a blob that has come, or was there before."""
        path = path_of(digest)
        for place in (Folder(str(self._root)), files):
            if place is not None and (size := place.size(path)) is not None:
                return size, place.open(path)
        return None

    def _wrong(self, what: str, hint: str | None = None) -> TowlineError:
        said = f"{self.name} cannot be used: {what}"
        return TowlineError(said, side="destination", hint=hint)

    # Manifests.

    def head_manifest(self, target: str, context: Context) -> Descriptor | None:
        """What stands under a tag or digest, if all of it is there; None: nothing."""
        if isinstance(target, Digest):  # a tag of a layout may have a colon too
            found = self.get_manifest(target, context)
            return found.descriptor() if found else None
        with self._files() as files:
            tagged = (each for each in _listed(files) if each.annotations.get(REF_NAME) == target)
            listed = next(tagged, None)
            whole = listed and files and _is_whole(LayoutBlobs(files), listed)
            return listed if whole else None

    @contextmanager
    def _files(self) -> Iterator[Files | None]:
        """What is there now; None: nothing yet."""
        folder = Folder(str(self._root))
        try:
            yield folder if folder.size(INDEX) is not None else None
        except SourceError as error:
            raise self._wrong(error.message) from error

    def get_manifest(self, target: str, context: Context) -> RawManifest | None:
        """A manifest or index; None: there is none."""
        if not isinstance(target, Digest):
            listed = self.head_manifest(target, context)
            return self.get_manifest(listed.digest, context) if listed else None
        if not self.has_blob(target, context):
            return None
        content = self.read_blob(target, context, MAX_SIZE)
        return RawManifest(content, parse(content).media_type)

    def put_manifest(self, target: str, manifest: RawManifest, context: Context) -> None:
        """Put a manifest under its digest, and list it under a tag."""
        del context
        self.prepare()
        write_whole(self._path(manifest.digest), [manifest.content])
        if not isinstance(target, Digest):
            self._list(manifest.descriptor(), REF_NAME, target)

    def announce_referrer(self, manifest: RawManifest, subject: Digest, context: Context) -> bool:
        """List a manifest as one that refers to another, as Docker's exports do."""
        del context
        kind = getattr(parse(manifest.content, manifest.media_type), "artifact_type", None)
        listed = manifest.descriptor()._replace(artifact_type=kind)
        self._list(listed, REFERRER, subject)
        return True

    def _list(self, listed: Descriptor, key: str, value: str) -> None:
        """Have `index.json` list it so annotated, for what had this tag, and keep all else."""
        entry = listed._replace(annotations={key: value}).as_json()
        with self._locked(), self._files() as files:
            document = _document(files)
            kept = [each for each in document["manifests"] if not _replaces(entry, each)]
            document["manifests"] = [*kept, entry]
            write_whole(self._root / INDEX, [gojson.encode(document)])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else changes `index.json` meanwhile: two that wrote it would lose an image."""
        with writing(self._root):
            descriptor = os.open(self._root, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _document(files: Files | None) -> dict[str, Any]:
    """`index.json` as it is to be changed; a new one where there is none."""
    document = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX}
    if files is not None:
        found = read_json(files, INDEX)
        if not isinstance(found, dict):
            raise SourceError(f"its {INDEX} is no index")
        document = found
    return {**document, "manifests": document.get("manifests") or []}


def pieces(reader: Reader) -> Iterator[bytes]:
    """What a reader gives, in blocks; b"" for ever after its end."""
    with memoryview(bytearray(_BLOCK)) as block:
        while got := reader.readinto(block):
            yield bytes(block[:got])
    yield from repeat(b"")


def _replaces(entry: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether another entry of `index.json` goes where this one comes.

    A tag that belongs to a name, as Docker writes them, is that name's.
    """
    new, old = entry["annotations"], other.get("annotations") or {}
    if REF_NAME in new:
        return old.get(REF_NAME) == new[REF_NAME] and CONTAINERD_NAME not in old
    return REF_NAME not in old and other.get("digest") == entry["digest"]


def _listed(files: Files | None) -> tuple[Descriptor, ...]:
    """What `index.json` lists. Raises SourceError."""
    if files is None:
        return ()
    document = understood(INDEX, lambda: parse(read(files, INDEX), media_types.OCI_INDEX))
    return getattr(document, "manifests", ())


def _is_whole(blobs: LayoutBlobs, listed: Descriptor) -> bool:
    """Whether all is there that an entry lists, and what that lists."""
    try:
        content = blobs.entry(listed)
    except SourceError:
        return False
    return _holds_all(content)


def _holds_all(content: SourceImage | SourceIndex) -> bool:
    if isinstance(content, SourceIndex):
        return not content.absent and all(map(_holds_all, content.children))
    return all(layer.held or layer.foreign for layer in content.layers)
