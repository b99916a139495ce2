"""Reads an image back from a registry, with nothing of ours but the eyes: every byte is hashed."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass, field
from typing import Any

import zstandard

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Whatever proxy a test has put into the environment."""
ACCEPT = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.list.v2",
        "docker.distribution.manifest.v2",
    )
)


@dataclass
class Image:
    """One image as a registry serves it."""

    manifest: dict[str, Any]
    digest: str
    config: dict[str, Any]
    config_bytes: bytes
    layers: list[bytes]
    """Plain tars."""


@dataclass
class Index:
    """An index and its images."""

    manifest: dict[str, Any]
    digest: str
    images: list[Image] = field(default_factory=list)


def read(url: str, path: str, reference: str) -> Image | Index:
    """Read `http://HOST:PORT` `path` and check every digest, size and DiffID on the way."""
    body, media_type = fetch(f"{url}/v2/{path}/manifests/{reference}")
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    document = json.loads(body)
    assert document["mediaType"] == media_type
    if "manifests" in document:
        index = Index(document, digest)
        for child in document["manifests"]:
            image = read(url, path, child["digest"])
            assert isinstance(image, Image)
            assert image.digest == child["digest"]
            index.images.append(image)
        return index
    return _image(url, path, document, digest)


def image(url: str, path: str, reference: str) -> Image:
    """Read what must be one image."""
    found = read(url, path, reference)
    assert isinstance(found, Image)
    return found


def _image(url: str, path: str, document: dict[str, Any], digest: str) -> Image:
    config_bytes = blob(url, path, document["config"])
    config = json.loads(config_bytes)
    layers = [plain(blob(url, path, layer), layer["mediaType"]) for layer in document["layers"]]
    if "rootfs" in config:
        found = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
        assert found == config["rootfs"]["diff_ids"]
    return Image(document, digest, config, config_bytes, layers)


def blob(url: str, path: str, descriptor: dict[str, Any]) -> bytes:
    """Read a blob; its digest and size must be what the descriptor says."""
    body, _ = fetch(f"{url}/v2/{path}/blobs/{descriptor['digest']}")
    assert "sha256:" + hashlib.sha256(body).hexdigest() == descriptor["digest"]
    assert len(body) == descriptor["size"]
    return body


def plain(body: bytes, media_type: str) -> bytes:
    """Unpack a layer by what its media type says of it."""
    if media_type.endswith("gzip"):
        return _gunzip(body)
    if media_type.endswith("zstd"):
        with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as reader:
            return bytes(reader.read())
    return body


def _gunzip(body: bytes) -> bytes:
    pieces = []
    while body:
        unpacker = zlib.decompressobj(31)
        pieces.append(unpacker.decompress(body))
        assert unpacker.eof
        body = unpacker.unused_data
    return b"".join(pieces)


def fetch(url: str) -> tuple[bytes, str]:
    """GET, as any puller does; body and content type."""
    request = urllib.request.Request(url, headers={"Accept": ACCEPT})  # noqa: S310 - our own URL
    try:
        with DIRECT.open(request, timeout=30) as answer:
            return answer.read(), answer.headers.get_content_type()
    except urllib.error.HTTPError as error:
        error.close()  # it is an open answer; Python 3.14 warns of those
        raise
