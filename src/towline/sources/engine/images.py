"""Parses an engine's descriptions of its images, and finds the images that a name means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from towline import reference as references
from towline.errors import SourceError
from towline.sources.files import understood
from towline.sources.select import may_be
from towline.spec import media_types, reading
from towline.spec.descriptor import Descriptor, Platform
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from towline.reference import Reference
    from towline.sources.engine.client import EngineClient

_ALIKE = 5
"""Names that a hint suggests."""


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
    """The manifest or index of an image in a containerd store, which exports blobs as they are,
    named by digests. Its type and size are told since API 1.48."""
    origins: tuple[Reference, ...]
    """The image by its digest in each repository that the engine knows it from."""
    absent: frozenset[Digest]
    """Manifests that the index lists and the engine does not hold, or not whole."""
    parts: tuple[Listed, ...] = ()
    """The images of an index that it holds, each for one platform (API 1.48)."""
    within: Digest | None = None
    """The index of which it is a part."""

    @property
    def title(self) -> str:
        """Its name in messages."""
        return self.names[0] if self.names else self.id.short

    @property
    def is_index(self) -> bool:
        """Whether it is an image for several platforms, or one with attestations."""
        return self.root is not None and self.root.media_type in media_types.INDEXES

    @property
    def alone(self) -> bool:
        """Whether it is one image: no index, or one of which the engine holds one image only."""
        return self.root is None or self.within is not None or len(self.parts) == 1

    def of(self, wanted: Platform) -> Listed:
        """The one image of an index that this platform may mean; else all of it, as it is."""
        # An engine exports such a part by itself, since the same version that tells of parts.
        meant = [part for part in self.parts if may_be(part.platform, wanted)]
        return meant[0] if self.is_index and len(meant) == 1 else self


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
            found = references.parse_if_any(tag)
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


@understood("what the engine says of its image")
def _listed(found: Mapping[str, Any]) -> Listed:
    """Parse the answer of inspect. Raises SourceError."""
    rootfs, driver = found.get("RootFS"), found.get("GraphDriver")
    digest = Digest(str(found.get("Id")))
    layers = reading.texts(rootfs, "Layers") if isinstance(rootfs, dict) else ()
    root = None
    if found.get("Descriptor"):
        root = Descriptor.from_json(found["Descriptor"])
    elif isinstance(driver, dict) and driver.get("Name") == "overlayfs":
        # Before API 1.48 the snapshotter's name tells: the graph driver's is overlay2.
        root = Descriptor("", digest, 0)
    parts = [each for each in reading.array(found, "Manifests") if isinstance(each, dict)]
    held = [each for each in parts if each.get("Available")]
    image = Listed(
        id=digest,
        names=reading.texts(found, "RepoTags"),
        diff_ids=tuple(map(Digest, layers)),
        size=_content_size(held) or int(found.get("Size") or 0),
        platform=Platform(
            str(found.get("Os") or ""),
            str(found.get("Architecture") or ""),
            reading.text(found, "Variant") or None,
        ),
        root=root,
        origins=_origins(found, digest),
        absent=frozenset(Digest(str(each.get("ID"))) for each in parts if each not in held),
    )
    images = (each for each in held if each.get("Kind") == "image" and each.get("Descriptor"))
    return image._replace(parts=tuple(_part(image, each) for each in images))


def _part(image: Listed, told: Mapping[str, Any]) -> Listed:
    root = Descriptor.from_json(told["Descriptor"])
    return image._replace(
        id=root.digest,
        diff_ids=(),  # those that are told may be another platform's
        size=_content_size([told]),
        platform=root.platform or Platform("", ""),
        root=root,
        absent=frozenset(),
        within=image.id,
    )


def _origins(found: Mapping[str, Any], digest: Digest) -> tuple[Reference, ...]:
    """The references in `RepoDigests`, and those in `Identity.Pull` (containerd, API 1.53)."""
    identity = found.get("Identity")
    pulls = reading.array(identity, "Pull") if isinstance(identity, dict) else []
    places = [each.get("Repository") for each in pulls if isinstance(each, dict)]
    names = [*reading.texts(found, "RepoDigests"), *(f"{place}@{digest}" for place in places)]
    parsed = map(references.parse_if_any, names)
    return tuple(dict.fromkeys(place for place in parsed if place and place.digest))


def _content_size(parts: Sequence[Mapping[str, Any]]) -> int:
    """Bytes that a containerd store holds of these parts of an image."""
    sizes = [each.get("Size") for each in parts]
    return sum(int(size.get("Content") or 0) for size in sizes if isinstance(size, dict))
