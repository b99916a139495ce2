"""A small blob in the request that else opens a session, and registries that do not take it so."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

import towline
from tests.support.pushing import client_of
from tests.support.scripted import CUT, HANG, HTML, Reply, complaint
from towline.registry.capabilities import HostFacts
from towline.registry.upload.upload import Upload
from towline.spec.digest import Digest
from towline.testing import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.pushing import Client
    from tests.support.scripted import Asked, Scripted

SMALL = b"a small blob"
OTHERS = [f"small blob {n}".encode() for n in range(3)]
LARGER = b"x" * (64 << 10) + b"y"
KEPT = {"Docker-Content-Digest": str(Digest.of(SMALL))}


@pytest.fixture
def client(client: Client, registry: Scripted) -> Client:
    """Of a registry that has been met."""
    client.repository.has_blob(Digest.of(b"nothing"), client.context)
    registry.asked.clear()
    return client


def takes(registry: Scripted) -> None:
    """Have it keep what comes so, and say it as zot does: by the location alone."""

    def keep(asked: Asked) -> Reply:
        digest = asked.query.removeprefix("digest=")
        assert asked.header("Content-Type") == "application/octet-stream"
        assert asked.header("Content-Length") == str(len(asked.body))
        assert Digest.of(asked.body) == digest
        registry.blobs[digest] = asked.body
        return Reply(201, {"Location": f"/v2/team/app/blobs/{digest}"})

    registry.on("POST", r"uploads/\?digest=", keep, forever=True)


def methods(registry: Scripted) -> str:
    return " ".join(asked.method for asked in registry.asked)


def sent(client: Client) -> int:
    return client.context.meter.sent_bytes


def test_it_takes_one_request(registry: Scripted, client: Client) -> None:
    takes(registry)
    assert client.push(SMALL, known=True) == 1
    assert (methods(registry), registry.blobs[Digest.of(SMALL)]) == ("POST", SMALL)
    assert sent(client) == len(SMALL)


def test_where_it_opens_a_session_the_blob_goes_on_there_and_no_other_is_tried(
    registry: Scripted, client: Client
) -> None:
    for data in (SMALL, *OTHERS):
        assert client.push(data, known=True) == 1
        assert registry.blobs[Digest.of(data)] == data
    assert methods(registry) == "POST PUT" + 3 * " POST PUT"
    assert len(registry.requests("POST", "digest=")) == 1
    assert sent(client) == 2 * len(SMALL) + sum(map(len, OTHERS))


def test_a_larger_one_is_not_tried_but_goes_so_where_others_went(
    registry: Scripted, client: Client
) -> None:
    takes(registry)
    for data in (LARGER, SMALL, LARGER[1:], b"z" * (1 << 20), b"z" * (1 << 20) + b"!"):
        assert client.push(data, known=True) == 1
    assert methods(registry) == "POST PUT POST POST POST POST PUT"


def test_nothing_is_sent_so_to_what_has_not_spoken_as_a_registry(registry: Scripted) -> None:
    takes(registry)
    with client_of(registry) as client:
        client.push(SMALL, known=True)
    assert methods(registry) == "POST PUT"


def test_what_a_user_wants_in_smaller_bodies_goes_in_a_session(
    registry: Scripted, client: Client
) -> None:
    takes(registry)
    client.repository.chunk_size = len(SMALL) - 1
    client.push(SMALL, known=True)
    assert methods(registry) == "POST PATCH PATCH PUT"


CLEAR = {
    **{str(status): Reply(status) for status in (400, 403, 404, 405, 411, 413, 415, 501)},
    "another digest": complaint(400, "DIGEST_INVALID"),
}
CHANCE = {
    **{str(status): Reply(status) for status in (200, 201, 204, 302, 408, 500, 502, 504)},
    **{str(status): Reply(status, {"Retry-After": "0"}) for status in (429, 503)},
    "a full disk": complaint(500, "UNKNOWN", "no space left on device"),
    "a page": HTML,
    "a cut": CUT,
}
REFUSALS = {
    **CLEAR,
    **CHANCE,
    "a session by 201": Reply(201, {"Location": "/v2/team/app/blobs/uploads/gone"}),
    "early": Reply(405, early=1, reset=True),
}


@pytest.mark.parametrize("answer", REFUSALS.values(), ids=REFUSALS)
def test_who_takes_none_is_asked_once_and_gets_every_blob_in_a_session(
    registry: Scripted, client: Client, answer: Reply
) -> None:
    registry.on("POST", r"uploads/\?digest=", answer, forever=True)
    for data in (SMALL, *OTHERS):
        assert client.push(data, known=True) <= 2
        assert registry.blobs[Digest.of(data)] == data
    assert len(registry.requests("POST", "digest=")) == 1


def tries_again(registry: Scripted, folder: Path) -> bool:
    """Push an image, then another by another process; whether that one tries single POSTs."""
    for number in range(2):
        registry.asked.clear()
        made = make_image(folder / f"{number}.tar", [{"a": bytes([number])}])
        name, cache = f"{registry.host}/team/app:{number}", folder / "knowledge.sqlite"
        assert towline.push(made.path, name, cache=cache).status == "pushed"
    return len(registry.requests("POST", "digest=")) == 1


@pytest.mark.parametrize("answer", CHANCE.values(), ids=CHANCE)
def test_a_failure_of_the_very_first_one_says_nothing_to_later_pushes(
    registry: Scripted, tmp_path: Path, answer: Reply
) -> None:
    registry.on("POST", r"uploads/\?digest=", answer)
    assert tries_again(registry, tmp_path)


@pytest.mark.parametrize("answer", [None, *CLEAR.values()], ids=["a session", *CLEAR])
def test_a_session_or_a_clear_refusal_does(
    registry: Scripted, tmp_path: Path, answer: Reply | None
) -> None:
    registry.on("POST", r"uploads/\?digest=", *([answer] if answer else []))
    assert not tries_again(registry, tmp_path)


def test_a_refusal_of_a_repository_says_nothing_of_others(
    registry: Scripted, tmp_path: Path
) -> None:
    registry.on("POST", "", complaint(403, "DENIED"), forever=True)
    made, cache = make_image(tmp_path / "image.tar"), tmp_path / "knowledge.sqlite"
    with pytest.raises(towline.AuthError, match="DENIED"):
        towline.push(made.path, f"{registry.host}/others/app:1", cache=cache)
    assert registry.requests("POST", "digest=")
    registry.forget("POST")
    takes(registry)
    registry.asked.clear()
    towline.push(made.path, f"{registry.host}/team/app:1", cache=cache)
    assert registry.requests("POST", "digest=")


def test_who_never_answers_it_gets_every_blob_in_a_session(registry: Scripted) -> None:
    registry.on("POST", r"uploads/\?digest=", HANG, forever=True)
    with client_of(registry, timeout=0.5, answer_timeouts=(0.5, 0.5)) as client:
        client.repository.has_blob(Digest.of(b"nothing"), client.context)
        for data in (SMALL, *OTHERS):
            assert client.push(data, known=True) == 1
    assert len(registry.requests("POST", "digest=")) == 1


def test_a_session_that_a_registry_says_201_of_is_used(registry: Scripted, client: Client) -> None:
    def opened(asked: Asked) -> Reply:
        return Reply(201, registry.sound(asked).headers)

    registry.on("POST", r"uploads/\?digest=", opened)
    assert client.push(SMALL, known=True) == 1
    assert methods(registry) == "POST PUT"


@pytest.mark.parametrize("status", [429, 503])
def test_a_registry_that_is_busy_is_not_asked_again_at_once(
    registry: Scripted, client: Client, status: int
) -> None:
    registry.on("POST", r"uploads/\?digest=", Reply(status, {"Retry-After": "0"}), forever=True)
    assert client.push(SMALL, known=True) == 2
    assert methods(registry).startswith("POST HEAD")
    assert methods(registry).endswith("HEAD POST PUT")


@pytest.mark.parametrize("failure", [Reply(500), CUT])
def test_a_failure_of_who_has_taken_others_is_chance(
    registry: Scripted, client: Client, failure: Reply
) -> None:
    takes(registry)
    client.push(SMALL, known=True)
    registry.forget("POST")
    registry.on("POST", r"uploads/\?digest=", failure)
    takes(registry)
    registry.asked.clear()
    for data in OTHERS:
        assert client.push(data, known=True) == 1
    assert methods(registry) == "POST POST PUT POST POST"


def test_a_201_that_names_another_blob_is_asked_after(registry: Scripted, client: Client) -> None:
    other = {"Docker-Content-Digest": str(Digest.of(b"other"))}
    registry.on("POST", r"uploads/\?digest=", Reply(201, other))
    assert client.push(SMALL, known=True) == 2
    assert methods(registry) == "POST HEAD HEAD POST PUT"
    assert registry.blobs[Digest.of(SMALL)] == SMALL


@pytest.mark.parametrize("remembered", ["1", "0"])
def test_what_was_learned_is_remembered(registry: Scripted, remembered: str) -> None:
    takes(registry)
    facts = {**HostFacts().to_recall(time.time()), "posts": remembered}
    with client_of(registry, recall=lambda _host: facts) as client:
        client.repository.has_blob(Digest.of(b"nothing"), client.context)
        client.push(LARGER, known=True)
    assert methods(registry) == ("HEAD POST" if remembered == "1" else "HEAD POST PUT")


def test_a_blob_that_a_mount_has_opened_a_session_for_goes_there(
    registry: Scripted, client: Client
) -> None:
    takes(registry)
    origin = client.repo("other").name
    upload = client.repository.mount(Digest.of(SMALL), origin, client.context)
    assert isinstance(upload, Upload)
    upload.write(SMALL)
    upload.commit(Digest.of(SMALL))
    assert methods(registry) == "POST PATCH PUT"
