"""Being let in: challenges, tokens, passwords, as registries really ask for them."""

from __future__ import annotations

import base64
import gc
import json
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import pytest

import towline
from tests.support.guards import PASSWORD, USER, Tokens, basic, form_of, scopes_of
from tests.support.pushing import Client, client_of, send
from tests.support.scripted import CUT, Reply, Scripted, complaint, scripted
from towline.errors import AuthError, Cancelled, NetworkError, RegistryError
from towline.reference import RepositoryName
from towline.registry.auth.token import Token
from towline.registry.blobs import Confirmed
from towline.spec.digest import Digest
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.scripted import Asked

DATA = os.urandom(200_000)
DIGEST = Digest.of(DATA)
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "headers",
    [["Negotiate", "Basic", "{bearer}"], ["Negotiate", "Basic, {bearer}"],
     ["Negotiate, Basic, {bearer}"], ["{bearer}", "Basic"], ["{bearer}, Negotiate, Basic"]],
    ids=["three", "two", "one", "bearer-first", "one-bearer-first"],
)  # fmt: skip
def test_bearer_is_chosen_among_several_challenges_and_its_scope_is_kept_whole(
    registry: Scripted, headers: list[str]
) -> None:
    tokens = Tokens(registry)
    bearer = (
        f'BEARER Realm="{registry.url}/token?x=1" , service="a \\"quoted\\", one",'
        'scope="repository:team/app:pull,push,scan"'
    )
    fields = tuple(("WWW-Authenticate", text.format(bearer=bearer)) for text in headers)
    registry.guard = lambda asked: (
        None if asked.header("Authorization") == "Bearer t0" else Reply(401, fields)
    )
    with client_of(registry, creds=(USER, PASSWORD)) as client:
        client.push(DATA)
    (asked,) = tokens.asked
    assert asked.query.startswith("x=1&service=a%20%22quoted%22%2C%20one&scope=")
    assert scopes_of(asked) == ["repository:team/app:pull,push,scan"]


def test_a_push_asks_for_one_token_and_shows_it_with_every_request(
    registry: Scripted, client: Client
) -> None:
    tokens = Tokens(registry)
    client.push(DATA)
    client.put()
    assert len(tokens.asked) == 1
    shown = [one.header("Authorization") for one in registry.requests("", "^/v2/")]
    assert shown == [None] + ["Bearer t0"] * (len(shown) - 1)


def test_one_token_is_fetched_however_many_wait_for_it(registry: Scripted, client: Client) -> None:
    tokens = Tokens(registry)
    ready = threading.Barrier(8)

    def ask() -> None:
        ready.wait()
        client.repository.has_blob(DIGEST, client.context)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens.asked) == 1
    assert len(registry.requests("HEAD")) == 8 + 1, "the first goes alone, and is refused alone"


def test_a_basic_challenge_after_a_bearer_one_renews_the_token_and_shows_no_password(
    registry: Scripted,
) -> None:
    tokens = Tokens(registry)
    with client_of(registry, creds=(USER, PASSWORD)) as client:
        client.repository.has_blob(DIGEST, client.context)
        tokens.expire()
        tokens.challenge = 'Basic realm="harbor"'
        client.push(DATA)
    assert len(tokens.asked) == 2
    shown = {one.header("Authorization") for one in registry.requests("", "^/v2/")}
    assert basic() not in shown
    assert {one.header("Authorization") for one in tokens.asked} == {basic()}


@pytest.mark.parametrize(
    "answer", [{"access_token": "t0"}, {"token": "", "access_token": "t0"}, {"token": "t0"}]
)
@pytest.mark.parametrize("life", [None, 0, 2, "soon"])
def test_a_token_is_read_from_either_field_and_used_for_a_minute(
    registry: Scripted, client: Client, answer: dict[str, str], life: object
) -> None:
    tokens = Tokens(registry)
    tokens.valid["t0"] = []
    body = json.dumps({**answer, "expires_in": life})
    registry._rules.clear()
    registry.on("GET", "^/token", Reply(200, JSON, body), forever=True)
    client.push(DATA)
    assert len(tokens.asked) == 1


@pytest.mark.parametrize("life", [None, 0, 2])
def test_a_token_of_unknown_or_tiny_life_is_renewed_after_a_minute_and_no_sooner(
    registry: Scripted, life: int | None
) -> None:
    tokens = Tokens(registry)
    registry._rules.clear()
    answer = {"issued_at": "2199-01-01T00:00:00Z", "expires_in": life}

    def given(asked: Asked) -> Reply:
        token = json.loads(tokens.grant(asked).encoded("GET").rpartition(b"\r\n")[2])["token"]
        return Reply(200, JSON, json.dumps({**answer, "access_token": token}))

    registry.on("GET", "^/token", given, forever=True)
    now = [0.0]
    asked_at = []
    with client_of(registry, clock=lambda: now[0]) as client:
        for now[0] in range(0, 121, 10):
            before = len(tokens.asked)
            client.repository.has_blob(DIGEST, client.context)
            if len(tokens.asked) > before:
                asked_at.append(now[0])
    assert asked_at == [0, 60, 120]


@pytest.mark.parametrize(
    "body",
    ["{}", "[]", "null", '{"secret":"hunter2"}', "<html>hunter2</html>", "",
     '{"token":"hunter2' + 2 * 1024 * "hunter2 " * 128 + '"}'],
    ids=["nothing", "list", "null", "secret", "page", "empty", "two-megabytes"],
)  # fmt: skip
def test_a_token_service_that_gives_none_is_an_auth_error_without_its_words(
    registry: Scripted, body: str
) -> None:
    tokens = Tokens(registry)
    registry._rules.clear()
    registry.on("GET", "^/token", Reply(200, JSON, body), forever=True)
    with (
        client_of(registry, creds=(USER, PASSWORD)) as client,
        pytest.raises(AuthError, match="answered without one") as caught,
    ):
        client.push(DATA)
    assert "hunter2" not in str(caught.value)
    assert PASSWORD not in f"{caught.value!r} {client.heard}"
    assert len(tokens.asked) == 1


def test_a_mount_asks_for_the_destination_first_and_each_origin_after(
    registry: Scripted, client: Client
) -> None:
    tokens = Tokens(registry)
    origin = RepositoryName(registry.host, "library/base")
    registry.on("POST", "mount=", Reply(201))
    repository = client.repo("team/app", pull_from=(origin,))
    assert repository.mount(DIGEST, origin, client.context) == Confirmed()
    assert scopes_of(tokens.asked[-1]) == [
        "repository:team/app:pull,push",
        "repository:library/base:pull",
    ]


def test_a_token_is_kept_for_its_scopes_and_not_for_others(
    registry: Scripted, client: Client
) -> None:
    tokens = Tokens(registry)
    registry.on("POST", "mount=", Reply(201), forever=True)
    base, tools = (RepositoryName(registry.host, name) for name in ("library/base", "tools"))
    for origins in ((base,), (base,), (base, tools), (), (tools, base), (base,)):
        repository = client.repo("team/app", pull_from=origins)
        for origin in origins or (base,):
            repository.mount(DIGEST, origin, client.context)
    asked = [scopes_of(one) for one in tokens.asked]
    assert len({tuple(sorted(scopes)) for scopes in asked}) == 3
    assert len(asked) <= 4, "and one more for another order"


def test_a_token_for_a_mount_is_fetched_once_and_takes_no_other_ones_place(
    registry: Scripted, client: Client
) -> None:
    tokens = Tokens(registry)
    origin = RepositoryName(registry.host, "library/base")
    registry.on("POST", "mount=", Reply(201), forever=True)
    repository = client.repo("team/app", pull_from=(origin,))
    for _ in range(2):
        repository.has_blob(DIGEST, client.context)
        assert repository.mount(DIGEST, origin, client.context) == Confirmed()
    assert len(tokens.asked) == 2
    shown = [one.header("Authorization") for one in registry.requests("", "^/v2/")]
    assert shown == [None, "Bearer t0", "Bearer t1", "Bearer t0", "Bearer t1"]


def test_a_token_is_renewed_before_it_ends_and_earlier_for_a_body(registry: Scripted) -> None:
    tokens = Tokens(registry, life=300)
    now = 0.0
    with client_of(registry, clock=lambda: now) as client:
        client.repository.has_blob(DIGEST, client.context)
        now = 239.0
        client.push(DATA)
        assert len(tokens.asked) == 1
        now = 241.0
        client.repository.has_blob(DIGEST, client.context)
        assert len(tokens.asked) == 1
        client.push(DATA)
        assert len(tokens.asked) == 2, "the body may take a minute"
        now += 296.0
        client.repository.has_blob(DIGEST, client.context)
        assert len(tokens.asked) == 3
    refused = [one for one in registry.requests("", "^/v2/") if not one.header("Authorization")]
    assert len(refused) == 1, "the first alone: no other had to be refused first"


def test_tokens_that_are_over_are_not_kept(registry: Scripted) -> None:
    """A program may ask for one repository after the other, for as long as it lives."""
    Tokens(registry, life=300)
    now = 0.0
    with client_of(registry, clock=lambda: now) as client:
        for number in range(100):
            client.repo(f"team/app{number}").has_blob(DIGEST, client.context)
            now += 301
        gc.collect()
        found = gc.get_objects()
        tokens = [each for each in found if isinstance(each, Token)]
        headers = [
            sum(isinstance(text, str) and text.startswith("Bearer t") for text in each)
            for each in found
            if type(each) in {list, set, deque}
        ]
    assert len(registry.requests("GET", "^/token")) == 100
    assert len(tokens) <= 2
    assert max(headers) < 70


def test_a_login_counts_as_checked_where_the_registry_asks_for_one(registry: Scripted) -> None:
    registry.on("GET", "^/v2/$", Reply(503))
    with towline.Pusher(cache="none", creds=(USER, PASSWORD)) as pusher:
        assert not pusher.check_login(registry.host), "it lets in everybody, at the second request"
    Tokens(registry)
    with towline.Pusher(cache="none", creds=(USER, PASSWORD)) as pusher:
        assert pusher.check_login(registry.host)
        assert pusher.check_login(registry.host), "with the token at hand"


def test_an_account_that_was_given_goes_to_one_host_alone(
    registry: Scripted, tmp_path: Path
) -> None:
    image = make_image(tmp_path / "image.tar", [{"f": b"hello"}]).path
    with scripted() as other, towline.Pusher(cache="none", creds=(USER, PASSWORD)) as pusher:
        for each in (registry, other):
            each.guard = lambda asked: (
                None
                if asked.header("Authorization") == basic()
                else Reply(401, {"WWW-Authenticate": 'Basic realm="reg"'})
            )
        pusher.push(image, f"{registry.host}/app:1")
        for call in (
            lambda: pusher.push(image, f"{other.host}/app:1"),
            lambda: pusher.plan(image, f"{other.host}/app:1"),
            lambda: pusher.copy(f"{registry.host}/app:1", f"{other.host}/app:1"),
            lambda: pusher.tag(f"{other.host}/app:1", "2"),
            lambda: pusher.tags(f"{other.host}/app"),
            lambda: pusher.check_login(other.host),
        ):
            with pytest.raises(towline.UsageError, match=f"not for {other.host}") as caught:
                call()
            assert registry.host in str(caught.value)
            assert PASSWORD not in str(caught.value)
        assert pusher.copy(f"{registry.host}/app:1", f"{registry.host}/app:2").status == "pushed"
    assert other.asked == []


def test_the_times_that_a_token_service_names_are_of_its_own_clock(
    registry: Scripted, client: Client
) -> None:
    tokens = Tokens(registry)
    tokens.valid["t0"] = []
    body = json.dumps({"token": "t0", "expires_in": 300, "issued_at": "2001-01-01T00:00:00Z"})
    registry._rules.clear()
    registry.on("GET", "^/token", Reply(200, JSON, body), forever=True)
    client.push(DATA)
    assert len(tokens.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_token_that_is_refused_for_two_scopes_is_asked_for_the_destination_alone(
    registry: Scripted, client: Client, status: int
) -> None:
    tokens = Tokens(registry)

    def one_alone(asked: object) -> Reply | None:
        last = registry.asked[-1]
        return Reply(status, JSON, '{"details":"bad"}') if len(scopes_of(last)) > 1 else None

    registry._rules.clear()
    registry.on(
        "GET", "^/token", lambda asked: one_alone(asked) or tokens.grant(asked), forever=True
    )
    origin = RepositoryName(registry.host, "library/base")
    repository = client.repo("team/app", pull_from=(origin,))
    repository.has_blob(DIGEST, client.context)
    assert repository.mount(DIGEST, origin, client.context) is None
    send(repository.start_upload(client.context), DATA)
    assert registry.blobs[DIGEST] == DATA
    assert registry.requests("POST", "mount=") == []


def test_a_token_for_two_scopes_that_is_good_for_one_costs_the_mount_alone(
    registry: Scripted, client: Client
) -> None:
    tokens = Tokens(registry)
    wanted = 'scope="repository:team/app:pull,push repository:library/base:pull"'

    def last_counts(asked: Asked) -> Reply | None:
        shown = (asked.header("Authorization") or "").removeprefix("Bearer ")
        if tokens.valid.get(shown, [""])[-1] == "repository:team/app:pull,push":
            return None
        lacking = f'{tokens.challenge},error="insufficient_scope",{wanted}' if shown else ""
        return Reply(401, {"WWW-Authenticate": lacking or tokens.challenge})

    registry.guard = last_counts
    origin = RepositoryName(registry.host, "library/base")
    repository = client.repo("team/app", pull_from=(origin,))
    repository.has_blob(DIGEST, client.context)
    assert repository.mount(DIGEST, origin, client.context) is None
    send(repository.start_upload(client.context), DATA)
    assert registry.blobs[DIGEST] == DATA
    assert len(tokens.asked) == 2
    assert len(registry.requests("POST", "uploads")) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 405])
def test_a_refresh_token_that_cannot_be_posted_gives_way_to_the_password(
    registry: Scripted, tmp_path: object, status: int
) -> None:
    tokens = Tokens(registry)
    registry._rules.insert(0, registry._rules.pop())
    registry._rules[0].replies.appendleft(Reply(status))
    entry = {"auth": basic().removeprefix("Basic "), "identitytoken": "refresh-me"}
    environ = {"DOCKER_AUTH_CONFIG": json.dumps({"auths": {registry.host: entry}})}
    with client_of(registry, environ=environ) as client:
        client.push(DATA)
    assert [one.method for one in tokens.asked] == ["POST", "GET"]
    assert form_of(tokens.asked[0])["refresh_token"] == "refresh-me"
    assert tokens.asked[1].header("Authorization") == basic()


def test_a_refresh_token_is_posted_as_a_form(registry: Scripted) -> None:
    tokens = Tokens(registry)
    entry = {"identitytoken": "refresh+me/="}
    environ = {"DOCKER_AUTH_CONFIG": json.dumps({"auths": {registry.host: entry}})}
    with client_of(registry, environ=environ) as client:
        client.push(DATA)
        assert "refresh" not in str(client.heard)
    (asked,) = tokens.asked
    assert form_of(asked) == {
        "grant_type": "refresh_token",
        "service": "reg",
        "client_id": "towline",
        "scope": "repository:team/app:pull,push",
        "refresh_token": "refresh+me/=",
    }


def test_a_registry_token_is_shown_as_it_is_and_to_nobody_else(registry: Scripted) -> None:
    tokens = Tokens(registry)
    tokens.valid["as-it-is"] = []
    environ = {
        "DOCKER_AUTH_CONFIG": json.dumps({"auths": {registry.host: {"registrytoken": "as-it-is"}}})
    }
    with scripted() as storage, client_of(registry, environ=environ) as client:
        storage.on("GET", "/bucket", Reply(200, (), DATA))
        client.push(DATA)
        registry.on("GET", "blobs", Reply(307, {"Location": f"{storage.url}/bucket"}))
        assert client.repository.read_blob(DIGEST, client.context, len(DATA)) == DATA
        assert "as-it-is" not in str(client.heard)
        assert storage.asked[0].header("Authorization") is None
    assert tokens.asked == []
    assert {one.header("Authorization") for one in registry.asked} == {"Bearer as-it-is"}


@pytest.mark.parametrize("status", [400, 401, 404, 405])
def test_a_refresh_token_alone_that_is_refused_is_one_error(
    registry: Scripted, status: int
) -> None:
    tokens = Tokens(registry)
    registry._rules.clear()
    refusal = Reply(status, JSON, '{"message":"no such token"}')
    registry.on("POST", "^/token", refusal, forever=True)
    entry = {"identitytoken": "refresh-me"}
    environ = {"DOCKER_AUTH_CONFIG": json.dumps({"auths": {registry.host: entry}})}
    with (
        client_of(registry, environ=environ) as client,
        pytest.raises((AuthError, RegistryError), match=f"{status}.*no such token") as caught,
    ):
        client.push(DATA)
    assert "refresh-me" not in str(caught.value)
    assert [one.method for one in tokens.asked] == ["POST"]


def test_a_token_that_ends_during_the_body_costs_the_closing_put_alone(
    registry: Scripted, client: Client
) -> None:
    tokens = Tokens(registry)

    def patched(asked: object) -> Reply:
        tokens.expire()
        registry.sessions["s0"] += DATA
        return Reply(202, {"Location": "/v2/team/app/blobs/uploads/s0?after"})

    registry.on("PATCH", "uploads", patched)
    assert client.push(DATA) == 1
    assert len(registry.requests("PATCH")) == 1
    shown = [one.header("Authorization") for one in registry.requests("PUT")]
    assert shown == ["Bearer t0", "Bearer t1"]
    assert client.context.meter.sent_bytes == len(DATA)


def test_a_token_that_ends_before_the_manifest_costs_the_manifest_alone(
    registry: Scripted, client: Client
) -> None:
    tokens = Tokens(registry)
    client.push(DATA)
    tokens.expire()
    manifest = client.put()
    assert registry.manifests["1"][1] == manifest.content
    shown = [one.header("Authorization") for one in registry.requests("PUT", "manifests")]
    assert shown == ["Bearer t0", "Bearer t1"]
    assert len(registry.requests("PATCH")) == 1


@pytest.mark.parametrize("early", [None, 1000])
def test_a_token_that_ends_before_the_body_is_renewed_and_the_blob_sent_again(
    registry: Scripted, client: Client, early: int | None
) -> None:
    tokens = Tokens(registry)

    def refused(asked: object) -> Reply:
        tokens.expire()
        return Reply(401, {"WWW-Authenticate": tokens.challenge})

    refuse = Reply(401, {"WWW-Authenticate": tokens.challenge}, early=early, reset=True)
    registry.on("PATCH", "uploads", refuse if early else refused)
    assert client.push(DATA) == 2
    assert registry.blobs[DIGEST] == DATA


@pytest.mark.parametrize(
    ("named", "asked"),
    [
        ("*", ["repository:team/app:pull,push", "*"]),
        ("repository:team/app:pull", ["repository:team/app:pull,push"]),
        ("repository:team/app:pull,push,scan", ["repository:team/app:pull,push,scan"]),
        (
            "repository:team/app:delete repository:other:pull registry:catalog:*",
            [
                "repository:team/app:pull,push,delete",
                "repository:other:pull",
                "registry:catalog:*",
            ],
        ),
    ],
)
def test_a_scope_that_the_registry_names_itself_is_asked_for_too(
    registry: Scripted, client: Client, named: str, asked: list[str]
) -> None:
    tokens = Tokens(registry)
    tokens.challenge += f',scope="{named}"'
    client.push(DATA)
    assert scopes_of(tokens.asked[0]) == asked


def test_a_token_that_lacks_a_scope_is_asked_for_with_it_once(
    registry: Scripted, client: Client
) -> None:
    tokens = Tokens(registry)
    more = "repository:team/app:pull,push,scan"

    def lacking(asked: Asked) -> Reply | None:
        shown = (asked.header("Authorization") or "").removeprefix("Bearer ")
        if shown not in tokens.valid:
            return Reply(401, {"WWW-Authenticate": tokens.challenge})
        if more in tokens.valid[shown]:
            return None
        error = f'{tokens.challenge},error="insufficient_scope",scope="{more}"'
        return Reply(401, {"WWW-Authenticate": error})

    registry.guard = lacking
    assert client.push(DATA) == 1
    assert [scopes_of(asked) for asked in tokens.asked] == [
        ["repository:team/app:pull,push"],
        [more],
    ]


def test_a_token_that_always_lacks_a_scope_is_one_error_and_no_loop(
    registry: Scripted, client: Client
) -> None:
    tokens = Tokens(registry)
    wants = ',error="insufficient_scope",scope="repository:team/app:pull,push"'
    registry.guard = lambda asked: Reply(401, {"WWW-Authenticate": tokens.challenge + wants})
    with pytest.raises(AuthError):
        client.push(DATA)
    assert len(tokens.asked) <= 2
    assert len(registry.requests("POST")) <= 3


class Slow:
    """A registry whose clock is behind: tokens are good only some time after they were given."""

    def __init__(self, registry: Scripted, seconds: float) -> None:
        self.tokens = Tokens(registry)
        self._seconds = seconds
        self._seen: dict[str, float] = {}
        registry.guard = self.guard

    def guard(self, asked: Asked) -> Reply | None:
        shown = (asked.header("Authorization") or "").removeprefix("Bearer ")
        if shown in self.tokens.valid:
            age = time.monotonic() - self._seen.setdefault(shown, time.monotonic())
            if age >= self._seconds:
                return None
            challenge = f'{self.tokens.challenge},error="invalid_token"'
            return Reply(401, {"WWW-Authenticate": challenge})
        return self.tokens.guard(asked)


def test_a_new_token_that_is_refused_is_shown_once_more_a_second_later(
    registry: Scripted, client: Client
) -> None:
    slow = Slow(registry, 0.9)
    assert client.push(DATA) == 1
    assert len(slow.tokens.asked) == 1
    shown = [one.header("Authorization") for one in registry.requests("POST")]
    assert shown == [None, "Bearer t0", "Bearer t0"]


def test_a_new_token_that_is_refused_for_good_is_an_error_that_speaks_of_clocks(
    registry: Scripted, client: Client
) -> None:
    Slow(registry, 60)
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(AuthError, match="401") as caught:
            client.repository.has_blob(DIGEST, client.context)
        assert "clocks" in str(caught.value.hint)
    assert 1 <= time.monotonic() - began < 2.5, "waited for once"


def test_the_wait_for_a_new_token_ends_with_the_push(registry: Scripted, client: Client) -> None:
    Slow(registry, 60)
    client.cancel_after(0.3)
    began = time.monotonic()
    with pytest.raises(Cancelled):
        client.repository.has_blob(DIGEST, client.context)
    assert time.monotonic() - began < 0.9


def test_a_new_token_that_lacks_a_right_is_not_waited_for(
    registry: Scripted, client: Client
) -> None:
    tokens = Tokens(registry)
    wants = ',error="insufficient_scope",scope="repository:team/app:pull,push"'
    registry.guard = lambda asked: Reply(401, {"WWW-Authenticate": tokens.challenge + wants})
    began = time.monotonic()
    with pytest.raises(AuthError) as caught:
        client.repository.has_blob(DIGEST, client.context)
    assert time.monotonic() - began < 0.9
    assert "clocks" not in str(caught.value.hint)


def test_a_wrong_password_is_told_with_the_account_and_never_shown(registry: Scripted) -> None:
    challenge = {"WWW-Authenticate": 'Basic realm="x"'}
    registry.guard = lambda asked: Reply(401, challenge)
    with (
        client_of(registry, creds=("me", "wr0ng-word")) as client,
        pytest.raises(AuthError, match=r"user me \(from `creds`\)") as caught,
    ):
        client.push(DATA)
    assert len(registry.asked) == 2
    assert "wr0ng-word" not in f"{caught.value!r} {client.heard}"
    assert "`creds=" in str(caught.value.hint)
    assert caught.value.status == 401
    assert caught.value.side == "destination"


def test_a_wrong_password_at_a_token_service_is_told_with_the_account(registry: Scripted) -> None:
    Tokens(registry)
    registry._rules.clear()
    refused = complaint(401, "UNAUTHORIZED", "bad password")
    registry.on("GET", "^/token", refused, forever=True)
    with (
        client_of(registry, creds=("me", "wr0ng-word")) as client,
        pytest.raises(AuthError, match=r"bad password .*user me \(from `creds`\)"),
    ):
        client.push(DATA)


def test_no_credentials_where_some_are_wanted_says_how_to_give_them(
    registry: Scripted, client: Client
) -> None:
    registry.guard = lambda asked: Reply(401, {"WWW-Authenticate": "Basic"})
    with pytest.raises(AuthError, match="no credentials were found") as caught:
        client.push(DATA)
    assert "`creds=" in str(caught.value.hint)


@pytest.mark.parametrize("headers", [{}, {"WWW-Authenticate": ""}, {"WWW-Authenticate": "Bearer"}])
def test_a_401_without_any_challenge_is_denied_and_asked_no_more_than_thrice(
    registry: Scripted, client: Client, headers: dict[str, str]
) -> None:
    registry.guard = lambda asked: Reply(401, headers)
    with pytest.raises(AuthError, match="401"):
        client.repository.has_blob(DIGEST, client.context)
    assert len(registry.asked) <= 3


@pytest.mark.parametrize(
    "realm", ["{url}/auth?a=1&b=%2F", "/auth?a=1&b=%2F", "//{host}/auth?a=1&b=%2F"]
)
def test_a_realm_may_be_relative_and_keeps_its_query_and_no_service_is_none(
    registry: Scripted, client: Client, realm: str
) -> None:
    tokens = Tokens(registry)
    tokens.challenge = f'Bearer realm="{realm.format(url=registry.url, host=registry.host)}"'
    registry.on("GET", "^/auth", tokens.grant, forever=True)
    client.push(DATA)
    (asked,) = registry.requests("GET", "^/auth")
    assert asked.target == "/auth?a=1&b=%2F&scope=repository:team/app:pull%2Cpush"


def test_a_token_that_would_end_soon_is_renewed_before_a_body(registry: Scripted) -> None:
    tokens = Tokens(registry, life=300)
    now = [0.0]
    with client_of(registry, clock=lambda: now[0]) as client:
        upload = client.repository.start_upload(client.context)
        now[0] += 270
        client.repository.has_blob(DIGEST, client.context)
        assert len(tokens.asked) == 1, "long enough for a question"
        send(upload, DATA)
    assert len(tokens.asked) == 2
    assert [one.header("Authorization") for one in registry.requests("PATCH")] == ["Bearer t1"]


def test_a_password_may_be_long_and_have_lines(registry: Scripted) -> None:
    key = json.dumps({"private_key": "-----BEGIN\n" + 100 * (64 * "x" + "\n")}, indent=1)
    pair = basic("_json_key", key)
    registry.guard = lambda asked: (
        None if asked.header("Authorization") == pair else Reply(401, {"WWW-Authenticate": "Basic"})
    )
    entry = {"auth": pair.removeprefix("Basic ")}
    environ = {"DOCKER_AUTH_CONFIG": json.dumps({"auths": {registry.host: entry}})}
    with client_of(registry, environ=environ) as client:
        assert client.push(DATA) == 1


def test_a_manifest_that_is_refused_for_a_stale_token_is_put_with_another(
    registry: Scripted, client: Client
) -> None:
    tokens = Tokens(registry)
    client.push(DATA)
    tokens.expire()
    client.put()
    shown = [one.header("Authorization") for one in registry.requests("PUT", "manifests")]
    assert shown == ["Bearer t0", "Bearer t1"]


def test_a_challenge_that_only_the_base_gives_is_used_for_bare_refusals(
    registry: Scripted, client: Client
) -> None:
    tokens = Tokens(registry)
    guard = tokens.guard
    registry.guard = lambda asked: (
        guard(asked) if asked.path == "/v2/" else (Reply(401) if guard(asked) else None)
    )
    client.push(DATA)
    assert [one.target for one in registry.asked][1] == "/v2/"
    assert registry.blobs[DIGEST] == DATA


def test_a_single_401_of_a_registry_that_asks_nobody_is_outlived(
    registry: Scripted, client: Client
) -> None:
    registry.on("POST", "uploads", Reply(401))
    assert client.push(DATA) == 1


def test_a_single_401_to_a_password_that_was_good_is_outlived(registry: Scripted) -> None:
    challenge = Reply(401, {"WWW-Authenticate": "Basic"})
    registry.guard = lambda asked: None if asked.header("Authorization") == basic() else challenge
    with client_of(registry, creds=(USER, PASSWORD)) as client:
        client.repository.has_blob(DIGEST, client.context)
        registry.on("POST", "uploads", challenge)
        client.push(DATA)
    assert registry.blobs[DIGEST] == DATA


BASIC = Reply(401, {"WWW-Authenticate": 'Basic realm="x"'})


@pytest.mark.parametrize("creds", [(USER, PASSWORD), None], ids=["password", "anonymous"])
@pytest.mark.parametrize("method", ["HEAD", "POST", "PATCH", "PUT", "GET"])
def test_a_single_basic_challenge_where_one_was_let_in_before_is_outlived(
    registry: Scripted, method: str, creds: tuple[str, str] | None
) -> None:
    """Whether the registry asks for a password, or nobody does but something on the way."""
    if creds:
        registry.guard = lambda asked: None if asked.header("Authorization") == basic() else BASIC
    with client_of(registry, creds=creds) as client:
        client.repository.has_blob(DIGEST, client.context)
        registry.on(method, "/blobs/", BASIC)
        client.push(DATA)
        client.repository.has_blob(DIGEST, client.context)
        found = client.repository.read_blob(DIGEST, client.context, len(DATA))
    assert found == DATA


def test_a_single_basic_challenge_to_a_token_is_outlived_when_a_blob_is_read(
    registry: Scripted, client: Client
) -> None:
    Tokens(registry)
    client.push(DATA)
    registry.on("GET", "/blobs/", BASIC)
    assert client.repository.read_blob(DIGEST, client.context, len(DATA)) == DATA


ELSEWHERE = Reply(
    401, {"WWW-Authenticate": 'Bearer realm="http://127.0.0.1:1/token",scope="a:b:c"'}
)
"""A token service that nobody has heard of before, and that is not there."""


def guarded(registry: Scripted, asks: str) -> None:
    """Have it ask for nothing, for a password or for a token."""
    if asks == "tokens":
        Tokens(registry)
    elif asks == "passwords":
        registry.guard = lambda asked: None if asked.header("Authorization") == basic() else BASIC


@pytest.mark.parametrize("asks", ["nobody", "passwords", "tokens"])
@pytest.mark.parametrize(
    ("method", "pattern"),
    [("HEAD", "blobs"), ("POST", "mount="), ("POST", "uploads/$"), ("PATCH", "uploads"),
     ("PUT", "uploads"), ("PUT", "manifests"), ("GET", "blobs/sha256")],
)  # fmt: skip
def test_a_single_challenge_that_sends_to_a_dead_token_service_is_outlived(
    registry: Scripted, method: str, pattern: str, asks: str
) -> None:
    guarded(registry, asks)
    with client_of(registry, creds=(USER, PASSWORD)) as client:
        repository, context = client.repository, client.context
        repository.has_blob(DIGEST, context)
        registry.on(method, pattern, ELSEWHERE)
        origin = RepositoryName(registry.host, "team/other")
        assert not repository.mount(DIGEST, origin, context) or pattern != "mount="
        client.push(DATA)
        client.retried(client.put)
        client.retried(lambda: repository.has_blob(DIGEST, context))
        client.retried(lambda: repository.read_blob(DIGEST, context, len(DATA)))
    assert registry.blobs[DIGEST] == DATA


@pytest.mark.parametrize("asks", ["nobody", "passwords", "tokens"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_such_a_challenge_to_what_is_asked_of_a_session_is_outlived(
    registry: Scripted, tmp_path: Path, method: str, asks: str
) -> None:
    guarded(registry, asks)
    made = make_image(tmp_path / "image.tar", [{"hello": DATA, "room": bytes(1 << 20)}])
    place = f"{registry.host}/app:1"
    with towline.Pusher(cache="none", creds=(USER, PASSWORD), retries=2) as pusher:
        registry.on(method, "uploads", ELSEWHERE)
        pusher.plan(made.path, place, check_push=True)  # gives a session back
        registry.on("PATCH", "uploads", CUT)  # what the session holds then is asked
        pusher.push(made.path, place)
    assert registry.requests(method, "uploads")
    assert registry.manifests["1"]


def test_a_mount_that_is_sent_to_a_dead_token_service_costs_itself_alone(
    registry: Scripted, client: Client
) -> None:
    client.repository.has_blob(DIGEST, client.context)
    registry.on("POST", "mount=", ELSEWHERE)
    origin = RepositoryName(registry.host, "team/other")
    assert client.repository.mount(DIGEST, origin, client.context) is None
    assert client.push(DATA) == 1


def test_a_mount_whose_token_is_refused_costs_itself_alone(
    registry: Scripted, client: Client
) -> None:
    client.repository.has_blob(DIGEST, client.context)
    elsewhere = f'Bearer realm="{registry.url}/token"'
    registry.on("POST", "mount=", Reply(401, {"WWW-Authenticate": elsewhere}))
    registry.on("GET", "^/token", complaint(403, "DENIED"), forever=True)
    origin = RepositoryName(registry.host, "team/other")
    assert client.repository.mount(DIGEST, origin, client.context) is None
    assert client.push(DATA) == 1


@pytest.mark.parametrize("challenge", [BASIC, ELSEWHERE], ids=["basic", "dead"])
def test_such_a_challenge_to_the_very_first_request_is_outlived(
    registry: Scripted, client: Client, challenge: Reply
) -> None:
    registry.on("HEAD", "/blobs/", challenge)
    client.retried(lambda: client.repository.has_blob(DIGEST, client.context))
    assert client.push(DATA) == 1


def test_basic_challenges_for_ever_are_one_error(registry: Scripted, client: Client) -> None:
    client.repository.has_blob(DIGEST, client.context)
    registry.on("GET", "/blobs/", BASIC, forever=True)
    with pytest.raises(AuthError, match="401"):
        client.repository.read_blob(DIGEST, client.context, 1)
    assert len(registry.requests("GET", "/blobs/")) == 2


def test_no_cookie_is_ever_sent_back(registry: Scripted, client: Client) -> None:
    registry.on("POST", "uploads", lambda asked: _with_cookie(registry.sound(asked)))
    client.push(DATA)
    client.put()
    assert all(one.header("Cookie") is None for one in registry.asked)


def _with_cookie(reply: Reply) -> Reply:
    fields = reply.headers.items() if isinstance(reply.headers, dict) else reply.headers
    return Reply(reply.status, (*fields, ("Set-Cookie", "sid=1; Path=/")), reply.body)


def test_a_session_at_another_port_gets_no_credentials(registry: Scripted) -> None:
    with scripted() as other, client_of(registry, creds=(USER, PASSWORD)) as client:
        challenge = Reply(401, {"WWW-Authenticate": "Basic"})
        registry.guard = lambda asked: None if asked.header("Authorization") else challenge
        location = {"Location": f"{other.url}/v2/x/blobs/uploads/s0"}
        other.sessions["s0"] = bytearray()
        registry.on("POST", "uploads", Reply(202, location))
        upload = client.repository.start_upload(client.context)
        send(upload, DATA)
        assert other.blobs[DIGEST] == DATA
        assert all(one.header("Authorization") is None for one in other.asked)


@pytest.mark.parametrize("scheme", ["Basic", 'Bearer realm="{url}/token"'])
def test_a_session_at_another_port_is_told_nothing_though_it_asks(
    registry: Scripted, scheme: str
) -> None:
    with scripted() as other, client_of(registry, creds=(USER, PASSWORD)) as client:
        location = {"Location": f"{other.url}/v2/x/blobs/uploads/s0"}
        registry.on("POST", "uploads", Reply(202, location), forever=True)
        asks = Reply(401, {"WWW-Authenticate": scheme.format(url=other.url)})
        other.on("PATCH", "", asks, forever=True)
        with pytest.raises(AuthError) as caught:
            client.push(DATA)
        assert {one.method for one in other.asked} <= {"PATCH", "DELETE"}
        assert all(one.header("Authorization") is None for one in other.asked)
        assert USER not in str(caught.value)
        assert "no credentials are sent there" in str(caught.value)
        assert registry.host in str(caught.value.hint)
        assert "`creds=" not in str(caught.value.hint)


@pytest.mark.parametrize("status", [401, 403])
def test_a_single_refusal_of_another_place_is_outlived_at_the_next_that_is_named(
    registry: Scripted, client: Client, status: int
) -> None:
    """As storage says to an address that has been good for a while."""
    with scripted() as other:
        location = {"Location": f"{other.url}/v2/x/blobs/uploads/s0"}
        registry.on("POST", "uploads", Reply(202, location))
        other.on("PATCH", "", Reply(status))
        assert client.push(DATA) == 2
    assert registry.blobs[DIGEST] == DATA


@pytest.mark.parametrize("what", ["manifest", "blob", "base"])
def test_a_place_that_reads_are_sent_on_to_has_no_password_sent_to_its_own_token_service(
    registry: Scripted, what: str
) -> None:
    with scripted() as storage, client_of(registry, creds=(USER, PASSWORD)) as client:
        tokens = Tokens(storage)
        sent_on = Reply(307, {"Location": f"{storage.url}/v2/bucket"})
        registry.on("GET", "^/v2/$" if what == "base" else what, sent_on, forever=True)
        if what == "base":
            registry.on("GET", "blobs", Reply(401), forever=True)
        repository = client.repository
        read = repository.get_manifest if what == "manifest" else repository.open_blob
        with pytest.raises(AuthError):
            read(DIGEST, client.context)
        assert tokens.asked == []
        assert all(one.header("Authorization") is None for one in storage.asked)
        assert len(storage.asked) == 1


@pytest.mark.parametrize("creds", [(USER, PASSWORD), None])
@pytest.mark.parametrize("plain_http", [False, True])
def test_a_registry_on_this_machine_has_no_password_sent_in_the_clear_to_another_one(
    registry: Scripted, creds: tuple[str, str] | None, *, plain_http: bool
) -> None:
    challenge = {"WWW-Authenticate": 'Bearer realm="http://auth.invalid/token"'}
    registry.guard = lambda asked: Reply(401, challenge)
    with client_of(registry, creds=creds, plain_http=plain_http) as client:
        refused = creds is not None and not plain_http
        error = AuthError if refused else NetworkError
        words = "to http://auth.invalid in the clear" if refused else "auth.invalid"
        with pytest.raises(error, match=words) as caught:
            client.repository.get_manifest("1", client.context)
    assert ("`plain_http=True`" in str(caught.value.hint)) is refused


def test_a_blob_that_may_not_be_read_says_why_and_as_whom(registry: Scripted) -> None:
    def refuses(asked: Asked) -> Reply:
        return complaint(403, "DENIED", f"not for you at {asked.target}")

    registry.guard = lambda asked: None if asked.header("Authorization") == basic() else BASIC
    registry.on("GET", "blobs", refuses)
    with client_of(registry, creds=(USER, PASSWORD)) as client:
        with pytest.raises(AuthError, match="DENIED: not for you") as caught:
            client.repository.read_blob(DIGEST, client.context, 1)
        assert f"asked as user {USER}" in str(caught.value)
        client.repository.has_blob(DIGEST, client.context)
    assert {one.connection for one in registry.asked} == {0}, "its answer was read to the end"


def test_a_token_service_that_is_busy_is_tried_again_later(
    registry: Scripted, client: Client
) -> None:
    Tokens(registry)
    registry._rules[0].replies.appendleft(Reply(503, {"Retry-After": "0"}))
    assert client.push(DATA) == 2


def test_a_token_service_that_is_nowhere_is_named(registry: Scripted, client: Client) -> None:
    challenge = {"WWW-Authenticate": 'Bearer realm="ftp://nowhere/token"'}
    registry.guard = lambda asked: Reply(401, challenge)
    with pytest.raises(RegistryError, match="ftp://nowhere/token"):
        client.push(DATA)


def test_a_token_service_that_does_not_answer_is_told_with_what_it_was_asked_for(
    registry: Scripted, client: Client
) -> None:
    challenge = {"WWW-Authenticate": 'Bearer realm="http://127.0.0.1:1/token"'}
    registry.guard = lambda _: Reply(401, challenge)
    expected = f"^cannot get a token for {registry.host}: cannot connect to 127.0.0.1:1: "
    with pytest.raises(NetworkError, match=expected):
        client.put()


class TestExpiredLogins:
    """ECR's ways to say that a login has expired."""

    EXPIRED = Reply(403, {"Content-Type": "text/plain"}, "Your authorization token has expired.")

    @pytest.fixture
    def environ(self, tmp_path: Path) -> dict[str, str]:
        """A helper that gives the login `AWS:oldN`, N counted up each time it is asked."""
        helper = tmp_path / "docker-credential-ecr"
        login = '{"ServerURL":"x","Username":"AWS","Secret":"word%s"}'
        helper.write_text(
            f"#!/bin/sh\ncount=$(cat {tmp_path}/count || echo 0)\n"
            f"echo $((count + 1)) > {tmp_path}/count\nprintf '{login}' $count\n"
        )
        helper.chmod(0o755)
        (tmp_path / "config.json").write_text('{"credsStore":"ecr"}')
        return {"PATH": f"{tmp_path}:/usr/bin:/bin", "DOCKER_CONFIG": str(tmp_path)}

    def guard(self, registry: Scripted, refusal: Reply, good: str) -> None:
        challenge = Reply(401, {"WWW-Authenticate": 'Basic realm="x",service="ecr"'})

        def guarded(asked: Asked) -> Reply | None:
            shown = asked.header("Authorization")
            if shown is None:
                return challenge
            return None if shown == basic("AWS", good) else refusal

        registry.guard = guarded

    @pytest.mark.parametrize("refusal", [EXPIRED, complaint(403, "DENIED", "token has expired")])
    def test_the_helper_is_asked_once_more_and_the_push_goes_on(
        self, registry: Scripted, environ: dict[str, str], refusal: Reply
    ) -> None:
        self.guard(registry, refusal, "word1")
        with client_of(registry, environ=environ) as client:
            assert client.push(DATA) == 1
        assert len(registry.requests("POST")) == 3

    def test_a_helper_that_gives_the_same_again_ends_in_one_error(
        self, registry: Scripted, environ: dict[str, str], tmp_path: Path
    ) -> None:
        self.guard(registry, self.EXPIRED, "other")
        with client_of(registry, environ=environ) as client:
            with pytest.raises(AuthError, match="has expired") as caught:
                client.push(DATA)
            assert "log in again" in str(caught.value.hint)
            assert len(registry.asked) == 3
            with pytest.raises(AuthError, match="has expired"):
                client.push(DATA)
        assert len(registry.asked) == 4
        assert (tmp_path / "count").read_text() == "2\n", "asked once, and once more"

    def test_other_credentials_may_mount_though_the_expired_ones_were_given_no_token_at_all(
        self, registry: Scripted, environ: dict[str, str]
    ) -> None:
        tokens = Tokens(registry)
        registry._rules.clear()

        def granted(asked: Asked) -> Reply:
            good = asked.header("Authorization") == basic("AWS", "word1")
            return tokens.grant(asked) if good else Reply(401)

        registry.on("GET", "^/token", granted, forever=True)
        registry.on("POST", "mount=", Reply(201), forever=True)
        origin = RepositoryName(registry.host, "library/base")
        with client_of(registry, environ=environ) as client:
            repository = client.repo("team/app", pull_from=(origin,))
            for _ in range(2):
                assert repository.mount(DIGEST, origin, client.context) == Confirmed()
        given = [scopes_of(one) for one in tokens.asked]
        assert given[-1] == ["repository:team/app:pull,push", "repository:library/base:pull"]

    def test_a_password_of_an_option_is_not_asked_for_again(self, registry: Scripted) -> None:
        self.guard(registry, self.EXPIRED, "other")
        with (
            client_of(registry, creds=("AWS", "word")) as client,
            pytest.raises(AuthError, match="has expired"),
        ):
            client.push(DATA)
        assert len(registry.asked) == 2

    def test_an_identity_token_of_a_helper_is_posted(
        self, registry: Scripted, environ: dict[str, str], tmp_path: Path
    ) -> None:
        helper = tmp_path / "docker-credential-ecr"
        login = '{"ServerURL":"x","Username":"<token>","Secret":"refresh-me"}'
        helper.write_text(f"#!/bin/sh\nprintf '{login}'\n")
        tokens = Tokens(registry)
        with client_of(registry, environ=environ) as client:
            client.push(DATA)
        (asked,) = tokens.asked
        form = form_of(asked)
        assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", "refresh-me")

    def test_a_helper_that_knows_nobody_leaves_one_anonymous(
        self, registry: Scripted, environ: dict[str, str], tmp_path: Path
    ) -> None:
        helper = tmp_path / "docker-credential-ecr"
        helper.write_text("#!/bin/sh\necho credentials not found in native keychain\nexit 1\n")
        tokens = Tokens(registry)
        with client_of(registry, environ=environ) as client:
            client.push(DATA)
        assert [one.header("Authorization") for one in tokens.asked] == [None]

    def test_a_400_to_a_token_that_is_not_new_gets_another_token(self, registry: Scripted) -> None:
        tokens = Tokens(registry, life=3600)
        now = [0.0]
        with client_of(registry, clock=lambda: now[0]) as client:
            client.repository.has_blob(DIGEST, client.context)
            now[0] += 61
            registry.on("POST", "uploads", Reply(400))
            assert client.push(DATA) == 1
        assert len(tokens.asked) == 2

    def test_a_400_to_a_new_token_is_an_answer(self, registry: Scripted, client: Client) -> None:
        tokens = Tokens(registry, life=3600)
        registry.on("POST", "uploads", Reply(400), forever=True)
        with pytest.raises(RegistryError, match="400"):
            client.push(DATA)
        assert len(tokens.asked) == 1


def test_the_log_says_which_scope_was_asked_and_which_granted_and_no_token(
    registry: Scripted, client: Client
) -> None:
    tokens = Tokens(registry)
    claims = {"access": [{"type": "repository", "name": "team/app", "actions": ["pull"]}]}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    token = f"aGVhZA.{payload}.c2ln"
    tokens.valid[token] = []
    registry._rules.clear()
    registry.on("GET", "^/token", Reply(200, JSON, json.dumps({"token": token})), forever=True)
    client.push(DATA)
    assert (
        f"* token of {registry.host} for repository:team/app:pull,push: granted "
        "repository:team/app:pull, for 60 s"
    ) in client.heard.lines
    assert payload not in str(client.heard)
