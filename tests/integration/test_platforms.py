"""Which platforms of an index are pushed, from any source, and what stands beside them."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support import readback
from tests.unit.sources.test_oci_layout import Layout
from towline.cli.main import main
from towline.spec import manifest, media_types
from towline.spec.descriptor import Platform
from towline.spec.digest import Digest
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Place
    from towline.testing.image_formats import Form

ALL = ["linux/amd64", "linux/arm64", "linux/s390x"]
FORMS: list[Form] = ["docker", "docker-containerd", "oci", "oci-archive"]


@pytest.mark.parametrize("form", FORMS)
def test_one_platform_goes_by_itself_and_several_as_an_index_of_them(
    registry: Place, tmp_path: Path, form: Form
) -> None:
    made = make_image(tmp_path / "x", platforms=ALL, format=form, attestations=True)
    one = towline.push(made.path, registry.name("app") + ":1", platform="linux/arm64")
    image = readback.image(registry.url, registry.path("app"), "1")
    differs = "recompressed" if form == "docker" else "platforms"
    assert (image.digest, one.digest_differs) == (one.digest, differs)
    assert json.loads(image.config_bytes)["architecture"] == "arm64"

    two = towline.push(made.path, registry.name("app") + ":2", platform=ALL[:2])
    assert two.digest_differs == differs
    assert [child.platform for child in two.manifests] == [
        "linux/amd64",
        "unknown/unknown",
        "linux/arm64",
        "unknown/unknown",
    ]
    assert readback.read(registry.url, registry.path("app"), "2").digest == two.digest
    if form != "docker":
        digests = {each.manifest.digest for each in made.images}
        assert {child.digest for child in two.manifests if child.platform in ALL} <= digests

    bare = towline.push(
        made.path, registry.name("app") + ":3", platform=ALL[:2], attestations="drop"
    )
    assert [child.platform for child in bare.manifests] == ALL[:2]


def test_the_command_takes_platforms_and_names_those_that_there_are(
    registry: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_image(tmp_path / "x.tar", platforms=ALL)
    name = registry.name("app") + ":1"
    words = ["push", str(made.path), name, "--platform", "linux/amd64", "--attestations", "drop"]
    assert main(words) == 0
    pushed = capsys.readouterr().out
    assert main(["digest", str(made.path), "--platform", "linux/amd64"]) == 0
    assert capsys.readouterr().out.strip() == pushed.strip().partition("@")[2]
    assert main([*words, "--platform", "linux/mips64le"]) == 3
    captured = capsys.readouterr()
    assert "has no linux/mips64le; it holds linux/amd64, linux/arm64, linux/s390x" in captured.err
    assert main(["push", str(made.path), name, "--platform", "arm64"]) == 2


def test_a_tag_without_the_platform_does_not_keep_the_others(
    registry: Place, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "x")
    named: Any = "org.opencontainers.image.ref.name"
    both = [
        layout.image(layout.config(Digest.of(each)), layer(layout, each), annotations={named: tag})
        for tag, each in (("a", b"a"), ("b", b"b"))
    ]
    index = manifest.build_index(
        "oci", [layout.image(layout.config(), platform=Platform("linux", "amd64"))]
    )
    other = layout.add(index.content, index.media_type, annotations={named: "c"})
    layout.done(*both, other)
    with pytest.raises(towline.PartialFailure) as caught:
        towline.push(layout.folder, registry.name("app"), all_tags=True, platform="linux/arm64")
    [error] = caught.value.exceptions
    assert "has no linux/arm64; it holds linux/amd64" in str(error)
    tags = [getattr(result, "tag", None) for result in caught.value.results]
    assert tags == ["a", "b", None]


def layer(layout: Layout, content: bytes) -> Any:
    return layout.add(gzip.compress(content, mtime=0), media_types.OCI_LAYER_GZIP)


def test_indexes_in_an_index_are_pushed_children_first(registry: Place, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "x")
    leaves = [
        layout.image(layout.config(), platform=Platform("linux", "amd64")),
        layout.image(layout.config(Digest.of(b"x")), layer(layout, b"x")),
    ]
    inner = manifest.build_index("oci", leaves)
    outer = manifest.build_index("oci", [layout.add(inner.content, inner.media_type), leaves[1]])
    layout.done(layout.add(outer.content, outer.media_type))
    result = towline.push(layout.folder, registry.name("app") + ":1")
    assert (result.digest, result.digest_differs) == (outer.digest, None)
    assert [child.digest for child in result.manifests] == [inner.digest, leaves[1].digest]
    assert len(result.layers) == 1
    puts = [path.rpartition("/")[2] for method, path in registry.requests() if method == "PUT"]
    order = [each for each in puts if each in {inner.digest, leaves[0].digest, "1"}]
    assert order == [leaves[0].digest, inner.digest, "1"]
    again = towline.push(layout.folder, registry.name("other") + ":1", verify="full")
    assert again.digest == outer.digest
