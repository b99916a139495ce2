"""Parses the words that say where, and says which of them fit together."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast, get_args

from towline import reference
from towline.errors import InvalidReference, UsageError
from towline.layers import profile as profiles
from towline.sources.location import DAEMON, REGISTRY, TRANSPORTS, Written
from towline.sources.location import parse as located

if TYPE_CHECKING:
    from towline.push.interface.options import Source, Wish
    from towline.reference import Reference, RepositoryName
    from towline.sources.location import Location

_OCI_ARCHIVE = "oci-archive:"
_DOCKER_ARCHIVE = "docker-archive:"
_PLACES = tuple(f"{transport}:" for transport in get_args(Written))
_PATHS = ("/", "./", "../")
_SKOPEOS = ("dir", "containers-storage", "ostree", "sif")
"""Transports of skopeo's that towline has not."""
_ELSEWHERE = (*(each for each in TRANSPORTS if each != "docker"), *_SKOPEOS)
"""Transports of what is at no registry: folders, files, daemons."""
_PORT = "[0-9]+/"  # what stands behind the colon of a host

_LAYOUT = ("oci-layout", "index.json", "blobs")
"""What a layout's folder holds (image-spec, "Image Layout")."""

_MOST_DIGITS = 3
"""Digits of a number behind a name that is more likely a tag than a port."""


def parse(
    destination: str | Sequence[str], wish: Wish, account: str | None, *, places: bool = False
) -> list[Reference]:
    """Each destination once, in the order given; one without a tag gets `latest`.

    With `all_tags` (the source's tags are put) and `by_digest` they have no tag. With `places`
    layouts and archives may be among them. `account` names the option that gives an account for one
    registry alone. Raises InvalidReference, and UsageError for a digest, a tag beside one of these
    two options, a name of one part, a destination that is not at a registry, and several registries
    with one account.
    """
    all_tags, by_digest = wish.all_tags, wish.by_digest
    if all_tags and by_digest:
        raise UsageError("`all_tags` writes tags, and `by_digest` none", hint="leave out one")
    texts = _texts(destination, "destination")
    if not texts:
        raise UsageError("no destination was given", hint="name one: REGISTRY/REPOSITORY:TAG")
    without = "all_tags" if all_tags else "by_digest" if by_digest else None
    parsed = [_parsed(text, without, places=places) for text in texts]
    default = None if all_tags or by_digest else reference.LATEST
    hosts = dict.fromkeys(
        found.repository.host for found in parsed if found.repository.is_at_registry
    )
    if account and len(hosts) > 1:
        raise UsageError(
            f"{account} is for one registry, and the destinations are on {len(hosts)}: "
            + ", ".join(hosts),
            hint=f"save a login for each: towline login {next(iter(hosts))}",
        )
    return list(dict.fromkeys(found.with_tag(found.tag or default) for found in parsed))


def _texts(given: Any, what: str) -> list[str]:  # noqa: ANN401 - whatever a caller gives
    """One text or several, in order. Raises UsageError for values of other types."""
    several = isinstance(given, Iterable) and not isinstance(given, str)
    found: list[Any] = list(given) if several else [given]
    for odd in (one for one in found if not isinstance(one, str)):
        kind = type(odd).__name__
        raise UsageError(f"a {what} is of type {kind}", hint="give a text, or several")
    return found


def _check_text(given: object, what: str) -> None:
    """Raise UsageError for a name that is no text."""
    if not isinstance(given, str):
        raise UsageError(f"a {what} is of type {type(given).__name__}", hint="give a text")


def _parsed(text: str, without: str | None, *, places: bool) -> Reference:
    """Parse one destination. Raises UsageError, InvalidReference."""
    # `oci:DIR` would else be a tag of the Hub's repository `oci`.
    if not _begins_with(_ELSEWHERE, text):
        found = reference.parse(text)
        _check(found, without=without)
        name = text.removeprefix(REGISTRY)
        if "/" not in name:  # it is the Hub's, and mostly a slip in a push
            _check_no_registry(name, "REPOSITORY:TAG")
            raise UsageError(
                f"{name} names no registry to push to",
                hint=f"name one: REGISTRY/{name}, or in full docker.io/library/{name}",
            )
        return found
    if not (places and text.startswith(_PLACES)):
        check_at_registry(text)
    if without == "by_digest":
        raise UsageError(f"`by_digest` is for registries, which {text} is not")
    from towline.targets import place  # which most have no need of

    found = place.parse(text)
    _check(found, without=without)
    return found


def only_skopeos(text: str) -> bool:
    """Whether the text names a folder, a file or a store that skopeo knows and towline does not."""
    return _begins_with(_SKOPEOS, text)


def _begins_with(transports: Sequence[str], text: str) -> bool:
    word, colon, rest = text.partition(":")
    return bool(colon) and word in transports and not re.match(_PORT, rest)


def check_at_registry(text: str) -> None:
    """Raise UsageError for a text that names a folder, a file or a daemon."""
    if _begins_with(_ELSEWHERE, text):
        shown = reference.without_login(text)
        if text.startswith(DAEMON):
            said = f"{shown} is in a daemon, and nothing is written to one"
            raise UsageError(said, hint="docker load puts an archive into it")
        if only_skopeos(text):
            said = f"{shown} is a place that towline does not write to"
            places = "oci:DIR, oci-archive:FILE and docker-archive:FILE"
            raise UsageError(said, hint=f"towline copy writes to registries, {places}")
        said = f"{shown} is not at a registry, and a push goes to registries alone"
        raise UsageError(said, hint=f"towline copy … {shown}")


def _check(found: Reference, *, without: str | None) -> None:
    """Raise UsageError for a digest, or for a tag beside the option `without`."""
    if found.digest is not None:
        raise UsageError(
            "cannot push a digest reference", hint=f"push to a tag: {found.with_tag('TAG')}"
        )
    if without and found.tag is not None:
        raise UsageError(
            f"a tag cannot be used with `{without}`: {found}", hint=f"use {found.repository}"
        )


def _check_no_registry(name: str, more: str) -> None:
    """Raise UsageError for a name of one part that is more likely a host than a repository."""
    host, colon, port = name.partition(":")
    if colon and not port.isdecimal():
        return
    if host == "localhost" or "." in host or len(port) > _MOST_DIGITS:
        raise UsageError(
            f"{name} is a registry, and no repository is named behind it",
            hint=f"name one: {name}/{more}",
        )


def meant(source: Source) -> Location:
    """Where the source of a copy is: a bare word means an image at a registry.

    Raises UsageError where a file has that name.
    """
    location = located(source)
    if not isinstance(source, str) or source == "-" or source.startswith(_PATHS):
        return location
    if location.transport:
        return location
    if os.path.lexists(source):
        raise UsageError(
            f"{source} is a path here, and a bare word is an image at a registry",
            hint=f"./{source} is the path, docker://{source} the image",
        )
    return located(f"{REGISTRY}{source}")


def looked_at(source: Source) -> Location:
    """Where what is looked at is (`inspect`, `digest`): a text that is no path, at a registry.

    Raises InvalidReference for one that is neither.
    """
    location = located(source)
    if not isinstance(source, str) or location.transport or location.standard_input:
        return location
    if os.path.exists(source):  # noqa: PTH110 - pathlib costs start-up
        return location
    try:
        return located(f"{REGISTRY}{reference.parse(source)}")
    except InvalidReference as error:
        error.hint = error.hint or f"check its path, if {source} is to be a file: there is none"
        raise


def all_meant(sources: Source | Sequence[Source]) -> list[Location]:
    """The sources of an index, each as `meant`.

    Raises UsageError where there is none, and where standard input is named twice.
    """
    given = [*sources] if isinstance(sources, list | tuple) else [cast("Source", sources)]
    if not given:
        raise UsageError("no source is given", hint="name the images that the index is to list")
    found = [meant(source) for source in given]
    if sum(location.standard_input for location in found) > 1:
        raise UsageError(
            "standard input is named twice, and can be read once", hint="write one to a file"
        )
    return found


def at_registry(text: str) -> Reference:
    """Parse a word that must mean an image at a registry.

    Raises UsageError where it does not, or a file has that name.
    """
    _check_text(text, "reference")
    found = meant(text).reference
    if found is None:
        raise UsageError(f"{text} is not at a registry", hint="name REGISTRY/REPOSITORY:TAG")
    return found


def checked(
    source: Location, destinations: Sequence[Reference], wish: Wish
) -> tuple[list[Reference], Wish]:
    """Destinations and wish, made to fit the source: files have other rules than registries.

    Raises UsageError for a source that is one of the destinations or has a tag beside `all_tags`,
    and for options that folders and files do not have.
    """
    if found := source.reference:
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

    place.check_apart(source, destinations)
    named = place.named(destinations, found, all_tags=wish.all_tags)
    return named, _plain(wish, destinations)


def check_trace(
    file: str | os.PathLike[str], sources: Iterable[Location], destinations: Iterable[Reference]
) -> None:
    """Raise UsageError where a trace would replace a source or a destination, or a file of it."""
    # A file object has no path, but may have a name.
    read = [(each.path or each.name, each.name) for each in sources if each.in_files or each.file]
    written = [
        (each.repository.host.partition(":")[2], str(each))
        for each in destinations
        if not each.repository.is_at_registry
    ]
    check_outputs({"trace": file}, (*read, *written))


def check_outputs(
    outputs: Mapping[str, str | os.PathLike[str]], files: Iterable[tuple[str, str]]
) -> None:
    """Raise UsageError where an output would replace a file of these, or another output.

    `outputs`: by their options. `files`: paths of files and of layouts, and how they are named.
    """
    from pathlib import Path  # costs start-up

    taken: dict[Path, str] = {}
    for name, shown in files:
        path = Path(os.path.realpath(name))
        taken |= dict.fromkeys((path, *(path / name for name in _LAYOUT)), shown)
    for option, file in outputs.items():
        path = Path(os.path.realpath(file))
        # A blob lies in a folder of `blobs`; what else is beside a layout is its owner's.
        inside = path.parents[1] if path.parts[-3:-2] == ("blobs",) else path
        if replaced := taken.get(path) or taken.get(inside):
            message = f"`{option} {os.fspath(file)}` would replace {replaced}"
            raise UsageError(message, hint="name another file")
        taken[path] = f"the file of `{option}`"


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


def by_repository(parsed: Iterable[Reference]) -> dict[RepositoryName, list[Reference]]:
    """The destinations by their repositories, the tags of each sorted."""
    groups: dict[RepositoryName, list[Reference]] = {}
    for found in parsed:
        groups.setdefault(found.repository, []).append(found)
    return {name: sorted(tags, key=lambda one: str(one.tag)) for name, tags in groups.items()}


def beside(found: Reference, tags: str | Sequence[str]) -> list[Reference]:
    """Tags of the same repository, each once. Raises UsageError for what is no tag."""
    tags = _texts(tags, "tag")
    if not tags:
        raise UsageError("no tag is given", hint=f"towline tag {found} TAG")
    for tag in tags:
        if "/" in tag or ":" in tag:
            alone = tag.rpartition(":")[2]
            hint = None if "/" in alone else f"give the tag alone: towline tag {found} {alone}"
            raise UsageError(f"{tag} is no tag: tags are set beside {found}", hint=hint)
    return list(dict.fromkeys(reference.parse(f"{found.repository}:{tag}") for tag in tags))


def registry(text: str) -> str:
    """The host of a registry, in any spelling that files of logins have.

    Raises UsageError for a text with which no image name can begin.
    """
    from towline.registry.auth.credential_files import split

    _check_text(text, "registry")
    text = reference.without_login(text)
    host, rest = split(text)
    try:
        named = reference.parse(f"{host}/app").repository.host
    except UsageError:
        named = ""
    if not host or named != host or rest:
        raise UsageError(
            f"{text!r} is no registry: a login is for a host, HOST[:PORT]",
            hint="write it as image names begin: registry.example, localhost:5000, docker.io",
        )
    return host


def repository(text: str) -> RepositoryName:
    """Parse a repository's name.

    Raises InvalidReference, and UsageError for a tag or digest, or for a registry alone.
    """
    _check_text(text, "repository")
    name = text.removeprefix(REGISTRY)
    if "/" not in name:
        _check_no_registry(name, "REPOSITORY")
    parsed = reference.parse(text)
    if parsed.tag or parsed.digest:
        raise UsageError(
            f"a repository has no tag or digest: {text}", hint=f"use {parsed.repository}"
        )
    return parsed.repository
