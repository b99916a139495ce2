"""What `towline.testing` promises to people who test their own code with it."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import textwrap
import time
import unittest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.raw_client import RawClient, sha256
from towline import UsageError
from towline.testing import TestRegistry, make_image, oci_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTING = Path(__file__).parents[3] / "docs" / "testing.md"
DATA = b"some bytes of a layer"


@pytest.fixture
def registry() -> Iterator[TestRegistry]:
    with oci_registry() as registry:
        yield registry


@pytest.fixture
def client(registry: TestRegistry) -> Iterator[RawClient]:
    with RawClient(registry.host) as client:
        yield client


def path(registry: TestRegistry, repository: str) -> str:
    return registry.name(repository).removeprefix(f"{registry.host}/")


def test_names_begin_with_a_prefix_of_ones_own(registry: TestRegistry) -> None:
    assert registry.url == f"http://{registry.host}"
    host, prefix, last = registry.name("app").split("/")
    assert (host, last) == (registry.host, "app")
    assert prefix == registry.prefix
    assert TestRegistry(registry.url).prefix != prefix


def test_what_was_pushed_is_read_back(registry: TestRegistry, client: RawClient) -> None:
    name = registry.name("app")
    digest = client.put_image(path(registry, "app"), "1", DATA)
    client.put_image(path(registry, "app"), "latest", DATA)
    manifest = registry.manifest(f"{name}:1")
    assert manifest["layers"][0]["digest"] == sha256(DATA)
    for written in (f"{name}@{digest}", name, "app:1", "app", f"app@{digest}"):
        assert registry.manifest(written) == manifest
    assert registry.tags(name) == registry.tags("app") == ["1", "latest"]
    assert registry.blob(sha256(DATA)) == DATA
    assert registry.blob(manifest["config"]["digest"]).startswith(b"{")


def test_what_was_not_pushed_is_a_key_error(registry: TestRegistry, client: RawClient) -> None:
    client.put_blob("elsewhere", DATA)
    assert registry.tags(registry.name("app")) == []
    with pytest.raises(KeyError):
        registry.manifest(registry.name("app"))
    with pytest.raises(KeyError):
        registry.blob(sha256(DATA))
    client.put_blob(f"{registry.prefix}/never/named", DATA)
    assert registry.blob(sha256(DATA)) == DATA


def test_the_log_is_this_tests_and_reading_back_is_not_in_it(
    registry: TestRegistry, client: RawClient
) -> None:
    client.put_image(path(registry, "app"), "1", DATA)
    registry.manifest("app:1")
    registry.blob(sha256(DATA))
    asked = [(seen.method, seen.status) for seen in registry.requests]
    assert asked == [("POST", 201), ("POST", 201), ("PUT", 201)]
    assert registry.requests[1].received == len(DATA)
    assert registry.requests[2].path == f"/v2/{registry.prefix}/app/manifests/1"
    assert registry.requests[2].headers["content-type"].startswith("application/vnd.oci")


def test_the_next_view_begins_anew() -> None:
    from towline.server import Server

    with Server() as server, RawClient(server.host) as client:
        first = TestRegistry(server.url, server)
        client.ask("GET", "/v2/")
        first.fail("GET", "/v2/", 500, times=100)
        first.stall(5)
        second = TestRegistry(server.url, server)
        assert client.ask("GET", "/v2/").status == 200
        assert (len(second.requests), len(first.requests)) == (1, 2)


@pytest.mark.parametrize("where", ["/blobs/uploads/", r"/v2/.+/uploads/$", "/v2/*/blobs/uploads/"])
def test_requests_fail_as_often_as_asked_for(
    registry: TestRegistry, client: RawClient, where: str
) -> None:
    registry.fail("POST", where, 503, times=2, headers={"Retry-After": "7"})
    uploads = f"/v2/{path(registry, 'app')}/blobs/uploads/"
    assert client.ask("GET", "/v2/").status == 200
    for _ in range(2):
        refused = client.ask("POST", uploads, b"")
        assert (refused.status, refused.headers["retry-after"]) == (503, "7")
        assert refused.code == "UNKNOWN"
    assert client.ask("POST", uploads, b"").status == 202
    assert [seen.status for seen in registry.requests] == [200, 503, 503, 202]


def test_a_failure_may_be_of_any_method_and_status(
    registry: TestRegistry, client: RawClient
) -> None:
    registry.fail("*", "/manifests/", 429)
    assert client.ask("HEAD", f"/v2/{path(registry, 'app')}/manifests/1").status == 429
    assert client.ask("HEAD", f"/v2/{path(registry, 'app')}/manifests/1").status == 404


def test_a_body_is_cut_after_so_many_bytes(registry: TestRegistry, client: RawClient) -> None:
    name = path(registry, "app")
    registry.cut(1000)
    client.put_blob(name, b"x" * 1000)
    session = client.open_upload(name)
    with pytest.raises((OSError, http.client.HTTPException)):
        client.ask("PATCH", session, b"y" * 300_000)
    assert client.ask("GET", session).headers["range"] == "0-999"
    assert registry.requests[-2].status == 0
    client.put_blob(name, b"z" * 5000)


def test_an_answer_is_cut_as_well(registry: TestRegistry, client: RawClient) -> None:
    name = path(registry, "app")
    digest = client.put_blob(name, b"x" * 300_000)
    registry.cut(1000)
    with pytest.raises(http.client.IncompleteRead) as caught:
        client.ask("GET", f"/v2/{name}/blobs/{digest}")
    assert len(caught.value.partial) == 1000
    client.close()
    assert len(client.ask("GET", f"/v2/{name}/blobs/{digest}").body) == 300_000


def test_answers_are_late_until_told_otherwise(registry: TestRegistry, client: RawClient) -> None:
    registry.stall(0.2)
    begun = time.monotonic()
    assert client.ask("GET", "/v2/").status == 200
    assert 0.2 <= time.monotonic() - begun < 2
    registry.stall(0)
    begun = time.monotonic()
    assert client.ask("GET", "/v2/").status == 200
    assert time.monotonic() - begun < 0.2


def test_a_stopped_registry_lets_go_of_who_is_waiting() -> None:
    begun = time.monotonic()
    with oci_registry() as registry, RawClient(registry.host) as client:
        registry.stall(30)
        client._connection.request("GET", "/v2/")
        time.sleep(0.05)
    assert time.monotonic() - begun < 5


def test_it_starts_within_a_tenth_of_a_second() -> None:
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        with oci_registry():
            seconds.append(time.perf_counter() - begun)
    assert min(seconds) < 0.1


def test_unittest_needs_no_pytest(registry: TestRegistry) -> None:
    class Pushing(unittest.TestCase):
        def setUp(self) -> None:
            self.registry = self.enterContext(oci_registry())

        def test_it(self) -> None:
            with RawClient(self.registry.host) as client:
                client.put_image(path(self.registry, "app"), "1", DATA)
            self.assertEqual(self.registry.tags("app"), ["1"])  # noqa: PT009 - that is how it speaks

    result = unittest.TestResult()
    Pushing("test_it").run(result)
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])


# The plugin, in runs of pytest of its own


def run(folder: Path, tests: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_theirs.py").write_text(textwrap.dedent(tests))
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *options]
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environ
    )


THEIRS = """
    import towline
    from towline.testing import make_image

    seen = []

    def test_one(oci_registry, tmp_path):
        image = make_image(tmp_path / "image.tar", layers=[{"a": b"bytes"}])
        name = oci_registry.name("app")
        result = towline.push(image.path, f"{name}:1", cache="none")
        assert oci_registry.manifest(f"{name}:1")["config"]["digest"]
        assert oci_registry.tags(name) == ["1"]
        assert oci_registry.blob(result.layers[0].digest)
        seen.append(oci_registry)

    def test_two(oci_registry):
        assert oci_registry.host == seen[0].host
        assert oci_registry.name("app") != seen[0].name("app")
        assert oci_registry.tags(oci_registry.name("app")) == []

    def test_faults(oci_registry):
        oci_registry.fail("GET", "/v2/", 500, times=99)

    def test_cuts(oci_registry):
        oci_registry.cut(1)

    def test_stalls(oci_registry):
        oci_registry.stall(1)

    def test_requests(oci_registry):
        assert oci_registry.requests == []
"""


def test_the_fixture_is_there_without_any_import(tmp_path: Path) -> None:
    done = run(tmp_path, THEIRS)
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_the_same_tests_run_on_another_registry(
    tmp_path: Path, registry: TestRegistry, scheme: str
) -> None:
    done = run(tmp_path, THEIRS, "--oci-registry", f"{scheme}{registry.host}")
    assert done.returncode == 0, done.stdout
    assert "2 passed, 4 skipped" in done.stdout
    assert "faults and requests are the embedded registry's alone" in done.stdout
    assert registry.requests, "it was asked"


@pytest.mark.needs("docker-registry")
def test_the_same_tests_run_on_dockers_registry(tmp_path: Path, docker_registry: object) -> None:
    url = str(getattr(docker_registry, "url", ""))
    done = run(tmp_path, THEIRS, "--oci-registry", url)
    assert done.returncode == 0, done.stdout
    assert "2 passed, 4 skipped" in done.stdout


BLOCKS = re.findall(r"```python\n(.*?)```", TESTING.read_text(), re.DOTALL)
EXAMPLES = [block for block in BLOCKS if "def test_our" in block]
AFTER = """
import os, pathlib, subprocess, sys

def test_the_same_image_again(oci_registry, tmp_path):
    image = make_image(tmp_path / "image.tar", layers=[{"app/main.py": b"print('hello')\\n"}])
    first = towline.push(image.path, oci_registry.name("a:1"))
    second = towline.push(image.path, oci_registry.name("b:1"))
    assert (first.layers[0].outcome, second.layers[0].outcome) == ("pushed", "mounted")

def test_the_same_image_by_the_command(oci_registry, tmp_path):
    image = make_image(tmp_path / "image.tar", layers=[{"app/main.py": b"print('hello')\\n"}])
    push = [sys.executable, "-m", "towline", "push", str(image.path), oci_registry.name("app:1")]
    done = subprocess.run(push, capture_output=True, text=True, check=True)
    assert ": Pushed" in done.stderr

def test_the_same_image_with_a_cache_that_knows_it_from_others(oci_registry, tmp_path):
    image = make_image(tmp_path / "image.tar", layers=[{"app/main.py": b"print('hello')\\n"}])
    shared = pathlib.Path(__file__).with_name("shared.sqlite")
    result = towline.push(image.path, oci_registry.name("app:1"), cache=shared)
    assert result.layers[0].outcome == "pushed"

def test_the_same_image_with_that_cache_again(oci_registry, tmp_path):
    test_the_same_image_with_a_cache_that_knows_it_from_others(oci_registry, tmp_path)

def test_the_users_cache_is_not_there():
    assert not list(pathlib.Path(os.environ["HOME"]).rglob("*.sqlite"))
"""


@pytest.mark.parametrize("backwards", [False, True])
def test_the_examples_of_the_docs_pass_in_any_order(tmp_path: Path, *, backwards: bool) -> None:
    tests = "\n".join([*EXAMPLES, AFTER])
    names = re.findall(r"^def (test_\w+)", tests, re.MULTILINE)
    order = [f"test_theirs.py::{name}" for name in (reversed(names) if backwards else names)]
    done = run(tmp_path, tests, *order)
    assert done.returncode == 0, done.stdout
    assert f"{len(names)} passed" in done.stdout


def test_who_does_not_use_it_pays_nothing(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        import sys

        def test_it():
            loaded = {name for name in sys.modules if name.startswith("towline.")}
            assert loaded <= {"towline._version", "towline.testing", "towline.testing.plugin"}
        """,
    )
    assert done.returncode == 0, done.stdout


def test_the_option_is_in_the_help(tmp_path: Path) -> None:
    assert "--oci-registry=URL" in run(tmp_path, "", "--help").stdout


@pytest.mark.parametrize("option", ["format", "compression", "archive"])
def test_an_image_in_an_unknown_form_is_not_made(tmp_path: Path, option: str) -> None:
    given: dict[str, Any] = {option: "xz"}
    with pytest.raises(UsageError, match="'xz' is none of "):
        make_image(tmp_path / "image.tar", **given)
    assert not (tmp_path / "image.tar").exists()
