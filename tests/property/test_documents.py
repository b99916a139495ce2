"""Documents that others wrote are read, or refused with a reason: never a surprise."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from towline.spec import manifest

KEYS = [
    "annotations",
    "architecture",
    "artifactType",
    "config",
    "diff_ids",
    "digest",
    "empty_layer",
    "history",
    "layers",
    "manifests",
    "mediaType",
    "os",
    "os.features",
    "platform",
    "rootfs",
    "size",
    "subject",
    "urls",
    "variant",
]
DIGEST = "sha256:" + "0" * 64
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)
    ),
    max_leaves=20,
)
DESCRIPTORS = st.fixed_dictionaries(
    {"digest": st.just(DIGEST), "size": st.just(1)},
    optional=dict.fromkeys(
        ("urls", "annotations", "platform", "mediaType", "artifactType"), VALUES
    ),
)


@given(
    st.one_of(
        VALUES,
        st.fixed_dictionaries(
            {"config": DESCRIPTORS, "layers": st.lists(DESCRIPTORS, max_size=2)},
            optional={"annotations": VALUES, "subject": VALUES, "mediaType": VALUES},
        ),
        st.fixed_dictionaries(
            {"manifests": st.lists(DESCRIPTORS, max_size=2)}, optional={"annotations": VALUES}
        ),
    )
)
def test_any_json_is_a_manifest_or_refused(document: Any) -> None:
    with contextlib.suppress(ValueError):
        hash(manifest.parse(json.dumps(document).encode()))


@given(
    st.one_of(
        VALUES,
        st.fixed_dictionaries(
            {"rootfs": st.fixed_dictionaries({"diff_ids": VALUES})},
            optional={"history": VALUES, "os": VALUES, "variant": VALUES, "os.features": VALUES},
        ),
    )
)
def test_any_json_is_a_config_or_refused(document: Any) -> None:
    with contextlib.suppress(ValueError):
        hash(manifest.parse_config(json.dumps(document).encode()))


@given(st.binary(max_size=200))
def test_any_bytes_are_no_manifest_with_a_reason(content: bytes) -> None:
    for parse in (manifest.parse, manifest.parse_config):
        with contextlib.suppress(ValueError):
            parse(content)
