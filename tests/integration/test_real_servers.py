"""Whole pushes by the command, through what stands before real registries, and read back.

`test_registries` has the same servers and looks at single requests.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support import proxies, readback, token_service
from tests.support.certificates import make_authority
from tests.support.docker_registry import PASSWORD, USER, Options
from towline.cli.main import main
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import StartDockerRegistry
    from tests.support.certificates import Authority
    from tests.support.docker_registry import DockerRegistry

    Capture = pytest.CaptureFixture[str]

MiB = 1 << 20
ACCOUNT = f"{USER}:{PASSWORD}"

ALL_KINDS = pytest.mark.parametrize("service", token_service.KINDS, indirect=True)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    layers = [{"noise": os.urandom(3 * MiB)}, {"a": b"small"}, {"b": os.urandom(1000)}]
    return str(make_image(tmp_path_factory.mktemp("image") / "image.tar", layers).path)


Push = Callable[..., dict[str, Any]]


@pytest.fixture
def push(image: str, capsys: Capture) -> Push:
    """Push the image with these options, verified by reading back if wished; the result."""

    def push(name: str, *options: str, verified: bool = True) -> dict[str, Any]:
        reading = ["--verify=full"] if verified else []
        code = main(["push", image, name, "--output=json", *reading, *options])
        out, err = capsys.readouterr()
        assert code == 0, err
        result: dict[str, Any] = json.loads(out)
        return result

    return push


class Reader:
    """Reads images with somebody else's program."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._program = str(program)
        self._folder = folder

    def digest(self, name: str, *options: str) -> str:
        """Copy the whole image, which checks each of its digests, and give the manifest's."""
        place = self._folder / f"read-{len(list(self._folder.iterdir()))}"
        words = [self._program, "--insecure-policy", "copy", "--quiet", *options]
        done = subprocess.run(
            [*words, f"docker://{name}", f"dir:{place}"],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        manifest = (place / "manifest.json").read_bytes()
        return "sha256:" + hashlib.sha256(manifest).hexdigest()


@pytest.fixture
def reader(skopeo_bin: Path, tmp_path: Path) -> Reader:
    return Reader(skopeo_bin, tmp_path)


def test_with_a_password(
    start_docker_registry: StartDockerRegistry, reader: Reader, push: Push
) -> None:
    registry = start_docker_registry(Options(htpasswd=True))
    name = registry.name("team/app:1")
    result = push(name, "--creds", ACCOUNT)
    read = reader.digest(name, "--src-tls-verify=false", f"--src-creds={ACCOUNT}")
    assert read == result["digest"]


class TestTls:
    @pytest.fixture
    def registry(
        self, start_docker_registry: StartDockerRegistry, authority: Authority
    ) -> DockerRegistry:
        return start_docker_registry(Options(tls=authority.issue(), client_ca=authority.ca))

    def test_with_the_files_named(
        self, registry: DockerRegistry, authority: Authority, reader: Reader, push: Push
    ) -> None:
        mine, name = authority.issue("client"), registry.name("app:1")
        options = ["--ca", str(authority.ca), "--cert", str(mine.cert), "--key", str(mine.key)]
        result = push(name, *options)
        folder = _certs_d(authority.folder / "certs", authority)
        read = reader.digest(name, f"--src-cert-dir={folder}")
        assert read == result["digest"]

    def test_with_the_files_where_podman_keeps_them(
        self, registry: DockerRegistry, authority: Authority, push: Push
    ) -> None:
        from pathlib import Path

        places = Path(os.environ["HOME"], ".config/containers/certs.d")
        _certs_d(places / registry.host, authority)
        assert push(registry.name("app:1"))["status"] == "pushed"

    def test_without_them_the_failure_is_of_the_network_and_says_what_is_missing(
        self, registry: DockerRegistry, authority: Authority, image: str, capsys: Capture
    ) -> None:
        name = registry.name("app:1")
        assert main(["push", image, name, "-q", "--retries=0"]) == 6
        assert "--ca" in capsys.readouterr().err
        assert main(["push", image, name, "-q", "--retries=0", "--ca", str(authority.ca)]) == 6
        assert "certificate" in capsys.readouterr().err


def _certs_d(folder: Path, authority: Authority) -> Path:
    mine = authority.issue("client")
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_bytes(authority.ca.read_bytes())
    (folder / "client.cert").write_bytes(mine.cert.read_bytes())
    (folder / "client.key").write_bytes(mine.key.read_bytes())
    return folder


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

    @ALL_KINDS
    def test_one_token_does_for_all_layers(
        self,
        registry: DockerRegistry,
        service: token_service.TokenService,
        reader: Reader,
        push: Push,
    ) -> None:
        name = registry.name("team/app:1")
        result = push(name, "--creds", ACCOUNT)
        assert service.granted == [["repository:team/app:pull,push"]]
        read = reader.digest(name, "--src-tls-verify=false", f"--src-creds={ACCOUNT}")
        assert read == result["digest"]

    def test_an_unchanged_image_costs_a_challenge_a_token_and_a_question(
        self, registry: DockerRegistry, service: token_service.TokenService, push: Push
    ) -> None:
        name = registry.name("team/app:1")
        push(name, "--creds", ACCOUNT)
        again = push(name, "--creds", ACCOUNT, verified=False)
        assert (again["status"], again["sent_bytes"]) == ("unchanged", 0)
        assert again["requests"] <= 3

    def test_tokens_of_two_seconds_do_for_pushes_that_last_longer(
        self, registry: DockerRegistry, service: token_service.TokenService, image: str
    ) -> None:
        service.life = 2
        with towline.Pusher(creds=ACCOUNT, cache="none") as pusher:
            first = pusher.push(image, registry.name("one/app:1"))
            time.sleep(3)
            again = pusher.push(image, registry.name("one/app:2"), verify="full")
            other = pusher.push(image, registry.name("two/app:1"), verify="full")
        assert first.digest == again.digest == other.digest
        assert len(service.granted) > 2

    @ALL_KINDS
    def test_a_layer_is_mounted_with_a_token_for_both_repositories(
        self, registry: DockerRegistry, service: token_service.TokenService, push: Push
    ) -> None:
        push(registry.name("one/app:1"), "--creds", ACCOUNT)
        result = push(registry.name("two/app:1"), "--creds", ACCOUNT)
        assert result["sent_bytes"] == 0 or {layer["outcome"] for layer in result["layers"]} == {
            "mounted"
        }
        assert ["repository:two/app:pull,push", "repository:one/app:pull"] in service.granted

    def test_a_wrong_password_is_exit_code_4(
        self, registry: DockerRegistry, image: str, capsys: Capture
    ) -> None:
        name = registry.name("team/app:1")
        assert main(["push", image, name, "-q", "--creds", f"{USER}:wr0ng-word"]) == 4
        err = capsys.readouterr().err
        assert "incorrect username or password" in err
        assert "wr0ng-word" not in err


class TestNginx:
    def test_with_a_limit_of_a_megabyte(
        self, docker_registry: DockerRegistry, nginx_bin: Path, tmp_path: Path, push: Push
    ) -> None:
        with proxies.nginx(nginx_bin, tmp_path / "nginx", docker_registry.host) as host:
            result = push(f"{host}/megabyte/app:1")
        read = readback.image(docker_registry.url, "megabyte/app", "1")
        assert read.digest == result["digest"]

    @pytest.mark.parametrize("buffering", ["on", "off"])
    def test_with_tls_ending_at_it(
        self,
        docker_registry: DockerRegistry,
        nginx_bin: Path,
        authority: Authority,
        buffering: str,
        push: Push,
    ) -> None:
        folder, certificate = authority.folder / "nginx", authority.issue()
        more = f"client_max_body_size 0; proxy_request_buffering {buffering};"
        with proxies.nginx(
            nginx_bin, folder, docker_registry.host, tls=certificate, more=more
        ) as host:
            name = f"{host}/tls-{buffering}/app:1"
            result = push(name, "--ca", str(authority.ca))
        read = readback.image(docker_registry.url, f"tls-{buffering}/app", "1")
        assert read.digest == result["digest"]


class TestForwardProxy:
    """The registry's address leads here without saying so: loopback is never reached by a proxy."""

    def test_https_goes_through_a_tunnel(
        self,
        start_docker_registry: StartDockerRegistry,
        authority: Authority,
        tinyproxy_bin: Path,
        monkeypatch: pytest.MonkeyPatch,
        push: Push,
    ) -> None:
        registry = start_docker_registry(Options(tls=authority.issue(), htpasswd=True))
        folder = authority.folder / "proxy"
        host = "0.0.0.0:" + registry.host.rpartition(":")[2]
        with proxies.tinyproxy(tinyproxy_bin, folder, login=("me", "word")) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://me:word@{proxy}")
            result = push(f"{host}/app:1", "--insecure", "--creds", ACCOUNT)
        log = (folder / "tinyproxy.log").read_text()
        assert f"CONNECT {host}" in log
        assert (registry.root / "docker/registry/v2/repositories/app").is_dir()
        assert result["status"] == "pushed"

    def test_http_is_asked_of_the_proxy(
        self,
        docker_registry: DockerRegistry,
        tinyproxy_bin: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        push: Push,
    ) -> None:
        folder = tmp_path / "proxy"
        host = "0.0.0.0:" + docker_registry.host.rpartition(":")[2]
        with proxies.tinyproxy(tinyproxy_bin, folder) as proxy:
            monkeypatch.setenv("http_proxy", f"http://{proxy}")
            result = push(f"{host}/by-proxy/app:1", "--plain-http")
        assert "by-proxy/app/blobs/uploads" in (folder / "tinyproxy.log").read_text()
        assert readback.image(docker_registry.url, "by-proxy/app", "1").digest == result["digest"]

    def test_a_proxy_that_wants_a_password_is_exit_code_6_and_is_named(
        self,
        tinyproxy_bin: Path,
        tmp_path: Path,
        image: str,
        capsys: Capture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with proxies.tinyproxy(tinyproxy_bin, tmp_path / "proxy", login=("me", "word")) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy}")
            assert main(["push", image, "0.0.0.0:1/app:1", "-q", "--retries=0"]) == 6
            assert proxy in capsys.readouterr().err
