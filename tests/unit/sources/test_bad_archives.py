"""What is wrong with an archive is said in one sentence that names the file and the member."""

from __future__ import annotations

import gzip
import random
from typing import TYPE_CHECKING

import pytest
import zstandard

from tests.support.sources import (
    content_of,
    docker_archive,
    entries,
    images_of,
    link,
    member,
    tar_of,
)
from towline.errors import SourceError
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from towline.testing.image_formats import Form

FORMS: list[Form] = ["docker", "docker-legacy", "docker-containerd", "oci-archive"]
LAYERS = [{"a": b"a" * 3000}, {"b": b"b"}]


def read_all_of(path: Path) -> None:
    """What a push would read."""
    for entry in entries(path):
        for image in images_of(entry):
            for layer in image.layers:
                content_of(layer)


def sentence_about(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        read_all_of(path)
    sentence = str(caught.value)
    assert path.name in sentence
    assert sentence.isprintable()
    assert not sentence.endswith(".")
    return sentence


def sentence_about_any(path: Path) -> None:
    """For damage that may lie where nobody looks."""
    try:
        read_all_of(path)
    except SourceError:
        sentence_about(path)


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "x.tar"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("data", [b"", b"hello", b"<html>" * 999, bytes(range(256)) * 8])
def test_not_a_tar(tmp_path: Path, data: bytes) -> None:
    assert "is not a tar archive" in sentence_about(written(tmp_path, data))
    if data:
        assert "is not a tar archive" in sentence_about(written(tmp_path, gzip.compress(data)))


@pytest.mark.parametrize("data", [bytes(10240), tar_of(member("etc/passwd", b"root"))])
def test_a_tar_without_an_image(tmp_path: Path, data: bytes) -> None:
    said = sentence_about(written(tmp_path, data))
    assert said.endswith("holds no image: it has neither index.json nor manifest.json")


def test_a_layout_archived_with_its_folder_is_told_how_to_archive_it(tmp_path: Path) -> None:
    path = written(tmp_path, tar_of(member("layout/index.json", b"{}")))
    with pytest.raises(SourceError) as caught:
        entries(path)
    assert caught.value.hint == "archive what is inside its folder 'layout', not the folder"


def test_a_missing_layer(tmp_path: Path) -> None:
    path = docker_archive(
        tmp_path / "x.tar", {}, ["sha256:" + "0" * 64], listed={"Layers": ["1/l"]}
    )
    assert sentence_about(path).endswith("x.tar lacks the layer 1/l")


def test_a_missing_config(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "x.tar", {}, listed={"Config": "gone.json"})
    assert sentence_about(path).endswith("x.tar has no gone.json")
    path = docker_archive(tmp_path / "x.tar", {}, listed={"Config": None})
    assert "manifest.json in" in sentence_about(path)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1]", "it has no `rootfs`"),
        (b'{"rootfs": {"diff_ids": ["sha256:1"]}}', "is no digest"),
        (b" " * (5 << 20), "bytes long"),
    ],
)
def test_a_config_that_is_none(tmp_path: Path, config: bytes, said: str) -> None:
    sentence = sentence_about(docker_archive(tmp_path / "x.tar", {}, config=config))
    assert "config.json" in sentence
    assert said in sentence


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "manifest.json in .* is not JSON"),
        (b"{}", "manifest.json in .* is no list of images"),
        (b"[1]", "manifest.json in .* is no list of images"),
        (b"[]", "holds no image: its manifest.json lists none"),
        (b"[{}]", "manifest.json in .* names no config"),
        (b"[" * 10**6, "manifest.json in .* is not JSON"),
    ],
)
def test_a_manifest_that_is_none(tmp_path: Path, content: bytes, said: str) -> None:
    path = written(tmp_path, tar_of(member("manifest.json", content)))
    with pytest.raises(SourceError, match=said):
        read_all_of(path)


def test_a_manifest_that_contradicts_its_config(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "x.tar", {"a": b"", "b": b""}, ["sha256:" + "0" * 64])
    assert "has 2 layers by its manifest.json and 1 by its config" in sentence_about(path)


@pytest.mark.parametrize("name", ["../evil", "ok/../../evil"])
def test_members_that_point_outside(tmp_path: Path, name: str) -> None:
    path = docker_archive(tmp_path / "x.tar", {}, more=[member(name, b"x")])
    assert f"its member {name!r} points outside the archive" in sentence_about(path)


def test_a_layer_that_is_a_link_to_the_outside(tmp_path: Path) -> None:
    path = docker_archive(
        tmp_path / "x.tar",
        {},
        ["sha256:" + "0" * 64],
        more=[link("layer.tar", "/etc/passwd")],
        listed={"Layers": ["layer.tar"]},
    )
    assert sentence_about(path).endswith("x.tar lacks the layer layer.tar")


@pytest.mark.parametrize("path_in_json", ["/etc/passwd", "../../etc/passwd"])
def test_a_manifest_that_points_outside(tmp_path: Path, path_in_json: str) -> None:
    path = docker_archive(
        tmp_path / "x.tar", {}, ["sha256:" + "0" * 64], listed={"Layers": [path_in_json]}
    )
    assert f"lacks the layer {path_in_json}" in sentence_about(path)


@pytest.mark.parametrize("form", FORMS)
def test_an_archive_cut_anywhere_is_told_in_one_sentence(tmp_path: Path, form: Form) -> None:
    made = make_image(tmp_path / "whole", LAYERS, ["linux/amd64", "linux/arm64"], form)
    data = made.path.read_bytes()
    needed = data.rfind(b'"Layers":[' if form == "docker-legacy" else b'"manifests":[')
    for end in range(0, len(data), 512):
        path = written(tmp_path, data[:end])
        if end <= needed:
            sentence_about(path)
        else:
            sentence_about_any(path)


@pytest.mark.parametrize("form", FORMS)
def test_an_archive_cut_between_blocks_is_told_in_one_sentence(tmp_path: Path, form: Form) -> None:
    data = make_image(tmp_path / "whole", LAYERS, format=form).path.read_bytes()
    rng = random.Random(3)  # noqa: S311 - places to cut at
    for _ in range(60):
        cut = data[: rng.randrange(len(data.rstrip(b"\0")) - 1)]
        sentence_about(written(tmp_path, cut))


@pytest.mark.parametrize("form", FORMS)
def test_damage_anywhere_is_told_in_one_sentence_or_does_not_matter(
    tmp_path: Path, form: Form
) -> None:
    data = make_image(tmp_path / "whole", LAYERS, ["linux/amd64", "linux/arm64"], form).path
    content = data.read_bytes()
    rng = random.Random(4)  # noqa: S311 - places to damage
    for _ in range(300):
        wrong = bytearray(content)
        for _ in range(rng.choice([1, 1, 4])):
            wrong[rng.randrange(len(wrong))] = rng.choice([0, 0x30, 0x7B, 0xFF, rng.randrange(256)])
        path = written(tmp_path, bytes(wrong))
        sentence_about_any(path)


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_compressed_archive_cut_or_damaged_is_told_in_one_sentence(
    tmp_path: Path, compression: str
) -> None:
    plain = make_image(tmp_path / "whole", LAYERS).path.read_bytes()
    data = gzip.compress(plain) if compression == "gzip" else zstandard.compress(plain)
    for end in range(4, len(data), 97):
        sentence_about(written(tmp_path, data[:end]))
    rng = random.Random(5)  # noqa: S311 - places to damage
    for _ in range(100):
        wrong = bytearray(data)
        wrong[rng.randrange(len(wrong))] ^= 1 << rng.randrange(8)
        sentence_about_any(written(tmp_path, bytes(wrong)))
