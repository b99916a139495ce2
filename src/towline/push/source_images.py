"""A source opened for a push, and the images of it for each destination."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, cast

from towline import reference as references
from towline.context import Context, Meter
from towline.errors import (
    AuthError,
    InvalidReference,
    NetworkError,
    RegistryError,
    SourceError,
    TowlineError,
)
from towline.push.target import Costs, Target
from towline.reference import Reference, RepositoryName
from towline.sources.base import SourceEntry, SourceImage, SourceIndex, images_of
from towline.sources.open_source import open_source, parse
from towline.sources.select import chosen, select, tagged
from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest
from towline.spec.distribution import is_list
from towline.spec.manifest import build_index

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from towline.push.engine_image import EngineImage
    from towline.push.interface.options import Source, Wish
    from towline.push.interface.result import TagPlan
    from towline.push.resources import Resources
    from towline.sources.base import ImageSource, Referrer
    from towline.sources.oci_layout import OciLayout
    from towline.sources.passing import PassesBy
    from towline.sources.remote import RemoteSource

_Child = tuple[SourceImage | SourceIndex, Descriptor]
Wanted = dict[Reference, SourceEntry]
"""The entry for each destination, in the order of the results."""


@contextmanager
def opening(
    source: Source,
    resources: Resources,
    context: Context,
    destinations: Collection[Reference] = (),
    *,
    wish: Wish,
    outline: bool = False,
    ahead: bool = False,
) -> Iterator[Opened]:
    """Open a source, and close it at the end of the block. Requests to its registry count apart.

    `outline`: a rough description will do, where a better one takes long. `ahead`: blobs may be
    sent before it is known what lists them. Raises SourceError, UsageError.
    """
    resources.check_open()
    names = [each.repository for each in destinations]
    resources.client.write_to(name.host for name in names if name.is_at_registry)
    reason = _known_first(destinations, wish) if ahead else ""
    with context.span("opened"):
        # Apart, so that each result shows what reading the source cost, once.
        counted = context.but(meter=Meter())
        opened = Opened(
            source,
            resources,
            counted,
            dict.fromkeys(names),
            wish=wish,
            outline=outline,
            known_first=reason,
        )
    try:
        yield opened
    except TowlineError as error:
        if opened.origin:
            name_sides([error])
        raise
    finally:
        opened.close()


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


def _known_first(places: Iterable[Reference], wish: Wish) -> str | None:
    """Why no blob can be sent before the images are known; None: it can."""
    names = {place.repository for place in places}
    if wish.check_diffids:
        return "its layers are to be compared with its configs"
    if wish.referrers:
        return "what refers to its images goes along"
    if wish.explicit_profile:
        return "its layers are to be compressed in another way"
    if len({name.host for name in names}) < len(names):
        return "it goes to two repositories of one registry"
    return None


class Opened:
    """An open source and the REF that was named with it; see `opening`."""

    def __init__(
        self,
        source: Source,
        resources: Resources,
        context: Context,
        places: Iterable[RepositoryName],
        *,
        wish: Wish,
        outline: bool,
        known_first: str | None,
    ) -> None:
        """`places`: the destinations; `known_first`: see `open_source`."""
        location = parse(source) if isinstance(source, str) else None
        self.resources, self.context = resources, context
        self.costs = Costs(context)
        """The costs of reading from a registry."""
        self.name = _name(source)
        """Its name in errors and results."""
        self.wish = wish
        self._ref = location.ref if location else None
        self._engine: EngineImage | None = None
        self._remote: RemoteSource | None = None
        self.origin: RepositoryName | None = None
        """Its repository, if it is at a registry."""
        self._path = ""
        self._passes = known_first is None
        if location and location.transport == "docker-daemon":
            from towline.push.engine_image import EngineImage

            self._engine = EngineImage(
                location.path, resources, context, places, wish=wish, outline=outline
            )
            self._source: ImageSource = self._engine
            return  # its REF is the name itself
        if location and location.transport == "docker":
            self._source = self._remote = self._at_registry(references.parse(location.path))
            return
        if isinstance(source, str | os.PathLike):
            self._path = location.path if location else self.name
        if known_first is None and self._ref:
            known_first = f"{self._ref} may be one of several images in it, which it lists last"
        if known_first is None and wish.platforms:
            known_first = "which layers are of the wanted platforms is said last"
        self._source = open_source(
            location or source, context, environ=resources.environ, known_first=known_first
        )

    def _at_registry(self, reference: Reference) -> RemoteSource:
        from towline.sources import remote  # which most have no need of

        resources, context, wish = self.resources, self.context, self.wish
        name = self.origin = reference.repository
        repository = resources.client.repository(name, "source", context=context)
        threads = resources.host_threads(name.host)
        reading = remote.Reading(repository, context, resources.policy, resources.gate, threads)
        return remote.RemoteSource(
            reading, reference, all_tags=wish.all_tags, globs=wish.tags, wanted=wish.platforms
        )

    @property
    def _spelled(self) -> str:
        """Transport and path, to which a REF can be added; empty where none can."""
        return f"{self._source.transport}:{self._path}" if self._path else ""

    @property
    def passing(self) -> PassesBy | None:
        """The source, if its blobs are taken as they pass, before anything else; else None."""
        if self._engine is not None:
            return self._engine if self._passes and self._engine.passes() else None
        return cast("PassesBy", self._source) if hasattr(self._source, "passing") else None

    @cached_property
    def outline(self) -> SourceImage | None:
        """The image by its layers, if only an export has its config, which comes late."""
        return self._engine.early_outline() if self._engine and self._passes else None

    def entry(self) -> SourceEntry:
        """The one image that is meant. Raises SourceError."""
        return select(self._entries(), self._ref, self.name, self._spelled)

    def names(self) -> tuple[str, ...]:
        """The names of its images; empty if it has one, or a REF names one."""
        entries = self._source.entries()
        if self._ref is not None or len(entries) == 1:
            return ()
        return tuple(
            name for place, entry in enumerate(entries) for name in entry.names or (f"@{place}",)
        )

    def wanted(self, destinations: Sequence[Reference]) -> Wanted:
        """The one image for each destination, or all tags of a repository for each of them."""
        if not self.wish.all_tags:
            return dict.fromkeys(destinations, self.entry())
        tags = tagged(self._entries(), self._ref, self.name, self._spelled, self.wish.tags)
        if self.wish.referrers:  # what others have listed at the destination stays in the list
            tags = tuple((tag, entry) for tag, entry in tags if not is_list(tag))
        return {place.with_tag(tag): entry for place in destinations for tag, entry in tags}

    def _entries(self) -> list[SourceEntry]:
        """All its entries, each with the wanted platforms."""
        wish = self.wish
        return [
            chosen(entry, wish.platforms, self.name, attestations=wish.attestations)
            for entry in self._source.entries()
        ]

    def referrers(self, subjects: Collection[Digest], *, patient: bool) -> Sequence[Referrer]:
        """The referrers of these manifests; see `RemoteSource.referrers`."""
        if not getattr(self._source, "may_have_referrers", False):
            return ()
        source = cast("OciLayout | RemoteSource", self._source)
        return source.referrers(subjects, patient=patient)

    def layers(self) -> set[Digest]:
        """Digests of the layers of its images, or of the one that was named."""
        entries = self._source.entries()
        if self._ref is not None:
            entries = [select(entries, self._ref, self.name, self._spelled)]
        self.read_ahead(entries)
        return {
            layer.stored.digest
            for entry in entries
            for image in images_of(entry.content)
            for layer in image.layers
            if layer.stored
        }

    @property
    def origins(self) -> tuple[Reference, ...]:
        """References at the targets' hosts that an engine knows its image from."""
        return self._engine.near_origins if self._engine else ()

    def charge(self, targets: Iterable[Target]) -> None:
        """Count the requests that described the source in the results of the targets."""
        if self._engine:
            self._engine.charge(targets)

    def told_of_export(self, plan: TagPlan) -> TagPlan:
        """The plan, with a warning if the source would have to be exported first."""
        return self._engine.told_of_export(plan) if self._engine else plan

    def read_ahead(self, entries: Iterable[SourceEntry]) -> None:
        """Read the documents of these entries, if that was put off so far."""
        if self._remote:
            self._remote.read_ahead(entry.known for entry in entries if entry.known)

    def close(self) -> None:
        """Close the source; readers that are open go on."""
        self._source.close()


def _name(source: Source) -> str:
    if isinstance(source, str | os.PathLike):
        return os.fspath(source) if source != "-" else "standard input"
    name = getattr(source, "name", None)
    return name if isinstance(name, str) else "the file object"


class Assembled:
    """Several opened sources with the interface of one: see `Opened`."""

    def __init__(self, opened: Sequence[Opened]) -> None:
        self._opened = opened
        first = opened[0]
        self.resources, self.wish = first.resources, first.wish
        self.context, self.costs = first.context, first.costs
        self.origin: RepositoryName | None = next(filter(None, (o.origin for o in opened)), None)

    def wanted(self, destinations: Sequence[Reference]) -> Wanted:
        """The index under each destination. Raises SourceError."""
        entries = [(opened, opened.entry()) for opened in self._opened]
        for opened, entry in entries:
            opened.read_ahead([entry])
        index = _assembled([(opened.name, entry.content) for opened, entry in entries])
        known = index.manifest.descriptor()
        return dict.fromkeys(destinations, SourceEntry((), lambda: index, lambda: known))

    def referrers(self, subjects: Collection[Digest], *, patient: bool) -> list[Referrer]:
        """See `Opened`."""
        several = (opened.referrers(subjects, patient=patient) for opened in self._opened)
        return list(chain.from_iterable(several))

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


def _assembled(sources: Sequence[tuple[str, SourceImage | SourceIndex]]) -> SourceIndex:
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
        warnings=tuple(said for _, content in sources for said in content.warnings),
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


def registry_reference(source: Source) -> Reference | None:
    """The reference that a text means (`inspect`, `digest`); None: it is an existing path."""
    if not isinstance(source, str):
        return None
    location = parse(source)
    if location.transport == "docker":
        return references.parse(location.path)
    if location.transport or location.standard_input or os.path.exists(source):  # noqa: PTH110 - pathlib costs start-up
        return None
    try:
        return references.parse(source)
    except InvalidReference as error:
        error.hint = error.hint or f"check its path, if {source} is to be a file: there is none"
        raise
