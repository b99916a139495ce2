"""Opens what a SOURCE says: recognised by its content, whatever it is called."""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, BinaryIO

from towline.context import Context
from towline.errors import SourceError, UsageError
from towline.sources import access, docker_archive, location, oci_layout, spool
from towline.sources.access import OpenFile, Section
from towline.sources.docker_archive import DockerArchive
from towline.sources.files import FolderFiles, TarFiles
from towline.sources.location import Location
from towline.sources.oci_layout import OciLayout
from towline.sources.streams import ObjectReader, PipeReader
from towline.spec import compression

if TYPE_CHECKING:
    from collections.abc import Mapping

    from towline.layers.reader import Reader
    from towline.sources.access import Access
    from towline.sources.base import ImageSource
    from towline.sources.location import Transport

STANDARD_INPUT = "standard input"
_OTHERS = {b"BZh": "bzip2 -dc", b"\xfd7zXZ\x00": "xz -dc", b"\x04\x22\x4d\x18": "lz4 -dc"}
"""First bytes of compressions that are not read, and what makes plain bytes of them."""


def open_source(
    source: Location | str | os.PathLike[str] | BinaryIO,
    context: Context | None = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> ImageSource:
    """Open an archive or layout and read what lists its images.

    What can be read only once is spooled before this returns, and told of by Notes. A caller's
    file object is read from its present position and not closed. Raises SourceError when there is
    no image there, UsageError when the text of the source makes no sense.
    """
    context = context or Context()
    environ = os.environ if environ is None else environ
    if isinstance(source, str):
        source = location.parse(source)
    elif isinstance(source, os.PathLike):
        path = os.fspath(source)
        source = Location(path, None, path if path != "-" else "./-")
    opener = _Opener(context, environ)
    return opener.location(source) if isinstance(source, Location) else opener.object(source)


class _Opener:
    def __init__(self, context: Context, environ: Mapping[str, str]) -> None:
        self._context = context
        self._environ = environ

    def location(self, source: Location) -> ImageSource:
        if source.transport in {"docker-daemon", "docker"}:
            raise _refused(source)
        if source.standard_input:
            return self._standard_input(source.transport)
        try:
            kind = os.stat(source.path).st_mode  # noqa: PTH116 - pathlib costs start-up
            if stat.S_ISDIR(kind):
                return self._folder(source)
            descriptor = os.open(source.path, os.O_RDONLY)
        except FileNotFoundError:
            raise _nowhere(source) from None
        except (OSError, ValueError) as error:
            raise access.unreadable(source.path, error) from None
        return self._descriptor(descriptor, source.path, source.transport)

    def object(self, file: BinaryIO) -> ImageSource:
        if not hasattr(file, "read"):
            kind = type(file).__name__
            raise UsageError(f"the source is of type {kind}", hint="give a path or an open file")
        name = getattr(file, "name", None)
        name = name if isinstance(name, str) else "the file object"
        try:
            if not isinstance(file.read(0), bytes):
                raise UsageError("the source is a text file", hint="open it in binary mode")
            in_place = access.of_object(file, name)
        except (OSError, ValueError) as error:  # closed, or broken
            raise access.unreadable(name, error) from None
        if in_place is None:
            return self._stream(ObjectReader(file, name), name, None)
        return self._archive(in_place, name, None)

    def _standard_input(self, transport: Transport | None) -> ImageSource:
        try:
            descriptor = -1 if sys.stdin is None else os.dup(0)  # closed at the start: not ours
        except OSError:
            descriptor = -1
        if descriptor < 0:
            raise SourceError(
                "standard input is closed", hint="pipe an archive into it, or name a file"
            )
        if os.isatty(descriptor):
            os.close(descriptor)
            raise SourceError(
                "standard input is a terminal", hint="pipe an archive into it, or name a file"
            )
        return self._descriptor(descriptor, STANDARD_INPUT, transport)

    def _folder(self, source: Location) -> ImageSource:
        if source.transport in {"docker-archive", "oci-archive"}:
            raise SourceError(
                f"{source.path} is a folder, not an archive", hint=f"use oci:{source.path}"
            )
        files = FolderFiles(source.path)
        if files.size(oci_layout.INDEX) is None:
            raise SourceError(
                f"{source.path} is a folder without {oci_layout.INDEX}, so it is no OCI layout"
            )
        return OciLayout(files)

    def _descriptor(self, descriptor: int, name: str, transport: Transport | None) -> ImageSource:
        """An open file, read in place where it can be, from its present position."""
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            base = os.lseek(descriptor, 0, os.SEEK_CUR)
            return self._archive(OpenFile(descriptor, name, base), name, transport)
        return self._stream(PipeReader(descriptor, name, self._context.cancel), name, transport)

    def _archive(self, file: Access, name: str, transport: Transport | None) -> ImageSource:
        """A file that is read in place if it is plain."""
        try:
            head = access.read_all(Section(file, 0, min(file.size, 8), name), 8)
            if compression.detect(head) != "none":
                return self._stream(Section(file, 0, file.size, name), name, transport)
            _refuse_others(head, name)
            file.hold()
        finally:
            file.release()
        return self._tar(file, name, transport)

    def _stream(self, reader: Reader, name: str, transport: Transport | None) -> ImageSource:
        file = spool.spool(reader, name, self._context, self._environ)
        return self._tar(file, name, transport)

    def _tar(self, file: Access, name: str, transport: Transport | None) -> ImageSource:
        try:
            return self._images(TarFiles(file, name), transport)
        except BaseException:
            file.release()
            raise

    def _images(self, files: TarFiles, transport: Transport | None) -> ImageSource:
        """A tar with both lists is read by the one that says more; docker's own breaks the tie."""
        index, manifest = (
            files.size(path) is not None for path in (oci_layout.INDEX, docker_archive.MANIFEST)
        )
        _check_lists(files, transport, index=index, manifest=manifest)
        if index and (not manifest or transport == "oci-archive"):
            return OciLayout(files)
        if index:
            layout = OciLayout(files)
            if layout.says_most():
                return layout
        return DockerArchive(files, self._context.cancel)


def _check_lists(
    files: TarFiles, transport: Transport | None, *, index: bool, manifest: bool
) -> None:
    wanted = {"oci-archive": index, "docker-archive": manifest}.get(transport or "", True)
    if wanted and (index or manifest):
        return
    if index or manifest:
        other = "oci-archive" if index else "docker-archive"
        raise SourceError(
            f"{files.name} is no {transport}", hint=f"use {other}:PATH, or the path alone"
        )
    if not files.index.ended:
        raise SourceError(
            f"{files.name} is torn: it ends before what lists its images",
            hint="make the archive again, or copy it again",
        )
    raise SourceError(
        f"{files.name} holds no image: it has neither {oci_layout.INDEX} "
        f"nor {docker_archive.MANIFEST}",
        hint=_inner_folder(files) or "make it with docker save, or as an OCI layout",
    )


def _inner_folder(files: TarFiles) -> str | None:
    """What to do about a layout that was archived with the folder it lies in."""
    lists = (f"/{oci_layout.INDEX}", f"/{docker_archive.MANIFEST}")
    inner = next((name for name in files.index.files if name.endswith(lists)), None)
    if inner is None:
        return None
    return f"archive what is inside its folder {inner.rpartition('/')[0]!r}, not the folder"


def _refuse_others(head: bytes, name: str) -> None:
    for magic, command in _OTHERS.items():
        if head.startswith(magic):
            raise SourceError(
                f"{name} is compressed in a way that is not read",
                hint=f"pipe it: {command} {name} | towline push - DESTINATION",
            )


def _nowhere(source: Location) -> SourceError:
    return SourceError(f"{source.path} does not exist")


def _refused(source: Location) -> SourceError:
    if source.transport == "docker-daemon":
        return SourceError(
            f"no Docker daemon is asked yet, so {source.path} cannot be read from one",
            hint="towline push image.tar REGISTRY/NAME",
        )
    return SourceError(f"{source.text} is an image in a registry, which is not read as a source")
