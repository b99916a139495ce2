"""Archives that are written to: whole, under their names only at the end, always the same bytes.

What comes is kept in a folder beside the file, of which the archive is made when all of it is
there. A copy that goes on after one that was ended finds there what has come already.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tarfile
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from towline.context import Cancel
from towline.errors import SourceError, TowlineError
from towline.sources.docker_archive import MANIFEST
from towline.sources.files import OpenFile
from towline.sources.oci_layout import INDEX, SPARSE, path_of
from towline.sources.tar_members import TarMembers
from towline.spec import config as configs
from towline.spec import gojson
from towline.spec.digest import Digest
from towline.spec.manifest import Manifest, build_index, parse
from towline.targets.blob_files import PlainFile, plain_digest, write_whole, writing
from towline.targets.layout import LAYOUT, LAYOUT_CONTENT, Layout, pieces

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from towline.context import Context
    from towline.layers.reader import Reader
    from towline.sources.files import Files
    from towline.spec.descriptor import Descriptor
    from towline.spec.manifest import RawManifest
    from towline.targets.blob_files import BlobFile
    from towline.targets.place import Place


class Archive(Layout):
    """An OCI archive: a layout in a tar."""

    whole = True

    def __init__(self, name: Place) -> None:
        self._file = Path(name.file)
        super().__init__(name, self._file.parent / f".{self._file.name}.partial")
        self._lock = -1
        self._entries: dict[tuple[str, ...], Descriptor] = {}
        """What `index.json` is to list."""
        self._wanted: set[Digest] = set()
        """Manifests, configs and layers that are listed."""

    def begin(self) -> None:
        """From now on there will be another archive, or none. Raises TowlineError."""
        if self._file.is_dir():
            raise self._wrong("it is a folder", hint=f"use oci:{self._file}")
        self.begun = True
        self.prepare()
        self._lock = os.open(self._root, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise TowlineError(
                f"{self._file} is being written by another copy", side="destination"
            ) from None

    def close(self) -> None:
        """Let others write it; what was kept for an archive that is not there yet stays."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def has_blob(
        self, digest: str, context: Context, *, size: int | None = None, in_storage: bool = False
    ) -> bool:
        """Whether it has come before, lies in the archive that is there, or is not wanted."""
        if digest in self.omitted or path_of(Digest(digest)) in self._before:
            return True
        return super().has_blob(digest, context, size=size, in_storage=in_storage)

    @contextmanager
    def _files(self) -> Iterator[TarMembers | None]:
        """The archive that is there; None where there is none, or it is no archive."""
        files = None
        with suppress(OSError, SourceError):
            opened = OpenFile(os.open(self._file, os.O_RDONLY), str(self._file))
            try:
                files = TarMembers(opened, opened.name, Cancel())
            except SourceError:
                opened.release()
        if files is None:
            yield None
            return
        with closing(files):
            yield files

    @cached_property
    def _before(self) -> Collection[str]:
        """Names of the files in the archive that is there."""
        with self._files() as files:
            return frozenset(files.files) if files else ()

    def head_manifest(self, target: str, context: Context) -> Descriptor | None:
        """What stands there under a tag, if it is whole; once another is begun, what is in that."""
        if self.begun and not isinstance(target, Digest):
            put = (entry for (_, tag, _), entry in self._entries.items() if tag == target)
            return next(put, None)
        return None if self.omitted else super().head_manifest(target, context)

    def put_manifest(self, target: str, manifest: RawManifest, context: Context) -> None:
        """Have a manifest in it, and what it lists."""
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
        """Write the archive, and put it in its place. Raises TowlineError, SourceError."""
        with self._files() as before:
            write_whole(self._file, self._tar(before, context), self._root)
        with writing(self._root):
            shutil.rmtree(self._root)

    def _tar(self, before: Files | None, context: Context) -> Iterator[bytes]:
        for name, content in sorted(self._documents().items()):
            yield from _member(name, len(content), [content])
        for digest in sorted(self._wanted - set(self.omitted)):
            if found := self._found(digest, before):  # else it is foreign
                size, reader = found
                with closing(reader):
                    blocks = self._checked(digest, reader, context)
                    yield from _member(path_of(digest), size, blocks)
        yield bytes(2 * tarfile.BLOCKSIZE)

    def _documents(self) -> dict[str, bytes]:
        """What says what is in it."""
        entries = [entry for _, entry in sorted(self._entries.items())]
        annotations = {SPARSE: "true"} if self.left_out else None
        return {LAYOUT: LAYOUT_CONTENT, INDEX: build_index("oci", entries, annotations).content}

    def _checked(self, digest: Digest, reader: Reader, context: Context) -> Iterator[bytes]:
        """Blocks of what may have lain there for long. Raises TowlineError, Cancelled."""
        found = hashlib.new(digest.algorithm)
        for block in takewhile(bool, pieces(reader)):
            context.cancel.check()
            found.update(block)
            yield block
        if found.hexdigest() != digest.hex:
            raise TowlineError(
                f"{digest}, which {self._file} is to hold, is damaged where it was kept",
                side="destination",
                hint=f"remove {self._root} and {self._file}, then copy again",
            )


class DockerArchive(Archive):
    """What `docker load` reads: plain layers, and images by their names."""

    def __init__(self, name: Place) -> None:
        super().__init__(name)
        self._images: dict[tuple[Digest, ...], list[str]] = {}
        """Names of the images, by configs and layers."""

    def start_upload(
        self, context: Context, known: Descriptor | None = None, about: int = 0
    ) -> BlobFile:
        """Begin a blob."""
        del known, about
        self.prepare()
        return PlainFile(self._root, context)

    @contextmanager
    def _files(self) -> Iterator[TarMembers | None]:
        """Nothing: what is there does not say which manifest it was made of."""
        yield None

    def put_manifest(self, target: str, manifest: RawManifest, context: Context) -> None:
        """Have an image in it. Raises SourceError where its layers are not those of its config."""
        document = parse(manifest.content, manifest.media_type)
        assert isinstance(document, Manifest)  # noqa: S101 - see `copying` in `push`
        config = document.config.digest
        diff_ids = configs.parse(self.read_blob(config, context, configs.MAX_SIZE)).diff_ids
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
        if not isinstance(target, Digest):  # else it has no name
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


def _member(name: str, size: int, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """A file of a tar, which has no owner and is of no time."""
    info = tarfile.TarInfo(name)
    info.size = size
    yield info.tobuf(tarfile.GNU_FORMAT)  # ustar ends at 8 GiB
    yield from blocks
    yield bytes(-size % tarfile.BLOCKSIZE)


def opened(name: Place) -> Layout:
    """The folder or file of a name, in a repository's part. Nothing is made yet."""
    match name.kind:
        case "oci":
            return Layout(name)
        case "oci-archive":
            return Archive(name)
        case "docker-archive":
            return DockerArchive(name)
