"""What the words of a push mean: a source and where it goes, or what is missing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from towline.cli import not_yet
from towline.errors import SourceError, TowlineError, UsageError

if TYPE_CHECKING:
    import argparse

_REGISTRY = "docker://"
_ARCHIVES = ("docker-archive:", "oci-archive:", _REGISTRY)
_DAEMON = "docker-daemon:"


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
            return source, destinations
    raise AssertionError


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
