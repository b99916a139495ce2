from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.sources import (
    chosen,
    content_of,
    digest_of,
    entries,
    image_of,
    images_of,
    member,
    tar_of,
)
from towline.errors import SourceError
from towline.sources.base import SourceIndex
from towline.sources.files import Folder
from towline.sources.oci_layout import OciLayout
from towline.spec import manifest, media_types
from towline.spec.descriptor import Descriptor, Platform
from towline.spec.digest import Digest
from towline.testing.images import ImageSpec, make_image, make_images

if TYPE_CHECKING:
    from pathlib import Path

    from towline.layers.reader import Reader
    from towline.spec.media_types import Compression
    from towline.testing.image_formats import Form

BOTH = ["linux/amd64", "linux/arm64/v8"]
LAYERS = [{"etc/a": b"a" * 1000}, {"etc/b": b"b"}]
FORMS: list[Form] = ["oci", "oci-archive"]
PLAIN = tar_of(member("a", b"a"))


class Layout:
    """A layout put together by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listed: list[Descriptor] = []
        (folder / "blobs" / "sha256").mkdir(parents=True)

    def add(self, content: bytes, media_type: str, **more: Any) -> Descriptor:
        blob = Descriptor(media_type, Digest.of(content), len(content), **more)
        self.path(blob).write_bytes(content)
        return blob

    def path(self, blob: Descriptor) -> Path:
        return self.folder / "blobs" / "sha256" / blob.digest.hex

    def config(self, *diff_ids: str) -> Descriptor:
        rootfs = {"type": "layers", "diff_ids": list(diff_ids)}
        document = {"os": "linux", "architecture": "arm64", "rootfs": rootfs}
        return self.add(json.dumps(document).encode(), media_types.OCI_CONFIG)

    def image(self, config: Descriptor, *layers: Descriptor, **more: Any) -> Descriptor:
        raw = manifest.build("oci", config, layers)
        return self.add(raw.content, raw.media_type, **more)

    def artifact(self, *, subject: Descriptor, name: str | None = None) -> Descriptor:
        raw = manifest.build("oci", self.add(b"{}", "application/vnd.oci.empty.v1+json"), [])
        document = {**json.loads(raw.content), "subject": subject.as_json()}
        named = {"org.opencontainers.image.ref.name": name} if name else {}
        content = json.dumps(document).encode()
        return self.add(content, raw.media_type, annotations=named, artifact_type="example/x")

    def done(self, *listed: Descriptor) -> Path:
        index = manifest.build_index("oci", listed)
        (self.folder / "index.json").write_bytes(index.content)
        return self.folder


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_layers_go_with_their_manifest(
    tmp_path: Path, form: Form, compression: Compression
) -> None:
    made = make_image(tmp_path / "x", LAYERS, format=form, compression=compression)
    [entry] = entries(made.path)
    image = image_of(entry)
    assert image.manifest == made.root
    assert image.config == made.config
    assert image.config_type == media_types.OCI_CONFIG
    assert image.oci
    for layer, (diff_id, blob) in zip(image.layers, made.images[0].layers, strict=True):
        assert (layer.diff_id, layer.stored) == (diff_id, blob)
        assert layer.size == blob.size


@pytest.mark.parametrize("form", FORMS)
def test_uncompressed_layers_are_to_be_compressed(tmp_path: Path, form: Form) -> None:
    made = make_image(tmp_path / "x", LAYERS, format=form, compression="none")
    image = image_of(entries(made.path)[0])
    assert [layer.stored for layer in image.layers] == [None, None]
    assert tuple(digest_of(layer) for layer in image.layers) == made.diff_ids


@pytest.mark.parametrize("form", FORMS)
def test_an_index_comes_with_all_its_platforms_and_what_stands_beside(
    tmp_path: Path, form: Form
) -> None:
    made = make_image(tmp_path / "x", LAYERS, BOTH, form, attestations=True)
    [entry] = entries(made.path)
    index = entry.content
    assert isinstance(index, SourceIndex)
    assert index.manifest == made.root
    assert [str(image.platform) for image in images_of(entry)] == [
        "linux/amd64",
        "unknown/unknown",
        "linux/arm64/v8",
        "unknown/unknown",
    ]
    listed = manifest.parse(made.root.content)
    assert isinstance(listed, manifest.Index)
    assert index.descriptors == listed.manifests
    attestation = images_of(entry)[1]
    [statement] = attestation.layers
    assert statement.diff_id is None
    assert statement.stored
    assert statement.stored.media_type == "application/vnd.in-toto+json"


@pytest.mark.parametrize("form", FORMS)
def test_several_images_go_by_their_names(tmp_path: Path, form: Form) -> None:
    specs = [
        ImageSpec([{"a": b"1"}], names=("v1",)),
        ImageSpec([{"a": b"2"}], names=("v2", "latest")),
    ]
    make_images(tmp_path / "x", specs, form)
    found = entries(tmp_path / "x")
    assert [entry.names for entry in found] == [("v1",), ("v2", "latest")]


def test_unnamed_manifests_of_different_platforms_are_one_image(layout: Layout) -> None:
    config = layout.config()
    children = [
        layout.image(config, platform=Platform("linux", "amd64")),
        layout.image(
            layout.config(Digest.of(PLAIN)),
            layout.add(PLAIN, media_types.OCI_LAYER),
            platform=Platform("linux", "arm64"),
        ),
    ]
    [entry] = entries(layout.done(*children))
    assert isinstance(entry.content, SourceIndex)
    assert entry.content.manifest.content == (layout.folder / "index.json").read_bytes()
    assert entry.content.manifest.media_type == media_types.OCI_INDEX


def test_unnamed_manifests_without_platforms_are_images_of_their_own(layout: Layout) -> None:
    one = layout.image(layout.config())
    two = layout.image(layout.config(), annotations={"a": "b"})
    other = layout.image(layout.config(Digest.of(PLAIN)), layout.add(PLAIN, media_types.OCI_LAYER))
    assert one.digest == two.digest
    assert [entry.names for entry in entries(layout.done(one, two, other))] == [(), ()]


@pytest.mark.parametrize("form", [*FORMS, "docker", "docker-containerd"])
@pytest.mark.parametrize("attestations", [True, False])
def test_the_only_whole_platform_of_an_index_goes_with_a_warning(
    tmp_path: Path, form: Form, *, attestations: bool
) -> None:
    made = make_image(
        tmp_path / "x", LAYERS, BOTH, form, absent=[BOTH[0]], attestations=attestations
    )
    [entry] = chosen(made.path)
    assert image_of(entry).manifest == made.images[0].manifest
    [warning] = entry.content.warnings
    assert "linux/arm64/v8 alone" in warning
    assert "without linux/amd64" in warning


@pytest.mark.parametrize("form", [*FORMS, "docker", "docker-containerd"])
def test_an_index_without_exactly_one_whole_platform_is_refused_with_what_lacks(
    tmp_path: Path, form: Form
) -> None:
    three = [*BOTH, "linux/s390x"]
    make_image(tmp_path / "two", LAYERS, three, form, absent=[BOTH[0]])
    [entry] = chosen(tmp_path / "two")
    with pytest.raises(SourceError, match="linux/amd64 missing") as caught:
        _ = entry.content
    assert caught.value.hint
    make_image(tmp_path / "none", LAYERS, BOTH, form, absent=BOTH)
    with pytest.raises(SourceError, match="linux/amd64, linux/arm64/v8 missing"):
        _ = chosen(tmp_path / "none")[0].content


def test_a_platform_whose_layer_is_not_here_is_not_whole(tmp_path: Path) -> None:
    specs = [ImageSpec([{"a": b"1"}])]
    made = make_images(tmp_path / "x", specs, "oci")[0]
    layout = Layout(tmp_path / "y")
    for blob in (made.path / "blobs" / "sha256").iterdir():
        (layout.folder / "blobs" / "sha256" / blob.name).write_bytes(blob.read_bytes())
    gone = Descriptor(media_types.OCI_LAYER_GZIP, Digest.of(b"gone"), 4)
    listed = [
        Descriptor(
            made.root.media_type, made.digest, made.root.size, platform=Platform("linux", "amd64")
        ),
        layout.image(layout.config(Digest.of(b"?")), gone, platform=Platform("linux", "arm64")),
    ]
    [entry] = chosen(layout.done(*listed))
    assert image_of(entry).manifest == made.root
    assert entry.content.warnings


def test_images_that_lack_some_layers_stay_in_their_index(layout: Layout) -> None:
    here = layout.add(b"here", media_types.OCI_LAYER_GZIP)
    gone = Descriptor(media_types.OCI_LAYER_GZIP, Digest.of(b"gone"), 4)
    config = layout.config(Digest.of(b"1"), Digest.of(b"2"))
    whole = layout.image(config, here, here, platform=Platform("linux", "amd64"))
    partly = layout.image(config, here, gone, platform=Platform("linux", "arm64"))
    wholly = layout.image(config, gone, gone, platform=Platform("linux", "s390x"))
    [entry] = chosen(layout.done(whole, partly))
    assert len(images_of(entry)) == 2
    [entry] = chosen(layout.done(partly, wholly))
    assert len(images_of(entry)) == 2
    [entry] = chosen(layout.done(whole, wholly))
    assert (image_of(entry).platform, len(entry.content.warnings)) == (whole.platform, 1)
    [entry] = chosen(layout.folder, "linux/s390x")
    assert image_of(entry).platform == wholly.platform


def test_a_missing_attestation_leaves_the_image_it_stands_beside(tmp_path: Path) -> None:
    made = make_image(tmp_path / "x", LAYERS, ["linux/amd64"], "oci", attestations=True)
    index = manifest.parse(made.root.content)
    assert isinstance(index, manifest.Index)
    (made.path / "blobs" / "sha256" / index.manifests[1].digest.hex).unlink()
    [entry] = chosen(made.path)
    assert image_of(entry).manifest == made.images[0].manifest
    assert "without the attestation" in entry.content.warnings[0]


def test_a_foreign_layer_that_is_not_here_keeps_its_urls(layout: Layout) -> None:
    foreign = Descriptor(
        media_types.DOCKER_FOREIGN + ".gzip", Digest.of(b"x"), 1, urls=("https://example.com/x",)
    )
    layout.done(layout.image(layout.config(Digest.of(b"y")), foreign))
    [layer] = image_of(entries(layout.folder)[0]).layers
    assert layer.foreign == foreign
    with pytest.raises(SourceError, match="not in the source"):
        layer.open()


def test_an_artifact_goes_as_it_is(layout: Layout) -> None:
    config = layout.add(b"{}", "application/vnd.example.config+json")
    blob = layout.add(PLAIN, media_types.OCI_LAYER)
    layout.done(layout.image(config, blob))
    image = image_of(entries(layout.folder)[0])
    [layer] = image.layers
    assert layer.stored == blob
    assert layer.diff_id is None
    assert content_of(layer) == PLAIN
    assert not image.platform.known


def test_blobs_may_be_links_to_others_in_the_layout(layout: Layout, tmp_path: Path) -> None:
    blob = layout.add(PLAIN, media_types.OCI_LAYER)
    layout.path(blob).rename(layout.folder / "cache")
    layout.path(blob).symlink_to("../../cache")
    layout.done(layout.image(layout.config(blob.digest), blob))
    (tmp_path / "link").symlink_to(layout.folder)
    for folder in (layout.folder, tmp_path / "link"):
        [layer] = image_of(entries(folder)[0]).layers
        assert content_of(layer) == PLAIN


@pytest.mark.parametrize("what", ["layer", "config", "index", "folder"])
def test_links_that_leave_the_layout_are_refused_before_anything_is_read(
    layout: Layout, tmp_path: Path, what: str
) -> None:
    blob = layout.add(PLAIN, media_types.OCI_LAYER)
    config = layout.config(blob.digest)
    layout.done(layout.image(config, blob))
    inside = {
        "layer": layout.path(blob),
        "config": layout.path(config),
        "index": layout.folder / "index.json",
        "folder": layout.folder / "blobs",
    }[what]
    inside.rename(tmp_path / "outside")
    inside.symlink_to(tmp_path / "outside")
    with pytest.raises(SourceError, match="is a link that leaves the layout") as caught:
        _ = entries(layout.folder)[0].content
    assert caught.value.hint == f"copy it with what its links point to: cp -RL {layout.folder} COPY"


def test_a_layout_with_the_manifests_of_docker_stays_dockers(layout: Layout) -> None:
    raw = manifest.build("docker", layout.config(), [])
    layout.done(layout.add(raw.content, raw.media_type))
    image = image_of(entries(layout.folder)[0])
    assert not image.oci
    assert image.manifest == raw


def damaged(layout: Layout, blob: Descriptor) -> None:
    content = bytearray(layout.path(blob).read_bytes())
    content[len(content) // 2] ^= 1
    layout.path(blob).write_bytes(content)


@pytest.mark.parametrize("what", ["manifest", "config"])
def test_a_manifest_or_config_with_another_digest_is_refused(layout: Layout, what: str) -> None:
    config = layout.config()
    image = layout.image(config)
    damaged(layout, config if what == "config" else image)
    [entry] = entries(layout.done(image))
    with pytest.raises(SourceError, match=f"the {what} sha256:.* in .* is damaged: its bytes have"):
        _ = entry.content


@pytest.mark.parametrize("what", ["manifest", "config"])
def test_a_missing_manifest_or_config_is_named(layout: Layout, what: str) -> None:
    blob = layout.add(b"packed", media_types.OCI_LAYER_GZIP)
    config = layout.config(Digest.of(b"plain"))
    image = layout.image(config, blob)
    gone = {"manifest": image, "config": config}[what]
    layout.path(gone).unlink()
    [entry] = entries(layout.done(image))
    with pytest.raises(SourceError, match=f"lacks the {what} {gone.digest}"):
        _ = entry.content


@pytest.mark.parametrize("media_type", [media_types.OCI_LAYER_GZIP, media_types.OCI_LAYER])
def test_a_missing_layer_is_described_and_not_held(layout: Layout, media_type: str) -> None:
    blob = layout.add(PLAIN, media_type)
    image = layout.image(layout.config(blob.digest), blob)
    layout.path(blob).unlink()
    [layer] = image_of(entries(layout.done(image))[0]).layers
    assert (layer.held, layer.diff_id, layer.size) == (False, blob.digest, blob.size)
    assert layer.stored == (blob if media_type == media_types.OCI_LAYER_GZIP else None)
    with pytest.raises(SourceError, match=f"lacks the layer {blob.digest}"):
        layer.open()


def test_a_layer_cut_short_is_named_with_its_bytes(layout: Layout) -> None:
    blob = layout.add(b"packed", media_types.OCI_LAYER_GZIP)
    image = layout.image(layout.config(Digest.of(b"plain")), blob)
    layout.path(blob).write_bytes(b"pac")
    [entry] = entries(layout.done(image))
    with pytest.raises(SourceError, match=f"the layer {blob.digest} .* has 3 bytes where 6 are"):
        _ = entry.content


def test_a_config_that_contradicts_its_manifest_is_refused(layout: Layout) -> None:
    blob = layout.add(PLAIN, media_types.OCI_LAYER)
    too_few = layout.image(layout.config(), blob)
    other = layout.image(layout.config(Digest.of(b"other")), blob)
    first, second = entries(layout.done(too_few, other))
    with pytest.raises(SourceError, match="has 1 layers, its config 0"):
        _ = first.content
    with pytest.raises(
        SourceError, match="is uncompressed by its media type, but its config calls it"
    ):
        _ = second.content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>", "not JSON"),
        (b"[]", "no image config"),
        (b'{"rootfs": 1}', "no image config"),
        (b'{"rootfs": {"diff_ids": ["x"]}}', "is no digest"),
        (b'{"rootfs": {"diff_ids": 1}}', "`diff_ids` is not a list"),
        (b"[" * 100_000, "nested more than 100 levels deep"),
    ],
)
def test_a_config_that_is_none_says_why(layout: Layout, content: bytes, said: str) -> None:
    config = layout.add(content, media_types.OCI_CONFIG)
    [entry] = entries(layout.done(layout.image(config)))
    with pytest.raises(SourceError, match=f"the config sha256:.* cannot be used: .*{said}"):
        _ = entry.content


def test_a_config_larger_than_registries_take_is_refused(layout: Layout) -> None:
    config = layout.add(b" " * ((4 << 20) + 1), media_types.OCI_CONFIG)
    [entry] = entries(layout.done(layout.image(config)))
    with pytest.raises(SourceError, match="4194305 bytes long"):
        _ = entry.content


def test_an_index_in_an_index_comes_with_its_images(layout: Layout) -> None:
    image = layout.image(layout.config())
    inner = manifest.build_index("oci", [image])
    outer = manifest.build_index("oci", [layout.add(inner.content, inner.media_type), image])
    [entry] = entries(layout.done(layout.add(outer.content, outer.media_type)))
    assert isinstance(entry.content, SourceIndex)
    child, other = entry.content.children
    assert isinstance(child, SourceIndex)
    assert child.manifest == inner
    assert child.children == (other,)


def test_indexes_without_end_are_refused(layout: Layout) -> None:
    deep = wide = layout.image(layout.config())
    for _ in range(10):
        raw = manifest.build_index("oci", [deep])
        deep = layout.add(raw.content, raw.media_type)
    for _ in range(3):
        raw = manifest.build_index("oci", [wide] * 30)
        wide = layout.add(raw.content, raw.media_type)
    for entry in entries(layout.done(deep, wide)):
        with pytest.raises(SourceError, match="more than 8 deep, or more than 10000 manifests"):
            _ = entry.content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b'{"manifests": 1}', "`manifests` is not a list"),
        (b'{"manifests": []}', "holds no image"),
        (b'{"manifests": [{"digest": "x", "size": 1}]}', "is no digest"),
        (b'{"schemaVersion": 1}', "holds no image"),
        (b'{"manifests": null}', "holds no image"),
    ],
)
def test_an_index_file_that_is_none_says_why(layout: Layout, content: bytes, said: str) -> None:
    layout.done()
    (layout.folder / "index.json").write_bytes(content)
    with pytest.raises(SourceError, match=said):
        entries(layout.folder)


def test_every_child_can_be_read(tmp_path: Path) -> None:
    made = make_image(tmp_path / "x", LAYERS, BOTH, "oci-archive", attestations=True)
    for image in images_of(entries(made.path)[0]):
        for layer in image.layers:
            assert layer.stored
            assert digest_of(layer) == layer.stored.digest


def test_what_refers_to_an_image_is_no_image(layout: Layout) -> None:
    image = layout.image(layout.config(), annotations={"org.opencontainers.image.ref.name": "v1"})
    mark = {"io.containerd.manifest.subject": image.digest}
    signature = layout.image(layout.config(Digest.of(PLAIN)), annotations=mark)
    layout.done(image, signature)
    with closing(OciLayout(Folder(str(layout.folder)))) as source:
        assert [entry.names for entry in source.entries()] == [("v1",)]
        (found,) = source.referrers([image.digest])
        assert (found.listed.digest, found.tag) == (signature.digest, None)
        assert source.referrers([signature.digest]) == []


@pytest.mark.parametrize("what", ["manifest", "config", "layer"])
def test_what_is_named_by_sha512_is_refused_with_the_way_round(layout: Layout, what: str) -> None:
    digest = Digest("sha512:" + "a" * 128)
    blob = Descriptor(media_types.OCI_LAYER_GZIP, digest, 1)
    config = layout.config(Digest.of(PLAIN)) if what == "layer" else layout.config()
    config = config._replace(digest=digest) if what == "config" else config
    image = layout.image(config, *([blob] if what == "layer" else []))
    image = image._replace(digest=digest) if what == "manifest" else image
    [entry] = entries(layout.done(image))
    with pytest.raises(SourceError, match=f"names the {what} aaaaaaaaaaaa by sha512") as caught:
        _ = entry.content
    assert caught.value.hint == "make it again with sha256, which every registry takes"


@pytest.mark.parametrize("layers", [None, "absent"])
def test_an_image_without_layers_may_say_so_by_null_or_not_at_all(
    layout: Layout, layers: str | None
) -> None:
    document = {"schemaVersion": 2, "config": layout.config().as_json(), "layers": None}
    if layers == "absent":
        del document["layers"]
    [entry] = entries(
        layout.done(layout.add(json.dumps(document).encode(), media_types.OCI_MANIFEST))
    )
    assert image_of(entry).layers == ()


class Counting(Folder):
    """A folder that notes what is opened in it."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.opened: list[str] = []

    def open(self, path: str) -> Reader:
        self.opened.append(path)
        return super().open(path)


def test_an_artifact_without_a_name_whose_subject_is_here_refers_to_it(layout: Layout) -> None:
    """As oras, and whatever keeps to the image-spec alone, writes it into a layout."""
    image = layout.image(layout.config(), annotations={"org.opencontainers.image.ref.name": "v1"})
    signature = layout.artifact(subject=image)
    of_it = layout.artifact(subject=signature)
    layout.done(image, signature, of_it)
    with closing(OciLayout(Folder(str(layout.folder)))) as source:
        assert [entry.names for entry in source.entries()] == [("v1",)]
        found = source.referrers([image.digest, signature.digest])
        assert [each.listed.digest for each in found] == [signature.digest, of_it.digest]
        assert {each.tag for each in found} == {None}


def test_an_artifact_is_what_is_meant_where_it_has_a_name_or_its_subject_is_elsewhere(
    layout: Layout,
) -> None:
    image = layout.image(layout.config())
    named = layout.artifact(subject=image, name="signature")
    elsewhere = layout.artifact(subject=Descriptor(image.media_type, Digest.of(b""), 1))
    layout.done(image, named, elsewhere)
    with closing(OciLayout(Folder(str(layout.folder)))) as source:
        assert [entry.names for entry in source.entries()] == [(), ("signature",), ()]
        assert source.referrers([image.digest]) == []


def test_an_artifact_is_what_is_meant_where_nothing_else_is_listed(layout: Layout) -> None:
    layout.done(layout.artifact(subject=layout.image(layout.config())))
    with closing(OciLayout(Folder(str(layout.folder)))) as source:
        assert len(source.entries()) == 1


def test_of_many_images_those_alone_are_read_whose_content_is_asked_for(tmp_path: Path) -> None:
    specs = [ImageSpec([{"own": b"%d" % n}], names=[f"app:{n}"]) for n in range(20)]
    made = make_images(tmp_path / "layout", specs, "oci")
    files = Counting(made[0].path)
    with closing(OciLayout(files)) as layout:
        entry = layout.entries()[7]
        assert files.opened == ["index.json"]
        assert image_of(entry).config == made[7].config
        assert len(files.opened) == 3, "the index, a manifest and a config"
