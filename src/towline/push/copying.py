"""What a copy has beyond a push: bare words are images at registries, and errors say which side."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from towline import reference as references
from towline.errors import AuthError, NetworkError, RegistryError, TowlineError, UsageError
from towline.sources.open_source import parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from towline.push.signatures import Source
    from towline.reference import Reference

_PATHS = ("/", "./", "../")


def meant(source: Source) -> Source:
    """The source with its transport, if it is a bare word: those are images at registries.

    Raises UsageError where a file has that name.
    """
    if not isinstance(source, str) or source == "-" or source.startswith(_PATHS):
        return source
    location = parse(source)
    if location.transport:
        return source
    if os.path.lexists(source):
        raise UsageError(
            f"{source} is a path here, and a bare word is an image at a registry",
            hint=f"./{source} is the path, docker://{source} the image",
        )
    return f"docker://{source}"


def check_source(source: Source, destinations: Iterable[Reference], *, all_tags: bool) -> None:
    """Raises UsageError for a source that is one of the destinations, or has a tag too much."""
    if not isinstance(source, str) or (location := parse(source)).transport != "docker":
        return
    found = references.parse(location.path)
    if all_tags and (found.tag or found.digest):
        raise UsageError(
            f"the source of `all_tags` has no tag or digest: {found}",
            hint=f"use {found.repository}",
        )
    tag = None if all_tags else found.tag or (None if found.digest else references.LATEST)
    if (tag or all_tags) and found.with_tag(tag) in destinations:
        raise UsageError(f"source and destination are the same: {found.with_tag(tag)}")


@contextmanager
def sides_named() -> Iterator[None]:
    """Errors leave the block with the side that they are of."""
    try:
        yield
    except TowlineError as error:
        name_sides([error])
        raise


def name_sides(outcomes: Iterable[object]) -> None:
    """Say in each error which end of the copy it is of: both are registries."""
    errors = {id(each): each for each in outcomes if isinstance(each, TowlineError)}
    for error in errors.values():
        if isinstance(error, AuthError | RegistryError | NetworkError):
            side = error.side or "destination"
            error.args = (f"at the {side}: {error.message}", *error.args[1:])
