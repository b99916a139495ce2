"""Content descriptors and platforms (image-spec, "OCI Content Descriptors", "Image Index")."""

# No `from __future__ import annotations`: at every start Python would compile each text that
# annotates a field of a named tuple.

from collections.abc import Mapping
from typing import Any, NamedTuple

from towline.spec import reading
from towline.spec.digest import Digest


class Platform(NamedTuple):
    """What an image runs on."""

    os: str
    architecture: str
    variant: str | None = None
    os_version: str | None = None
    os_features: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @property
    def known(self) -> bool:
        """Whether it names an operating system; BuildKit's attestations say `unknown/unknown`."""
        return self.os != "unknown" and bool(self.os)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Platform":
        """Read an index's `platform` object or an image config, which has the same keys."""
        return cls(
            os=str(value.get("os") or ""),
            architecture=str(value.get("architecture") or ""),
            variant=reading.text(value, "variant"),
            os_version=reading.text(value, "os.version"),
            os_features=reading.texts(value, "os.features"),
        )

    def as_json(self) -> dict[str, Any]:
        """The `platform` object of an index, keys in Go's order, empty ones left out."""
        optional = {
            "os.version": self.os_version,
            "os.features": list(self.os_features),
            "variant": self.variant,
        }
        return {"architecture": self.architecture, "os": self.os, **_filled(optional)}


class Descriptor(NamedTuple):
    """Media type, digest and size of a blob or manifest, as manifests and indexes list them."""

    media_type: str
    digest: Digest
    size: int
    """Bytes."""
    urls: tuple[str, ...] = ()
    """Where a foreign layer can be downloaded."""
    annotations: Mapping[str, str] = {}
    platform: Platform | None = None
    artifact_type: str | None = None

    def __hash__(self) -> int:
        return hash((self.media_type, self.digest, self.size))  # annotations have none

    @classmethod
    def from_json(cls, value: Any) -> "Descriptor":  # noqa: ANN401 - any JSON
        """Read a descriptor.

        Raises ValueError where it is no object, or its size or digest is missing or malformed.
        """
        if not isinstance(value, dict):
            raise ValueError(f"a descriptor is an object, not {value!r:.60}")  # noqa: TRY004 - bad data, not a bad call
        size = value.get("size")
        # `true` is an int to Python, and would count as one byte.
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ValueError(f"the size of a descriptor is a number of bytes, not {size!r:.60}")
        platform = value.get("platform")
        return cls(
            media_type=str(value.get("mediaType") or ""),
            digest=Digest(str(value.get("digest"))),
            size=size,
            urls=reading.texts(value, "urls"),
            annotations=reading.annotations_of(value),
            platform=Platform.from_json(platform) if isinstance(platform, dict) else None,
            artifact_type=reading.text(value, "artifactType"),
        )

    def as_json(self) -> dict[str, Any]:
        """The object as Go's encoder orders it: empty fields are left out."""
        required = {"mediaType": self.media_type, "size": self.size, "digest": self.digest}
        optional = {
            "urls": list(self.urls),
            "annotations": dict(sorted(self.annotations.items())),
            "platform": self.platform and self.platform.as_json(),
            "artifactType": self.artifact_type,
        }
        return {**required, **_filled(optional)}


def _filled(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


_REFERENCE_TYPE = "vnd.docker.reference.type"
REFERENCE_DIGEST = "vnd.docker.reference.digest"
"""Annotation in which BuildKit's attestation has the digest of the image that it describes."""


def is_attestation(listed: Descriptor) -> bool:
    """Whether an index lists the manifest as an attestation of BuildKit's."""
    return listed.annotations.get(_REFERENCE_TYPE) == "attestation-manifest"
