"""What refers to an image is pushed so that it is found from there, also where no API lists it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import towline
from tests.support import readback
from tests.support.subjects import signature
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Place


def listed(registry: Place, subject: str) -> list[str]:
    """What the registry lists, by its API or by the tag that stands in for it."""
    path = registry.path("app")
    try:
        body, _ = readback.fetch(f"{registry.url}/v2/{path}/referrers/{subject}")
    except OSError:
        tag = subject.replace(":", "-")
        body, _ = readback.fetch(f"{registry.url}/v2/{path}/manifests/{tag}")
    return [str(entry["digest"]) for entry in json.loads(body)["manifests"]]


def test_an_artifact_is_in_ocis_format_alone(registry: Place, tmp_path: Path) -> None:
    signature(tmp_path / "artifact", f"sha256:{'1' * 64}", 1)
    with pytest.raises(towline.UsageError, match="is an artifact, which has no other form"):
        towline.push(tmp_path / "artifact", registry.name("app"), format="docker")
    assert {method for method, _ in registry.requests()} <= {"GET", "HEAD"}


def test_an_artifact_is_listed_under_its_subject(registry: Place, tmp_path: Path) -> None:
    image = make_image(tmp_path / "image", format="oci")
    name = registry.name("app")
    pushed = towline.push(image.path, f"{name}:1")
    digest = signature(tmp_path / "signature", pushed.digest, pushed.size)
    result = towline.push(tmp_path / "signature", f"{name}:1.sig")
    assert result.digest == digest
    assert listed(registry, pushed.digest) == [digest]
    other = signature(tmp_path / "again", pushed.digest, pushed.size + 1)
    towline.push(tmp_path / "again", f"{name}:1.again")
    assert sorted(listed(registry, pushed.digest)) == sorted([digest, other])
