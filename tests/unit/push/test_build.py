"""Documents of a push: as they came where nothing changed, built where something did."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest

from towline.errors import UsageError
from towline.layers import profile as profiles
from towline.push.image import Blob, Image, Index
from towline.push.manifests import build
from towline.push.plan import Made
from towline.sources.base import SourceImage, SourceIndex
from towline.spec import manifest, media_types
from towline.spec.descriptor import Descriptor, Platform
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from towline.push.image import Layer
    from towline.spec.manifest import RawManifest
    from towline.spec.media_types import Compression

GZIP = profiles.parse("gzip")
ZSTD = profiles.parse("zstd")
CONFIG = Digest("sha256:" + "c" * 64)
LINUX = Platform("linux", "amd64")


def digest(letter: str) -> Digest:
    return Digest("sha256:" + letter * 64)


def blob(letter: str, stored: str | None = None, media_type: str = "") -> Blob:
    kept = (
        Descriptor(media_type or media_types.OCI_LAYER_GZIP, digest(stored), 5) if stored else None
    )
    return Blob(digest(letter), kept, 10, io.BytesIO, is_layer=True)


def image(*layers: Layer, came: RawManifest | None = None, oci: bool = False) -> Image:
    source = SourceImage(b"{}", None, (), came, LINUX, oci)
    config = Descriptor(media_types.OCI_CONFIG, CONFIG, 2)
    held = Blob(CONFIG, config, 2, io.BytesIO, is_layer=False)
    return Image(source, held, layers)


def made(letter: str, compression: Compression = "gzip") -> Made:
    return Made(digest(letter), 7, compression)


def came(*letters: str, media_type: str = media_types.OCI_LAYER_GZIP) -> RawManifest:
    layers = [Descriptor(media_type, digest(letter), 5) for letter in letters]
    built = manifest.build("oci", Descriptor(media_types.OCI_CONFIG, CONFIG, 2), layers)
    spaced = json.dumps(json.loads(built.content), indent=1).encode()
    return manifest.RawManifest(spaced, built.media_type)


def layer_types(raw: RawManifest) -> list[str]:
    parsed = manifest.parse(raw.content)
    assert isinstance(parsed, manifest.Manifest)
    return [layer.media_type for layer in parsed.layers]


def test_a_manifest_whose_blobs_are_untouched_goes_byte_for_byte() -> None:
    raw = came("a", "b")
    tree = image(blob("1", "a"), blob("2", "b"), came=raw, oci=True)
    documents = build.documents(tree, {digest("a"): made("a"), digest("b"): made("b")}, None)
    assert documents.top is raw
    assert documents.differs is None


def test_a_layer_that_was_compressed_on_the_way_needs_a_new_manifest() -> None:
    raw = came("a", media_type=media_types.OCI_LAYER)
    tree = image(blob("a"), came=raw, oci=True)
    documents = build.documents(tree, {digest("a"): made("f")}, None)
    assert layer_types(documents.top) == [media_types.OCI_LAYER_GZIP]
    assert documents.differs == "recompressed"


def test_an_archive_without_a_manifest_gets_schema_2() -> None:
    documents = build.documents(image(blob("1")), {digest("1"): made("f")}, None)
    assert documents.top.media_type == media_types.DOCKER_MANIFEST
    assert layer_types(documents.top) == [media_types.DOCKER_LAYER_GZIP]
    assert documents.differs is None


def test_zstd_needs_oci() -> None:
    tree = image(blob("1"))
    assert build.preferred(tree, None, ZSTD) == "oci"
    documents = build.documents(tree, {digest("1"): made("f", "zstd")}, None)
    assert documents.top.media_type == media_types.OCI_MANIFEST
    assert layer_types(documents.top) == [media_types.OCI_LAYER_ZSTD]


def test_zstd_in_an_explicit_schema_2_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(UsageError, match="zstd layers do not fit"):
        build.check(image(blob("1")), "docker", ZSTD)
    stored = image(blob("1", "a", media_types.OCI_LAYER_ZSTD), came=came("a"))
    with pytest.raises(UsageError, match="schema 2 cannot hold"):
        build.check(stored, "docker", GZIP)


def test_an_explicit_format_converts() -> None:
    tree = image(blob("1", "a"), came=came("a"), oci=True)
    documents = build.documents(tree, {digest("a"): made("a")}, "docker")
    assert documents.top.media_type == media_types.DOCKER_MANIFEST
    assert layer_types(documents.top) == [media_types.DOCKER_LAYER_GZIP]
    assert documents.differs == "converted"


def test_a_foreign_layer_keeps_its_descriptor() -> None:
    foreign = Descriptor(
        media_types.DOCKER_FOREIGN + ".gzip", digest("f"), 3, urls=("https://x/y",)
    )
    documents = build.documents(image(foreign, blob("1")), {digest("1"): made("a")}, None)
    parsed = manifest.parse(documents.top.content)
    assert isinstance(parsed, manifest.Manifest)
    assert parsed.layers[0] == foreign


def test_a_blob_of_an_unknown_type_keeps_it() -> None:
    stored = Descriptor("application/x-anything", digest("a"), 5)
    odd = Blob(digest("a"), stored, 5, io.BytesIO, is_layer=False)
    tree = image(odd, oci=True)
    documents = build.documents(tree, {digest("a"): Made(digest("a"), 5, None)}, None)
    assert layer_types(documents.top) == ["application/x-anything"]


def index(*children: tuple[Image, RawManifest]) -> Index:
    listed = [
        Descriptor(raw.media_type, raw.digest, raw.size, platform=LINUX) for _, raw in children
    ]
    raw = manifest.build_index("oci", listed)
    images = tuple(child for child, _ in children)
    return Index(SourceIndex(raw, tuple(i.source for i in images), tuple(listed)), images)


def test_an_index_whose_children_are_untouched_goes_byte_for_byte() -> None:
    raw = came("a")
    tree = index((image(blob("1", "a"), came=raw, oci=True), raw))
    documents = build.documents(tree, {digest("a"): made("a")}, None)
    assert documents.top is tree.source.manifest
    assert documents.children == (raw,)


def test_an_index_whose_child_changed_lists_the_new_digest_also_where_it_is_quoted() -> None:
    plain = came("a", media_type=media_types.OCI_LAYER)
    attestation = came("b")
    child = image(blob("a"), came=plain, oci=True)
    beside = image(blob("2", "b"), came=attestation, oci=True)
    listed = (
        Descriptor(plain.media_type, plain.digest, plain.size, platform=LINUX),
        Descriptor(
            attestation.media_type,
            attestation.digest,
            attestation.size,
            annotations={"vnd.docker.reference.digest": plain.digest},
        ),
    )
    raw = manifest.build_index("oci", listed)
    tree = Index(SourceIndex(raw, (child.source, beside.source), listed), (child, beside))
    documents = build.documents(tree, {digest("a"): made("f"), digest("b"): made("b")}, None)
    parsed = manifest.parse(documents.top.content)
    assert isinstance(parsed, manifest.Index)
    changed, same = parsed.manifests
    assert changed.digest == documents.children[0].digest != plain.digest
    assert same.digest == attestation.digest
    assert same.annotations["vnd.docker.reference.digest"] == changed.digest
    assert changed.platform == LINUX
    assert documents.differs == "recompressed"
