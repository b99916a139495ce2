"""skopeo reads the images that tests are made of, and its archives are read here."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.sources import QUIET, digest_of, images_of
from towline.sources.base import SourceIndex
from towline.sources.location import parse
from towline.sources.open_source import open_source
from towline.spec.digest import Digest
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from towline.spec.media_types import Compression
    from towline.testing.image_formats import Form, Made

LAYERS = [{"etc/a": b"a" * 5000}, {"etc/b": b"b"}, {"etc/a": b"a" * 5000}]
PLATFORMS = ["linux/amd64", "linux/arm64"]
TRANSPORTS: dict[Form, str] = {
    "docker": "docker-archive",
    "docker-containerd": "docker-archive",
    "docker-legacy": "docker-archive",
    "oci": "oci",
    "oci-archive": "oci-archive",
}


def skopeo(program: Path, *words: str) -> str:
    command = [str(program), "--insecure-policy", "--override-arch", "amd64", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("form", list(TRANSPORTS))
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_skopeo_reads_every_image_that_is_built(
    tmp_path: Path, skopeo_bin: Path, form: Form, compression: Compression
) -> None:
    made = make_image(tmp_path / "x", LAYERS, format=form, compression=compression, names=["app:1"])
    name = f"{TRANSPORTS[form]}:{made.path}"
    config = json.loads(skopeo(skopeo_bin, "inspect", "--config", "--raw", name))
    assert config == json.loads(made.config)
    skopeo(skopeo_bin, "copy", name, f"dir:{tmp_path / 'copy'}")


@pytest.mark.parametrize("form", ["oci", "oci-archive"])
def test_skopeo_reads_every_index_that_is_built(
    tmp_path: Path, skopeo_bin: Path, form: Form
) -> None:
    made = make_image(tmp_path / "x", LAYERS, PLATFORMS, form)
    raw = skopeo(skopeo_bin, "inspect", "--raw", f"{TRANSPORTS[form]}:{made.path}")
    assert Digest.of(raw.encode()) == made.digest


def written_by_skopeo(program: Path, made: Made, target: str, *options: str) -> None:
    skopeo(program, "copy", "--all", *options, f"oci:{made.path}", target)


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("docker-archive:{}:app:1", []),
        ("oci:{}:v1", []),
        ("oci-archive:{}:v1", []),
        ("oci:{}:v1", ["--dest-compress", "--dest-compress-format", "zstd"]),
        ("oci:{}:v1", ["--dest-decompress"]),
    ],
)
def test_what_skopeo_writes_is_read_whole(
    tmp_path: Path, skopeo_bin: Path, target: str, options: list[str]
) -> None:
    compression: Compression = "none" if "--dest-compress" in options else "gzip"
    made = make_image(tmp_path / "x", LAYERS, format="oci", compression=compression)
    copy = tmp_path / "copy"
    written_by_skopeo(skopeo_bin, made, target.format(copy), *options)
    source = open_source(parse(copy), QUIET)
    [entry] = source.entries()
    [image] = images_of(entry)
    assert entry.names
    assert tuple(layer.diff_id for layer in image.layers) == made.diff_ids
    for layer in image.layers:
        assert digest_of(layer) == (layer.stored.digest if layer.stored else layer.diff_id)
    source.close()


@pytest.mark.parametrize("target", ["oci:{}:v1", "oci-archive:{}:v1"])
def test_an_index_that_skopeo_writes_is_read_with_all_its_platforms(
    tmp_path: Path, skopeo_bin: Path, target: str
) -> None:
    made = make_image(tmp_path / "x", LAYERS, PLATFORMS, "oci")
    copy = tmp_path / "copy"
    written_by_skopeo(skopeo_bin, made, target.format(copy))
    source = open_source(parse(copy), QUIET)
    [entry] = source.entries()
    assert isinstance(entry.content, SourceIndex)
    assert entry.content.manifest.digest == made.digest
    assert [str(image.platform) for image in images_of(entry)] == PLATFORMS
    source.close()
