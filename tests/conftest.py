"""What every test run sets up: missing programs told by name, nothing of the user's touched."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pkgutil
import shutil
import tempfile
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

import towline
from tests.support import components, docker_registry, redis_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    StartDockerRegistry = Callable[[docker_registry.Options], docker_registry.DockerRegistry]

# No deadline: on a shared machine the clock says more about the neighbours than about the code.
hypothesis.settings.register_profile("dev", max_examples=50, deadline=None)
hypothesis.settings.register_profile("ci", max_examples=300, deadline=None, derandomize=True)
hypothesis.settings.register_profile("nightly", max_examples=5000, deadline=None)
hypothesis.settings.register_profile(
    "fuzz",  # round after round, with other seeds
    max_examples=300,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev")
)

LACKING = pytest.StashKey[set[str]]()
NOT_RUN = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Nothing is known to be missing yet."""
    config.stash[LACKING] = set()
    config.stash[NOT_RUN] = 0


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, by name, the tests that need what this machine lacks."""
    lacking = config.stash[LACKING]
    for item in items:
        if missing := components.missing_for(item):
            lacking.update(missing)
            config.stash[NOT_RUN] += 1
            item.add_marker(pytest.mark.skip(reason=f"{', '.join(missing)} missing"))
        elif absent := components.missing_peers_for(item):
            item.add_marker(pytest.mark.skip(reason=f"no {', '.join(absent)} on PATH or in PEERS"))


def pytest_collection_finish() -> None:
    """Let the collector of garbage pass over the modules and tests, which stay to the end."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Learn from a worker, which collected every test, what is not run: here none is collected."""
    told: dict[str, Any] = getattr(node, "workeroutput", {})
    node.config.stash[LACKING].update(told.get("lacking", ()))
    node.config.stash[NOT_RUN] = max(node.config.stash[NOT_RUN], told.get("not_run", 0))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With STRICT=1, a test that could not run is one that failed."""
    told: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if told is not None:  # in a worker: the one who speaks to the user is told
        lacking: set[str] = session.config.stash[LACKING]
        told["lacking"] = sorted(lacking)
        told["not_run"] = session.config.stash[NOT_RUN]
        return
    clean = session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    if session.config.stash[NOT_RUN] and os.environ.get("STRICT") == "1" and clean:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Close with what was not run: after pytest's own last line, where it is seen."""
    if hasattr(config, "workeroutput"):
        return
    if count := config.stash.get(NOT_RUN, 0):
        lacking = config.stash[LACKING]
        tests = "1 test" if count == 1 else f"{count} tests"
        line = f"{tests} not run: {', '.join(sorted(lacking))} missing"
        print(line)  # noqa: T201 - the run's last line


USERS_OWN = (
    "TOWLINE_",
    "DOCKER_",
    "CONTAINER_",
    "CI_REGISTRY",
    "REGISTRY_AUTH_FILE",
    "XDG_",
    "SSL_CERT_",
)
# Would hide what is left in a stream's buffer when a child ends.
PYTHONS_OWN = {"PYTHONUNBUFFERED"}
PROXIES = {"http_proxy", "https_proxy", "no_proxy", "all_proxy", "no_color"}


@pytest.fixture(scope="session", autouse=True)
def everything_is_imported() -> None:
    """Import all of towline before there are threads.

    What two threads import at once Python 3.11 may fail to compile (SystemError: "AST constructor
    recursion depth mismatch"): pytest rewrites the modules of plugins, of which towline is one, and
    hypothesis has code run whenever garbage is collected, also in the middle of that.
    """
    for module in pkgutil.walk_packages(towline.__path__, "towline."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let what is made in the temporary folder, and outlives who made it, go with the run's own."""
    folder, before = tmp_path_factory.mktemp("temporary"), os.environ.get("TMPDIR")
    os.environ["TMPDIR"], tempfile.tempdir = str(folder), None
    yield
    del os.environ["TMPDIR"]
    tempfile.tempdir = None
    if before is not None:
        os.environ["TMPDIR"] = before
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_of_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give each test a home of its own and none of the settings that towline reads."""
    for name in list(os.environ):
        if name.startswith(USERS_OWN) or name in PYTHONS_OWN or name.lower() in PROXIES:
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    # skopeo: root's cache is in /var/lib/containers, anybody else's below their home.
    monkeypatch.setenv("_CONTAINERS_ROOTLESS_UID", "1000")


def _program(name: str) -> Path:
    found = components.find(name)
    assert found is not None, f"{name} is missing: a test that needs it should not have started"
    return found


@pytest.fixture(scope="session")
def docker_registry_bin() -> Path:
    """The program `docker-registry`."""
    return _program("docker-registry")


@pytest.fixture(scope="session")
def skopeo_bin() -> Path:
    """The program `skopeo`; it wants `--insecure-policy`."""
    return _program("skopeo")


@pytest.fixture(scope="session")
def redis_server_bin() -> Path:
    """The program `redis-server`."""
    return _program("redis-server")


@pytest.fixture(scope="session")
def nginx_bin() -> Path:
    """The program `nginx`."""
    return _program("nginx")


@pytest.fixture(scope="session")
def tinyproxy_bin() -> Path:
    """The program `tinyproxy`."""
    return _program("tinyproxy")


@pytest.fixture(scope="session", name="docker_registry")
def shared_docker_registry(
    docker_registry_bin: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[docker_registry.DockerRegistry]:
    """Run one real registry for all tests over plain HTTP; choose repository names of your own."""
    folder = tmp_path_factory.mktemp("docker-registry")
    with docker_registry.serving(
        docker_registry_bin, folder, docker_registry.Options()
    ) as registry:
        yield registry


@pytest.fixture
def start_docker_registry(
    docker_registry_bin: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartDockerRegistry]:
    """Start real registries of this test's own: `start_docker_registry(Options(htpasswd=True))`.

    `Options` is `tests.support.docker_registry.Options`; all are stopped when the test ends.
    """
    with contextlib.ExitStack() as stack:

        def start(options: docker_registry.Options) -> docker_registry.DockerRegistry:
            folder = tmp_path_factory.mktemp("docker-registry")
            serving = docker_registry.serving(docker_registry_bin, folder, options)
            return stack.enter_context(serving)

        yield start


@pytest.fixture(scope="session", name="redis_server")
def shared_redis_server(
    redis_server_bin: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[redis_server.RedisServer]:
    """Run one real Redis for all tests; use a key prefix of your own."""
    with redis_server.serving(redis_server_bin, tmp_path_factory.mktemp("redis")) as server:
        yield server
