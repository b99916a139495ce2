"""What a place on this machine spoke in an earlier run: a greeting saved, and no more than a hint.

Whatever it says, a push goes as without it, and nothing secret goes in the clear on its word.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

import towline
from tests.support.certificates import make_authority
from tests.support.guards import USER, basic
from tests.support.pushing import client_of
from tests.support.scripted import CUT, GREETING_OF_TLS, Reply, Scripted, complaint, running
from towline.errors import NetworkError
from towline.registry.facts import scheme_to_recall
from towline.spec.digest import Digest
from towline.testing import make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.support.certificates import Authority
    from tests.support.pushing import Client
    from tests.support.scripted import Asked

DATA = os.urandom(100_000)
DIGEST = Digest.of(DATA)
CREDENTIALS = (USER, "s3cret-word")
GO = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
NGINX = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nContent-Length: 14\r\n"
    b"Connection: close\r\n\r\n<html>\n</html>"
)
NGINX_497 = (
    b"HTTP/1.1 301 Moved Permanently\r\nLocation: https://%s/v2/team/app/elsewhere\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)
OPENSSL = b"\x15\x03\x01\x00\x02\x02\x46"
HTTP_0_9 = b"<html>You speak plain HTTP to a server of TLS.</html>\n"
SILENTLY = b""
MANNERS = [GO, NGINX, NGINX_497, OPENSSL, HTTP_0_9, SILENTLY]
"""What servers of TLS say when they are spoken to in plain http, before they hang up."""
NAMES_OF_MANNERS = ["Go", "nginx", "nginx that sends on", "an alert", "HTTP/0.9", "nothing"]


class Changing(Scripted):
    """A registry that may be started anew with TLS or without it; keeps each one's first words."""

    manner: bytes = SILENTLY
    """Said to plain http where TLS is spoken."""

    def __init__(self, *whatever: object) -> None:
        super().__init__(*whatever)  # type: ignore[arg-type]  # handed on as they come
        self.heard: list[bytes] = []
        """What each connection began with, as it came over the wire."""
        self.secure = self._tls
        self._tls = None

    def turn(self, scheme: str) -> None:
        self._tls = self.secure if scheme == "https" else None

    def _talk(self, connection: socket.socket, number: int) -> None:
        begun = connection.recv(65536, socket.MSG_PEEK)
        self.heard.append(begun)
        if self._tls is None or begun.startswith(GREETING_OF_TLS):
            super()._talk(connection, number)
            return
        connection.recv(65536)
        with contextlib.suppress(OSError):
            connection.sendall(self.manner.replace(b"%s", self.host.encode()))
        connection.close()

    @property
    def in_the_clear(self) -> list[bytes]:
        """What came over the wire and was no greeting of TLS."""
        return [begun for begun in self.heard if not begun.startswith(GREETING_OF_TLS)]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path)


@pytest.fixture
def place(authority: Authority) -> Iterator[Changing]:
    """In plain http to begin with."""
    with running(Changing, authority.issue()) as server:
        yield server


def recalling(scheme: str, days: float = 1) -> Callable[[str], Mapping[str, str]]:
    """Found out so many days ago, of whatever host."""
    facts = scheme_to_recall(scheme, time.time() - days * 24 * 3600)  # type: ignore[arg-type]  # a parameter of tests
    return lambda _host: facts


def guarded(asked: Asked) -> Reply | None:
    """Lets in nobody but the account of these tests."""
    if asked.header("Authorization") == basic():
        return None
    refusal = complaint(401, "UNAUTHORIZED")
    return Reply(401, {"WWW-Authenticate": 'Basic realm="r"'}, refusal.body)


def use(client: Client) -> None:
    """As a push does: look, send, tag."""
    assert client.repository.has_blob(DIGEST, client.context) is False
    client.push(DATA)
    client.put()


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_a_second_run_greets_nobody(place: Changing, authority: Authority, scheme: str) -> None:
    place.turn(scheme)
    settings = {"plain_http": False, "ca": authority.ca}
    with client_of(place, recall=recalling(scheme), **settings) as client:
        use(client)
        assert client.repository.endpoint == f"{scheme}://{place.host}"
    assert place.blobs[DIGEST] == DATA
    assert place.greeted == 0
    assert len(place.heard) == 1, "one connection for all of it"


@pytest.mark.parametrize("scheme", ["https", "http"])
def test_what_is_too_old_is_asked_anew(place: Changing, authority: Authority, scheme: str) -> None:
    settings = {"plain_http": False, "ca": authority.ca}
    with client_of(place, recall=recalling(scheme, days=8), **settings) as client:
        use(client)
    assert place.greeted == 1
    assert len(place.heard) == 2


class TestFromHttpToTls:
    """The registry was started anew, with TLS."""

    @pytest.mark.parametrize("manner", MANNERS, ids=NAMES_OF_MANNERS)
    def test_a_push_goes_on_in_https(
        self, place: Changing, authority: Authority, manner: bytes
    ) -> None:
        place.turn("https")
        place.manner = manner
        settings = {"plain_http": False, "ca": authority.ca}
        with client_of(place, recall=recalling("http"), **settings) as client:
            use(client)
            assert client.repository.endpoint == f"https://{place.host}"
        assert place.blobs[DIGEST] == DATA
        assert len(place.in_the_clear) == 1
        assert b"Authorization" not in place.in_the_clear[0]

    @pytest.mark.parametrize("manner", MANNERS, ids=NAMES_OF_MANNERS)
    def test_nothing_at_all_is_sent_in_the_clear_where_there_are_credentials(
        self, place: Changing, authority: Authority, manner: bytes
    ) -> None:
        place.turn("https")
        place.manner = manner
        place.guard = guarded
        settings = {"plain_http": False, "ca": authority.ca, "creds": CREDENTIALS}
        with client_of(place, recall=recalling("http"), **settings) as client:
            use(client)
        assert place.blobs[DIGEST] == DATA
        assert place.in_the_clear == []

    def test_nor_where_a_nameless_use_of_it_has_gone_well_before(
        self, place: Changing, authority: Authority
    ) -> None:
        settings = {"plain_http": False, "ca": authority.ca, "src_creds": CREDENTIALS}
        with client_of(place, recall=recalling("http"), **settings) as client:
            assert client.repository.has_blob(DIGEST, client.context) is False
            place.turn("https")
            place.guard = guarded
            source = client.repo("team/base", side="source")
            assert source.has_blob(DIGEST, client.context) is False
        assert [b"Authorization" in begun for begun in place.in_the_clear] == [False]
        assert place.asked[-1].header("Authorization") == basic()

    def test_nor_on_the_word_of_a_token_service_that_was_remembered(
        self, place: Changing, authority: Authority
    ) -> None:
        place.turn("https")
        place.on("GET", "/token", Reply(200, (), '{"token": "of-nobody"}'))
        known = recalling("http")("")
        asked = {"realm": f"{place.url}/token", "service": "", "asked": known["greeted"]}
        settings = {"plain_http": False, "ca": authority.ca}
        with client_of(place, recall=lambda _: {**known, **asked}, **settings) as client:
            assert client.repository.has_blob(DIGEST, client.context) is False
        assert place.in_the_clear == []

    def test_all_who_began_at_once_go_on_in_https(
        self, place: Changing, authority: Authority
    ) -> None:
        place.turn("https")
        place.manner = GO
        found: list[bool] = []
        settings = {"plain_http": False, "ca": authority.ca}
        with client_of(place, recall=recalling("http"), **settings) as client:

            def ask() -> None:
                found.append(client.repository.has_blob(DIGEST, client.context))

            threads = [threading.Thread(target=ask) for _ in range(16)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(10)
        assert found == [False] * 16

    def test_a_certificate_that_nobody_trusts_is_an_error_and_no_reason_for_http(
        self, place: Changing
    ) -> None:
        place.turn("https")
        with (
            client_of(place, plain_http=False, recall=recalling("http")) as client,
            pytest.raises(NetworkError, match="is not trusted"),
        ):
            use(client)
        assert place.asked == []


class TestFromTlsToHttp:
    """The registry was started anew, without TLS."""

    @pytest.mark.parametrize("creds", [None, CREDENTIALS])
    def test_a_push_goes_on_in_http_as_in_a_first_run(
        self, place: Changing, creds: tuple[str, str] | None
    ) -> None:
        place.guard = guarded if creds else None
        with client_of(place, plain_http=False, creds=creds, recall=recalling("https")) as client:
            use(client)
            assert client.repository.endpoint == place.url.replace("https", "http")
        assert place.blobs[DIGEST] == DATA
        assert place.greeted == 2, "in https, and to find out"

    def test_it_may_send_for_tokens_in_the_clear_as_in_a_first_run(self, place: Changing) -> None:
        place.on("GET", "/token", Reply(200, (), '{"token": "t0ken"}'), forever=True)
        challenge = f'Bearer realm="http://{place.host}/token"'
        place.guard = lambda asked: (
            None if asked.header("Authorization") else Reply(401, {"WWW-Authenticate": challenge})
        )
        with client_of(place, plain_http=False, recall=recalling("https")) as client:
            use(client)
        assert place.blobs[DIGEST] == DATA

    def test_never_once_it_has_answered_in_tls(self, place: Changing, authority: Authority) -> None:
        place.turn("https")
        settings = {"plain_http": False, "ca": authority.ca}
        with client_of(place, recall=recalling("https"), **settings) as client:
            place.on("HEAD", "blobs", Reply(404, close=True))
            assert client.repository.has_blob(DIGEST, client.context) is False
            place.turn("http")
            with pytest.raises(NetworkError):
                client.repository.has_blob(DIGEST, client.context)
        assert place.in_the_clear == []

    def test_nor_once_it_has_answered_in_the_tls_that_was_found_anew(
        self, place: Changing, authority: Authority
    ) -> None:
        place.turn("https")
        settings = {"plain_http": False, "ca": authority.ca}
        with client_of(place, recall=recalling("http"), **settings) as client:
            place.on("HEAD", "blobs", Reply(404, close=True))
            assert client.repository.has_blob(DIGEST, client.context) is False
            place.turn("http")
            with pytest.raises(NetworkError):
                client.repository.has_blob(DIGEST, client.context)
        assert len(place.in_the_clear) == 1, "the one that found TLS"


def test_a_place_that_was_away_for_a_moment_is_asked_anew(place: Changing) -> None:
    place.on("HEAD", "blobs", CUT)
    with client_of(place, plain_http=False, recall=recalling("http")) as client:
        with pytest.raises(NetworkError):
            client.repository.has_blob(DIGEST, client.context)
        use(client)
    assert place.blobs[DIGEST] == DATA
    assert place.greeted == 1


def test_what_is_said_of_another_machine_changes_nothing(
    place: Changing, authority: Authority
) -> None:
    """As a cache that machines share might."""
    host = f"0x7f.1:{place.host.rpartition(':')[2]}"  # leads to here, and does not say so
    place.turn("https")
    settings = {"plain_http": False, "ca": authority.ca}
    with (
        client_of(host, recall=recalling("http"), **settings) as client,
        pytest.raises(NetworkError, match=r"certificate of .* is not trusted"),
    ):
        use(client)
    assert place.in_the_clear == []


def test_insecure_is_never_http_whatever_is_remembered(place: Changing) -> None:
    with (
        client_of(place, plain_http=False, insecure=True, recall=recalling("http")) as client,
        pytest.raises(NetworkError, match="does not speak TLS"),
    ):
        use(client)
    assert place.asked == []


def test_plain_http_is_http_whatever_is_remembered(place: Changing) -> None:
    with client_of(place, plain_http=True, recall=recalling("https")) as client:
        use(client)
    assert place.greeted == 0


class TestPushes:
    """Whole ones, each with a `Pusher` of its own, as runs of the command have."""

    @pytest.fixture
    def image(self, tmp_path: Path) -> Path:
        return make_image(tmp_path / "image.tar").path

    def push(self, image: Path, place: Changing, cache: str) -> towline.PushResult:
        with towline.Pusher(cache=cache) as pusher:
            return pusher.push(image, f"{place.host}/team/app:1")

    def test_the_greeting_of_the_first_is_the_last(
        self, place: Changing, image: Path, tmp_path: Path
    ) -> None:
        cache = str(tmp_path / "knowledge.sqlite")
        assert self.push(image, place, cache).status == "pushed"
        assert place.greeted == 1
        first = len(place.heard)
        result = self.push(image, place, cache)
        assert (result.status, result.requests) == ("unchanged", 1)
        assert place.greeted == 1
        assert len(place.heard) == first + 1

    def test_without_a_cache_each_greets(self, place: Changing, image: Path) -> None:
        for _ in range(2):
            self.push(image, place, "none")
        assert place.greeted == 2
