"""Named files of a source, whether they lie in a folder or in a tar.

What they mean is `docker_archive`'s and `oci_layout`'s, which see no difference.
"""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from towline.errors import SourceError
from towline.sources import access, tar_index
from towline.spec import manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.layers.reader import Reader
    from towline.sources.access import Access

T = TypeVar("T")


class Files(Protocol):
    """Read-only files by their paths, relative to the root of the source."""

    @property
    def name(self) -> str:
        """What errors call the source."""
        ...

    def size(self, path: str) -> int | None:
        """Bytes of the file; None where there is none."""
        ...

    def open(self, path: str) -> Reader:
        """A new reader of the whole file. Raises SourceError."""
        ...

    def close(self) -> None:
        """Let go of it; open readers go on."""
        ...


class TarFiles:
    """The files of a tar that is read in place."""

    def __init__(self, archive: Access, name: str) -> None:
        self.name = name
        self.index = tar_index.index(archive, name)
        self._archive = archive

    def size(self, path: str) -> int | None:
        """See `Files`."""
        span = self.index.find(path)
        return None if span is None else span.size

    def open(self, path: str) -> Reader:
        """See `Files`."""
        span = self.index.find(path)
        if span is None:
            raise missing(self, path)
        return access.Section(self._archive, span.start, span.size, f"{path} in {self.name}")

    def close(self) -> None:
        """See `Files`."""
        self._archive.release()


class FolderFiles:
    """The files below a folder. Links are followed, but not out of it.

    What lies elsewhere may be no blob at all, and a digest is known to be wrong only when the
    bytes are sent already.
    """

    def __init__(self, root: str) -> None:
        self.name = root
        self._root = os.path.realpath(root)

    def size(self, path: str) -> int | None:
        """See `Files`."""
        try:
            found = os.stat(self._inside(path))  # noqa: PTH116 - pathlib costs start-up
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise access.unreadable(f"{path} in {self.name}", error) from None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def open(self, path: str) -> Reader:
        """See `Files`."""
        what = f"{path} in {self.name}"
        try:
            descriptor = os.open(self._inside(path), os.O_RDONLY)
        except FileNotFoundError:
            raise missing(self, path) from None
        except OSError as error:
            raise access.unreadable(what, error) from None
        file = access.OpenFile(descriptor, what)
        try:
            return access.Section(file, 0, file.size, what)
        finally:
            file.release()

    def close(self) -> None:
        """See `Files`."""

    def _inside(self, path: str) -> str:
        """Where the file lies, all links followed. Raises SourceError when that is elsewhere."""
        found = os.path.realpath(os.path.join(self._root, path))  # noqa: PTH118 - a text
        if os.path.commonpath((self._root, found)) != self._root:
            raise SourceError(
                f"{shown(path)} in {self.name} is a link that leaves the layout",
                hint=f"copy it with what its links point to: cp -RL {self.name} COPY",
            )
        return found


def missing(files: Files, path: str) -> SourceError:
    """What to say of a file that should be there."""
    return SourceError(f"{files.name} has no {shown(path)}")


def shown(path: str) -> str:
    """A name from a source as it can stand in a message, whatever characters it has."""
    return path if path.isprintable() else repr(path)


def read(files: Files, path: str) -> bytes:
    """A manifest, config or index, whole. Raises SourceError when it is missing or too large."""
    size = files.size(path)
    if size is None:
        raise missing(files, path)
    if size > manifest.MAX_SIZE:
        raise SourceError(
            f"{shown(path)} in {files.name} is {size} bytes long; "
            f"no manifest or config has more than {manifest.MAX_SIZE}"
        )
    content = access.read_all(files.open(path), size)
    if len(content) < size:
        raise SourceError(f"{shown(path)} in {files.name} is cut short")
    return content


def read_json(files: Files, path: str) -> Any:  # noqa: ANN401 - any JSON
    """A JSON document. Raises SourceError when it is none."""
    content = read(files, path)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{shown(path)} in {files.name} is not JSON ({error})") from None


def understood(what: str, parse: Callable[[], T]) -> T:
    """What `parse` makes of a document; SourceError where it says why it cannot."""
    try:
        return parse()
    except ValueError as error:
        raise SourceError(f"{what} cannot be used: {error}") from None
