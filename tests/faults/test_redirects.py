"""Redirects: reads and the opening of uploads go where they are sent, other writes to no other
host.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

import towline
from tests.support.certificates import make_authority
from tests.support.guards import Tokens, basic
from tests.support.pushing import Client, client_of, send
from tests.support.quick import quick
from tests.support.scripted import Asked, Reply, Scripted, complaint, scripted
from towline.errors import AuthError, NetworkError, RegistryError
from towline.reference import RepositoryName
from towline.registry.blobs import Confirmed
from towline.spec.digest import Digest
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
ASKS: dict[str, Callable[[Client], object]] = {
    **WRITES,
    "GET": lambda client: client.repository.get_manifest("1", client.context),
}


@pytest.mark.parametrize(
    ("method", "status"),
    [
        *((method, status) for method in ("PATCH", "PUT") for status in (301, 302, 303, 307, 308)),
        *(("POST", status) for status in (301, 302, 303)),
    ],
)
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


@pytest.mark.parametrize(
    ("method", "pattern", "answer"),
    [
        ("GET", "manifests", 302),
        ("POST", "uploads", 307),
        ("POST", "uploads", 202),  # the session is there
    ],
    ids=["a read", "an upload's opening", "its session"],
)
def test_a_host_that_nobody_has_named_and_does_not_answer_is_told_with_who_sends_there(
    registry: Scripted, client: Client, method: str, pattern: str, answer: int
) -> None:
    location = {"Location": "http://127.0.0.1:1/elsewhere"}
    registry.on(method, pattern, Reply(answer, location), forever=True)
    said = f"cannot connect to 127.0.0.1:1: connection refused; {registry.host} sends there"
    with pytest.raises(NetworkError, match=said):
        ASKS[method](client)


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
    assert "leave out `plain_http=True`" in str(caught.value.hint)


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


def authfile(folder: Path, *hosts: str) -> Path:
    """Logins of those hosts, each with a user of its own."""
    auths = {host: {"username": f"user-of-{host}", "password": "secret"} for host in hosts}
    path = folder / "auth.json"
    path.write_text(json.dumps({"auths": auths}))
    return path


@pytest.mark.parametrize("status", [307, 308])
class TestAnUploadThatIsOpenedElsewhere:
    """As at mirrors and at front ends of a storage: POST 307 to another host."""

    @pytest.fixture
    def other(self, registry: Scripted, status: int) -> Iterator[Scripted]:
        with scripted() as other:
            location = f"{other.url}/v2/mirror/app/blobs/uploads/?to=a%2Fb"
            answer = Reply(status, {"Location": location})
            registry.on("POST", "uploads", answer, forever=True)
            yield other

    @pytest.mark.parametrize("known", [False, True])
    def test_is_opened_with_the_same_method_and_goes_on_there(
        self, registry: Scripted, other: Scripted, client: Client, *, known: bool
    ) -> None:
        # Its `Location` is a path: of the host that answered, not of the one that sent on.
        assert client.push(DATA, known=known) == 1
        assert other.blobs[DIGEST] == DATA
        (opened,) = other.requests("POST")
        assert opened.target == "/v2/mirror/app/blobs/uploads/?to=a%2Fb"
        assert (opened.body, opened.header("Content-Length")) == (b"", "0")
        assert opened.header("Host") == other.host
        assert [asked.method for asked in registry.asked] == ["POST"]

    def test_may_be_a_mount(self, registry: Scripted, other: Scripted, client: Client) -> None:
        other.on("POST", "uploads", Reply(201))
        origin = RepositoryName(registry.host, "library/base")
        repository = client.repo("team/app", pull_from=(origin,))
        assert repository.mount(DIGEST, origin, client.context) == Confirmed()

    def test_is_sent_on_again_by_the_other_host(self, other: Scripted, client: Client) -> None:
        there = Reply(308, {"Location": "/v2/third/app/blobs/uploads/"})
        other.on("POST", "mirror", there, forever=True)
        assert client.push(DATA) == 1
        assert other.blobs[DIGEST] == DATA

    def test_shows_no_credentials_to_a_host_that_has_none(
        self, registry: Scripted, other: Scripted, status: int
    ) -> None:
        location = {"Location": f"{other.url}/v2/mirror/app/blobs/uploads/"}
        registry.guard = lambda asked: (
            None
            if asked.header("Authorization") == basic()
            else Reply(401, {"WWW-Authenticate": "Basic"})
        )
        registry.on("POST", "uploads", Reply(status, location), forever=True)
        with client_of(registry, creds=("me", "s3cret-word")) as client:
            assert client.push(DATA) == 1
            other.on("POST", "", Reply(401, {"WWW-Authenticate": "Basic"}), forever=True)
            with pytest.raises(AuthError, match="no credentials are sent there") as caught:
                client.push(DATA[1:])
        assert other.blobs[DIGEST] == DATA
        assert {asked.header("Authorization") for asked in other.asked} == {None}
        assert f"towline login {other.host}" in str(caught.value.hint)
        assert len(registry.requests("POST")) == 3, "it is not tried again"

    def test_shows_the_credentials_that_the_other_host_has_of_its_own(
        self, registry: Scripted, other: Scripted, tmp_path: Path
    ) -> None:
        registry.guard = lambda asked: (
            None
            if asked.header("Authorization") == basic(f"user-of-{registry.host}", "secret")
            else Reply(401, {"WWW-Authenticate": "Basic"})
        )
        tokens = Tokens(other)
        with client_of(registry, authfile=authfile(tmp_path, registry.host, other.host)) as client:
            assert client.push(DATA) == 1
            assert client.push(DATA[1:]) == 1
        assert other.blobs[DIGEST] == DATA
        assert {asked.header("Authorization") for asked in other.requests("GET", "token")} == {
            basic(f"user-of-{other.host}", "secret")
        }
        assert {asked.header("Authorization") for asked in other.requests("P", "uploads")} == {
            None,
            *(f"Bearer {token}" for token in tokens.valid),
        }
        assert len(other.requests("GET", "token")) == 1

    @pytest.mark.parametrize("option", ["creds", "environ"])
    def test_shows_nothing_that_was_given_for_the_registry_alone(
        self, registry: Scripted, other: Scripted, option: str
    ) -> None:
        other.guard = lambda _: Reply(401, {"WWW-Authenticate": "Basic"})
        given: dict[str, object] = {"creds": ("me", "word")}
        if option == "environ":
            given = {"environ": {"TOWLINE_USERNAME": "me", "TOWLINE_PASSWORD": "word"}}
        with client_of(registry, **given) as client, pytest.raises(AuthError):
            client.push(DATA)
        assert {asked.header("Authorization") for asked in other.asked} == {None}

    @pytest.mark.parametrize("path", ["/v2/team/app/manifests/1", "/v2/a/blobs/uploads/%2e%2e/b"])
    def test_shows_the_other_hosts_own_credentials_for_uploads_alone(
        self, registry: Scripted, other: Scripted, tmp_path: Path, path: str
    ) -> None:
        """A registry could have us write in our own name wherever else we may."""
        other.on("POST", path, Reply(401, {"WWW-Authenticate": "Basic"}), forever=True)
        registry.forget("POST")
        location = {"Location": f"{other.url}{path}"}
        registry.on("POST", "uploads", Reply(307, location), forever=True)
        with (
            client_of(registry, authfile=authfile(tmp_path, other.host)) as client,
            pytest.raises(AuthError, match="no credentials are sent there"),
        ):
            client.push(DATA)
        assert {asked.header("Authorization") for asked in other.asked} == {None}

    def test_is_refused_by_the_other_host_in_its_own_words(
        self, other: Scripted, client: Client
    ) -> None:
        other.on("POST", "", complaint(400, "NAME_INVALID", "no such mirror"), forever=True)
        with pytest.raises(RegistryError, match=f"{other.host} answered 400.*no such mirror"):
            client.push(DATA)
        assert len(other.asked) == 1

    @pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "[::1]", "0x7f.1"])
    def test_in_a_private_network_is_refused_at_once_where_the_registry_is_public(
        self, registry: Scripted, status: int, address: str
    ) -> None:
        location = {"Location": f"http://{address}:{registry.host.rpartition(':')[2]}/v2/x"}
        registry.on("POST", "uploads", Reply(status, location), forever=True)
        environ = {"http_proxy": f"http://{registry.host}"}
        with client_of("registry.example", environ=environ) as client:
            client.repository.has_blob(DIGEST, client.context)  # it has proved to be a registry
            with pytest.raises(NetworkError, match="is an address of a private network"):
                client.push(DATA)
        assert [asked.method for asked in registry.asked] == ["HEAD", "POST"]

    def test_in_a_private_network_costs_a_push_one_question(
        self, registry: Scripted, tmp_path: Path, status: int
    ) -> None:
        image = make_image(tmp_path / "image.tar", [{"a": b"a"}]).path
        location = {"Location": f"http://10.0.0.1:{registry.host.rpartition(':')[2]}/v2/x"}
        registry.on("POST", "uploads", Reply(status, location), forever=True)
        environ = {"HTTP_PROXY": f"http://{registry.host}"}
        with (
            towline.Pusher(cache="none", plain_http=True, jobs=1, environ=environ) as pusher,
            pytest.raises(NetworkError, match="is an address of a private network"),
        ):
            pusher.push(image, "registry.example/app:1")
        assert len(registry.requests("POST")) <= 2, "one for each blob"


def test_an_upload_that_is_sent_from_https_to_http_is_refused_at_once(
    registry: Scripted, tmp_path: Path
) -> None:
    authority = make_authority(tmp_path)
    with scripted(authority.issue()) as secure:
        port = registry.host.rpartition(":")[2]
        location = {"Location": f"http://localhost:{port}/v2/team/app/blobs/uploads/"}
        secure.on("POST", "uploads", Reply(307, location), forever=True)
        with client_of(secure, plain_http=False, ca=authority.ca) as client:
            client.repository.has_blob(DIGEST, client.context)
            with pytest.raises(RegistryError, match="which is not encrypted"):
                client.push(DATA)
        assert len(secure.requests("POST")) == 1
    assert registry.asked == []


def test_a_proxy_that_ends_tls_may_send_an_upload_on_by_http_of_the_same_host(
    tmp_path: Path,
) -> None:
    authority = make_authority(tmp_path)
    with scripted(authority.issue()) as secure:
        location = {"Location": f"http://{secure.host}/v2/second/app/blobs/uploads/"}
        secure.on("POST", "/team/app/", Reply(307, location), forever=True)
        with client_of(secure, plain_http=False, ca=authority.ca) as client:
            send(client.repository.start_upload(client.context), DATA)
        assert secure.blobs[DIGEST] == DATA
