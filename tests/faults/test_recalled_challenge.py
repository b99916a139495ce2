"""How a registry asked for tokens in an earlier run: a refusal saved, and no more than a hint."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from towline.context import Context
from towline.reference import RepositoryName
from towline.registry.client import RegistryClient, Settings
from towline.registry.facts import REMEMBERED, challenge_to_recall, recalled_challenge
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from tests.support.scripted import Scripted

DIGEST = Digest.of(b"nothing")


def facts(realm: str, seen: float) -> dict[str, str]:
    return {"realm": realm, "service": "s", "asked": str(int(seen))}


@pytest.mark.parametrize("realm", ["http://127.0.0.1:9/token", "no url at all"])
def test_a_token_service_that_has_gone_is_forgotten_and_the_registry_asked(
    registry: Scripted, realm: str
) -> None:
    settings = Settings(plain_http=True, environ={}, timeout=2.0)
    client = RegistryClient(settings, recall=lambda _: facts(realm, time.time()))
    try:
        repository = client.repository(RepositoryName(registry.host, "app"))
        assert repository.has_blob(DIGEST, Context()) is False
    finally:
        client.close()
    assert [one.header("Authorization") for one in registry.requests("HEAD")] == [None]


def test_only_a_challenge_for_a_token_is_remembered_and_for_a_week() -> None:
    now = time.time()
    kept = facts("https://auth.example/token", now)
    challenge = recalled_challenge(kept, now)
    assert challenge is not None
    assert challenge_to_recall(challenge, now) == kept
    assert recalled_challenge(kept, now + REMEMBERED + 2) is None
    assert recalled_challenge(kept, now - 5) is None
    assert recalled_challenge({}, now) is None
    assert challenge_to_recall(challenge._replace(scheme="basic"), now) == {}
