"""Opens a SOURCE: read `open_source` from top to bottom.

A SOURCE is recognised by its content, not by its name. A transport in front of it (as in skopeo:
containers-transports) says which list of images counts.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from towline.errors import SourceError, UsageError
from towline.sources import docker_archive, oci_layout
from towline.sources.docker_archive import DockerArchive
from towline.sources.files import (
    Folder,
    OpenFile,
    Section,
    SharedFile,
    SharedObject,
    read_all,
    unreadable,
)
from towline.sources.oci_layout import OciLayout
from towline.spec import media_types

if TYPE_CHECKING:
    from collections.abc import Mapping

    from towline.context import Context
    from towline.layers.reader import Reader
    from towline.sources.files import Archive
    from towline.sources.image_source import ImageSource
    from towline.sources.location import Location, Transport

_DECOMPRESSING = frozenset({"gzip", "bz2", "lzma", "zipfile", "compression"})
"""Modules of the standard library whose file objects seek only by decompressing from the start."""


class Ahead(NamedTuple):
    """Whether blobs are sent as they come, before it is known what lists them."""

    may: bool
    why_not: str = ""
    """What has to be known first, for Notes; "": nothing of the source is to be sent."""


NOT_AHEAD = Ahead(may=False)


def open_source(
    source: Location,
    context: Context,
    *,
    environ: Mapping[str, str] | None = None,
    ahead: Ahead = NOT_AHEAD,
) -> ImageSource:
    """Open an archive or layout, and read the list of its images.

    A stream that can be read only once is spooled before this returns; Notes tell of it, and why.
    With `ahead` it becomes a `PassingSource`, whose blobs are taken as they pass. A caller's file
    object is read from its present position, and not closed. Raises SourceError when there is no
    image, UsageError for a caller's object that is no binary file.
    """
    environ = os.environ if environ is None else environ
    transport, name = source.transport, source.path or source.name

    # What is it: a path, standard input, or an object?
    found: Folder | SharedFile | Reader
    if not source.path:
        found = _of_object(source.file, name)
    elif source.standard_input:
        name = "standard input"
        found = _of_descriptor(_standard_input(), name, context)
    else:
        found = _of_path(source, context)

    # A folder or a tar? A tar is read in place, unless it comes by a pipe or is compressed.
    if isinstance(found, Folder):
        return OciLayout(found)
    from towline.sources.tar_members import TarMembers  # it needs `tarfile`

    if isinstance(found, SharedFile):
        found = _in_place(found)
    elif ahead.may:
        from towline.sources.passing import PassingSource

        listed = partial(by_its_list, transport=transport, context=context)
        return PassingSource(found, name, context, environ, listed)
    if not isinstance(found, SharedFile):
        from towline.sources.spool import spool

        found = spool(found, name, context, environ, ahead.why_not)
    try:
        return by_its_list(TarMembers(found, name, context.cancel), transport, context)
    except BaseException:
        found.release()
        raise


def _of_path(source: Location, context: Context) -> Folder | SharedFile | Reader:
    try:
        if not stat.S_ISDIR(os.stat(source.path).st_mode):  # noqa: PTH116 - pathlib costs start-up
            if source.transport == "oci":
                raise SourceError(
                    f"{source.path} is no folder, so it is no OCI layout",
                    hint=f"use the path alone: {source.path}",
                )
            return _of_descriptor(os.open(source.path, os.O_RDONLY), source.path, context)
    except FileNotFoundError:
        raise SourceError(f"{source.path} does not exist") from None
    except (OSError, ValueError) as error:
        raise unreadable(source.path, error) from None
    if source.transport in {"docker-archive", "oci-archive"}:
        raise SourceError(
            f"{source.path} is a folder, not an archive", hint=f"use oci:{source.path}"
        )
    folder = Folder(source.path)
    if folder.size(oci_layout.INDEX) is None:
        raise SourceError(
            f"{source.path} is a folder without {oci_layout.INDEX}, so it is no OCI layout"
        )
    return folder


def _standard_input() -> int:
    """A descriptor of standard input that is ours to close. Raises SourceError."""
    hint = "pipe an archive into it, or name a file"
    try:
        # Where it was closed when Python started, 0 is by now any file that was opened since.
        descriptor = -1 if sys.stdin is None else os.dup(0)
    except OSError:
        descriptor = -1
    if descriptor < 0:
        raise SourceError("standard input is closed", hint=hint)
    if os.isatty(descriptor):
        os.close(descriptor)
        raise SourceError("standard input is a terminal", hint=hint)
    return descriptor


def _of_descriptor(descriptor: int, name: str, context: Context) -> SharedFile | Reader:
    """An open file, read from its present position; it closes the descriptor."""
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return OpenFile(descriptor, name, os.lseek(descriptor, 0, os.SEEK_CUR))
    from towline.sources.spool import PipeReader

    return PipeReader(descriptor, name, context.cancel)


def _of_object(file: BinaryIO | None, name: str) -> SharedFile | Reader:
    """A file or reader of a caller's file object."""
    if file is None or not hasattr(file, "read"):
        raise UsageError(
            f"the source is of type {type(file).__name__}", hint="give a path or an open file"
        )
    seekable = getattr(file, "seekable", None)  # an object that only has `read` is enough
    try:
        if not isinstance(file.read(0), bytes):
            raise UsageError("the source is a text file", hint="open it in binary mode")
        if not (seekable and seekable()) or type(file).__module__.split(".")[0] in _DECOMPRESSING:
            from towline.sources.spool import ObjectReader

            return ObjectReader(file, name)
        if not isinstance(getattr(file, "raw", file), io.FileIO):
            return SharedObject(file, name)
        if file.writable():  # else the descriptor would lack what is still in its buffer
            file.flush()
        return OpenFile(os.dup(file.fileno()), name, file.tell())
    except (OSError, ValueError) as error:  # closed, or broken
        raise unreadable(name, error) from None


def _in_place(file: SharedFile) -> SharedFile | Reader:
    """The file itself or, if it is compressed as a whole, a reader that keeps it open."""
    try:
        head = read_all(Section(file, 0, min(file.size, 8), file.name), 8)
        if media_types.detect(head) == "none":
            return file
        compressed = Section(file, 0, file.size, file.name)
    except BaseException:
        file.release()
        raise
    file.release()
    return compressed


def by_its_list(members: Archive, transport: Transport | None, context: Context) -> ImageSource:
    """The source by one of its lists: `index.json` where it says more, else `manifest.json`."""
    index = transport != "docker-archive" and members.size(oci_layout.INDEX) is not None
    manifest = transport != "oci-archive" and members.size(docker_archive.MANIFEST) is not None
    if index and not manifest:
        return OciLayout(members)
    if index:
        # Docker 25.0 writes a broken `index.json`, whose `manifests` may be null (moby#47210).
        with suppress(SourceError):
            layout = OciLayout(members)
            if layout.says_most():
                return layout
    if manifest:
        return DockerArchive(members, context.cancel)
    raise _no_list(members, transport)


def _no_list(members: Archive, transport: Transport | None) -> SourceError:
    """The error for a tar without a list of images, with what to do about it."""
    name, lists = members.name, {oci_layout.INDEX, docker_archive.MANIFEST}
    if transport and lists & members.files.keys():
        other = "docker-archive" if transport == "oci-archive" else "oci-archive"
        return SourceError(f"{name} is no {transport}", hint=f"use {other}:PATH, or the path alone")
    if not members.ended:
        return SourceError(
            f"{name} is torn: it ends before what lists its images",
            hint="make the archive again, or copy it again",
        )
    if members.size("repositories") is not None:
        return SourceError(
            f"{name} was saved by a Docker older than 1.10 (2016): it has no "
            f"{docker_archive.MANIFEST}, only `repositories`",
            hint="load it into an engine that still takes it, and save it again from there",
        )
    hint = "make it with docker save, or as an OCI layout"
    for path in members.files:
        folder, _, file = path.rpartition("/")
        if folder and file in lists:
            hint = f"archive what is inside its folder {folder!r}, not the folder"
            break
    return SourceError(
        f"{name} holds no image: it has neither {oci_layout.INDEX} nor {docker_archive.MANIFEST}",
        hint=hint,
    )
