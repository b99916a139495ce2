"""Archives as destinations: written at the end, as a whole, and always with the same bytes.

Blobs are kept in a folder beside the file, and the archive is made of it when all of them have
come. A copy that follows one that was ended finds there the blobs that came before.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tarfile
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from towline.context import Cancel, Context
from towline.errors import SourceError, TowlineError
from towline.sources.docker_archive import MANIFEST
from towline.sources.files import Files, OpenFile, blocks
from towline.sources.oci_layout import INDEX, SPARSE, path_of
from towline.sources.tar_members import TarMembers
from towline.spec import gojson
from towline.spec.digest import Digest
from towline.spec.manifest import MAX_SIZE, Manifest, RawManifest, build_index, parse, parse_config
from towline.targets.blob_files import PlainFile, plain_digest, write_whole, writing
from towline.targets.layout import LAYOUT, LAYOUT_CONTENT, Layout

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from towline.layers.reader import Reader
    from towline.spec.descriptor import Descriptor
    from towline.targets.place import Place


class Archive(Layout):
    """An OCI archive: a layout in a tar (image-spec, "OCI Image Layout")."""

    whole = True
    list_of_images = INDEX
    """The file in it that every archive of its kind has."""

    def __init__(self, name: Place) -> None:
        # A link is kept: what it leads to is written, beside which there is room for all of it.
        file = Path(name.file)
        self._file = Path(os.path.realpath(file)) if file.is_symlink() else file
        super().__init__(name, self._file.parent / f".{self._file.name}.partial")
        self._lock = -1
        self._entries: dict[tuple[str, ...], Descriptor] = {}
        """The entries of the new `index.json`."""
        self._wanted: set[Digest] = set()
        """Manifests, configs and layers of the new archive."""

    def begin(self) -> None:
        """Begin a new archive, for this copy alone. Raises TowlineError."""
        file = Path(self.name.file)
        if file.is_dir():
            raise self._wrong("it is a folder", hint=f"use oci:{file}")
        if file.exists() and not file.is_file():
            # A pipe or a device (/dev/null) would be gone: a file would stand in its place.
            raise self._wrong("it is no regular file", hint="name a file")
        self.begun = True
        self.prepare()
        # A lock on the folder: it ends with the process, however that ends.
        self._lock = os.open(self._root, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise TowlineError(
                f"{self._file} is being written by another copy", side="destination"
            ) from None

    def close(self) -> None:
        """Release the lock. Blobs that were kept for an unfinished archive stay."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def has_blob(
        self, digest: str, context: Context, *, size: int | None = None, in_storage: bool = False
    ) -> bool:
        """Whether the blob has come before, is in the present archive, or is left out."""
        # By name alone: `publish` checks the digest when it takes the blob over.
        if digest in self.omitted or path_of(Digest(digest)) in self._before:
            return True
        return super().has_blob(digest, context, size=size, in_storage=in_storage)

    @contextmanager
    def _files(self) -> Iterator[TarMembers | None]:
        """The present archive; None: there is none, or an empty file, as `mktemp` makes one.

        Raises TowlineError for any other file: whoever has it may want to keep it.
        """
        # Of a folder, a pipe or a device `begin` says that it is none.
        if not (self._file.is_file() and self._file.stat().st_size):
            yield None
            return
        hint = "name another file, or remove this one"
        try:
            opened = OpenFile(os.open(self._file, os.O_RDONLY), str(self._file))
        except OSError as error:
            raise self._wrong(f"it cannot be read: {str(error.strerror).lower()}", hint) from None
        try:
            files = TarMembers(opened, opened.name, Cancel())
        except SourceError:
            opened.release()
            raise self._wrong("the file that is there is no tar", hint) from None
        with closing(files):
            if self.list_of_images not in files.files:
                raise self._wrong(f"the tar that is there is no {self.name.kind}", hint)
            yield files

    @cached_property
    def _before(self) -> Collection[str]:
        """Names of the files in the present archive."""
        with self._files() as files:
            return frozenset(files.files) if files else ()

    def head_manifest(self, target: str, context: Context) -> Descriptor | None:
        """The manifest under a tag of the present archive, or of the new one once it is begun."""
        if self.begun and not isinstance(target, Digest):
            put = (entry for (_, tag, _), entry in self._entries.items() if tag == target)
            return next(put, None)
        # With layers left out it is always written anew: the present one may have other layers.
        return None if self.omitted else super().head_manifest(target, context)

    def put_manifest(self, target: str, manifest: RawManifest, context: Context) -> None:
        """Take a manifest and the blobs that it lists into the archive."""
        super().put_manifest(target, manifest, context)
        self._wanted.add(manifest.digest)
        document = parse(manifest.content, manifest.media_type)
        if isinstance(document, Manifest):
            self._wanted |= {document.config.digest, *(each.digest for each in document.layers)}
            omitted = (each for each in document.layers if each.digest in self.omitted)
            self.left_out |= {each.digest: each.size for each in omitted}

    def _list(self, listed: Descriptor, key: str, value: str) -> None:
        entry = listed._replace(annotations={key: value})
        self._entries[key, value, listed.digest] = entry

    def publish(self, context: Context) -> None:
        """Write the archive, and put it in its place.

        Raises TowlineError, SourceError, Cancelled.
        """
        # Blobs that have not come again are taken over from the present archive.
        with self._files() as before:
            write_whole(self._file, self._tar(before, context), self._root)
        with writing(self._root):
            shutil.rmtree(self._root)

    def _tar(self, before: Files | None, context: Context) -> Iterator[bytes]:
        for name, content in sorted(self._documents().items()):
            yield from _member(name, len(content), [content])
        for digest in sorted(self._wanted - set(self.omitted)):
            if found := self._found(digest, before):  # a foreign layer has not come
                size, reader = found
                with closing(reader):
                    checked = self._checked(digest, reader, context)
                    yield from _member(path_of(digest), size, checked)
        yield bytes(2 * tarfile.BLOCKSIZE)  # the end of an archive (POSIX, "ustar")

    def _documents(self) -> dict[str, bytes]:
        """The files that describe the archive, by their names."""
        entries = [entry for _, entry in sorted(self._entries.items())]
        annotations = {SPARSE: "true"} if self.left_out else None
        return {LAYOUT: LAYOUT_CONTENT, INDEX: build_index("oci", entries, annotations).content}

    def _checked(self, digest: Digest, reader: Reader, context: Context) -> Iterator[bytes]:
        """The blocks of a blob. Raises TowlineError if it is damaged, Cancelled."""
        # It may have been kept, or have been in the present archive, for long.
        found = hashlib.new(digest.algorithm)
        for block in blocks(reader):
            context.cancel.check()
            found.update(block)
            yield bytes(block)
        if found.hexdigest() != digest.hex:
            raise TowlineError(
                f"{digest}, which {self._file} is to hold, is damaged where it was kept",
                side="destination",
                hint=f"remove {self._root} and {self._file}, then copy again",
            )


class DockerArchive(Archive):
    """An archive for `docker load`: plain layers, and images with their names."""

    list_of_images = MANIFEST
    blob_file = PlainFile

    def __init__(self, name: Place) -> None:
        super().__init__(name)
        self._images: dict[tuple[Digest, ...], list[str]] = {}
        """By config and layers: the names of an image."""

    @contextmanager
    def _files(self) -> Iterator[TarMembers | None]:
        """None: a docker archive does not tell of which manifests it was made."""
        with super()._files():
            yield None

    def has_blob(
        self, digest: str, context: Context, *, size: int | None = None, in_storage: bool = False
    ) -> bool:
        """Whether the blob has come before. What is kept of a layer is plain, of another size."""
        del size
        return super().has_blob(digest, context, in_storage=in_storage)

    def put_manifest(self, target: str, manifest: RawManifest, context: Context) -> None:
        """Take an image into the archive. Raises SourceError if its layers are not its config's."""
        document = parse(manifest.content, manifest.media_type)
        assert isinstance(document, Manifest)  # noqa: S101 - see `begin` in `push`
        config = document.config.digest
        diff_ids = parse_config(self.read_blob(config, context, MAX_SIZE)).diff_ids
        layers = [plain_digest(self._root, each.digest) for each in document.layers]
        for layer, diff_id in zip(layers, diff_ids, strict=True):
            if layer != diff_id:
                raise SourceError(
                    f"layer {diff_id.short} is not what the image config says: its DiffID is "
                    f"{layer}, the config lists {diff_id}",
                    hint="the image is damaged or was edited: make it again",
                )
        self._wanted |= {config, *layers}
        names = self._images.setdefault((config, *layers), [])
        if not isinstance(target, Digest):  # without a tag it has no name
            names.append(f"{self.name.path}:{target}")

    def _documents(self) -> dict[str, bytes]:
        images = [
            {
                "Config": path_of(config),
                "RepoTags": sorted(names) or None,
                "Layers": [path_of(layer) for layer in layers],
            }
            for (config, *layers), names in sorted(self._images.items())
        ]
        return {MANIFEST: gojson.encode(images)}


def _member(name: str, size: int, content: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a tar's member, without owner and time: the same content, the same bytes."""
    info = tarfile.TarInfo(name)
    info.size = size
    yield info.tobuf(tarfile.GNU_FORMAT)  # ustar holds no member above 8 GiB
    yield from content
    yield bytes(-size % tarfile.BLOCKSIZE)


def opened(name: Place) -> Layout:
    """The folder or file of that name as a destination. Nothing is written yet."""
    match name.kind:
        case "oci":
            return Layout(name)
        case "oci-archive":
            return Archive(name)
        case "docker-archive":
            return DockerArchive(name)
