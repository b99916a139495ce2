"""An index that is made here, of the images of several sources."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import SourceError
from towline.sources.base import SourceEntry, SourceIndex
from towline.sources.image_source import ImageSource
from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest
from towline.spec.manifest import build_index

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from towline.reference import Reference, RepositoryName
    from towline.sources.base import Referrer, SourceImage

_Child = tuple["SourceImage | SourceIndex", Descriptor]


class Part(NamedTuple):
    """What an index is made of: the image or the index that is meant in a source."""

    name: str
    """The source's name in errors."""
    source: ImageSource
    entry: SourceEntry


class AssembledSource(ImageSource):
    """One index of the images of several sources, which are closed by who opened them."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """Read all that it is made of. Raises SourceError."""
        self._sources = [part.source for part in parts]
        self.origin = next((each.origin for each in self._sources if each.origin), None)
        for part in parts:
            part.source.read_ahead([part.entry])
        index = _assembled(parts)
        known = index.manifest.descriptor()
        self.entry = SourceEntry((), lambda: index, lambda: known)
        """The index."""

    def entries(self) -> Sequence[SourceEntry]:
        """See `ImageSource`."""
        return [self.entry]

    def referrers(self, subjects: Collection[Digest], *, patient: bool) -> list[Referrer]:
        """See `ImageSource`."""
        several = (each.referrers(subjects, patient=patient) for each in self._sources)
        return list(chain.from_iterable(several))

    @property
    def near_origins(self) -> Sequence[Reference]:
        """See `ImageSource`."""
        return [*chain.from_iterable(each.near_origins for each in self._sources)]

    @property
    def requests(self) -> Mapping[RepositoryName, int]:
        """See `ImageSource`."""
        counted: Counter[RepositoryName] = Counter()
        for each in self._sources:
            counted.update(each.requests)
        return counted


def _assembled(parts: Sequence[Part]) -> SourceIndex:
    """An index of all images, in their order. Raises SourceError where two are of one platform."""
    held: dict[Digest, _Child] = {}
    platforms: dict[str, Part] = {}
    for part in parts:
        for child, listed in _children(part.entry.content):
            held.setdefault(listed.digest, (child, listed))
            platform = listed.platform
            if platform is None or not platform.known:
                continue
            other = platforms.setdefault(repr(platform), part)
            if other is not part:
                raise SourceError(
                    f"{other.name} and {part.name} are both of the platform {platform}",
                    hint="an index has one image of each: leave one out",
                )
    descriptors = tuple(listed for _, listed in held.values())
    # A Docker manifest list may hold only schema 2; an OCI index may hold both.
    docker = all(media_types.family(listed.media_type) == "docker" for listed in descriptors)
    return SourceIndex(
        build_index("docker" if docker else "oci", descriptors),
        tuple(child for child, _ in held.values()),
        descriptors,
        warnings=tuple(said for part in parts for said in part.entry.content.warnings),
        assembled=True,
    )


def _children(content: SourceImage | SourceIndex) -> Iterator[_Child]:
    if isinstance(content, SourceIndex):
        yield from zip(content.children, content.descriptors, strict=True)
        return
    platform = content.platform if content.platform.os else None
    if (raw := content.manifest) is not None:
        yield content, Descriptor(raw.media_type, raw.digest, raw.size, platform=platform)
        return
    # Its manifest is made only when its layers are known. Until then the config's digest stands
    # for it.
    kind = media_types.OCI_MANIFEST if content.oci else media_types.DOCKER_MANIFEST
    yield content, Descriptor(kind, Digest.of(content.config), 0, platform=platform)
