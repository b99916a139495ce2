"""Whole pushes to registries that cannot do what others can: they end well, and cost little."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import towline
from tests.support.scripted import Asked, Reply, Scripted
from towline.spec import media_types
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

VERBLESS = [Reply(400, {"Content-Type": "text/html"}, "<html>invalid verb</html>"), Reply(501)]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_image(tmp_path / "image.tar", [{"one": b"1" * 5000}, {"two": b"2" * 5000}]).path


def test_where_nothing_is_ever_mounted_a_refused_mount_does_not_make_the_origin_send_again(
    registry: Scripted, image: Path, tmp_path: Path
) -> None:
    cache = str(tmp_path / "cache.db")
    for name in ("app:1", "other:2"):  # its answer to the wish to mount is a session to send
        towline.push(image, f"{registry.host}/team/{name}", cache=cache)
    assert registry.requests("POST", "from=team/app")
    again = towline.push(image, f"{registry.host}/team/app:3", cache=cache)
    assert again.sent_bytes == 0
    assert {layer.outcome for layer in again.layers} == {"exists"}


def test_a_verification_reads_what_a_head_calls_something_else(
    registry: Scripted, image: Path
) -> None:
    false = {
        "Docker-Content-Digest": f"sha256:{'0' * 64}",
        "Content-Type": media_types.DOCKER_MANIFEST,
        "Content-Length": "600",
    }
    registry.on("HEAD", "/manifests/", Reply(200, false), forever=True)
    name = f"{registry.host}/team/app:1"
    result = towline.push(image, name, cache="none", verify="head")
    assert result.digest in registry.manifests


@pytest.mark.parametrize("refusal", [*VERBLESS, Reply(405)], ids=lambda reply: reply.status)
class TestNoHead:
    """A HEAD of a blob is refused by a rule before the registry."""

    def test_the_verification_asks_by_get(
        self, registry: Scripted, image: Path, refusal: Reply
    ) -> None:
        registry.on("HEAD", "/blobs/", refusal, forever=True)
        result = towline.push(image, f"{registry.host}/team/app:1", cache="none", verify="head")
        assert {layer.outcome for layer in result.layers} == {"pushed"}
        assert len(registry.requests("GET", "/blobs/sha256")) == len(result.layers) + 1

    def test_and_says_of_what_is_not_there_that_it_is_missing(
        self, registry: Scripted, image: Path, refusal: Reply
    ) -> None:
        def lost(asked: Asked) -> None:
            registry.blobs.pop(asked.path.rpartition("/")[2], None)

        registry.on("HEAD", "/blobs/", refusal, forever=True)
        registry.on("GET", "/blobs/sha256", lost, forever=True)
        with pytest.raises(towline.RegistryError, match=r"blob sha256:\w+ is missing"):
            towline.push(image, f"{registry.host}/team/app:1", cache="none", verify="head")
