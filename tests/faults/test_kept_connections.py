"""Kept connections that turn out dead: what has no body goes again, what has one is asked about."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support.guards import Tokens
from tests.support.processes import until
from tests.support.pushing import client_of
from tests.support.scripted import CUT, Asked, Reply, Scripted, scripted
from towline.errors import NetworkError
from towline.spec import media_types
from towline.spec.digest import Digest
from towline.spec.manifest import RawManifest
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.pushing import Client

DATA = os.urandom(100_000)
DIGEST = Digest.of(DATA)
MANIFEST = RawManifest(b'{"schemaVersion":2}', media_types.OCI_MANIFEST)
DEAD = [
    pytest.param(CUT, id="closed"),
    pytest.param(Reply(raw=b"", reset=True), id="reset"),
    pytest.param(Reply(raw=b"", early=0, reset=True), id="reset-early"),
]


@pytest.fixture
def kept(client: Client) -> Client:
    """A client that has kept a connection."""
    client.repository.has_blob(DIGEST, client.context)
    return client


def methods(registry: Scripted) -> list[str]:
    """What was asked after the connection had been kept."""
    return [asked.method for asked in registry.asked[1:]]


def unseen(registry: Scripted, answer: Reply) -> Any:
    """It is carried out, and nobody hears of it."""

    def carried_out(asked: Asked) -> Reply:
        registry.sound(asked)
        return answer

    return carried_out


@pytest.mark.parametrize("dead", DEAD)
def test_what_has_no_body_goes_once_more_on_a_new_connection(
    registry: Scripted, kept: Client, dead: Reply
) -> None:
    registry.on("HEAD", "", dead)
    registry.on("POST", "", dead)
    assert kept.repository.has_blob(DIGEST, kept.context) is False
    assert kept.push(DATA) == 1
    assert methods(registry) == ["HEAD", "HEAD", "POST", "POST", "PATCH", "PUT"]


@pytest.mark.parametrize("dead", DEAD)
def test_what_has_no_body_and_dies_on_a_new_connection_too_is_an_error(
    registry: Scripted, kept: Client, dead: Reply
) -> None:
    registry.on("HEAD", "", dead, forever=True)
    with pytest.raises(NetworkError) as caught:
        kept.repository.has_blob(DIGEST, kept.context)
    assert caught.value.transient
    assert methods(registry) == ["HEAD", "HEAD"]


def test_a_commit_that_was_carried_out_and_goes_once_more_is_a_success(
    registry: Scripted, kept: Client
) -> None:
    registry.on("PUT", "uploads", unseen(registry, CUT))
    assert kept.push(DATA) == 1
    # The session is gone, as the second answer says; the blob is there.
    assert methods(registry) == ["POST", "PATCH", "PUT", "PUT", "HEAD"]


@pytest.mark.parametrize("dead", DEAD[:2])
def test_a_manifest_that_came_through_unseen_is_put_once(
    registry: Scripted, kept: Client, dead: Reply
) -> None:
    registry.on("PUT", "manifests", unseen(registry, dead))
    kept.put("1", MANIFEST.content)
    assert methods(registry) == ["PUT", "HEAD"]


@pytest.mark.parametrize("dead", DEAD)
def test_a_manifest_that_went_into_a_dead_connection_is_looked_for_and_put_again(
    registry: Scripted, kept: Client, dead: Reply
) -> None:
    registry.on("PUT", "manifests", dead)
    kept.put("1", MANIFEST.content)
    assert methods(registry) == ["PUT", "HEAD", "PUT"]
    assert registry.manifests["1"][1] == MANIFEST.content
    again = registry.asked[-1]
    assert again.connection not in {asked.connection for asked in registry.asked[:-1]}


def test_the_tag_is_looked_for_before_a_manifest_is_put_again(
    registry: Scripted, kept: Client
) -> None:
    other = (media_types.OCI_MANIFEST, b'{"schemaVersion":2,"other":1}')
    registry.manifests["1"] = other
    registry.on("PUT", "manifests", CUT)
    kept.put("1", MANIFEST.content)
    assert [asked.target for asked in registry.asked[2:]] == ["/v2/team/app/manifests/1"] * 2
    assert registry.manifests["1"][1] == MANIFEST.content


@pytest.mark.parametrize("dead", DEAD)
def test_a_manifest_that_dies_on_a_new_connection_too_is_an_error(
    registry: Scripted, kept: Client, dead: Reply
) -> None:
    registry.on("PUT", "manifests", dead, forever=True)
    with pytest.raises(NetworkError) as caught:
        kept.put("1", MANIFEST.content)
    assert caught.value.transient
    assert not caught.value.stale
    assert methods(registry) == ["PUT", "HEAD", "PUT", "HEAD"]


@pytest.mark.parametrize(
    "answer", [Reply(500), Reply(raw=b"HTTP/1.1 2"), Reply(raw=b"\x00\r\n\r\n")], ids=str
)
def test_a_manifest_that_was_answered_in_any_way_is_not_put_again_at_once(
    registry: Scripted, kept: Client, answer: Reply
) -> None:
    registry.on("PUT", "manifests", answer)
    with pytest.raises(towline.TowlineError) as caught:
        kept.put("1", MANIFEST.content)
    assert caught.value.transient
    assert methods(registry) == ["PUT", "HEAD"]


def test_a_connection_that_was_closed_while_idle_is_not_used(registry: Scripted) -> None:
    registry.on("HEAD", "blobs", Reply(404, close=True))
    with client_of(registry) as client:
        client.repository.has_blob(DIGEST, client.context)
        until(lambda: registry._connections[0].fileno() < 0)  # its end has arrived
        client.put("1", MANIFEST.content)
    assert [asked.connection for asked in registry.asked] == [0, 1]


def test_a_chunk_is_never_sent_again_without_asking_the_session(registry: Scripted) -> None:
    registry.on("PATCH", "", CUT)
    with client_of(registry, chunk_size=64 << 10) as client:
        assert client.push(DATA) == 1
    asked = [one.method for one in registry.asked]
    assert asked == ["POST", "PATCH", "GET", "PATCH", "PATCH", "PUT"]


def test_a_refresh_token_is_never_sent_again_by_itself(registry: Scripted) -> None:
    tokens = Tokens(registry)
    entry = {"identitytoken": "refresh-me"}
    environ = {"DOCKER_AUTH_CONFIG": json.dumps({"auths": {registry.host: entry}})}
    with client_of(registry, environ=environ) as client:
        registry._rules.clear()
        registry.on("POST", "^/token", CUT, tokens.grant, forever=True)
        with pytest.raises(NetworkError):
            client.repository.has_blob(DIGEST, client.context)
        assert len(tokens.asked) == 1
        assert client.push(DATA) == 1


@pytest.mark.parametrize("carried_out", [True, False])
def test_a_push_without_retries_outlives_a_registry_that_closes_what_it_has_answered_on(
    registry: Scripted, tmp_path: Path, *, carried_out: bool
) -> None:
    def closing(asked: Asked) -> Reply | None:
        used = [one for one in registry.asked[:-1] if one.connection == asked.connection]
        if not used:
            return None
        if carried_out:
            registry.sound(asked)
        return CUT

    registry.on("PUT", "manifests", closing, forever=True)
    registry.on("HEAD", "", closing, forever=True)
    made = make_image(tmp_path / "image.tar", [{"a": b"a"}])
    events: list[Any] = []
    with towline.Pusher(cache="none", retries=0, on_event=events.append) as pusher:
        result = pusher.push(made.path, f"{registry.host}/team/app:1")
    assert Digest.of(registry.manifests["1"][1]) == result.digest
    assert not [event for event in events if "Retrying" in str(event)]
    assert len(registry.requests("PUT", "manifests")) == (1 if carried_out else 2)


def test_a_registry_that_ends_every_connection_after_one_answer_is_asked_on_new_ones(
    registry: Scripted,
) -> None:
    def used(asked: Asked) -> Reply | None:
        before = [one for one in registry.asked if one.connection == asked.connection]
        return Reply(raw=b"", early=0, reset=True) if before else None

    registry.guard = used
    with client_of(registry) as client:
        client.push(DATA)
        tried = len(registry.asked)
        assert client.push(os.urandom(100_000)) == 1
    assert len(registry.asked) == tried + 3, "none is kept any more"


def test_a_registry_that_once_ended_some_connections_has_others_kept(registry: Scripted) -> None:
    with client_of(registry) as client:
        for _ in range(5):
            client.repository.has_blob(DIGEST, client.context)
            registry.on("HEAD", "", CUT)
            client.repository.has_blob(DIGEST, client.context)
            client.repository.has_blob(DIGEST, client.context)
    assert len({asked.connection for asked in registry.asked}) == 6


def sockets() -> int:
    paths = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))  # noqa: PTH208
    found = [os.readlink(path) for path in paths if os.path.lexists(path)]  # noqa: PTH115
    return sum(each.startswith("socket:") for each in found)


def test_connections_to_hosts_that_are_gone_do_not_stay(tmp_path: Path) -> None:
    image = make_image(tmp_path / "image.tar", [{"f": b"hello"}]).path
    with towline.Pusher(cache="none") as pusher:
        before = sockets()
        for _ in range(8):
            with scripted() as registry:
                pusher.push(image, f"{registry.host}/app:1")
        kept = sockets() - before
    assert kept < 8
