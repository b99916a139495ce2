"""Another form of an image: what changes, what stays, and what has none."""

from __future__ import annotations

import io
import json

import pytest

from towline.push.image import Blob, Image, Layer
from towline.push.manifests import build
from towline.push.manifests.build import CannotConvert
from towline.push.plan import Made
from towline.sources.base import SourceImage
from towline.spec import manifest, media_types
from towline.spec.descriptor import Descriptor, Platform
from towline.spec.digest import Digest

CONFIG = json.dumps({"rootfs": {"diff_ids": ["x"]}, "history": [{}]}).encode()
LAYER = Digest("sha256:" + "a" * 64)
FOREIGN = Descriptor(
    media_types.DOCKER_FOREIGN + ".gzip", Digest("sha256:" + "f" * 64), 3, urls=("https://x/y",)
)
MADE: dict[str, Made] = {
    LAYER: Made(LAYER, 7, "gzip"),
    Digest.of(CONFIG): Made(Digest.of(CONFIG), 2, None),
}


def image(*layers: Layer, **source: object) -> Image:
    described = SourceImage(CONFIG, None, (), None, Platform("linux", "arm64"), oci=False)
    described = described._replace(**source)  # type: ignore[arg-type]  # fields by name
    config = Descriptor(media_types.DOCKER_CONFIG, Digest.of(CONFIG), len(CONFIG))
    held = Blob(config.digest, config, len(CONFIG), io.BytesIO, is_layer=False)
    return Image(described, held, layers or (Blob(LAYER, None, 10, io.BytesIO, is_layer=True),))


def layers(documents: build.Documents) -> list[Descriptor]:
    parsed = manifest.parse(documents.top.content)
    assert isinstance(parsed, manifest.Manifest)
    return list(parsed.layers)


@pytest.mark.parametrize(
    ("docker", "oci"),
    [
        (media_types.DOCKER_FOREIGN, media_types.OCI_NONDISTRIBUTABLE),
        (media_types.DOCKER_FOREIGN + ".gzip", media_types.OCI_NONDISTRIBUTABLE + "+gzip"),
    ],
)
def test_a_foreign_layer_has_a_type_in_each_family(docker: str, oci: str) -> None:
    assert media_types.foreign(docker, "oci") == media_types.foreign(oci, "oci") == oci
    assert media_types.foreign(oci, "docker") == media_types.foreign(docker, "docker") == docker


def test_a_foreign_layer_is_converted_and_keeps_its_urls() -> None:
    (foreign,) = layers(build.to_family(image(FOREIGN), MADE, "oci"))
    assert foreign == FOREIGN._replace(media_type=media_types.OCI_NONDISTRIBUTABLE + "+gzip")
    (again,) = layers(build.to_family(image(foreign), MADE, "docker"))
    assert again == FOREIGN


def test_annotations_are_lost_in_dockers_format_alone() -> None:
    annotated = image(annotations=(("a", "b"),))
    assert build.loses_annotations(annotated, "docker")
    assert not build.loses_annotations(annotated, "oci")
    assert not build.loses_annotations(image(), "docker")


def came(**more: object) -> manifest.RawManifest:
    config = Descriptor(media_types.OCI_CONFIG, Digest.of(CONFIG), len(CONFIG))
    document = json.loads(manifest.build("oci", config, []).content)
    content = json.dumps({**document, **more}).encode()
    return manifest.RawManifest(content, media_types.OCI_MANIFEST)


SUBJECT = Descriptor(media_types.OCI_MANIFEST, LAYER, 5)


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        (image(manifest=came(subject=SUBJECT.as_json())), "it is an artifact"),
        (image(manifest=came(artifactType="application/x")), "it is an artifact"),
        (image(config_type="application/vnd.cncf.helm.config.v1+json"), "helm.config"),
    ],
)
def test_an_artifact_has_no_other_form(tree: Image, why: str) -> None:
    with pytest.raises(CannotConvert, match=why):
        build.to_family(tree, MADE, "docker")
    with pytest.raises(CannotConvert, match=why):
        build.to_schema1(tree, MADE, name="app", tag="1")


def test_a_foreign_layer_of_zstd_has_no_place_in_schema_2() -> None:
    zstd = FOREIGN._replace(media_type=media_types.OCI_NONDISTRIBUTABLE + "+zstd")
    with pytest.raises(CannotConvert, match="zstd"):
        build.to_family(image(zstd), MADE, "docker")


def test_a_foreign_layer_has_no_place_in_schema_1() -> None:
    with pytest.raises(CannotConvert, match="foreign"):
        build.to_schema1(image(FOREIGN), MADE, name="app", tag="1")


def test_plain_layers_that_came_so_are_not_told_to_be_compressed() -> None:
    kept = Descriptor(media_types.OCI_LAYER_ZSTD, LAYER, 7)
    diff_id = Digest("sha256:" + "d" * 64)
    stored = image(Blob(diff_id, kept, 7, io.BytesIO, is_layer=True))
    with pytest.raises(CannotConvert) as caught:
        build.to_schema1(stored, {LAYER: Made(LAYER, 7, "zstd")}, name="app", tag="1")
    assert caught.value.hint is None


def test_schema_1_is_of_the_blobs_that_were_made() -> None:
    unsigned = build.to_schema1(image(), MADE, name="team/app", tag="1")
    document = json.loads(unsigned.payload)
    assert (document["name"], document["tag"]) == ("team/app", "1")
    assert document["fsLayers"] == [{"blobSum": LAYER}]
