"""Which pairs of DiffID and blob a manifest and its config teach: all that fit, or none."""

from __future__ import annotations

import pytest

from towline.push.learning import fitting
from towline.spec import media_types
from towline.spec.descriptor import Descriptor, Platform
from towline.spec.digest import Digest
from towline.spec.manifest import ImageConfig, Manifest


def digest(letter: str) -> Digest:
    return Digest("sha256:" + letter * 64)


LAYERS = tuple(Descriptor(media_types.OCI_LAYER_GZIP, digest(letter), 5) for letter in "ab")
MANIFEST = Manifest(
    media_types.OCI_MANIFEST, Descriptor(media_types.OCI_CONFIG, digest("c"), 2), LAYERS
)
CONFIG = ImageConfig((digest("1"), digest("2")), Platform("linux", "amd64"), (True, False, True))


def test_layers_and_diff_ids_are_paired_in_their_order() -> None:
    assert fitting(MANIFEST, CONFIG) == [(digest("1"), LAYERS[0]), (digest("2"), LAYERS[1])]


def test_an_image_without_history_is_paired_too() -> None:
    assert len(fitting(MANIFEST, CONFIG._replace(filled=()))) == 2


@pytest.mark.parametrize(
    "config",
    [
        CONFIG._replace(diff_ids=CONFIG.diff_ids[:1]),
        CONFIG._replace(diff_ids=(*CONFIG.diff_ids, digest("3"))),
        CONFIG._replace(filled=(True, True, True)),
        CONFIG._replace(filled=(True,)),
    ],
)
def test_one_count_that_differs_makes_all_pairs_doubtful(config: ImageConfig) -> None:
    assert fitting(MANIFEST, config) == []


def test_a_layer_of_an_unknown_type_makes_all_pairs_doubtful() -> None:
    odd = LAYERS[1]._replace(media_type="application/x-anything")
    assert fitting(MANIFEST._replace(layers=(LAYERS[0], odd)), CONFIG) == []
