"""The names of folders and files that are destinations, in the form of repository names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from towline import reference as references
from towline.errors import UsageError
from towline.reference import Reference, RepositoryName
from towline.sources import location as locations

if TYPE_CHECKING:
    from collections.abc import Iterable

    from towline.sources.location import Location, Written


class Place(RepositoryName):
    """A folder or file: `host` is transport and path, `path` the name of its images, if any.

    As a host of its own it has its own threads, slots and patience.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return f"{self.host}:{self.path}" if self.path else self.host

    @property
    def is_at_registry(self) -> bool:
        """False."""
        return False

    @property
    def familiar(self) -> str:
        """As it is written."""
        return str(self)

    @property
    def kind(self) -> Written:
        """The transport, as in `oci:DIR`."""
        return cast("Written", self.host.partition(":")[0])

    @property
    def file(self) -> str:
        """The path of the folder or file."""
        return self.host.partition(":")[2]


def parse(text: str) -> Reference:
    """Parse `oci:DIR[:REF]`, `oci-archive:FILE[:REF]` or `docker-archive:FILE[:REF]`.

    REF is a tag in a layout, and an image name in a docker archive. Raises UsageError.
    """
    location = locations.parse(text)
    if location.path == "-":
        message = f"{text} is no file: standard output is for what has become of it"
        raise UsageError(message, hint="name the file, ./- if that is its name")
    host = f"{location.transport}:{os.path.normpath(location.path)}"
    if location.transport == "docker-archive" and location.ref:
        named = references.parse(location.ref)
        if named.digest:
            raise UsageError(f"an image in an archive has a tag, and no digest: {text}")
        return Reference(Place(host, named.repository.familiar), named.tag)
    if location.ref and location.ref.startswith("@"):
        # Read, `@N` is the N-th image; and no name begins so (image-spec, "Pre-Defined Annotation
        # Keys").
        raise UsageError(f"{location.ref} is no name for an image in a layout: {text}")
    return Reference(Place(host, ""), location.ref)


def check_apart(source: Location, places: Iterable[Reference]) -> None:
    """Raise UsageError if an archive, or an image of a layout, is copied to itself."""
    for place in places:
        name = place.repository
        if not isinstance(name, Place) or not source.in_files:
            continue
        same = os.path.realpath(source.path) == os.path.realpath(name.file)
        if same and (name.kind != "oci" or source.ref == place.tag):
            raise UsageError(f"source and destination are the same: {place}")


def named(
    places: Iterable[Reference], source: Reference | None, *, all_tags: bool
) -> list[Reference]:
    """The destinations; a docker archive without a name gets that of the source, if it has one.

    Raises UsageError for images of several repositories in one file, which is written once, as a
    whole; with `all_tags` for a docker archive without a name, too: its tags need one.
    """
    found = [_named(place, source) for place in places]
    archives: dict[str, Place] = {}
    for place in found:
        name = place.repository
        if not isinstance(name, Place) or name.kind == "oci":
            continue
        other = archives.setdefault(os.path.realpath(name.file), name)
        if other != name:
            raise UsageError(
                f"{name.file} is to be {other} and {name}, and is written for one of them",
                hint="use a file for each",
            )
        if all_tags and str(place).startswith("docker-archive:") and not name.path:
            raise UsageError(
                f"with `all_tags` the images in {name} need a name", hint=f"as in {name}:NAME"
            )
    return found


def _named(place: Reference, source: Reference | None) -> Reference:
    name = place.repository
    if not isinstance(name, Place) or name.kind != "docker-archive" or name.path:
        return place
    if source is None:
        return place.with_tag(None)
    return Reference(Place(name.host, source.repository.familiar), source.tag)
