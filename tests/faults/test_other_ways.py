"""A host that does not take a body in one way gets it in another: at once, and without a retry."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support.scripted import Reply, complaint, scripted
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.scripted import Asked, Scripted

MiB = 1 << 20


@pytest.fixture
def registry() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture
def image(tmp_path: Path) -> Path:
    layers = [{"noise": os.urandom(2 * MiB)}, {"more": os.urandom(3 * MiB)}, {"a": b"small"}]
    return make_image(tmp_path / "image.tar", layers).path


def push(registry: Scripted, image: Path, **options: Any) -> towline.PushResult:
    """Without a single retry."""
    result: towline.PushResult = towline.push(
        image, f"{registry.host}/team/app:1", retries=0, **options
    )
    blobs = [layer.digest for layer in result.layers]
    assert set(blobs) <= set(registry.blobs)
    return result


def limited(size: int, *answers: Reply) -> Any:
    def limit(asked: Asked) -> Reply | None:
        return answers[0] if len(asked.body) > size else None

    return limit


@pytest.mark.parametrize(
    ("refused", "pattern", "answer"),
    [
        ("PATCH", "/uploads/", Reply(405)),
        ("PATCH", "/uploads/", Reply(501)),
        ("PATCH", "/uploads/", complaint(405, "UNSUPPORTED")),
        ("PUT", "/uploads/.*digest", Reply(405)),
    ],
)
def test_a_shape_that_is_refused_gives_way_to_the_other(
    registry: Scripted, image: Path, refused: str, pattern: str, answer: Reply
) -> None:
    def refuse(asked: Asked) -> Reply | None:
        return answer if asked.body else None

    registry.on(refused, pattern, refuse, forever=True)
    assert push(registry, image).status == "pushed"


def test_a_length_that_is_wanted_is_given(registry: Scripted, image: Path) -> None:
    def want(asked: Asked) -> Reply | None:
        return Reply(411) if asked.header("Transfer-Encoding") else None

    registry.on("PATCH", "/uploads/", want, forever=True)
    assert push(registry, image).status == "pushed"


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("limit", [1 << 18, MiB])
@pytest.mark.parametrize("status", [413, 416])
def test_a_limit_of_a_body_is_found(
    registry: Scripted, image: Path, method: str, limit: int, status: int
) -> None:
    answer = complaint(status, "SIZE_INVALID", "request body is too large")
    for each in ("PATCH", "PUT"):
        registry.on(each, "/uploads/", limited(limit, answer), forever=True)
    events: list[Any] = []
    compression = {"PATCH": "gzip", "PUT": "none"}[method]  # of known digest: one PUT
    result = push(registry, image, compression=compression, on_event=events.append)
    assert result.status == "pushed"
    assert not [event for event in events if "Retrying" in getattr(event, "status", "")]


def test_the_limit_is_remembered_by_the_next_command(registry: Scripted, image: Path) -> None:
    answer = Reply(413)
    for each in ("PATCH", "PUT"):
        registry.on(each, "/uploads/", limited(MiB, answer), forever=True)
    push(registry, image)
    registry.blobs.clear()
    registry.manifests.clear()
    before = len(registry.asked)
    push(registry, image)
    assert max(len(asked.body) for asked in registry.asked[before:]) <= MiB


def test_a_plan_says_what_is_known_of_the_host(registry: Scripted, image: Path) -> None:
    for each in ("PATCH", "PUT"):
        registry.on(each, "/uploads/", limited(MiB, Reply(413)), forever=True)
    name = f"{registry.host}/team/app:1"
    before = towline.plan(image, name)
    assert isinstance(before, towline.PlanResult)
    assert before.warnings == ()
    push(registry, image)
    registry.blobs.clear()
    registry.manifests.clear()
    planned = towline.plan(image, name)
    assert isinstance(planned, towline.PlanResult)
    assert [warning for warning in planned.warnings if "no body of more than about" in warning]


def test_what_no_way_leads_around_is_one_error_with_its_hint(
    registry: Scripted, image: Path
) -> None:
    for each in ("PATCH", "PUT"):
        registry.on(each, "/uploads/", limited(10, Reply(413)), forever=True)
    with pytest.raises(towline.RegistryError, match="413") as caught:
        push(registry, image)
    assert "limits the size of a request" in str(caught.value.hint)
