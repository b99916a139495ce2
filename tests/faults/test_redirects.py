"""Redirects: reads go where they are sent, writes only to another path of the same host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

import towline
from tests.support.pushing import Client, client_of
from tests.support.quick import quick
from tests.support.scripted import Asked, Reply, Scripted, scripted
from towline.errors import RegistryError
from towline.spec.digest import Digest
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DATA = os.urandom(300_000)
DIGEST = Digest.of(DATA)


def moved(registry: Scripted, method: str, pattern: str, status: int) -> None:
    """Have each such request sent on to the same target with a parameter more."""

    def sent_on(asked: Asked) -> Reply | None:
        if "moved" in asked.query:
            return None
        return Reply(status, {"Location": f"{asked.path}?moved&to=a%2F&{asked.query}"})

    registry.on(method, pattern, sent_on, forever=True)


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize(
    ("method", "pattern"), [("POST", "uploads"), ("PUT", "uploads"), ("PUT", "manifests")]
)
def test_a_write_is_made_again_at_another_path_of_the_same_host(
    registry: Scripted, client: Client, method: str, pattern: str, status: int
) -> None:
    moved(registry, method, pattern, status)
    assert client.push(DATA) == 1
    manifest = client.put()
    assert registry.blobs[DIGEST] == DATA
    assert registry.manifests["1"][1] == manifest.content
    first, again = registry.requests(method, pattern)
    assert again.query == f"moved&to=a%2F&{first.query}"
    assert (again.body, again.headers) == (first.body, first.headers)


def test_chunks_are_sent_again_at_another_path_of_the_same_host(registry: Scripted) -> None:
    moved(registry, "PATCH", "uploads", 307)
    with client_of(registry, chunk_size=100_000) as client:
        assert client.push(DATA) == 1
    assert registry.blobs[DIGEST] == DATA


WRITES: dict[str, Callable[[Client], object]] = {
    "POST": lambda client: client.push(DATA),
    "PATCH": lambda client: client.push(DATA),
    "PUT": lambda client: client.push(DATA, known=True),
}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", WRITES)
def test_a_write_that_is_sent_to_another_host_is_an_error_that_names_it(
    registry: Scripted, client: Client, method: str, status: int
) -> None:
    with scripted() as other:
        location = {"Location": f"{other.url}/v2/x?secret=1"}
        registry.on(method, "uploads", Reply(status, location), forever=True)
        with pytest.raises(RegistryError, match=f"{status}.*sends on to {other.url}/v2/x ") as e:
            WRITES[method](client)
        assert other.asked == []
    assert other.host in str(e.value.hint)
    assert "secret" not in str(e.value)
    # From what has proved to be a registry it may be a hiccup, but not for ever.
    assert len(registry.requests(method)) <= 5


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_write_that_is_sent_on_as_a_read_is_not_followed(
    registry: Scripted, client: Client, status: int
) -> None:
    registry.on("POST", "uploads", Reply(status, {"Location": "/v2/elsewhere/"}), forever=True)
    with pytest.raises(RegistryError, match=f"{status}.*sends on to {registry.url}/v2/elsewhere/"):
        client.push(DATA)
    assert [asked.method for asked in registry.asked] == ["POST"]


def test_a_proxy_that_wants_https_is_told_of_with_what_to_leave_out(
    registry: Scripted, client: Client
) -> None:
    location = {"Location": f"https://{registry.host}/v2/"}
    registry.on("POST", "uploads", Reply(301, location), forever=True)
    with pytest.raises(RegistryError) as caught:
        client.push(DATA)
    assert "leave out --plain-http" in str(caught.value.hint)


def test_a_write_that_is_sent_round_in_circles_is_given_up(
    registry: Scripted, client: Client
) -> None:
    registry.on("POST", "uploads", Reply(307, {"Location": "/v2/again"}), forever=True)
    registry.on("POST", "again", Reply(307, {"Location": "/v2/again"}), forever=True)
    with pytest.raises(RegistryError, match="redirects in circles"):
        client.push(DATA)
    assert len(registry.asked) <= 10


@pytest.mark.parametrize(
    ("answer", "there"),
    [
        (Reply(200), True),
        (Reply(403), True),
        (Reply(405), True),
        (Reply(404), False),
        (Reply(410), False),
    ],
    ids=str,
)
def test_a_verification_asks_the_storage_that_a_registry_sends_on_to(
    registry: Scripted, client: Client, answer: Reply, *, there: bool
) -> None:
    with scripted() as storage:
        storage.on("HEAD", "/bucket", answer, forever=True)
        sent_on = Reply(307, {"Location": f"{storage.url}/bucket?signed"})
        registry.on("HEAD", "blobs", sent_on, forever=True)
        assert client.repository.has_blob(DIGEST, client.context) is True
        assert storage.asked == [], "the registry's word is enough, but for a verification"
        found = client.repository.has_blob(DIGEST, client.context, in_storage=True)
        assert found is there
        assert [asked.method for asked in storage.asked] == ["HEAD"]


def test_a_blob_that_the_storage_has_lost_fails_the_verification(
    registry: Scripted, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", [{"a": b"a"}])
    sent_on = Reply(307, {"Location": "/storage/lost"})
    with towline.Pusher(cache="none") as pusher:
        quick(pusher).push(made.path, f"{registry.host}/app:1", verify="head")
        registry.on("HEAD", "blobs", sent_on, forever=True)
        registry.on("HEAD", "storage", Reply(404), forever=True)
        with pytest.raises(RegistryError, match=r"blob sha256:\w+ is missing"):
            pusher.push(made.path, f"{registry.host}/app:2", verify="head")
