from __future__ import annotations

import gzip
import json
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard

from tests.support.sources import (
    QUIET,
    content_of,
    digest_of,
    docker_archive,
    entries,
    image_of,
    link,
    member,
    tar_of,
)
from towline.context import Cancel, Context
from towline.errors import Cancelled, SourceError
from towline.sources.location import parse
from towline.sources.open_source import open_source
from towline.spec import manifest, media_types
from towline.spec.descriptor import Descriptor, Platform
from towline.spec.digest import Digest
from towline.testing.images import ImageSpec, make_image, make_images

if TYPE_CHECKING:
    from pathlib import Path

    from towline.testing.image_formats import Form

PLAIN = tar_of(member("a", b"a" * 3000))
OTHER = tar_of(member("b", b"b" * 3000))
PACKED = gzip.compress(PLAIN, mtime=0)
LAYERS = [{"etc/a": b"a" * 1000}, {"etc/b": b"b"}, {"etc/a": b"a" * 1000}]


@pytest.mark.parametrize("form", ["docker", "docker-legacy"])
def test_plain_layers_are_given_as_they_lie_to_be_compressed(tmp_path: Path, form: Form) -> None:
    made = make_image(tmp_path / "x.tar", LAYERS, format=form)
    [entry] = entries(made.path)
    image = image_of(entry)
    assert entry.names == ("app:1",)
    assert image.config == made.config
    assert image.manifest is None
    assert not image.oci
    assert image.platform == Platform("linux", "amd64")
    assert [layer.stored for layer in image.layers] == [None] * 3
    assert tuple(layer.diff_id for layer in image.layers) == made.diff_ids
    assert tuple(digest_of(layer) for layer in image.layers) == made.diff_ids


def test_the_same_layer_twice_is_found_through_its_symbolic_link(tmp_path: Path) -> None:
    made = make_image(tmp_path / "x.tar", LAYERS, format="docker-legacy")
    with tarfile.open(made.path) as tar:
        assert any(entry.issym() for entry in tar)
    image = image_of(entries(made.path)[0])
    assert content_of(image.layers[0]) == content_of(image.layers[2])


def test_a_hard_linked_layer_is_found(tmp_path: Path) -> None:
    path = docker_archive(
        tmp_path / "x.tar",
        {"1/layer.tar": PLAIN},
        [Digest.of(PLAIN)] * 2,
        more=[link("2/layer.tar", "1/layer.tar", tarfile.LNKTYPE)],
        listed={"Layers": ["1/layer.tar", "2/layer.tar"]},
    )
    assert [content_of(layer) for layer in image_of(entries(path)[0]).layers] == [PLAIN] * 2


def test_an_archive_whose_layers_are_compressed_is_read_by_its_index(tmp_path: Path) -> None:
    made = make_image(tmp_path / "x.tar", LAYERS, format="docker-containerd")
    [entry] = entries(made.path)
    image = image_of(entry)
    assert image.manifest == made.root
    assert "docker.io/library/app:1" in entry.names
    for layer, (diff_id, blob) in zip(image.layers, made.images[0].layers, strict=True):
        assert layer.stored == blob
        assert layer.diff_id == diff_id
        assert digest_of(layer) == blob.digest


def test_an_archive_with_platforms_is_read_by_its_index(tmp_path: Path) -> None:
    made = make_image(tmp_path / "x.tar", platforms=["linux/amd64", "linux/arm64"])
    [entry] = entries(made.path)
    assert entry.content.manifest == made.root


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_compressed_layer_named_by_its_digest_goes_under_it(
    tmp_path: Path, compression: str
) -> None:
    made = make_image(
        tmp_path / "x.tar",
        LAYERS,
        format="docker-legacy",
        compression="gzip" if compression == "gzip" else "zstd",
    )
    image = image_of(entries(made.path)[0])
    assert image.oci == (compression == "zstd")
    for layer, (diff_id, blob) in zip(image.layers, made.images[0].layers, strict=True):
        assert layer.stored
        assert layer.stored.digest == blob.digest == digest_of(layer)
        assert layer.stored.size == layer.size == blob.size
        assert layer.diff_id == diff_id


@pytest.mark.parametrize("name", ["layer.tar", "1/layer.tar", "f" * 63 + ".tar.gz"])
def test_a_compressed_layer_without_a_telling_name_is_hashed(tmp_path: Path, name: str) -> None:
    path = docker_archive(tmp_path / "x.tar", {name: PACKED}, [Digest.of(PLAIN)])
    [layer] = image_of(entries(path)[0]).layers
    assert layer.stored
    assert layer.stored.digest == Digest.of(PACKED)
    assert layer.stored.media_type == media_types.DOCKER_LAYER_GZIP
    assert layer.stored.size == layer.size == len(PACKED)


def test_a_compressed_layer_named_by_its_diff_id_is_hashed(tmp_path: Path) -> None:
    diff_id = Digest.of(PLAIN)
    path = docker_archive(tmp_path / "x.tar", {f"{diff_id.hex}.tar.gz": PACKED}, [diff_id])
    [layer] = image_of(entries(path)[0]).layers
    assert layer.stored
    assert layer.stored.digest == Digest.of(PACKED)


def test_hashing_a_layer_ends_when_the_push_is_cancelled(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "x.tar", {"layer.tar": PACKED}, [Digest.of(PLAIN)])
    cancel = Cancel()
    source = open_source(parse(path), Context(cancel=cancel))
    [entry] = source.entries()
    cancel.cancel()
    with pytest.raises(Cancelled):
        _ = entry.content
    source.close()


def test_plain_and_compressed_layers_may_lie_side_by_side(tmp_path: Path) -> None:
    packed = zstandard.compress(OTHER)
    path = docker_archive(
        tmp_path / "x.tar", {"a": PLAIN, "b": packed}, [Digest.of(PLAIN), Digest.of(OTHER)]
    )
    image = image_of(entries(path)[0])
    assert [layer.stored is None for layer in image.layers] == [True, False]
    assert image.oci, "schema 2 has no type for a zstd layer"


def test_a_foreign_layer_keeps_its_urls(tmp_path: Path) -> None:
    diff_id = Digest.of(PLAIN)
    described = {
        "mediaType": media_types.DOCKER_FOREIGN + ".gzip",
        "digest": Digest.of(PACKED),
        "size": 5,
        "urls": ["https://example.com/layer"],
    }
    listed = {"LayerSources": {diff_id: described}, "Layers": ["a"]}
    for lying_there in ({"a": PLAIN}, {}):
        path = docker_archive(tmp_path / "x.tar", lying_there, [diff_id], listed=listed)
        [layer] = image_of(entries(path)[0]).layers
        assert layer.foreign
        assert layer.foreign.urls == ("https://example.com/layer",)


def test_layer_sources_of_docker_25_make_no_layer_foreign(tmp_path: Path) -> None:
    diff_id = Digest.of(PLAIN)
    described = {"mediaType": media_types.OCI_LAYER, "digest": diff_id, "size": len(PLAIN)}
    path = docker_archive(
        tmp_path / "x.tar", {"a": PLAIN}, listed={"LayerSources": {diff_id: described}}
    )
    [layer] = image_of(entries(path)[0]).layers
    assert layer.foreign is None


def test_several_images_are_entries_in_their_order(tmp_path: Path) -> None:
    specs = [
        ImageSpec([{"a": b"1"}], names=("app:1", "app:latest")),
        ImageSpec([{"a": b"2"}], names=("other/app:2",)),
        ImageSpec([{"a": b"3"}], names=()),
    ]
    first, second, third = make_images(tmp_path / "x.tar", specs)
    found = entries(first.path)
    assert [entry.names for entry in found] == [("app:1", "app:latest"), ("other/app:2",), ()]
    assert [image_of(entry).config for entry in found] == [
        first.config,
        second.config,
        third.config,
    ]


def test_an_image_without_layers_is_one(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "x.tar", {}, [])
    assert image_of(entries(path)[0]).layers == ()


def test_layers_are_open_while_their_readers_are(tmp_path: Path) -> None:
    path = docker_archive(tmp_path / "x.tar", {"a": PLAIN})
    source = open_source(parse(path), QUIET)
    [layer] = image_of(source.entries()[0]).layers
    reader = layer.open()
    source.close()
    path.unlink()
    buffer = memoryview(bytearray(len(PLAIN)))
    assert reader.readinto(buffer) == len(PLAIN)
    assert buffer == PLAIN
    assert reader.readinto(buffer) == 0
    reader.close()
    reader.close()
    with pytest.raises(SourceError, match="closed already"):
        layer.open()


def test_an_image_that_is_not_whole_does_not_stand_in_the_way_of_another(tmp_path: Path) -> None:
    rootfs = {"type": "layers", "diff_ids": [Digest.of(PLAIN)]}
    config = json.dumps({"os": "linux", "architecture": "arm64", "rootfs": rootfs}).encode()
    images = [
        {"Config": "gone", "RepoTags": ["bad:1"], "Layers": ["a"]},
        {"Config": "c", "RepoTags": ["good:1"], "Layers": ["a"]},
    ]
    (tmp_path / "x.tar").write_bytes(
        tar_of(
            member("a", PLAIN),
            member("c", config),
            member("manifest.json", json.dumps(images).encode()),
        )
    )
    bad, good = entries(tmp_path / "x.tar")
    assert (bad.names, good.names) == (("bad:1",), ("good:1",))
    assert image_of(good).layers
    with pytest.raises(SourceError, match=r"x\.tar has no gone"):
        _ = bad.content


def saved_by_docker(path: Path, index: bytes) -> Path:
    """What an engine of today saves, with this as its `index.json`."""
    layers = {f"blobs/sha256/{Digest.of(PLAIN).hex}": PLAIN}
    return docker_archive(path, layers, more=[member("index.json", index)])


@pytest.mark.parametrize(
    "index",
    [b'{"schemaVersion": 2, "manifests": null}', b'{"manifests": []}', b"", b"{}", b"\xff", b"[1]"],
)
def test_a_broken_index_beside_a_good_list_does_not_matter(tmp_path: Path, index: bytes) -> None:
    path = saved_by_docker(tmp_path / "x.tar", index)
    for source in (str(path), f"docker-archive:{path}"):
        opened = open_source(parse(source), QUIET)
        assert image_of(opened.entries()[0]).layers[0].diff_id == Digest.of(PLAIN)
        opened.close()


def test_an_index_whose_image_lost_its_layers_does_not_count(tmp_path: Path) -> None:
    rootfs = {"type": "layers", "diff_ids": [Digest.of(PLAIN)]}
    config = json.dumps({"os": "linux", "architecture": "arm64", "rootfs": rootfs}).encode()
    described = Descriptor(media_types.OCI_CONFIG, Digest.of(config), len(config))
    raw = manifest.build("oci", described, [])
    path = docker_archive(
        tmp_path / "x.tar",
        {"a": PLAIN},
        config=config,
        more=[
            member(f"blobs/sha256/{raw.digest.hex}", raw.content),
            member(f"blobs/sha256/{described.digest.hex}", config),
            member("index.json", manifest.build_index("oci", [raw.descriptor()]).content),
        ],
    )
    assert [digest_of(layer) for layer in image_of(entries(path)[0]).layers] == [Digest.of(PLAIN)]


def test_docker_archive_by_name_never_looks_at_the_index(tmp_path: Path) -> None:
    made = make_image(tmp_path / "x.tar", format="docker-containerd")
    source = open_source(parse(f"docker-archive:{made.path}"), QUIET)
    assert source.entries()[0].names == ("app:1",)
    assert image_of(source.entries()[0]).manifest is None
    source.close()


def test_names_may_begin_with_a_slash(tmp_path: Path) -> None:
    config = json.dumps({"rootfs": {"diff_ids": [Digest.of(PLAIN)]}}).encode()
    listed = [{"Config": "/c", "RepoTags": None, "Layers": ["/blobs/layer"]}]
    (tmp_path / "x.tar").write_bytes(
        tar_of(
            member("/c", config),
            member("/blobs/layer", PLAIN),
            member("/manifest.json", json.dumps(listed).encode()),
        )
    )
    [layer] = image_of(entries(tmp_path / "x.tar")[0]).layers
    assert content_of(layer) == PLAIN


def test_a_list_may_say_null_where_there_is_nothing(tmp_path: Path) -> None:
    config = b'{"os": "linux", "architecture": "arm64", "rootfs": {"diff_ids": null}}'
    path = docker_archive(
        tmp_path / "x.tar", {}, config=config, listed={"Layers": None, "RepoTags": None}
    )
    [entry] = entries(path)
    assert (entry.names, image_of(entry).layers) == ((), ())


@pytest.mark.parametrize("listed", ["by its own digest", "by the DiffID"])
def test_a_layer_that_an_engine_found_changed_is_said_to_be(tmp_path: Path, listed: str) -> None:
    was, now = Digest.of(OTHER), Digest.of(PLAIN)
    name = now if listed == "by its own digest" else was
    path = docker_archive(
        tmp_path / "x.tar",
        {f"blobs/sha256/{now.hex}": PLAIN},
        [was],
        listed={"Layers": [f"blobs/sha256/{name.hex}"]},
    )
    [entry] = entries(path)
    with pytest.raises(
        SourceError, match=f"the layer {was} in .* is damaged: .* to {now}"
    ) as caught:
        _ = entry.content
    assert caught.value.hint == "pull or build the image again, and save it again"


def test_an_archive_older_than_its_list_is_told_its_age(tmp_path: Path) -> None:
    layer = "f" * 64
    (tmp_path / "x.tar").write_bytes(
        tar_of(
            member("repositories", b'{"app": {"1": "%s"}}' % layer.encode()),
            member(f"{layer}/layer.tar", PLAIN),
        )
    )
    with pytest.raises(SourceError, match=r"saved by a Docker older than 1\.10 \(2016\)") as caught:
        entries(tmp_path / "x.tar")
    assert caught.value.hint
