"""What the words of a push mean: a source and where it goes, or what is missing."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from towline.errors import SourceError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

_REGISTRY = "docker://"
_ARCHIVES = ("docker-archive:", "oci-archive:", _REGISTRY)
_DAEMON = "docker-daemon:"
_ENDINGS = (".tar", ".tgz", ".gz", ".zst")


def source_and_destinations(args: argparse.Namespace) -> tuple[str, list[str]]:
    """Source and destinations. Raises UsageError."""
    match args.words:
        case []:
            message = "nothing is named to be pushed"
            raise UsageError(message, hint="towline push image.tar REGISTRY/REPOSITORY:TAG")
        case [name]:
            return _alone(name)
        case [source, *destinations]:
            check_source_options(args, source)
            _check_order(args, source, destinations)
            return _of_engine(source), destinations
    raise AssertionError


def copied(args: argparse.Namespace) -> tuple[str, list[str]]:
    """Source and destinations of a copy, in which a bare word is at a registry.

    Raises UsageError.
    """
    from towline.push.copying import meant

    match args.words:
        case [word, *destinations] if destinations:
            source = str(meant(word))
            check_source_options(args, source)
            return source, destinations
        case [word]:
            message = f"no destination is named for {word}"
            raise UsageError(message, hint=f"towline copy {word} REGISTRY/REPOSITORY:TAG")
    message = "nothing is named to be copied"
    raise UsageError(message, hint="towline copy REGISTRY/REPOSITORY:TAG REGISTRY/REPOSITORY:TAG")


def reference(args: argparse.Namespace) -> str:
    """The one destination of a push in full form, for events of its errors; empty for others."""
    from towline import reference as references

    words = getattr(args, "words", [])
    if args.command not in {"push", "plan"} or not 1 <= len(words) <= 2:  # noqa: PLR2004 - a pair
        return ""
    try:
        found = references.parse(words[-1].removeprefix(_DAEMON))
    except UsageError:
        return ""
    tag = None if getattr(args, "all_tags", False) else found.target
    return str(found.with_tag(tag))


@contextmanager
def explained(args: argparse.Namespace) -> Iterator[None]:
    """A word that is no file has been looked for in an engine: say that it was a file, too."""
    if args.command not in {"push", "plan"}:
        yield
        return
    source, *destinations = args.words
    try:
        yield
    except SourceError as error:
        if destinations and error.message.startswith(f"{source} ") and _of_engine(source) != source:
            error.args = (f"there is no file {source}, and {error.message}",)
        raise


def _check_order(args: argparse.Namespace, source: str, destinations: Sequence[str]) -> None:
    """A file that stands where the destination belongs. Raises UsageError."""
    if _exists(source) or not _may_be_an_image(source):
        return
    for word in destinations:
        if _exists(word):
            hint = f"the source comes first: towline {args.command} {word} {source}"
            raise UsageError(f"{word} is a path, and no destination", hint=hint)


def _may_be_an_image(text: str) -> bool:
    """Whether it could be an image's name, and hardly a file's."""
    from towline import reference

    if text == "-" or text.startswith((*_ARCHIVES, _DAEMON, "oci:")) or text.endswith(_ENDINGS):
        return False
    try:
        reference.parse(text)
    except UsageError:
        return False
    return True


def check_source_options(args: argparse.Namespace, source: str) -> None:
    """A variable may be set for many commands; who types it means this source."""
    if "src_creds" in args.typed and not source.startswith(_REGISTRY):
        message = f"`--src-creds` is for a source in a registry, which `{source}` is not"
        raise UsageError(message, hint="--creds is for the destination's registry")


def _of_engine(source: str) -> str:
    """The source, said to be in an engine where it is no file and could be an image's name."""
    return source if _exists(source) or not _may_be_an_image(source) else f"{_DAEMON}{source}"


def _alone(name: str) -> tuple[str, list[str]]:
    """An engine's image by its name, and where that says it goes. Raises UsageError."""
    if name == "-" or name.startswith(_ARCHIVES) or _exists(name) or _is_layout(name):
        hint = f"towline push {name} REGISTRY/REPOSITORY:TAG"
        raise UsageError(f"no destination is named for {name}", hint=hint)
    from towline import reference

    name = name.removeprefix(_DAEMON)
    parsed = reference.parse(name)
    if parsed.digest:
        raise UsageError("cannot push a digest reference")
    return f"{_DAEMON}{name}", [str(parsed)]


def _is_layout(name: str) -> bool:
    """`oci:DIR` is an image named oci, too: the folder decides."""
    transport, _, rest = name.partition(":")
    return transport == "oci" and _exists(rest.partition(":")[0])


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - pathlib's raises where nobody may look
