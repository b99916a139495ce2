"""What an earlier run was told of a host: never where a password goes, whoever said so."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support.certificates import make_authority
from tests.support.guards import PASSWORD, USER, Tokens, basic
from tests.support.pushing import client_of
from tests.support.scripted import Reply, Scripted, complaint, scripted
from towline.errors import TowlineError
from towline.spec import manifest as manifests
from towline.spec import media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest
from towline.testing import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.certificates import Authority
    from tests.support.scripted import Asked

DIGEST = Digest.of(b"nothing")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path)


@pytest.fixture
def place(authority: Authority) -> Iterator[Scripted]:
    """A registry, or whoever is in between."""
    with scripted(authority.issue()) as server:
        yield server


@pytest.fixture
def thief(authority: Authority) -> Iterator[Scripted]:
    """Gives tokens to all; its certificate is as good as the registry's."""
    with scripted(authority.issue()) as server:
        token = Reply(200, {"Content-Type": "application/json"}, json.dumps({"token": "of-nobody"}))
        server.on("GET", "", token, forever=True)
        server.on("POST", "", token, forever=True)
        yield server


def wants_password(asked: Asked) -> Reply | None:
    shown = asked.header("Authorization")
    return None if shown == basic() else Reply(401, {"WWW-Authenticate": "Basic"})


@pytest.mark.parametrize("first", ["insecure", "tls_verify", "http", "https"])
def test_a_realm_that_an_earlier_run_was_told_is_sent_no_password(
    place: Scripted,
    thief: Scripted,
    authority: Authority,
    tmp_path: Path,
    first: str,
) -> None:
    """Whatever that run knew of who said it; the last one is a certificate that is trusted."""
    how = {"insecure": {"insecure": True}, "tls_verify": {"tls_verify": False}, "http": {}}
    cache = tmp_path / "knowledge.sqlite"
    image = make_image(tmp_path / "image.tar").path
    secure = place._tls
    place._tls = None if first == "http" else secure
    challenge = {"WWW-Authenticate": f'Bearer realm="{thief.url}/token",service="s"'}
    place.guard = lambda _asked: Reply(401, challenge)
    name = f"{place.host}/team/app:1"
    with (
        towline.Pusher(cache=cache, retries=0, **how.get(first, {"ca": authority.ca})) as pusher,
        pytest.raises(TowlineError),
    ):
        pusher.push(image, name)
    before = len(thief.asked)
    place._tls, place.guard = secure, wants_password
    with towline.Pusher(cache=cache, ca=authority.ca, creds=(USER, PASSWORD)) as pusher:
        assert pusher.push(image, name).status == "pushed"
    assert thief.asked[before:] == []


@pytest.mark.parametrize("creds", [None, (USER, PASSWORD)])
def test_nor_is_a_realm_of_the_shared_cache_asked_at_all(
    place: Scripted, thief: Scripted, authority: Authority, creds: tuple[str, str] | None
) -> None:
    """As earlier versions kept it."""
    facts = {"realm": f"{thief.url}/token", "service": "s", "asked": str(int(time.time()))}
    settings: Mapping[str, Any] = {"plain_http": False, "ca": authority.ca, "creds": creds}
    with client_of(place, recall=lambda _: facts, **settings) as client:
        assert client.repository.has_blob(DIGEST, client.context) is False
    assert thief.asked == []
    assert [one.header("Authorization") for one in place.asked] == [None]


def test_an_unchanged_push_is_one_request_two_with_a_password_and_three_with_a_token(
    registry: Scripted, tmp_path: Path
) -> None:
    cache, image = tmp_path / "knowledge.sqlite", make_image(tmp_path / "image.tar").path

    def push(**creds: Any) -> towline.PushResult:
        with towline.Pusher(cache=cache, **creds) as pusher:
            return pusher.push(image, f"{registry.host}/team/app:1")

    assert push().status == "pushed"
    again = push()
    assert (again.status, again.requests) == ("unchanged", 1)
    registry.guard = wants_password
    again = push(creds=(USER, PASSWORD))
    assert (again.status, again.requests) == ("unchanged", 2)
    Tokens(registry)
    for _ in range(2):
        again = push(creds=(USER, PASSWORD))
        assert (again.status, again.requests) == ("unchanged", 3)


@pytest.mark.parametrize("verified", [False, True])
def test_which_layer_a_blob_is_is_kept_only_as_a_verified_registry_teaches_it(
    place: Scripted, authority: Authority, tmp_path: Path, *, verified: bool
) -> None:
    """Somebody in between could else have a later push take another blob for the layer."""
    made = make_image(tmp_path / "image.tar", [{"one": b"1" * 5000}])
    false = b"another blob"
    layer = Descriptor(media_types.DOCKER_LAYER, Digest.of(false), len(false))
    config = Descriptor(media_types.DOCKER_CONFIG, Digest.of(made.config), len(made.config))
    place.blobs.update({layer.digest: false, config.digest: made.config})
    taught = manifests.build("docker", config, [layer])
    place.manifests.update(dict.fromkeys(["1", taught.digest], (taught.media_type, taught.content)))
    cache, name = tmp_path / "knowledge.sqlite", f"{place.host}/team/app"
    first: dict[str, Any] = {"ca": authority.ca} if verified else {"insecure": True}
    with towline.Pusher(cache=cache, **first) as pusher:
        result = pusher.push(made.path, f"{name}:2", cache_from=f"{name}:1")
        assert result.layers[0].digest == layer.digest, "it is believed in the run that asked"
    place.manifests.clear()
    with towline.Pusher(cache=cache, ca=authority.ca) as pusher:
        result = pusher.push(made.path, f"{name}:3")
    assert (result.layers[0].digest == layer.digest) is verified


class TestLimits:
    """What a host takes: kept for those who speak to it as surely as it was found out."""

    def find_out(self, place: Scripted, kept: dict[str, Mapping[str, str]], **how: Any) -> None:
        """Push where PATCH is refused, and keep what that tells."""
        place.on("PATCH", "", complaint(405, "UNSUPPORTED"), forever=True)
        with client_of(place, recall=lambda name: kept.get(name, {}), **how) as client:
            client.push(b"a layer")
            kept.update(client.client.facts())

    def limits(self, place: Scripted, kept: dict[str, Mapping[str, str]], **how: Any) -> list[str]:
        with client_of(place, recall=lambda name: kept.get(name, {}), **how) as client:
            return client.repository.facts.limits()

    def test_what_was_said_unverified_is_not_believed_where_it_is_verified(
        self, place: Scripted, authority: Authority
    ) -> None:
        unchecked = {"plain_http": False, "insecure": True}
        checked = {"plain_http": False, "loopback_http": False, "ca": authority.ca}
        kept: dict[str, Mapping[str, str]] = {}
        self.find_out(place, kept, **unchecked)
        assert len(self.limits(place, kept, **unchecked)) == 1
        assert self.limits(place, kept, **checked) == []
        self.find_out(place, kept, **checked)
        assert len(self.limits(place, kept, **checked)) == 1

    def test_what_a_verified_place_said_stays_its_own(
        self, place: Scripted, authority: Authority
    ) -> None:
        checked = {"plain_http": False, "loopback_http": False, "ca": authority.ca}
        kept: dict[str, Mapping[str, str]] = {}
        self.find_out(place, kept, **checked)
        assert self.limits(place, kept, plain_http=True) == []
        assert self.limits(place, kept, plain_http=False, insecure=True) == []
