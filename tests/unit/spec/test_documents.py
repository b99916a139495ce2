from __future__ import annotations

import json

import pytest

from towline.spec import gojson, manifest, media_types
from towline.spec.descriptor import Descriptor, Platform
from towline.spec.digest import Digest

A = Digest("sha256:" + "a" * 64)
B = Digest("sha256:" + "b" * 64)


@pytest.mark.parametrize(
    "text",
    ["", "sha256", "sha256:", "sha256:" + "a" * 63, "sha256:" + "A" * 64, "md5:" + "a" * 32,
     "sha256:" + "a" * 64 + "\n", "SHA256:" + "a" * 64],
)  # fmt: skip
def test_a_malformed_digest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no digest"):
        Digest(text)


def test_a_digest_tells_its_parts() -> None:
    assert (A.algorithm, A.hex, A.short) == ("sha256", "a" * 64, "a" * 12)
    assert Digest.of(b"").startswith("sha256:e3b0c44298fc")


def test_schema_2_is_written_as_the_engine_writes_it() -> None:
    config_ = Descriptor(media_types.DOCKER_CONFIG, A, 7)
    layer = Descriptor(media_types.DOCKER_LAYER_GZIP, B, 32)
    built = manifest.build("docker", config_, [layer])
    assert built.content.decode() == (
        "{\n"
        '   "schemaVersion": 2,\n'
        '   "mediaType": "application/vnd.docker.distribution.manifest.v2+json",\n'
        '   "config": {\n'
        '      "mediaType": "application/vnd.docker.container.image.v1+json",\n'
        '      "size": 7,\n'
        f'      "digest": "{A}"\n'
        "   },\n"
        '   "layers": [\n'
        "      {\n"
        '         "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",\n'
        '         "size": 32,\n'
        f'         "digest": "{B}"\n'
        "      }\n"
        "   ]\n"
        "}"
    )


def test_an_image_without_layers_has_an_empty_list() -> None:
    built = manifest.build("docker", Descriptor(media_types.DOCKER_CONFIG, A, 7), [])
    assert b'"layers": []' in built.content


def test_go_escapes_what_html_would_read() -> None:
    assert gojson.encode({"a": "<b>&\u2028é"}) == (
        b'{"a":"\\u003cb\\u003e\\u0026\\u2028' + "é".encode() + b'"}'
    )


def test_what_was_built_is_read_back() -> None:
    config_ = Descriptor(media_types.OCI_CONFIG, A, 7)
    layer = Descriptor(media_types.OCI_LAYER_GZIP, B, 32, annotations={"k": "v"})
    built = manifest.build("oci", config_, [layer], {"x": "y"})
    parsed = manifest.parse(built.content)
    assert isinstance(parsed, manifest.Manifest)
    assert (parsed.config, parsed.layers, parsed.annotations) == (config_, (layer,), {"x": "y"})


def test_an_index_keeps_platforms_and_annotations() -> None:
    platform = Platform("linux", "arm", "v7")
    child = Descriptor(media_types.OCI_MANIFEST, A, 9, annotations={"k": "v"}, platform=platform)
    parsed = manifest.parse(manifest.build_index("oci", [child]).content)
    assert isinstance(parsed, manifest.Index)
    assert parsed.manifests == (child,)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"mediaType":"x/y"}', b'{"manifests":{}}', b'{"config":{}}',
     b'{"config":{"digest":"sha256:1","size":1},"layers":[]}', b"[" * 100_000],
)  # fmt: skip
def test_what_is_no_manifest_is_refused_with_a_clause(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        manifest.parse(content)


def test_a_config_tells_its_layers_and_its_platform() -> None:
    content = json.dumps(
        {
            "os": "linux",
            "architecture": "arm64",
            "variant": "v8",
            "rootfs": {"type": "layers", "diff_ids": [A, B]},
            "history": [{}, {"empty_layer": True}, {}],
        }
    ).encode()
    parsed = manifest.parse_config(content)
    assert parsed.diff_ids == (A, B)
    assert str(parsed.platform) == "linux/arm64/v8"
    assert parsed.filled == (True, False, True)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"rootfs":{"diff_ids":["x"]}}'])
def test_what_is_no_config_is_refused_with_a_clause(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        manifest.parse_config(content)


@pytest.mark.parametrize(
    ("head", "found"),
    [(b"\x1f\x8b\x08\x00", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\x50\x2a\x4d\x18", "zstd"),
     (b"\x5f\x2a\x4d\x18", "zstd"), (b"abcd", "none"), (b"", "none"), (b"\x1f", "none")],
)  # fmt: skip
def test_compressions_are_known_by_their_first_bytes(head: bytes, found: str) -> None:
    assert media_types.detect(head) == found
