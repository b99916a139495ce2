"""Parses an engine's descriptions of its images, and finds the images that a name means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from towline import reference as references
from towline.errors import InvalidReference, SourceError
from towline.sources import files
from towline.sources.select import may_be
from towline.spec import media_types, reading
from towline.spec.descriptor import Descriptor, Platform
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from towline.reference import Reference
    from towline.sources.engine_client import EngineClient

_ALIKE = 5
"""Names that a hint suggests."""


class Part(NamedTuple):
    """The image of one platform in an index, as a containerd store tells of it (API 1.48)."""

    root: Descriptor
    """Its manifest."""
    platform: Platform
    size: int
    """Bytes of what the store holds of it."""
    whole: bool
    """Whether it holds all of it."""


class Listed(NamedTuple):
    """An engine's description of an image."""

    id: Digest
    """The digest of the config; in a containerd store that of the manifest or index."""
    names: tuple[str, ...]
    diff_ids: tuple[Digest, ...]
    size: int
    """Bytes of an export, about."""
    platform: Platform
    root: Descriptor | None
    """The manifest or index of an image in a containerd store, if the engine tells (API 1.48)."""
    containerd: bool
    """Whether it is in a containerd store, which exports blobs as they are, named by digests."""
    origins: tuple[Reference, ...]
    """The image by its digest in each repository that the engine knows it from."""
    absent: frozenset[Digest]
    """Manifests that the index lists and the engine does not hold, or not whole."""
    alone: bool
    """Whether it is one image: no index, or one of which the engine says that it holds only one."""
    parts: tuple[Part, ...]
    """The images of an index."""
    within: Digest | None = None
    """The index of which it is a part by itself."""

    @property
    def title(self) -> str:
        """Its name in messages."""
        return self.names[0] if self.names else self.id.short

    @property
    def is_index(self) -> bool:
        """Whether it is an image for several platforms, or one with attestations."""
        return self.root is not None and self.root.media_type in media_types.INDEXES

    def of(self, wanted: Platform) -> Listed:
        """The one image of an index that this platform may mean; else all of it, as it is."""
        # An engine exports such a part by itself, since the same version that tells of parts.
        meant = [each for each in self.parts if may_be(each.platform, wanted)]
        if not self.is_index or len(meant) != 1 or not meant[0].whole:
            return self
        (part,) = meant
        return self._replace(
            id=part.root.digest,
            diff_ids=(),  # those that are told may be another platform's
            size=part.size,
            platform=part.platform,
            root=part.root,
            absent=frozenset(),
            alone=True,
            within=self.id,
        )


def one(client: EngineClient, name: str) -> Listed:
    """The image of that name or ID. Raises SourceError, with names that are alike."""
    if (found := client.inspect(name)) is not None:
        return _listed(found)
    import difflib

    held = dict.fromkeys(str(tag) for each in client.images() for tag in each.get("RepoTags") or ())
    alike = difflib.get_close_matches(name, held, _ALIKE, cutoff=0.5)
    hint = f"is it one of these? {', '.join(alike)}" if alike else "docker images lists them"
    raise SourceError(f"{name} is no image of {client.name}", hint=hint)


def all_tags(client: EngineClient, name: str) -> list[Listed]:
    """The images under all tags of a repository, each once, with its names in that repository.

    Raises SourceError where there is none.
    """
    wanted = references.parse(name)
    tags: set[str] = set()
    for listed in client.images({"reference": [wanted.repository.familiar]}):
        for tag in map(str, listed.get("RepoTags") or ()):
            found = _reference(tag)
            if found and wanted in {found, found.with_tag(None)}:
                tags.add(tag)
    images: dict[Digest, Listed] = {}
    for tag in sorted(tags):
        if said := client.inspect(tag):
            image = _listed(said)
            names = images[image.id].names if image.id in images else ()
            images[image.id] = image._replace(names=(*names, tag))
    if not images:
        raise SourceError(f"no tags to push for {name}: {client.name} has no image of that name")
    return list(images.values())


@files.understood("what the engine says of its image")
def _listed(found: Mapping[str, Any]) -> Listed:
    """Parse the answer of inspect. Raises SourceError."""
    rootfs = found.get("RootFS")
    root, driver = found.get("Descriptor"), found.get("GraphDriver")
    driver_name = driver.get("Name") if isinstance(driver, dict) else ""
    layers = reading.texts(rootfs, "Layers") if isinstance(rootfs, dict) else ()
    digest = Digest(str(found.get("Id")))
    parts = [each for each in reading.array(found, "Manifests") if isinstance(each, dict)]
    images = [each for each in parts if each.get("Kind") == "image"]
    # Before API 1.48 the snapshotter's name tells: the graph driver's is overlay2.
    containerd = isinstance(root, dict) or driver_name == "overlayfs"
    return Listed(
        id=digest,
        names=reading.texts(found, "RepoTags"),
        diff_ids=tuple(map(Digest, layers)),
        size=_content_size(parts) or int(found.get("Size") or 0),
        platform=Platform(
            str(found.get("Os") or ""),
            str(found.get("Architecture") or ""),
            reading.text(found, "Variant") or None,
        ),
        root=Descriptor.from_json(root) if isinstance(root, dict) else None,
        containerd=containerd,
        origins=_origins(found, digest),
        absent=frozenset(Digest(str(each["ID"])) for each in parts if not each.get("Available")),
        alone=sum(bool(each.get("Available")) for each in images) == 1 or not containerd,
        parts=tuple(_part(each) for each in images if each.get("Descriptor")),
    )


def _part(told: Mapping[str, Any]) -> Part:
    root = Descriptor.from_json(told["Descriptor"])
    platform = root.platform or Platform("", "")
    return Part(root, platform, _content_size([told]), bool(told.get("Available")))


def _origins(found: Mapping[str, Any], digest: Digest) -> tuple[Reference, ...]:
    """The references in `RepoDigests`, and those in `Identity.Pull` (containerd, API 1.53)."""
    identity = found.get("Identity")
    pulls = reading.array(identity, "Pull") if isinstance(identity, dict) else []
    places = [each.get("Repository") for each in pulls if isinstance(each, dict)]
    names = [*reading.texts(found, "RepoDigests"), *(f"{place}@{digest}" for place in places)]
    parsed = (_reference(name) for name in names)
    return tuple(dict.fromkeys(place for place in parsed if place and place.digest))


def _content_size(parts: Sequence[Mapping[str, Any]]) -> int:
    """Bytes that a containerd store holds of an image, of all platforms together."""
    sizes = [each.get("Size") for each in parts if each.get("Available")]
    return sum(int(size.get("Content") or 0) for size in sizes if isinstance(size, dict))


def _reference(name: object) -> Reference | None:
    try:
        return references.parse(str(name))
    except InvalidReference:
        return None
