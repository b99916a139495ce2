"""The rules of a copy beyond a push: bare words are images at registries, errors name a side."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from towline import reference as references
from towline.errors import (
    AuthError,
    NetworkError,
    RegistryError,
    SourceError,
    TowlineError,
    UsageError,
)
from towline.layers import profile as profiles
from towline.push.image import images
from towline.sources.open_source import parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from towline.push.image import Image, Tree
    from towline.push.interface.options import Wish
    from towline.push.interface.signatures import Source
    from towline.reference import Reference, RepositoryName

_REGISTRY = "docker://"
_OCI_ARCHIVE = "oci-archive:"
_DOCKER_ARCHIVE = "docker-archive:"
_PATHS = ("/", "./", "../")


def meant(source: Source) -> Source:
    """The source; a bare word gets its transport, as it means an image at a registry.

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
    return f"{_REGISTRY}{source}"


def at_registry(text: str) -> Reference:
    """Parse a word that must mean an image at a registry.

    Raises UsageError where it does not, or a file has that name.
    """
    word = str(meant(text))
    if not word.startswith(_REGISTRY):
        raise UsageError(f"{text} is not at a registry", hint="name REGISTRY/REPOSITORY:TAG")
    return references.parse(word)


def checked(
    source: Source, destinations: Sequence[Reference], wish: Wish
) -> tuple[list[Reference], Wish]:
    """Destinations and wish, made to fit the source.

    Raises UsageError for a source that is one of the destinations or has a tag beside `all_tags`,
    and for options that folders and files do not have.
    """
    location = parse(source) if isinstance(source, str) else None
    found = None
    if location and location.transport == "docker":
        found = references.parse(location.path)
        found = found if wish.all_tags or found.digest else found.with_tag(found.target)
        if wish.all_tags and (found.tag or found.digest):
            raise UsageError(
                f"the source of `all_tags` has no tag or digest: {found}",
                hint=f"use {found.repository}",
            )
        if found in destinations:
            raise UsageError(f"source and destination are the same: {found}")
    others = [each for each in destinations if not str(each).startswith(_OCI_ARCHIVE)]
    if wish.omit_from and others:
        raise UsageError(
            f"`omit_from` is for OCI archives, which {others[0]} is not",
            hint="copy to oci-archive:FILE",
        )
    if all(each.repository.is_at_registry for each in destinations):
        return list(destinations), wish
    from towline.targets import place

    if location:
        place.check_apart(location, destinations)
    named = place.named(destinations, found)
    if wish.all_tags:
        place.check_named(named)
    return named, _plain(wish, destinations)


def _plain(wish: Wish, destinations: Sequence[Reference]) -> Wish:
    """The wish, made to fit docker archives. Raises UsageError for what they do not have."""
    # Their layers are plain: if there is no other destination, none is compressed only to be
    # decompressed again.
    archives = [each for each in destinations if str(each).startswith(_DOCKER_ARCHIVE)]
    wishes = {
        "compression": wish.explicit_profile and wish.profile.compression != "none",
        "verify": wish.verify,
        "if_exists": wish.if_exists != "overwrite",
        "referrers": wish.referrers,
        "annotation": wish.annotations,
    }
    for option in (option for option, wished in wishes.items() if wished and archives):
        raise UsageError(
            f"`{option}` is not for a docker archive, which has plain layers and no manifests: "
            f"{archives[0]}",
            hint="use oci-archive:FILE",
        )
    alone = len(archives) == len(destinations)
    return wish._replace(profile=profiles.parse("none")) if alone else wish


def fitting(
    name: RepositoryName, tags: Iterable[tuple[Reference, Tree]]
) -> tuple[tuple[Reference, Tree], ...]:
    """The tree for each tag: a docker archive holds images, and no indexes.

    Raises SourceError for an index of several images.
    """
    if not name.host.startswith(_DOCKER_ARCHIVE):
        return tuple(tags)
    return tuple((reference, _sole_image(reference, tree)) for reference, tree in tags)


def _sole_image(reference: Reference, tree: Tree) -> Image:
    found = [image for image in images(tree) if image.source.platform.known]
    if len(found) == 1:
        return found[0]
    platforms = ", ".join(str(image.source.platform) for image in found)
    raise SourceError(
        f"{reference} is to be one image, and the source has {len(found)}: {platforms}",
        hint=f"choose one: `platform='{found[0].source.platform}'`" if found else None,
    )


@contextmanager
def sides_named() -> Iterator[None]:
    """Have errors that leave the block name the side that they are of."""
    try:
        yield
    except TowlineError as error:
        name_sides([error])
        raise


def name_sides(outcomes: Iterable[object]) -> None:
    """Name in each error the side of the copy that it is of, since both are registries."""
    errors = {id(each): each for each in outcomes if isinstance(each, TowlineError)}
    for error in errors.values():
        if isinstance(error, AuthError | RegistryError | NetworkError):
            side = error.side or "destination"
            if error.message.startswith(f"at the {side}: "):
                continue  # of a source that was opened within another
            if side == "source" and error.hint:
                error.hint = error.hint.replace("`creds=", "`src_creds=")
            error.args = (f"at the {side}: {error.message}", *error.args[1:])
