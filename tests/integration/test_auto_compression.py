"""`--compression auto`, from the rate of a link to what lies at the registry."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support import readback
from towline.server import Server
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MiB = 1 << 20
WORDS = [Random(n).randbytes(5) for n in range(2000)]  # noqa: S311 - no secret


def text(seed: int, size: int) -> bytes:
    random = Random(seed)  # noqa: S311 - no secret
    return b" ".join(random.choices(WORDS, k=size // 6))


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def push(path: Path, place: str, **options: Any) -> towline.PushResult:
    result = towline.push(path, place, **options)
    assert isinstance(result, towline.PushResult)
    return result


@pytest.mark.parametrize(("form", "profile"), [("docker", "gzip:best"), ("oci", "zstd:9")])
def test_a_slow_host_gets_small_layers_and_another_the_same_ones(
    server: Server,
    tmp_path: Path,
    form: str,
    profile: str,
) -> None:
    cache = tmp_path / "cache"
    noise = make_image(tmp_path / "noise.tar", [{"noise": Random(1).randbytes(9 * MiB)}])  # noqa: S311 - no secret
    push(noise.path, f"{server.host}/noise:1", cache=cache, limit_rate="8M")
    made = make_image(tmp_path / "image.tar", [{"a": text(1, 3 * MiB)}, {"b": text(2, MiB // 2)}])
    options = {"cache": cache, "compression": "auto", "format": form}
    first = push(made.path, f"{server.host}/app:1", **options)
    assert [layer.compression for layer in first.layers] == [profile, profile]
    assert readback.image(server.url, "app", "1").digest == first.digest
    with Server() as other:
        second = push(made.path, f"{other.host}/app:1", **options)
    assert second.digest == first.digest
    again = push(made.path, f"{server.host}/app:2", **options)
    assert {layer.outcome for layer in again.layers} == {"exists"}


def test_where_no_rate_is_known_a_small_image_is_gzip(server: Server, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", [{"a": text(1, MiB)}])
    result = push(made.path, f"{server.host}/app:1", cache="none", compression="auto")
    assert result.digest == push(made.path, f"{server.host}/b:1", cache="none").digest
    assert result.digest == towline.digest(made.path, compression="auto")
    assert [layer.compression for layer in result.layers] == ["gzip"]


def test_layers_that_came_compressed_go_as_they_are(server: Server, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image", [{"a": text(1, MiB)}], format="oci")
    result = push(made.path, f"{server.host}/app:1", cache="none", compression="auto")
    assert [layer.compression for layer in result.layers] == ["source"]
    assert result.digest_differs is None


def test_a_push_that_the_link_has_bounded_says_so_once(server: Server, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", [{"a": text(1, 20 * MiB)}])
    notes: list[str] = []

    def hear(event: towline.Event) -> None:
        if isinstance(event, towline.Note):
            notes.append(event.message)

    with towline.Pusher(cache="none", limit_rate="1200K", on_event=hear) as pusher:
        pusher.push(made.path, f"{server.host}/app:1")
    (note,) = notes
    assert "`auto` would have sent about" in note
