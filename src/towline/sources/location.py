"""What a SOURCE on the command line means, from its text alone.

Whether it exists, and what lies there, is `open`'s to find out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from towline.errors import UsageError

Transport = Literal["docker-archive", "oci", "oci-archive", "docker-daemon", "docker"]
"""As skopeo's users spell them (containers-transports)."""

_WITH_PATH = ("docker-archive", "oci", "oci-archive")


@dataclass(frozen=True, slots=True)
class Location:
    """Where an image is said to be."""

    text: str
    """As it was written."""
    transport: Transport | None
    """None for a bare path or standard input: what lies there is recognised by its content."""
    path: str
    """A file or folder, `-` for standard input; for a daemon or registry, the image's name."""
    ref: str | None = None
    """Which of the images that lie there; None when it was not said."""

    @property
    def standard_input(self) -> bool:
        """Whether the bytes come by standard input."""
        return self.path == "-" and self.transport not in {"docker-daemon", "docker"}


def parse(text: str) -> Location:
    """Read a SOURCE; a text that names no transport is a path.

    Raises UsageError when the transport has nothing after it.
    """
    transport = _transport(text)
    if transport is None:
        if not text:
            raise UsageError("the source is empty", hint="name an archive, a folder, or -")
        return Location(text, None, text)
    rest = text[len(transport) + 1 :].removeprefix("//" if transport == "docker" else "")
    if transport not in _WITH_PATH:
        path, ref = rest, None
    else:
        path, _, name = rest.partition(":")
        ref = name or None
    if not path:
        raise UsageError(f"nothing is named after {text}", hint=f"use {_form(transport)}")
    return Location(text, transport, path, ref)


def _transport(text: str) -> Transport | None:
    word, colon, rest = text.partition(":")
    if word == "docker":
        return "docker" if rest.startswith("//") else None
    known: tuple[Transport, ...] = get_args(Transport)
    return next((name for name in known if colon and name == word), None)


def _form(transport: Transport) -> str:
    if transport in _WITH_PATH:
        return f"{transport}:PATH or {transport}:PATH:REF"
    return f"{transport}:REF" if transport == "docker-daemon" else "docker://REF"
