"""OCI layouts as destinations (image-spec, "OCI Image Layout"), with a repository's interface.

Blobs are files named by their digests, so that one that is there is not fetched again. `index.json`
is read, changed and replaced under a lock, so that it keeps the entries of others.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from towline.errors import Side, SourceError, TowlineError
from towline.registry.blobs import BlobReader
from towline.registry.capabilities import HostFacts
from towline.sources.base import SourceImage, SourceIndex
from towline.sources.files import Files, Folder, read, read_json, understood
from towline.sources.oci_layout import (
    CONTAINERD_NAME,
    INDEX,
    REF_NAME,
    REFERRER,
    OciLayout,
    path_of,
)
from towline.spec import gojson, media_types
from towline.spec.digest import Digest
from towline.spec.manifest import MAX_SIZE, RawManifest, parse
from towline.targets.blob_files import BlobFile, remove_forgotten, write_whole, writing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from towline.context import Context
    from towline.layers.reader import Reader
    from towline.spec.descriptor import Descriptor
    from towline.targets.place import Place

LAYOUT = "oci-layout"
LAYOUT_CONTENT = b'{"imageLayoutVersion":"1.0.0"}'


class Layout:
    """A folder with the interface of `registry.repository.Repository`.

    Its methods raise TowlineError where the system refuses, or where the folder holds something
    else.
    """

    side: Side = "destination"
    account = ""
    may_teach = False
    begun = False
    """Whether a new archive is under way, so that the present one does not count."""
    whole = False
    """Whether it is written as a whole at the end, as an archive is."""
    blob_file: type[BlobFile] = BlobFile
    """What a blob is written to."""

    def __init__(self, name: Place, root: Path | None = None) -> None:
        """`root`: the folder for blobs, if it is not the one of that name."""
        self.name = name
        self.facts = HostFacts()
        self.omitted: Collection[str] = frozenset()
        """Digests of layers that are left out of an archive (`--omit-from`)."""
        self.left_out: dict[Digest, int] = {}
        """The layers that were left out, with their sizes in bytes."""
        self._root = root or Path(name.file)
        self._folder = Folder(str(self._root))
        self._prepared = False

    # Beside a repository's methods: an archive is written at the end.

    def begin(self) -> None:
        """Called before anything is written; a layout needs nothing."""

    def publish(self, context: Context) -> None:
        """Called at the end; a layout's files are in their places already."""

    def close(self) -> None:
        """Called when nothing more is written."""

    def account_mac(self, key: bytes, digest: str) -> str:
        """Empty: there are no accounts."""
        del key, digest
        return ""

    def some_tags(self, context: Context) -> tuple[str, ...]:
        """No tags: a push learns from them, and here each blob can be asked for as cheaply."""
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
        # A file gets this name only when it is whole, so its bytes are not hashed again.
        try:
            found = Folder(str(self._root)).size(path_of(Digest(digest)))
        except SourceError:  # as a link that leaves the folder: the blob takes its place
            return False
        return found is not None and size in {None, found}

    def mount(self, *_: object, **__: object) -> None:
        """None, as after a refusal: each folder is a host of its own."""

    def start_upload(
        self, context: Context, known: Descriptor | None = None, about: int = 0
    ) -> BlobFile:
        """Begin a blob."""
        del known, about
        self.prepare()
        return self.blob_file(self._root, context)

    def prepare(self) -> None:
        """Make a layout if there is none. Raises TowlineError if something else is there."""
        if self._prepared:
            return
        if self._root.is_file():
            raise self._wrong("it is a file", hint=f"use oci-archive:{self._root}")
        blobs = self._root / "blobs" / "sha256"
        self._check_inside(blobs)
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

    def _check_inside(self, blobs: Path) -> None:
        """Raise TowlineError where blobs would be written outside of the folder.

        A link in the place of a file is no danger: each file is replaced, not written into.
        """
        if self.whole and self._root.is_symlink():  # ours alone, where others may write beside it
            raise self._wrong(f"{self._root} is a link", hint="remove it")
        root = os.path.realpath(self._root)
        if os.path.commonpath((root, os.path.realpath(blobs))) != root:
            raise self._wrong(
                "its blobs/sha256 is a link that leaves it",
                hint=f"copy it with what its links point to: cp -RL {self._root} COPY",
            )

    def read_blob(self, digest: str, context: Context, limit: int) -> bytes:
        """A small blob of at most `limit` bytes, its digest checked."""
        return self.open_blob(digest, context).read_all(limit)

    def open_blob(self, digest: str, context: Context) -> BlobReader:
        """A reader of a blob, which checks the digest at the end."""
        del context
        with self._files() as before:
            found = self._found(Digest(digest), before)
        if found is None:
            raise self._wrong(f"it lacks the blob {digest}")
        _, reader = found
        return BlobReader(digest, str(self.name), reader)

    def _found(self, digest: Digest, files: Files | None) -> tuple[int, Reader] | None:
        """Size and reader of a blob that has come, or was there before; None: it has not."""
        path = path_of(digest)
        for place in (self._folder, files):
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
            if listed is not None and files is not None:
                with suppress(SourceError):
                    return listed if _holds_all(OciLayout(files).entry(listed)) else None
            return None

    @contextmanager
    def _files(self) -> Iterator[Files | None]:
        """The files of the present layout; None: there is none yet."""
        try:
            yield self._folder if self._folder.size(INDEX) is not None else None
        except SourceError as error:
            raise self._wrong(error.message) from error

    def get_manifest(self, target: str, context: Context) -> RawManifest | None:
        """A manifest or index by tag or digest; None: there is none."""
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
        """List a manifest in `index.json` with this annotation, in the place of the one before."""
        entry = listed._replace(annotations={key: value}).as_json()
        with self._locked(), self._files() as files:
            document = _document(files)
            kept = [each for each in document["manifests"] if not _replaces(entry, each)]
            document["manifests"] = [*kept, entry]
            write_whole(self._root / INDEX, [gojson.encode(document)])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the layout while `index.json` is changed: one of two changes would be lost."""
        # The folder is locked, since the file is replaced: a lock would stay with the old one.
        with writing(self._root):
            descriptor = os.open(self._root, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _document(files: Files | None) -> dict[str, Any]:
    """The present `index.json`, or a new one. Raises SourceError."""
    # Unparsed, so that fields which we do not know stay in it.
    document = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX}
    if files is not None:
        found = read_json(files, INDEX)
        if not isinstance(found, dict):
            raise SourceError(f"its {INDEX} is no index")
        document = found
    return {**document, "manifests": document.get("manifests") or []}


def _replaces(entry: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether an entry of `index.json` takes the place of another one."""
    # An entry with an image's full name, as Docker writes them, keeps its tag: it is that name's.
    new, old = entry["annotations"], other.get("annotations") or {}
    if REF_NAME in new:
        return old.get(REF_NAME) == new[REF_NAME] and CONTAINERD_NAME not in old
    return REF_NAME not in old and other.get("digest") == entry["digest"]


def _listed(files: Files | None) -> tuple[Descriptor, ...]:
    """The entries of `index.json`. Raises SourceError."""
    if files is None:
        return ()
    with understood(INDEX):
        document = parse(read(files, INDEX), media_types.OCI_INDEX)
    return getattr(document, "manifests", ())


def _holds_all(content: SourceImage | SourceIndex) -> bool:
    """Whether all manifests and blobs below it are there."""
    if isinstance(content, SourceIndex):
        return not content.absent and all(map(_holds_all, content.children))
    return all(layer.held or layer.foreign for layer in content.layers)
