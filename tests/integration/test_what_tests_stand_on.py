"""The real programs that tests are run against, and what is said where one is missing."""

from __future__ import annotations

import base64
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.certificates import make_authority
from tests.support.docker_registry import PASSWORD, USER, DockerRegistry, Options, Request

if TYPE_CHECKING:
    from tests.conftest import StartDockerRegistry
    from tests.support.redis_server import RedisServer

TESTS = Path(__file__).resolve().parents[1]


def status_of(connection: http.client.HTTPConnection, **headers: str) -> int:
    try:
        connection.request("GET", "/v2/", headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def test_the_real_registry_answers_and_its_requests_are_counted(
    docker_registry: DockerRegistry,
) -> None:
    before = len(docker_registry.requests())
    assert status_of(http.client.HTTPConnection(docker_registry.host)) == 200
    assert docker_registry.requests()[before:] == [Request("GET", "/v2/", 200)]


def test_a_registry_with_a_password_lets_in_its_user_alone(
    start_docker_registry: StartDockerRegistry,
) -> None:
    registry = start_docker_registry(Options(htpasswd=True))
    basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert status_of(http.client.HTTPConnection(registry.host)) == 401
    assert status_of(http.client.HTTPConnection(registry.host), Authorization=basic) == 200


def test_a_registry_with_tls_is_trusted_by_its_authority(
    start_docker_registry: StartDockerRegistry, tmp_path: Path
) -> None:
    authority = make_authority(tmp_path)
    registry = start_docker_registry(Options(tls=authority.issue()))
    trusting = ssl.create_default_context(cafile=str(authority.ca))
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 and later have it by default
    assert registry.url.startswith("https://")
    assert status_of(http.client.HTTPSConnection(registry.host, context=trusting)) == 200


def test_the_real_redis_answers_on_its_port_and_its_socket(redis_server: RedisServer) -> None:
    for family, address in (
        (socket.AF_INET, ("127.0.0.1", redis_server.port)),
        (socket.AF_UNIX, str(redis_server.socket)),
    ):
        with socket.socket(family) as client:
            client.connect(address)
            client.sendall(b"PING\r\n")
            assert client.recv(64) == b"+PONG\r\n"


def test_skopeo_runs(skopeo_bin: Path) -> None:
    done = subprocess.run([skopeo_bin, "--version"], capture_output=True, check=True, text=True)
    assert done.stdout.startswith("skopeo version")


@given(content=st.binary())
def test_property_tests_get_a_home_of_their_own_too(content: bytes) -> None:
    assert Path(os.environ["HOME"]).name == "home"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of two tests, one of which needs a program that no machine has."""
    shutil.copytree(TESTS / "support", tmp_path / "tests" / "support")
    for name in ("__init__.py", "conftest.py"):
        shutil.copy(TESTS / name, tmp_path / "tests" / name)
    shutil.copy(TESTS.parent / "pyproject.toml", tmp_path)
    (tmp_path / "tests" / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.needs('no-such-program')\n"
        "def test_one(): pass\n"
        "def test_two(): pass\n"
    )
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_a_missing_program_is_told_by_name_on_the_last_line_and_nothing_temporary_is_left(
    project: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    (project / "tests" / "test_temporary.py").write_text(
        "import tempfile\n"
        "def test_one(tmp_path): (tmp_path / 'a').touch()\n"
        "def test_two(oci_registry): tempfile.mkdtemp(prefix='forgotten-')\n"
        "def test_three(): tempfile.mkstemp()\n"
    )
    folder = project / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    missing = "1 test not run: no-such-program missing"
    assert run_tests(project, "0", workers) == (0, missing)
    (own,) = folder.iterdir()
    assert own.name.startswith("pytest-of-")
    assert not list(own.iterdir())


def run_tests(project: Path, strict: str, workers: int) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", str(workers)],
        cwd=project,
        env={**os.environ, "STRICT": strict},
        capture_output=True,
        check=False,
        text=True,
    )
    return done.returncode, done.stdout.splitlines()[-1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_missing_program_is_a_failure_where_all_must_run(project: Path, workers: int) -> None:
    assert run_tests(project, "1", workers) == (1, "1 test not run: no-such-program missing")
