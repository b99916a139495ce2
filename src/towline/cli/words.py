"""What the words of a push mean: a source and where it goes, or what is missing."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from towline.cli import not_yet
from towline.errors import SourceError, TowlineError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

_REGISTRY = "docker://"
_ARCHIVES = ("docker-archive:", "oci-archive:", _REGISTRY)
_DAEMON = "docker-daemon:"
_ENDINGS = (".tar", ".tgz", ".gz", ".zst")


def source_and_destinations(args: argparse.Namespace) -> tuple[str, list[str]]:
    """Source and destinations. Raises UsageError, and SourceError for a daemon's image."""
    match args.words:
        case []:
            message = "nothing is named to be pushed"
            raise UsageError(message, hint="towline push image.tar REGISTRY/REPOSITORY:TAG")
        case [name]:
            raise _alone(name)
        case [source, *destinations]:
            if source.startswith(not_yet.SOURCES) and not _exists(source):
                message = f"a push of `{source}`, an image in a registry, is not available yet"
                raise UsageError(message)
            _check_source_options(args, source)
            _check_order(args, source, destinations)
            return source, destinations
    raise AssertionError


@contextmanager
def explained(args: argparse.Namespace) -> Iterator[None]:
    """A source that is not there may be an image of Docker's: say how that is pushed."""
    source, *destinations = args.words
    try:
        yield
    except SourceError as error:
        if error.hint is None and not _exists(source) and _may_be_an_image(source):
            piped = " ".join([f"docker save {source} | towline {args.command} -", *destinations])
            error.hint = f"is it an image of Docker's? {piped}"
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


def _check_source_options(args: argparse.Namespace, source: str) -> None:
    """A variable may be set for many commands; who types it means this source."""
    if "src_creds" in args.typed and not source.startswith(_REGISTRY):
        message = f"`--src-creds` is for a source in a registry, which `{source}` is not"
        raise UsageError(message, hint="--creds is for the destination's registry")


def _alone(name: str) -> TowlineError:
    """What is wrong with one word: a file without a destination, or a name without a daemon."""
    if name == "-" or name.startswith(_ARCHIVES) or _exists(name) or _is_layout(name):
        hint = f"towline push {name} REGISTRY/REPOSITORY:TAG"
        return UsageError(f"no destination is named for {name}", hint=hint)
    from towline import reference

    parsed = reference.parse(name.removeprefix(_DAEMON))
    if parsed.digest:
        return UsageError("cannot push a digest reference")
    registry = "" if parsed.repository.host != reference.HUB else "REGISTRY/"
    return SourceError(
        f"the image {parsed.familiar} cannot be read: no Docker daemon is asked yet",
        hint=f"towline push image.tar {registry}{parsed.familiar}",
    )


def _is_layout(name: str) -> bool:
    """`oci:DIR` is an image named oci, too: the folder decides."""
    transport, _, rest = name.partition(":")
    return transport == "oci" and _exists(rest.partition(":")[0])


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - pathlib's raises where nobody may look
