"""Where a layout of containerd's says that its content has been: mounted from there, if it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import towline
from tests.support.sparse import without
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Place
    from towline.testing.registry import TestRegistry

LAYERS = [{"etc/a": b"a" * 5000}, {"app/b": b"b" * 9000}]


def seen_in(layout: Path, host: str, paths: str) -> None:
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0].setdefault("annotations", {})[
        f"containerd.io/distribution.source.{host}"
    ] = paths
    (layout / "index.json").write_text(json.dumps(index))


def path_of(name: str) -> str:
    return name.partition("/")[2]


def test_what_was_seen_in_a_sister_repository_is_mounted_from_there(
    registry: Place, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "x", LAYERS, format="oci")
    first, second = registry.name("team/base"), registry.name("team/app")
    towline.push(made.path, f"{first}:1")
    # Containerd's label has no port; a stranger's path beside it is of no use, and does no harm.
    seen_in(made.path, first.partition(":")[0], f"no/such,{path_of(first)},{path_of(second)}")
    result = towline.push(made.path, f"{second}:1", cache="none", no_learn=True)
    assert [layer.outcome for layer in result.layers] == ["mounted", "mounted"]
    assert result.sent_bytes == 0
    assert result.layers[0].mounted_from == path_of(first)


@pytest.mark.parametrize("paths", ["", "no/such", "UPPER", "a b", "../x,"])
def test_a_place_that_does_not_have_it_or_is_none_costs_no_more_than_a_question(
    oci_registry: TestRegistry, tmp_path: Path, paths: str
) -> None:
    made = make_image(tmp_path / "x", LAYERS, format="oci")
    name = oci_registry.name("app")
    seen_in(made.path, name.partition(":")[0], paths)
    result = towline.push(made.path, f"{name}:1")
    assert [layer.outcome for layer in result.layers] == ["pushed", "pushed"]


def test_a_layer_that_the_source_lacks_is_not_had_from_others_by_naming_where_it_is(
    registry: Place, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "x", LAYERS, format="oci")
    first, second = registry.name("secret/base"), registry.name("open/app")
    towline.push(made.path, f"{first}:1")
    without(made.path, [made.images[0].layers[0].blob.digest])
    seen_in(made.path, first.partition(":")[0], path_of(first))
    with pytest.raises(towline.SourceError, match="lacks the layer"):
        towline.push(made.path, f"{second}:1", cache="none", no_learn=True)
