"""Finds the image of a source that a REF means, by the source's names for it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline import reference
from towline.errors import InvalidReference, SourceError
from towline.sources.files import shown
from towline.spec.referrers import subject_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from towline.reference import Reference, RepositoryName
    from towline.sources.base import SourceEntry

_SHOWN = 20
"""Names that an error lists; a layout may have hundreds."""


def select(
    entries: Sequence[SourceEntry], ref: str | None, source: str, spelled: str = ""
) -> SourceEntry:
    """The one entry that is meant; `source` is the source's name in errors.

    `spelled`: transport and path, to which a REF can be added; empty where none can. A REF is a
    name as the source has it, an image name that means the same, a bare tag, or `@N`, the N-th
    entry from 0. Raises SourceError, which lists the entries, when the REF fits none or several,
    and when there are several and no REF.
    """
    if ref is None:  # cosign's tags beside an image are not what is meant
        images = [entry for entry in entries if not any(map(subject_of, entry.names))]
        if len(images) == 1 or len(entries) == 1:
            return (images or entries)[0]
        raise SourceError(
            f"{source} holds several images: {_listed(entries)}",
            hint=_name_one(entries, spelled),
        )
    found = _matching(entries, ref)
    if not found:
        raise SourceError(
            f"tag does not exist: {shown(ref)} in {source}, which holds {_listed(entries)}",
            hint=_name_one(entries, spelled),
        )
    if len(found) > 1:
        raise SourceError(
            f"{shown(ref)} means {len(found)} images in {source}, which holds {_listed(entries)}",
            hint=f"name one by its place: {spelled}:@0" if spelled else "name one by its place: @0",
        )
    return found[0]


def tagged(
    entries: Sequence[SourceEntry],
    ref: str | None,
    source: str,
    spelled: str = "",
    globs: Sequence[str] = (),
) -> tuple[tuple[str, SourceEntry], ...]:
    """The tags of a source with their entries, sorted by tag; with `globs` those that fit one.

    A REF picks a repository by its name, or one tag of it. Raises SourceError when there are
    several repositories and no REF, when there is no tag, and when one tag stands for two entries.
    """
    known = [(name, entry) for entry in entries for name in _named(entry)]
    repositories = {repository for (repository, _), _ in known if repository}
    if ref is not None:
        wanted = _reference(ref)
        known = [pair for pair in known if wanted and _belongs(pair[0], wanted)]
        if not known and not (wanted and wanted.repository in repositories):
            raise SourceError(
                f"no tags to push for {shown(ref)}: An image does not exist locally with the tag: "
                f"{shown(ref)} ({source} holds {_listed(entries)})"
            )
    elif len(repositories) > 1:
        names = ", ".join(sorted(repository.familiar for repository in repositories))
        raise SourceError(
            f"{source} holds several repositories: {names}",
            hint=f"name one: {spelled}:{names.partition(',')[0]}" if spelled else None,
        )
    if globs:
        from fnmatch import fnmatchcase  # which most have no need of

        known = [pair for pair in known if any(fnmatchcase(pair[0][1], glob) for glob in globs)]
    if not known:
        fits = f": it has none that fits {' or '.join(globs)}" if globs else ""
        raise SourceError(f"no tags to push for {shown(ref or source)}{fits}")
    return tuple(sorted(_unique(known, source).items()))


def _unique(
    known: Iterable[tuple[tuple[RepositoryName | None, str], SourceEntry]], source: str
) -> dict[str, SourceEntry]:
    tags: dict[str, SourceEntry] = {}
    for (_, tag), entry in known:
        if tags.setdefault(tag, entry) is not entry:
            raise SourceError(f"the tag {tag} stands for two images in {source}")
    return tags


def _matching(entries: Sequence[SourceEntry], ref: str) -> list[SourceEntry]:
    """The entries that fit a REF, by the first rule that fits any: the rules go from strict."""
    if ref.startswith("@") and ref[1:].isdecimal():
        place = int(ref[1:])
        return list(entries[place : place + 1])
    if exact := [entry for entry in entries if ref in entry.names]:
        return exact
    wanted = _full(ref)
    full = [entry for entry in entries if wanted and wanted in map(_full, entry.names)]
    return full or [entry for entry in entries if any(tag == ref for _, tag in _named(entry))]


def _named(entry: SourceEntry) -> list[tuple[RepositoryName | None, str]]:
    """Repository and tag of each name of an entry; None for the repository of a bare tag."""
    found: list[tuple[RepositoryName | None, str]] = []
    for name in entry.names:
        if ":" not in name and "/" not in name:
            found.append((None, name))
        elif (full := _full(name)) and full.tag:
            found.append((full.repository, full.tag))
    # containerd writes a tag twice into a layout: with its repository, and without.
    told = {tag for repository, tag in found if repository}
    return [pair for pair in found if pair[0] or pair[1] not in told]


def _belongs(name: tuple[RepositoryName | None, str], wanted: Reference) -> bool:
    repository, tag = name
    return repository == wanted.repository and wanted.tag in {None, tag}


def _full(name: str) -> Reference | None:
    """An image name in full, with `latest` if it has neither tag nor digest; None: it is none."""
    found = _reference(name)
    return found.with_tag(found.target) if found and not found.digest else found


def _reference(name: str) -> Reference | None:
    try:
        return reference.parse(name)
    except InvalidReference:
        return None


def _name_one(entries: Sequence[SourceEntry], spelled: str) -> str | None:
    """A hint that shows how to name one of the entries or, if all have tags, how to push all."""
    if not entries or not spelled:
        return None
    first = shown(entries[0].names[0]) if entries[0].names else "@0"
    repositories = {repository for entry in entries for repository, _ in _named(entry)}
    several = len(entries) > 1 and len(repositories) == 1
    return f"name one: {spelled}:{first}" + (", or push all: `all_tags=True`" if several else "")


def _listed(entries: Sequence[SourceEntry]) -> str:
    """The entries by their names, or by their places."""
    names = [
        name
        for place, entry in enumerate(entries)
        for name in (*map(shown, entry.names),) or (f"@{place} without a name",)
    ]
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
