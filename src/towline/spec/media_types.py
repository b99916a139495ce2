"""Media types (image-spec, "Media Types"; the image manifest of schema 2) and what they mean.

Also the compressions of layers and archives by their first bytes, where no media type tells them.
"""

from __future__ import annotations

from typing import Literal

Compression = Literal["none", "gzip", "zstd"]
Format = Literal["docker", "oci"]
"""The two families of image manifests: `docker` (schema 2) and `oci`."""

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD = OCI_LAYER + "+zstd"
OCI_NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar"

DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = DOCKER_LAYER + ".gzip"
DOCKER_LAYER_ZSTD = DOCKER_LAYER + ".zstd"
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

OCTET_STREAM = "application/octet-stream"

INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
IMAGES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
MANIFESTS = (OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST)
"""The types of an Accept header, listed one by one: some registries answer 404 to `*/*`."""

MAGIC_LENGTH = 4
"""Bytes of the head that `detect` needs."""
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = frozenset(bytes((0x50 + n, 0x2A, 0x4D, 0x18)) for n in range(16))

_LAYERS: dict[tuple[Format, Compression], str] = {
    ("oci", "none"): OCI_LAYER,
    ("oci", "gzip"): OCI_LAYER_GZIP,
    ("oci", "zstd"): OCI_LAYER_ZSTD,
    ("docker", "none"): DOCKER_LAYER,
    ("docker", "gzip"): DOCKER_LAYER_GZIP,
}
_COMPRESSIONS: dict[str, Compression] = {
    **{text: compression for (_, compression), text in _LAYERS.items()},
    DOCKER_LAYER_ZSTD: "zstd",
    OCI_NONDISTRIBUTABLE: "none",
    OCI_NONDISTRIBUTABLE + "+gzip": "gzip",
    OCI_NONDISTRIBUTABLE + "+zstd": "zstd",
    DOCKER_FOREIGN: "none",
    DOCKER_FOREIGN + ".gzip": "gzip",
}


def layer(fmt: Format, compression: Compression) -> str:
    """The media type of a layer; KeyError for zstd in schema 2, which has none."""
    return _LAYERS[fmt, compression]


def layer_compression(media_type: str) -> Compression | None:
    """How a layer of that media type is compressed; None for a type that is no known layer's."""
    return _COMPRESSIONS.get(media_type)


def is_foreign(media_type: str) -> bool:
    """Whether the type marks a layer that registries need not hold ("nondistributable")."""
    return media_type.startswith((OCI_NONDISTRIBUTABLE, DOCKER_FOREIGN))


def foreign(media_type: str, fmt: Format) -> str:
    """The media type of a foreign layer in a manifest of the family `fmt`.

    Unchanged where the family has no counterpart: schema 2 knows no zstd.
    """
    if fmt == "oci" and media_type.startswith(DOCKER_FOREIGN):
        return OCI_NONDISTRIBUTABLE + media_type.removeprefix(DOCKER_FOREIGN).replace(".", "+")
    if fmt == "docker" and media_type in {OCI_NONDISTRIBUTABLE, OCI_NONDISTRIBUTABLE + "+gzip"}:
        return DOCKER_FOREIGN + media_type.removeprefix(OCI_NONDISTRIBUTABLE).replace("+", ".")
    return media_type


def family(media_type: str) -> Format:
    """The family that a manifest's or index's media type belongs to."""
    return "docker" if media_type.startswith("application/vnd.docker.") else "oci"


def detect(head: bytes) -> Compression:
    """The compression of a stream by its first `MAGIC_LENGTH` bytes; `none` if they match none."""
    if head.startswith(_GZIP):
        return "gzip"
    # zstd:chunked and seekable files may open with a skippable frame (RFC 8878, section 3.1.2).
    return "zstd" if head.startswith(_ZSTD) or head[:4] in _ZSTD_SKIPPABLE else "none"
