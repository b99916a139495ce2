"""Parses a SOURCE: which transport it has, and where what it names lies.

The transports are those of skopeo (containers-transports). How each is opened is said in
`push/source_images.py`.
"""

# No `from __future__ import annotations`: at every start Python would compile each text that
# annotates a field of a named tuple.

import os
from typing import BinaryIO, Literal, NamedTuple, get_args

from towline import reference
from towline.errors import UsageError
from towline.reference import Reference

Transport = Literal["docker-archive", "oci", "oci-archive", "docker-daemon", "docker"]
Written = Literal["oci", "oci-archive", "docker-archive"]
"""Those that can be written to, too: `targets/archives.py` opens them."""
TRANSPORTS: tuple[Transport, ...] = get_args(Transport)
REGISTRY = "docker://"
DAEMON = "docker-daemon:"
_WITH_PATH = ("docker-archive", "oci", "oci-archive")
"""Those with a file or a folder behind them, and perhaps a REF."""


class Location(NamedTuple):
    """A SOURCE, parsed."""

    text: str
    """As it was written."""
    transport: Transport | None
    """None for a bare path or standard input."""
    path: str
    """A file or folder, `-` for standard input; for a daemon or registry, the image's name.

    Empty for a file object.
    """
    ref: str | None = None
    """Names one of the images there; None: nothing was said."""
    file: BinaryIO | None = None
    """The caller's file object."""

    @property
    def name(self) -> str:
        """The name of the source in errors and results."""
        return self.text if self.text != "-" or not self.standard_input else "standard input"

    @property
    def in_files(self) -> bool:
        """Whether it is a file or a folder with a path, or standard input."""
        return bool(self.path) and (self.transport is None or self.transport in _WITH_PATH)

    @property
    def standard_input(self) -> bool:
        """Whether it is standard input."""
        return self.path == "-" and self.in_files

    @property
    def reference(self) -> Reference | None:
        """The image's name, if it is at a registry. Raises InvalidReference."""
        return reference.parse(self.path) if self.transport == "docker" else None


def parse(source: str | os.PathLike[str] | BinaryIO) -> Location:
    """Parse a SOURCE; a text without a transport is a path.

    Raises UsageError when nothing follows the transport, or when a name that is no path begins with
    a login.
    """
    if isinstance(source, os.PathLike):
        path = os.fsdecode(source)  # an entry of `os.scandir(b"…")` has bytes
        return Location(path, None, path if path != "-" else "./-")
    if not isinstance(source, str):
        name = getattr(source, "name", None)  # a number where it was opened by its descriptor
        return Location(name if isinstance(name, str) else "the file object", None, "", file=source)
    text = source
    word, colon, rest = text.partition(":")
    transport = next((name for name in TRANSPORTS if colon and name == word), None)
    if transport is None or (transport == "docker" and not rest.startswith("//")):
        if not text:
            raise UsageError("the source is empty", hint="name an archive, a folder, or -")
        _refuse_login(text)
        return Location(text, None, text)
    if transport in _WITH_PATH:
        path, _, ref = rest.partition(":")
        form = f"{transport}:PATH or {transport}:PATH:REF"
    else:
        path, ref = rest.removeprefix("//" if transport == "docker" else ""), ""
        form = "docker://REF" if transport == "docker" else f"{transport}:REF"
        _refuse_login(path)
    if not path:
        raise UsageError(f"nothing is named after {text}", hint=f"use {form}")
    return Location(text, transport, path, ref or None)


def _refuse_login(text: str) -> None:
    if reference.without_login(text) != text and not os.path.lexists(text):
        reference.parse(text)  # raises, with a hint, and does not repeat the password
