"""Finds what of a source is meant, by one rule for every source. Pure.

A REF means one of its images, by the source's names for it. Of an index all images are pushed
without `--platform`; if it is not whole, the only image that is. One platform gives its manifest.
Several give an index of those alone, in which every manifest is byte for byte as it was. An
attestation goes with its image.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from towline import reference
from towline.errors import SourceError, UsageError
from towline.sources.base import SourceEntry, SourceImage, SourceIndex
from towline.sources.files import shown
from towline.spec import gojson
from towline.spec.descriptor import REFERENCE_DIGEST, Platform, is_attestation
from towline.spec.distribution import subject_of
from towline.spec.manifest import RawManifest

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from towline.reference import Reference, RepositoryName
    from towline.spec.descriptor import Descriptor

_SHOWN = 20
"""Names that an error lists; a layout may have hundreds."""
_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "i386": "386",
    "aarch64": "arm64",
    "armhf": "arm/v7",
    "armel": "arm/v6",
}
"""Names that people write, and Go's names for them (containerd's rules)."""
_DEFAULT_VARIANTS = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
"""The variant of an architecture without one (containerd's rules)."""


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
    known = [(*name, entry) for entry in entries for name in _named(entry)]
    repositories = {repository for repository, _, _ in known if repository}
    if ref is not None:
        wanted = reference.parse_if_any(ref)
        known = [
            (repository, tag, entry)
            for repository, tag, entry in known
            if wanted and repository == wanted.repository and wanted.tag in {None, tag}
        ]
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

        known = [each for each in known if any(fnmatchcase(each[1], glob) for glob in globs)]
    if not known:
        fits = f": it has none that fits {' or '.join(globs)}" if globs else ""
        raise SourceError(f"no tags to push for {shown(ref or source)}{fits}")
    tags: dict[str, SourceEntry] = {}
    for _, tag, entry in known:
        if tags.setdefault(tag, entry) is not entry:
            raise SourceError(f"the tag {tag} stands for two images in {source}")
    return tuple(sorted(tags.items()))


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


def _full(name: str) -> Reference | None:
    """An image name in full, with `latest` if it has neither tag nor digest; None: it is none."""
    found = reference.parse_if_any(name)
    return found.with_tag(found.target) if found and not found.digest else found


def titles(entry: SourceEntry) -> list[str]:
    """The names by which an entry is told: a tag that containerd writes twice is told once."""
    return [
        name for name in entry.names if not any(other.endswith(f":{name}") for other in entry.names)
    ]


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
        for name in (*map(shown, titles(entry)),) or (f"@{place} without a name",)
    ]
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


# Platforms.


def parse_platform(text: str) -> Platform:
    """Parse OS/ARCH or OS/ARCH/VARIANT. Raises UsageError."""
    words = text.lower().replace(",", " ").split()
    parts = words[0].split("/") if len(words) == 1 else []
    if len(parts) not in {2, 3} or not all(parts):
        raise UsageError(
            f"a platform is OS/ARCH or OS/ARCH/VARIANT, not {text!r}",
            hint="as in linux/amd64 or linux/arm/v7, each of several by itself",
        )
    system, architecture, *variant = parts
    architecture, _, told = _ARCHITECTURES.get(architecture, architecture).partition("/")
    return Platform(system, architecture, variant[0] if variant else told or None)


def chosen(
    entry: SourceEntry, platforms: Sequence[Platform], source: str, *, attestations: bool = True
) -> SourceEntry:
    """The entry with the chosen images of it; `source` is the source's name in errors.

    An entry without these platforms raises SourceError only when it is read.
    """

    def read() -> SourceImage | SourceIndex:
        content = entry.content
        if isinstance(content, SourceImage):
            _find(platforms, [content], (), source)
            return content
        if platforms:
            content = _of_platforms(content, platforms, source, attestations=attestations)
        elif not attestations:
            content = _only(content, lambda each: not is_attestation(each))
        if isinstance(content, SourceIndex) and (lacking := [*_absent(content), *_empty(content)]):
            content = _the_whole_one(content, lacking, source)
        return content

    return SourceEntry(entry.names, read, lambda: entry.known)


def worth_reading(
    listed: Sequence[Descriptor], platforms: Sequence[Platform]
) -> Sequence[Descriptor]:
    """The descriptors of an index that may be of these platforms, and their attestations.

    All of them where none may be: the error then tells which platforms there are.
    """
    wanted = {
        each.digest
        for each in listed
        if each.platform is None or any(may_be(each.platform, one) for one in platforms)
    }
    found = [each for each in listed if each.digest in wanted or _speaks_of(each, wanted)]
    return found if wanted and platforms else listed


def may_be(platform: Platform, wanted: Platform) -> bool:
    """Whether `wanted` may mean `platform`: without a variant it means every variant."""
    alike = not wanted.variant and _same(platform._replace(variant=None), wanted)
    return alike or _same(platform, wanted)


def _of_platforms(
    index: SourceIndex, platforms: Sequence[Platform], source: str, *, attestations: bool
) -> SourceImage | SourceIndex:
    """The one image of these platforms, or the index of them."""
    leaves, absent = _leaves(index), _absent(index)
    found = _find(platforms, [image for image, _ in leaves], absent, source)
    if len(found) == 1:
        return found[0]._replace(part_of=index.manifest.digest)
    keep = {listed.digest for image, listed in leaves if image in found}
    warnings: tuple[str, ...] = ()
    if attestations:
        lost = [each for each in absent if _speaks_of(each, keep)]
        warnings = tuple(f"{source} does not hold {_title(each)}" for each in lost)
        keep |= {each.digest for _, each in leaves if _speaks_of(each, keep)}
    return _only(index, lambda each: each.digest in keep)._replace(warnings=warnings)


def _find(
    platforms: Sequence[Platform],
    images: Sequence[SourceImage],
    absent: Sequence[Descriptor],
    source: str,
) -> list[SourceImage]:
    """The images of these platforms, in their own order. Raises SourceError if one has none.

    Without a variant, the only variant that there is will do.
    """
    found: list[SourceImage] = []
    for wanted in platforms:
        meant = [image for image in images if may_be(image.platform, wanted)]
        if not meant:
            listed = any(each.platform and _same(each.platform, wanted) for each in absent)
            held = ", ".join(_names(images)) or "no platform that is named"
            lacks = f"names {wanted}, but does not hold it" if listed else f"has no {wanted}"
            raise SourceError(f"{source} {lacks}; it holds {held}")
        exact = [image for image in meant if _same(image.platform, wanted)]
        if not exact and len(variants := _names(meant)) > 1:
            raise SourceError(
                f"{source} has {wanted} in several variants: {', '.join(variants)}",
                hint=f"say which, as in `platform={variants[0]!r}`",
            )
        found += exact or meant
    return [image for image in images if image in found]


def _same(one: Platform, other: Platform) -> bool:
    return _normal(one) == _normal(other)


def _normal(platform: Platform) -> tuple[str, str, str]:
    variant = platform.variant or _DEFAULT_VARIANTS.get(platform.architecture, "")
    return platform.os, platform.architecture, f"v{variant}" if variant.isdigit() else variant


def _names(images: Sequence[SourceImage]) -> list[str]:
    known = (str(image.platform) for image in images if image.platform.known)
    return list(dict.fromkeys(known))


def _leaves(index: SourceIndex) -> list[tuple[SourceImage, Descriptor]]:
    """The images of an index and of the indexes in it, each with its descriptor."""
    found: list[tuple[SourceImage, Descriptor]] = []
    for child, listed in zip(index.children, index.descriptors, strict=True):
        found += _leaves(child) if isinstance(child, SourceIndex) else [(child, listed)]
    return found


def _absent(index: SourceIndex) -> list[Descriptor]:
    """The absent manifests of an index and of the indexes in it."""
    inner = [child for child in index.children if isinstance(child, SourceIndex)]
    return [*index.absent, *(each for child in inner for each in _absent(child))]


def _only(index: SourceIndex, keep: Callable[[Descriptor], bool]) -> SourceIndex:
    """The index without the images that are not to be kept; itself if all are."""
    kept: list[tuple[SourceImage | SourceIndex, Descriptor]] = []
    absent = tuple(filter(keep, index.absent))
    rewritten = {each.digest: each for each in absent}
    for child, listed in zip(index.children, index.descriptors, strict=True):
        if isinstance(child, SourceIndex):
            inner = _only(child, keep)
            if not inner.children and not inner.absent:
                continue
            raw = inner.manifest
            kept.append((inner, listed._replace(digest=raw.digest, size=raw.size)))
        elif keep(listed):
            kept.append((child, listed))
        else:
            continue
        rewritten[listed.digest] = kept[-1][1]
    # The document is changed as little as can be: fields that we do not know stay.
    document = json.loads(index.manifest.content)
    listing = [
        {**each, "digest": new.digest, "size": new.size}
        for each in document["manifests"]
        if (new := rewritten.get(each["digest"]))
    ]
    if listing == document["manifests"]:
        return index
    content = gojson.encode({**document, "manifests": listing}, indent=gojson.INDENT)
    raw = RawManifest(content, index.manifest.media_type)
    children, descriptors = zip(*kept, strict=True) if kept else ((), ())
    return SourceIndex(raw, children, descriptors, absent, part_of=index.manifest.digest)


def _the_whole_one(index: SourceIndex, lacking: Sequence[Descriptor], source: str) -> SourceImage:
    """The only image of an index that lacks the others. Raises SourceError if there is no one."""
    missing = ", ".join(map(_title, lacking))
    images = [
        image for image, listed in _leaves(index) if image.platform.known and listed not in lacking
    ]
    if len(images) != 1:
        raise SourceError(
            f"{source} does not hold all that its index names: {missing} missing",
            hint="choose what is there by `platform`, or save the image with all its platforms",
        )
    warning = (
        f"{source} holds {images[0].platform} alone of its index, "
        f"so that image is pushed by itself, without {missing}"
    )
    return images[0]._replace(part_of=index.manifest.digest, warnings=(warning,))


def _empty(index: SourceIndex) -> list[Descriptor]:
    """The images of an index without any of their layers, if another image of it is whole."""
    # Of platforms that it was not asked to pull an engine has manifests and configs alone. An image
    # with some of its layers is another case: it was made without those that lie elsewhere.
    leaves = _leaves(index)
    whole = (_held(image) == len(image.layers) for image, _ in leaves if image.platform.known)
    if index.sparse or not any(whole):
        return []
    return [listed for image, listed in leaves if image.layers and not _held(image)]


def _held(image: SourceImage) -> int:
    """How many layers of the image the source has, or need not have."""
    return sum(bool(layer.held or layer.foreign) for layer in image.layers)


def _speaks_of(listed: Descriptor, digests: Container[str]) -> bool:
    return is_attestation(listed) and listed.annotations.get(REFERENCE_DIGEST) in digests


def _title(listed: Descriptor) -> str:
    """The name of an absent manifest in messages."""
    if listed.platform and listed.platform.known:
        return str(listed.platform)
    return f"{'the attestation' if is_attestation(listed) else 'manifest'} {listed.digest}"
