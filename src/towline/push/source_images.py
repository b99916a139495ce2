"""A source opened for a push, and the images of it for each destination."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from towline import reference as references
from towline.context import Context, Meter
from towline.errors import AuthError, NetworkError, RegistryError, SourceError, TowlineError
from towline.push.target import Costs, TargetPush
from towline.reference import Reference, RepositoryName
from towline.sources.base import SourceEntry, images_of
from towline.sources.open_source import NOT_AHEAD, Ahead, open_source
from towline.sources.select import chosen, select, tagged, titles
from towline.spec.distribution import is_list

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from towline.push.image import Gatherer, Tree
    from towline.push.interface.options import Wish
    from towline.push.resources import Resources
    from towline.sources.image_source import ImageSource
    from towline.sources.location import Location
    from towline.sources.remote import RemoteSource
    from towline.spec.digest import Digest

Wanted = dict[Reference, SourceEntry]
"""The entry for each destination, in the order of the results."""


@contextmanager
def opening(
    source: Location,
    resources: Resources,
    context: Context,
    destinations: Iterable[Reference] = (),
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
    places = list(dict.fromkeys(each.repository for each in destinations))
    resources.client.write_to(name.host for name in places if name.is_at_registry)
    # Apart, so that each result shows what reading the source cost, once.
    costs = Costs(context.but(meter=Meter()))
    with context.span("opened"):
        now = _ahead(source, places, wish) if ahead else NOT_AHEAD
        found = _open(
            source, resources, costs.context, places, wish=wish, outline=outline, ahead=now
        )
    try:
        yield Opened(found, source, resources, costs, wish)
    except TowlineError as error:
        if found.origin:
            name_sides([error])
        raise
    finally:
        found.close()


def _open(
    location: Location,
    resources: Resources,
    context: Context,
    places: Sequence[RepositoryName],
    *,
    wish: Wish,
    outline: bool,
    ahead: Ahead,
) -> ImageSource:
    """The open source. Each transport of `sources/location.py` has its way here."""
    match location.transport:
        case "docker-daemon":
            from towline.push.engine_image import EngineImage  # which most have no need of

            return EngineImage(
                location.path,
                resources,
                context,
                places,
                wish=wish,
                outline=outline,
                ahead=ahead.may,
            )
        case "docker":
            return _at_registry(references.parse(location.path), resources, context, wish)
        case "docker-archive" | "oci-archive" | "oci" | None:
            return open_source(location, context, environ=resources.environ, ahead=ahead)


def _ahead(location: Location, places: Sequence[RepositoryName], wish: Wish) -> Ahead:
    """Whether blobs can be sent before the images are known."""
    why_not = ""
    if wish.check_diffids:
        why_not = "its layers are to be compared with its configs"
    elif wish.referrers:
        why_not = "what refers to its images goes along"
    elif wish.explicit_profile:
        why_not = "its layers are to be compressed in another way"
    elif len({name.host for name in places}) < len(places):
        why_not = "it goes to two repositories of one registry"
    elif location.ref:
        why_not = f"{location.ref} may be one of several images in it, which it lists last"
    elif wish.platforms and location.transport != "docker-daemon":  # an engine says it before
        why_not = "which layers are of the wanted platforms is said last"
    return Ahead(not why_not, why_not)


def _at_registry(
    reference: Reference, resources: Resources, context: Context, wish: Wish
) -> RemoteSource:
    from towline.sources import remote  # which most have no need of

    name = reference.repository
    repository = resources.client.repository(name, "source", context=context)
    threads = resources.host_threads(name.host)
    reading = remote.Reading(repository, context, resources.policy, resources.gate, threads)
    return remote.RemoteSource(
        reading, reference, all_tags=wish.all_tags, globs=wish.tags, wanted=wish.platforms
    )


class Opened(NamedTuple):
    """An open source, and which of its images are meant; see `opening`."""

    source: ImageSource
    location: Location
    resources: Resources
    costs: Costs
    """The costs of reading from a registry."""
    wish: Wish

    @property
    def name(self) -> str:
        """Its name in errors and results."""
        return self.location.name

    @property
    def _spelled(self) -> str:
        """Transport and path, to which a REF can be added; empty where none can."""
        location = self.location
        return f"{self.source.transport}:{location.path}" if location.in_files else ""

    def entry(self) -> SourceEntry:
        """The one image that is meant. Raises SourceError."""
        return select(self._entries(), self.location.ref, self.name, self._spelled)

    def names(self) -> tuple[str, ...]:
        """The names of its images; empty if it has one, or a REF names one."""
        entries = self.source.entries()
        if self.location.ref is not None or len(entries) == 1:
            return ()
        return tuple(
            name for place, entry in enumerate(entries) for name in titles(entry) or (f"@{place}",)
        )

    def wanted(self, destinations: Sequence[Reference]) -> Wanted:
        """The one image for each destination, or all tags of a repository for each of them."""
        if not self.wish.all_tags:
            return dict.fromkeys(destinations, self.entry())
        tags = tagged(self._entries(), self.location.ref, self.name, self._spelled, self.wish.tags)
        if self.wish.referrers:  # what others have listed at the destination stays in the list
            tags = tuple((tag, entry) for tag, entry in tags if not is_list(tag))
        return {place.with_tag(tag): entry for place in destinations for tag, entry in tags}

    def _entries(self) -> list[SourceEntry]:
        """All its entries, each with the wanted platforms."""
        wish = self.wish
        return [
            chosen(entry, wish.platforms, self.name, attestations=wish.attestations)
            for entry in self.source.entries()
        ]

    def charge(self, targets: Sequence[TargetPush]) -> None:
        """Count the requests that described the source in the results of the targets.

        Those to other repositories count for the first of them.
        """
        elsewhere = dict(self.source.requests)
        for target in targets:
            target.context.meter.add(requests=elsewhere.pop(target.repository.name, 0))
        for target in targets[:1]:
            target.context.meter.add(requests=sum(elsewhere.values()))

    def layers(self) -> set[Digest]:
        """Digests of the layers of its images, or of the one that was named."""
        entries = self.source.entries()
        if self.location.ref is not None:
            entries = [select(entries, self.location.ref, self.name, self._spelled)]
        self.source.read_ahead(entries)
        return {
            layer.stored.digest
            for entry in entries
            for image in images_of(entry.content)
            for layer in image.layers
            if layer.stored
        }


def describe(
    wanted: Wanted, gatherer: Gatherer
) -> tuple[dict[Reference, Tree], dict[Reference, SourceError | RegistryError]]:
    """The tree for each destination, and the errors of images that cannot be read.

    Raises SourceError, or a registry's error, if the only image cannot be read. A source that
    cannot be reached, or lets nobody in, is not asked for the others either.
    """
    found: dict[SourceEntry, Tree | SourceError | RegistryError] = {}
    for entry in dict.fromkeys(wanted.values()):
        try:
            found[entry] = gatherer.tree(entry.content)
        except (SourceError, RegistryError) as error:
            found[entry] = error
    readable: dict[Reference, Tree] = {}
    broken: dict[Reference, SourceError | RegistryError] = {}
    for reference, entry in wanted.items():
        tree = found[entry]
        if not isinstance(tree, TowlineError):
            readable[reference] = tree
        elif len(found) == 1:
            raise tree
        elif isinstance(tree, SourceError):
            tag = str(reference.tag)
            name = next((name for name in entry.names if name.endswith(f":{tag}")), tag)
            said = f"could not find image from tag {name}: {tree.message}"
            broken[reference] = SourceError(said, hint=tree.hint)
        else:
            broken[reference] = tree
    return readable, broken


def assembled(several: Sequence[Opened]) -> tuple[Opened, SourceEntry]:
    """One index of what is meant in several open sources, and itself as a source.

    Raises SourceError.
    """
    from towline.sources.assembled import AssembledSource, Part  # which most have no need of

    source = AssembledSource([Part(each.name, each.source, each.entry()) for each in several])
    return several[0]._replace(source=source), source.entry


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
