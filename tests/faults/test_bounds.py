"""Answers without end and without bottom: none is read further than it is of use."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.guards import PASSWORD, USER, Tokens
from tests.support.pushing import Client, client_of
from tests.support.scripted import Reply, Scripted
from towline.errors import RegistryError, TowlineError
from towline.registry.auth import token as tokens
from towline.registry.requests.manifests import MANIFEST_READ_MAX
from towline.registry.requests.tags import TAGS_READ_MAX
from towline.spec import media_types
from towline.spec.digest import Digest
from towline.spec.manifest import RawManifest
from towline.wire.message import ANSWER_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.scripted import Asked

DIGEST = Digest.of(b"")
CONFIG = {"mediaType": media_types.OCI_EMPTY, "digest": Digest.of(b"{}"), "size": 2}
MANIFEST = RawManifest(
    json.dumps({"schemaVersion": 2, "config": CONFIG, "layers": []}).encode(),
    media_types.OCI_MANIFEST,
)
JSON = "application/json"


def endless(status: int, limit: int, media_type: str = JSON) -> Reply:
    """Begins a body of a terabyte, says a little more than the limit of it, and hangs up.

    Who reads on finds that it is torn.
    """
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {media_type}\r\nContent-Length: {10**12}\r\n\r\n"
    return Reply(raw=head.encode() + b"x" * (limit + (1 << 18)))


Call = tuple["Callable[[Client], object]", str, str]
CALLS: dict[str, Call] = {
    "a question": (lambda c: c.push(b"x"), "POST", "uploads"),
    "a body": (lambda c: c.push(b"x"), "PATCH", "uploads"),
    "a commit": (lambda c: c.push(b"x"), "PUT", "uploads"),
    "a manifest": (lambda c: c.put("1", MANIFEST.content), "PUT", "manifests"),
    "tags": (lambda c: c.repository.tags(c.context), "GET", "tags"),
    "a tag": (lambda c: c.repository.get_manifest("1", c.context), "GET", "manifests"),
}


@pytest.mark.parametrize("what", CALLS)
def test_a_refusal_without_end_is_the_refusal_that_it_is(
    registry: Scripted, client: Client, what: str
) -> None:
    call, method, pattern = CALLS[what]
    limit = {"tags": TAGS_READ_MAX, "a tag": MANIFEST_READ_MAX}.get(what, ANSWER_MAX)
    registry.on(method, pattern, endless(409, limit), forever=True)
    with pytest.raises(RegistryError, match=r"409 X: xxx") as caught:
        call(client)
    assert len(str(caught.value)) < 600


def test_a_manifest_without_end_is_too_large(registry: Scripted, client: Client) -> None:
    registry.on("GET", "manifests", endless(200, MANIFEST_READ_MAX))
    with pytest.raises(RegistryError, match="larger than"):
        client.repository.get_manifest("1", client.context)


def test_a_list_of_tags_without_end_is_none(registry: Scripted, client: Client) -> None:
    registry.on("GET", "tags", endless(200, TAGS_READ_MAX))
    with pytest.raises(RegistryError):
        client.repository.tags(client.context)


def test_a_token_without_end_is_none(registry: Scripted) -> None:
    Tokens(registry)
    registry._rules.clear()
    registry.on("GET", "^/token", endless(200, tokens.ANSWER_MAX), forever=True)
    with (
        client_of(registry, creds=(USER, PASSWORD)) as client,
        pytest.raises(TowlineError, match="answered without one"),
    ):
        client.push(b"x")


def test_a_list_of_referrers_without_end_is_none(registry: Scripted, client: Client) -> None:
    registry.on("GET", "referrers", endless(200, MANIFEST_READ_MAX, media_types.OCI_INDEX))
    assert client.repository.announce_referrer(MANIFEST, DIGEST, client.context)


@pytest.mark.parametrize("deep", ["[", '{"a":'])
@pytest.mark.parametrize("what", ["tags", "manifests", "referrers", "token"])
def test_json_without_bottom_is_none(registry: Scripted, what: str, deep: str) -> None:
    tokens = Tokens(registry)
    bottomless = Reply(200, {"Content-Type": media_types.OCI_INDEX}, deep * 100_000)
    answer: Reply | Callable[[Asked], Reply] = bottomless if what == "token" else tokens.grant
    registry._rules.clear()
    registry.on("GET", "^/token", answer, forever=True)
    registry.on("GET", f"/{what}/", bottomless, forever=True)
    with client_of(registry) as client:
        asking: dict[str, Callable[[], object]] = {
            "tags": lambda: client.repository.tags(client.context),
            "manifests": lambda: client.repository.announce_referrer(
                MANIFEST, DIGEST, client.context
            ),
            "token": lambda: client.push(b"x"),
        }
        if what == "referrers":
            client.repository.announce_referrer(MANIFEST, DIGEST, client.context)
            assert registry.manifests[f"sha256-{DIGEST.hex}"]
        else:
            with pytest.raises(TowlineError):
                asking[what]()
