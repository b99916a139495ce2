"""Assembles one index of several sources of any kind; an index among them gives its children."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from towline.errors import SourceError
from towline.sources.base import SourceEntry, SourceImage, SourceIndex
from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest
from towline.spec.manifest import build_index

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from towline.push.content.source_images import Opened, Wanted
    from towline.push.target import Target
    from towline.reference import Reference, RepositoryName
    from towline.sources.base import Referrer

_Child = tuple[SourceImage | SourceIndex, Descriptor]


class Assembled:
    """Several opened sources with the interface of one: see `Opened`."""

    def __init__(self, opened: Sequence[Opened]) -> None:
        self._opened = opened
        self.context, self.costs = opened[0].context, opened[0].costs
        self.origin: RepositoryName | None = next(filter(None, (o.origin for o in opened)), None)

    def wanted(self, destinations: Sequence[Reference]) -> Wanted:
        """The index under each destination. Raises SourceError."""
        entries = [opened.entry() for opened in self._opened]
        for opened, entry in zip(self._opened, entries, strict=True):
            opened.read_ahead([entry])
        names = (opened.name for opened in self._opened)
        contents = [entry.content for entry in entries]
        index = assembled(zip(names, contents, strict=True))._replace(
            warnings=tuple(chain.from_iterable(content.warnings for content in contents))
        )
        known = index.manifest.descriptor()
        return dict.fromkeys(destinations, SourceEntry((), lambda: index, lambda: known))

    def referrers(self, subjects: Collection[Digest], *, patient: bool) -> list[Referrer]:
        """See `Opened`."""
        several = (opened.referrers(subjects, patient=patient) for opened in self._opened)
        return list(chain.from_iterable(several))

    @property
    def knows_referrers(self) -> bool:
        """See `Opened`."""
        return any(opened.knows_referrers for opened in self._opened)

    @property
    def origins(self) -> tuple[Reference, ...]:
        """See `Opened`."""
        return tuple(chain.from_iterable(opened.origins for opened in self._opened))

    def charge(self, targets: Sequence[Target]) -> None:
        """See `Opened`."""
        for opened in self._opened:
            opened.charge(targets)

    def read_ahead(self, entries: Iterable[SourceEntry]) -> None:
        """See `Opened`. Nothing to do: all was read to make the index."""


def assembled(sources: Iterable[tuple[str, SourceImage | SourceIndex]]) -> SourceIndex:
    """An index of the images of several sources, each with its name in errors, in their order.

    Raises SourceError where two images are of one platform.
    """
    held: dict[Digest, _Child] = {}
    platforms: dict[str, tuple[int, str]] = {}
    for place, (name, content) in enumerate(sources):
        for child, listed in _children(content):
            held.setdefault(listed.digest, (child, listed))
            platform = listed.platform
            if platform is None or not platform.known:
                continue
            other, named = platforms.setdefault(repr(platform), (place, name))
            if other != place:
                raise SourceError(
                    f"{named} and {name} are both of the platform {platform}",
                    hint="an index has one image of each: leave one out",
                )
    descriptors = tuple(listed for _, listed in held.values())
    # A Docker manifest list may hold only schema 2; an OCI index may hold both.
    docker = all(media_types.family(listed.media_type) == "docker" for listed in descriptors)
    return SourceIndex(
        build_index("docker" if docker else "oci", descriptors),
        tuple(child for child, _ in held.values()),
        descriptors,
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
