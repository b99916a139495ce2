"""Real registries, logins, certificates and proxies, spoken to by the registry client."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support import proxies, token_service
from tests.support.certificates import make_authority
from tests.support.docker_registry import PASSWORD, USER, Options
from tests.support.pushing import Client, client_of, send
from towline.errors import AuthError, NetworkError, RegistryError
from towline.reference import RepositoryName
from towline.registry.blobs import Confirmed
from towline.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import StartDockerRegistry
    from tests.support.certificates import Authority
    from tests.support.docker_registry import DockerRegistry

MiB = 1 << 20
DATA = os.urandom(3 * MiB)
DIGEST = Digest.of(DATA)

ALL_KINDS = pytest.mark.parametrize("service", token_service.KINDS, indirect=True)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path)


def push_all(client: Client) -> None:
    """A streamed blob and a known one, read back."""
    client.push(DATA)
    client.push(DATA[:1000], known=True)
    read = client.repository.read_blob(DIGEST, client.context, len(DATA))
    assert read == DATA
    assert client.repository.has_blob(Digest.of(DATA[:1000]), client.context)


def blob_requests(registry: DockerRegistry) -> list[str]:
    return [f"{one.method} {one.status}" for one in registry.requests()]


class TestPasswords:
    @pytest.fixture
    def registry(self, start_docker_registry: StartDockerRegistry) -> DockerRegistry:
        return start_docker_registry(Options(htpasswd=True))

    def test_a_password_lets_in_and_costs_one_refused_request(
        self, registry: DockerRegistry
    ) -> None:
        with client_of(registry.host, creds=(USER, PASSWORD)) as client:
            push_all(client)
        assert [line for line in blob_requests(registry) if line.endswith("401")] == ["POST 401"]

    def test_a_wrong_password_is_refused_at_the_first_request(
        self, registry: DockerRegistry
    ) -> None:
        with (
            client_of(registry.host, creds=(USER, "wrong")) as client,
            pytest.raises(AuthError, match=f"user {USER}"),
        ):
            client.push(DATA)
        assert blob_requests(registry) == ["POST 401", "POST 401"]

    def test_nobody_is_told_how_to_log_in(self, registry: DockerRegistry) -> None:
        with (
            client_of(registry.host) as client,
            pytest.raises(AuthError, match="no credentials were found"),
        ):
            client.push(DATA)


class TestTokens:
    @pytest.fixture
    def service(
        self, authority: Authority, request: pytest.FixtureRequest
    ) -> Iterator[token_service.TokenService]:
        with token_service.serving(authority, getattr(request, "param", "ES256")) as service:
            yield service

    @pytest.fixture
    def registry(
        self, start_docker_registry: StartDockerRegistry, service: token_service.TokenService
    ) -> DockerRegistry:
        return start_docker_registry(Options(auth=service.auth()))

    @pytest.fixture
    def client(self, registry: DockerRegistry) -> Iterator[Client]:
        creds = (token_service.USER, token_service.PASSWORD)
        with client_of(registry.host, creds=creds) as client:
            yield client

    @ALL_KINDS
    def test_one_token_does_for_a_push(
        self, client: Client, service: token_service.TokenService
    ) -> None:
        push_all(client)
        assert service.granted == [["repository:team/app:pull,push"]]

    @ALL_KINDS
    def test_a_mount_gets_a_token_for_both_and_is_a_mount(
        self, client: Client, service: token_service.TokenService
    ) -> None:
        client.push(DATA)
        origin = client.repository.name
        other = client.repo("other/app", pull_from=(origin,))
        assert other.mount(DIGEST, origin, client.context) == Confirmed()
        assert service.granted[-1] == ["repository:other/app:pull,push", "repository:team/app:pull"]

    def test_tokens_that_end_after_two_seconds_cost_no_blob(
        self, client: Client, service: token_service.TokenService
    ) -> None:
        service.life = 2
        upload = client.repository.start_upload(client.context)
        upload.write(DATA[:MiB])
        client.context.cancel.wait(4)
        upload.write(DATA[MiB:])
        upload.commit(DIGEST)
        assert client.context.meter.sent_bytes == len(DATA)
        assert client.repository.read_blob(DIGEST, client.context, len(DATA)) == DATA

    def test_a_wrong_password_is_told_by_the_service(self, registry: DockerRegistry) -> None:
        with (
            client_of(registry.host, creds=(USER, "wrong")) as client,
            pytest.raises(AuthError, match="incorrect username or password"),
        ):
            client.push(DATA)


class TestCertificates:
    def test_a_client_certificate_lets_in(
        self, start_docker_registry: StartDockerRegistry, authority: Authority
    ) -> None:
        options = Options(tls=authority.issue(), client_ca=authority.ca)
        registry = start_docker_registry(options)
        mine = authority.issue("client")
        with client_of(
            registry.host, plain_http=False, ca=authority.ca, cert=mine.cert, key=mine.key
        ) as client:
            push_all(client)

    def test_a_missing_client_certificate_is_a_failure_of_tls(
        self, start_docker_registry: StartDockerRegistry, authority: Authority
    ) -> None:
        options = Options(tls=authority.issue(), client_ca=authority.ca)
        registry = start_docker_registry(options)
        with (
            client_of(registry.host, plain_http=False, ca=authority.ca) as client,
            pytest.raises(NetworkError, match=r"(?i)certificate"),
        ):
            client.push(DATA)


class TestNginx:
    def test_a_limit_of_a_megabyte_is_found_and_kept_to(
        self, docker_registry: DockerRegistry, nginx_bin: Path, tmp_path: Path
    ) -> None:
        with (
            proxies.nginx(nginx_bin, tmp_path / "nginx", docker_registry.host) as host,
            client_of(host) as client,
        ):
            client.repository = client.repo("limited/app")
            client.push(DATA)
            before = client.context.meter.requests
            other = DATA[1:]
            client.push(other)
            assert client.context.meter.requests - before == 1 + 3 + 1
            context = client.context
            assert client.repository.read_blob(DIGEST, context, len(DATA)) == DATA

    def test_https_stays_https_where_the_registry_says_http_of_itself(
        self,
        docker_registry: DockerRegistry,
        nginx_bin: Path,
        tmp_path: Path,
        authority: Authority,
    ) -> None:
        more = "client_max_body_size 0; proxy_request_buffering off;"
        with (
            proxies.nginx(
                nginx_bin,
                tmp_path / "nginx",
                docker_registry.host,
                tls=authority.issue(),
                more=more,
            ) as host,
            client_of(host, plain_http=False, ca=authority.ca) as client,
        ):
            client.repository = client.repo("behind/app")
            push_all(client)
            assert "Location: http://127.0.0.1" in str(client.heard)

    def test_http_spoken_to_nginx_of_https_says_what_to_leave_out(
        self,
        docker_registry: DockerRegistry,
        nginx_bin: Path,
        tmp_path: Path,
        authority: Authority,
    ) -> None:
        with (
            proxies.nginx(
                nginx_bin, tmp_path / "nginx", docker_registry.host, tls=authority.issue()
            ) as host,
            client_of(host) as client,
            pytest.raises(RegistryError, match="plain HTTP request was sent to HTTPS") as caught,
        ):
            client.push(DATA)
        assert "`plain_http=True`" in str(caught.value.hint)


class TestTinyproxy:
    @pytest.fixture
    def registry(
        self, start_docker_registry: StartDockerRegistry, authority: Authority
    ) -> DockerRegistry:
        return start_docker_registry(Options(tls=authority.issue()))

    def test_a_push_goes_through_a_tunnel(
        self, registry: DockerRegistry, tinyproxy_bin: Path, tmp_path: Path
    ) -> None:
        # An address that leads here without saying so: loopback is never reached by a proxy.
        host = "0.0.0.0:" + registry.host.rpartition(":")[2]
        with proxies.tinyproxy(tinyproxy_bin, tmp_path / "proxy", login=("me", "word")) as proxy:
            environ = {"HTTPS_PROXY": f"http://me:word@{proxy}"}
            with client_of(host, plain_http=False, insecure=True, environ=environ) as client:
                push_all(client)
            assert f"CONNECT {host}" in (tmp_path / "proxy/tinyproxy.log").read_text()


def test_a_cut_upload_leaves_no_session_that_is_gone_on_with_blindly(
    docker_registry: DockerRegistry,
) -> None:
    """Distribution 2.8 keeps a session, but only its newest state is good: a new one is opened."""
    with client_of(docker_registry.host) as client:
        client.repository = client.repo("cut/app")
        upload = client.repository.start_upload(client.context)
        upload.write(DATA[:MiB])
        upload._break_off()
        if not upload.rewind():
            upload = client.repository.start_upload(client.context)
        send(upload, DATA)
        assert client.repository.read_blob(DIGEST, client.context, len(DATA)) == DATA


def test_chunks_that_were_acknowledged_are_gone_on_with(docker_registry: DockerRegistry) -> None:
    with client_of(docker_registry.host, chunk_size=MiB) as client:
        client.repository = client.repo("chunks/app")
        upload = client.repository.start_upload(client.context)
        upload.write(DATA[: 2 * MiB + 5])
        assert upload.acknowledged == 2 * MiB
        upload._break_off()
        assert upload.rewind()
        send(upload, DATA)
        assert upload.resumed
        assert upload.sent == len(DATA)
        assert client.repository.read_blob(DIGEST, client.context, len(DATA)) == DATA


def test_a_mount_of_what_is_not_there_opens_a_session(docker_registry: DockerRegistry) -> None:
    with client_of(docker_registry.host) as client:
        origin = RepositoryName(docker_registry.host, "nothing/here")
        other = client.repo("mounts/app", pull_from=(origin,))
        upload = other.mount(DIGEST, origin, client.context)
        assert upload is not None
        assert not isinstance(upload, Confirmed)
        send(upload, DATA)
        assert other.has_blob(DIGEST, client.context)


class TestLoggingIn:
    @pytest.mark.parametrize("kind", ["htpasswd", "token"])
    @pytest.mark.parametrize("good", [True, False])
    def test_credentials_are_checked_at_the_registry_itself(
        self,
        start_docker_registry: StartDockerRegistry,
        authority: Authority,
        kind: str,
        *,
        good: bool,
    ) -> None:
        with token_service.serving(authority) as service:
            options = Options(htpasswd=True) if kind == "htpasswd" else Options(auth=service.auth())
            registry = start_docker_registry(options)
            with client_of(registry.host, creds=(USER, PASSWORD if good else "wrong")) as client:
                if good:
                    client.client.log_in(registry.host, client.context)
                    return
                with pytest.raises(AuthError, match=f"user {USER}"):
                    client.client.log_in(registry.host, client.context)
