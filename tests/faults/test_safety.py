"""Where credentials and bytes never go, whatever a registry says."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import make_authority
from tests.support.guards import PASSWORD, USER, basic
from tests.support.pushing import Client, client_of, send
from tests.support.scripted import Asked, Reply, Scripted, scripted
from towline.context import Context
from towline.errors import AuthError, NetworkError, RegistryError
from towline.push_events import nowhere
from towline.registry.auth.credential_files import Credentials
from towline.registry.auth.keychain import Keychain
from towline.registry.endpoints import Endpoint
from towline.registry.transport import Call, Transport
from towline.spec.digest import Digest
from towline.wire import proxy
from towline.wire.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.certificates import Authority

DATA = os.urandom(100_000)
DIGEST = Digest.of(DATA)
PUBLIC = "registry.example"
BASIC = Reply(401, {"WWW-Authenticate": "Basic"})
HERE = [
    "127.0.0.1",
    "127.1.2.3",
    "localhost",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "0.0.0.0",  # noqa: S104 - nothing is bound: it leads to this machine
    "0x7f.1",
    "1",
]
PRIVATE = ["127.0.0.1", "localhost", "10.0.0.1", "169.254.169.254", "[::1]", "[fd00::1]", "0x7f.1"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path)


@pytest.fixture
def secure(authority: Authority) -> Iterator[Scripted]:
    with scripted(authority.issue()) as server:
        yield server


@pytest.fixture
def trusting(secure: Scripted, authority: Authority) -> Iterator[Client]:
    creds = (USER, PASSWORD)
    with client_of(secure, plain_http=False, ca=authority.ca, creds=creds) as client:
        yield client


@pytest.fixture
def public(registry: Scripted) -> Iterator[Client]:
    """A client of a registry on the internet; the scripted one is the proxy on the way there."""
    environ = {"http_proxy": f"http://{registry.host}"}
    with client_of(PUBLIC, environ=environ, creds=(USER, PASSWORD)) as client:
        yield client


def wants_password(asked: Asked) -> Reply | None:
    return None if asked.header("Authorization") == basic() else BASIC


def guarded(registry: Scripted) -> None:
    """Have it ask for a password wherever it is asked, also as a proxy."""
    registry.on("HEAD", "", wants_password, forever=True)


def shown(registry: Scripted) -> set[str | None]:
    return {asked.header("Authorization") for asked in registry.asked}


class TestLocations:
    """Where a session goes on."""

    @pytest.mark.parametrize(
        "place", ["http://{host}", "http://{name}", "http://{name}:80"], ids=["port", "none", "80"]
    )
    def test_http_of_the_same_host_after_https_is_https_at_the_port_that_was_asked(
        self, secure: Scripted, trusting: Client, place: str
    ) -> None:
        secure.guard = wants_password
        name = secure.host.partition(":")[0]
        location = place.format(host=secure.host, name=name) + "/v2/team/app/blobs/uploads/s0?a=b"
        secure.sessions["s0"] = bytearray()
        secure.on("POST", "uploads", Reply(202, {"Location": location}))
        # The refused question comes first: a rule is there for one answer.
        trusting.repository.has_blob(DIGEST, trusting.context)
        send(trusting.repository.start_upload(trusting.context), DATA)
        assert secure.blobs[DIGEST] == DATA
        assert {one.header("Authorization") for one in secure.requests("P")} == {basic()}

    def test_http_of_another_host_after_https_is_refused(
        self, registry: Scripted, secure: Scripted, trusting: Client
    ) -> None:
        port = registry.host.rpartition(":")[2]
        location = f"http://localhost:{port}/v2/team/app/blobs/uploads/s0"
        secure.on("POST", "uploads", Reply(202, {"Location": location}), forever=True)
        with pytest.raises(RegistryError, match="which is not encrypted"):
            trusting.push(DATA)
        assert registry.asked == []

    @pytest.mark.parametrize(
        ("named", "place"), [(f"{PUBLIC}:80", f"http://{PUBLIC}"), (PUBLIC, f"http://{PUBLIC}:80")]
    )
    def test_the_port_of_the_scheme_is_no_other_place(
        self, registry: Scripted, named: str, place: str
    ) -> None:
        registry.on("HEAD", "", wants_password, forever=True)
        registry.on("POST", "", Reply(202, {"Location": f"{place}/v2/team/app/up?x"}))
        registry.on("PATCH", "", Reply(202))
        registry.on("PUT", "", Reply(201))
        environ = {"http_proxy": f"http://{registry.host}"}
        with client_of(named, environ=environ, creds=(USER, PASSWORD)) as client:
            client.repository.has_blob(DIGEST, client.context)
            send(client.repository.start_upload(client.context), DATA)
        assert {one.header("Authorization") for one in registry.requests("P")} == {basic()}

    def test_another_host_on_the_internet_gets_the_bytes_and_no_credentials(
        self, registry: Scripted, public: Client
    ) -> None:
        guarded(registry)
        location = {"Location": "http://storage.example/up?sig=a%2Fb"}
        registry.on("POST", "", Reply(202, location))
        registry.on("PATCH", "", Reply(202))
        registry.on("PUT", "", Reply(201))
        public.repository.has_blob(DIGEST, public.context)
        send(public.repository.start_upload(public.context), DATA)
        (patch,), (put,) = registry.requests("PATCH"), registry.requests("PUT")
        assert patch.target == "http://storage.example/up?sig=a%2Fb"
        assert patch.body == DATA
        assert (patch.header("Authorization"), put.header("Authorization")) == (None, None)
        assert {one.header("Authorization") for one in registry.requests("POST")} == {basic()}

    def test_a_name_that_leads_into_this_network_is_refused_by_the_address(
        self, registry: Scripted
    ) -> None:
        here = socket.gethostname()
        with scripted() as inside:
            port = inside.host.rpartition(":")[2]
            registry.on("POST", "", Reply(202, {"Location": f"http://{here}:{port}/x"}))
            environ = {"http_proxy": f"http://{registry.host}", "no_proxy": here}
            with (
                client_of(PUBLIC, environ=environ) as client,
                pytest.raises(NetworkError, match=r"private network|cannot be resolved"),
            ):
                client.push(DATA)
            assert inside.asked == []


class TestRealms:
    """Where a token is to be had."""

    def test_in_the_clear_for_a_registry_that_is_encrypted_is_refused(
        self, registry: Scripted, secure: Scripted, trusting: Client
    ) -> None:
        challenge = f'Bearer realm="{registry.url}/token"'
        secure.guard = lambda asked: Reply(401, {"WWW-Authenticate": challenge})
        with pytest.raises(AuthError, match="in the clear"):
            trusting.push(DATA)
        assert registry.asked == []

    @pytest.mark.parametrize("address", PRIVATE)
    def test_in_a_private_network_is_refused_where_the_registry_is_public(
        self, registry: Scripted, public: Client, address: str
    ) -> None:
        port = registry.host.rpartition(":")[2]
        challenge = f'Bearer realm="http://{address}:{port}/token"'
        registry.on("POST", "", Reply(401, {"WWW-Authenticate": challenge}), forever=True)
        with pytest.raises(NetworkError, match="is an address of a private network"):
            public.push(DATA)
        assert [asked.method for asked in registry.asked] == ["POST"]
        assert shown(registry) == {None}

    def test_that_sends_on_into_a_private_network_is_refused_too(
        self, registry: Scripted, public: Client
    ) -> None:
        challenge = 'Bearer realm="http://auth.example/token"'
        registry.on("POST", "", Reply(401, {"WWW-Authenticate": challenge}), forever=True)
        registry.on("GET", "auth.example", Reply(307, {"Location": f"{registry.url}/token"}))
        with pytest.raises(NetworkError, match="is an address of a private network"):
            public.push(DATA)
        assert [asked.method for asked in registry.asked] == ["POST", "GET"]

    def test_at_another_host_that_sends_on_gets_no_password_there(
        self, registry: Scripted, public: Client
    ) -> None:
        challenge = 'Bearer realm="http://auth.example/token"'

        def wants_token(asked: Asked) -> Reply | None:
            good = asked.header("Authorization") == "Bearer t0"
            return None if good else Reply(401, {"WWW-Authenticate": challenge})

        registry.on("HEAD", "", wants_token, forever=True)
        sent_on = Reply(307, {"Location": "http://other.example/token?x"})
        registry.on("GET", "auth.example/token", sent_on)
        registry.on("GET", "other.example/token", Reply(200, (), '{"token":"t0"}'))
        public.repository.has_blob(DIGEST, public.context)
        (first,), (second,) = registry.requests("GET", "auth."), registry.requests("GET", "other.")
        assert first.header("Authorization") == basic()
        assert second.header("Authorization") is None
        assert registry.requests("HEAD")[-1].header("Authorization") == "Bearer t0"


class TestReads:
    def test_from_https_to_http_is_refused(
        self, registry: Scripted, secure: Scripted, trusting: Client
    ) -> None:
        secure.on("GET", "blobs", Reply(307, {"Location": f"{registry.url}/bucket"}))
        with pytest.raises(RegistryError, match="which is not encrypted"):
            trusting.repository.read_blob(DIGEST, trusting.context, len(DATA))
        assert registry.asked == []

    @pytest.mark.parametrize("address", PRIVATE)
    def test_from_the_internet_into_a_private_network_is_refused(
        self, registry: Scripted, public: Client, address: str
    ) -> None:
        registry.on("GET", "blobs", Reply(307, {"Location": f"http://{address}/bucket"}))
        with pytest.raises(NetworkError, match="is an address of a private network"):
            public.repository.read_blob(DIGEST, public.context, len(DATA))
        assert len(registry.asked) == 1

    def test_a_question_keeps_its_method_and_leaves_its_credentials_behind(
        self, registry: Scripted
    ) -> None:
        registry.guard = wants_password
        with scripted() as storage, client_of(registry, creds=(USER, PASSWORD)) as client:
            storage.on("HEAD", "/bucket", Reply(200))
            registry.on("HEAD", "manifests", Reply(307, {"Location": f"{storage.url}/bucket?s"}))
            registry.on("GET", "manifests", Reply(404))
            client.repository.head_manifest("1", client.context)
            (asked,) = storage.asked
        assert (asked.method, asked.target) == ("HEAD", "/bucket?s")
        assert asked.header("Authorization") is None
        assert asked.header("Cookie") is None


class TestThisMachine:
    """A registry on another machine, though in the same network, sends nobody to this one."""

    @pytest.fixture
    def neighbour(self, registry: Scripted) -> Iterator[Client]:
        environ = {"http_proxy": f"http://{registry.host}"}
        with client_of("10.0.0.9", environ=environ, creds=(USER, PASSWORD)) as client:
            yield client

    @pytest.mark.parametrize("address", HERE)
    def test_for_a_session_is_refused(
        self, registry: Scripted, neighbour: Client, address: str
    ) -> None:
        location = {"Location": f"http://{address}:{registry.host.rpartition(':')[2]}/x"}
        registry.on("POST", "uploads", Reply(202, location), forever=True)
        with pytest.raises(NetworkError, match="is an address of this machine"):
            neighbour.push(DATA)
        assert [asked.method for asked in registry.asked] == ["POST"]

    @pytest.mark.parametrize("address", HERE)
    def test_for_a_token_is_refused(
        self, registry: Scripted, neighbour: Client, address: str
    ) -> None:
        port = registry.host.rpartition(":")[2]
        challenge = f'Bearer realm="http://{address}:{port}/token"'
        registry.on("POST", "", Reply(401, {"WWW-Authenticate": challenge}), forever=True)
        with pytest.raises(NetworkError, match="is an address of this machine"):
            neighbour.push(DATA)
        assert shown(registry) == {None}

    def test_a_neighbour_of_the_registry_is_fine(
        self, registry: Scripted, neighbour: Client
    ) -> None:
        registry.on("POST", "", Reply(202, {"Location": "http://10.0.0.10/up"}))
        registry.on("PATCH", "http://10.0.0.10/up", Reply(202))
        registry.on("PUT", "http://10.0.0.10/up", Reply(201))
        neighbour.push(DATA)


class TestNamesThatHaveLedHere:
    """They are spoken to in the clear as this machine is; who answers for names may lie."""

    peers: Mapping[str, str] = MappingProxyType({})
    """Addresses that places were last connected to at, by origin."""

    def ask(self, host: str, **environ: str) -> None:
        """Ask a registry whose name has led to this machine, where nothing spoke TLS."""
        place = Endpoint(host, plain_http=False, loopback_http=True, timeout=2.0)
        place._base, place._settled = place._plain, True
        pool = Pool(proxies=proxy.from_environment(environ))
        keychain = Keychain({}, log=nowhere, warn=nowhere)
        caller = Transport(pool, place, Credentials(USER, PASSWORD), keychain)
        pool._peers.update(self.peers)
        try:
            caller.send(Call("GET", "/v2/", "log in"), (), Context())
        finally:
            pool.close()

    def test_nothing_is_sent_where_they_lead_to_another_machine_now(self) -> None:
        with scripted(address=outward()) as elsewhere:
            with pytest.raises(NetworkError, match=f"is at {outward()} now") as caught:
                self.ask(elsewhere.host)
            assert elsewhere.asked == []
        assert "`plain_http=True`" in str(caught.value.hint)

    def test_nor_to_a_proxy(self, registry: Scripted) -> None:
        with pytest.raises(NetworkError, match=f"behind the proxy http://{registry.host} now"):
            self.ask("registry.test:5000", http_proxy=f"http://{registry.host}")
        assert registry.asked == []

    def test_nor_to_their_token_service_by_a_proxy(self, registry: Scripted, name: str) -> None:
        with scripted(address=socket.gethostbyname(name)) as here:
            challenge = {"WWW-Authenticate": f'Bearer realm="http://{name}:1/token"'}
            here.guard = lambda _asked: Reply(401, challenge)
            host = f"{name}:{here.host.rpartition(':')[2]}"
            with pytest.raises(NetworkError, match="behind the proxy"):
                self.ask(host, http_proxy=f"http://{registry.host}", no_proxy=host)
            assert len(here.asked) == 1
        assert registry.asked == []

    @pytest.mark.parametrize("service", ["localhost:1", "auth.localhost:1"])
    def test_nor_to_a_token_service_that_is_only_called_as_if_it_were_here(
        self, registry: Scripted, service: str
    ) -> None:
        challenge = {"WWW-Authenticate": f'Bearer realm="http://{service}/token"'}
        registry.guard = lambda _asked: Reply(401, challenge)
        self.peers = {f"http://{service}": "10.0.0.1"}
        with pytest.raises(NetworkError, match=r"is at 10\.0\.0\.1 now"):
            self.ask(registry.host)

    def test_a_password_is_where_they_lead_here(self, name: str) -> None:
        with scripted(address=socket.gethostbyname(name)) as here:
            here.guard = lambda asked: None if asked.header("Authorization") == basic() else BASIC
            self.ask(f"{name}:{here.host.rpartition(':')[2]}")
            assert here.asked[-1].header("Authorization") == basic()

    @pytest.fixture
    def name(self) -> str:
        """One that leads here, and does not say so."""
        name = socket.gethostname()
        with suppress(OSError):
            if proxy.is_loopback(socket.gethostbyname(name)):
                return name
        pytest.skip("the name of this machine leads to no loopback address")


def outward() -> str:
    """The address by which other machines know this one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # which sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(sock.getsockname()[0])
