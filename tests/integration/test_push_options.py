"""Options that change how a push goes over the wire, from the command to the registry."""

from __future__ import annotations

import json
import os
import ssl
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support import docker_registry as real
from tests.support import readback
from tests.support.certificates import make_authority
from tests.support.faulty import Fault, Rule, faulty
from towline.cli.main import main
from towline.server import Server
from towline.testing.images import ImageSpec, make_image, make_images

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartDockerRegistry
    from tests.integration.conftest import Place
    from towline.testing import TestRegistry

MiB = 1 << 20


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("image") / "image.tar"
    make_image(path, layers=[{"noise": os.urandom(3 * MiB)}, {"zeros": bytes(MiB)}])
    return str(path)


def methods(registry: Place) -> list[str]:
    return [method for method, _ in registry.requests()]


@pytest.mark.parametrize("size", ["1M", "1048576", "0.5M"])
def test_layers_larger_than_a_chunk_go_in_chunks_and_the_rest_in_one_body(
    registry: Place, image: str, size: str
) -> None:
    assert main(["push", image, registry.name("app") + ":1", "-q", "--chunk-size", size]) == 0
    sent = methods(registry)
    # Beyond its megabytes a layer has a few bytes of headers; a small one is held and goes whole.
    assert sent.count("PATCH") == (7 if size == "0.5M" else 4)
    readback.image(registry.url, registry.path("app"), "1")


def test_without_a_size_a_layer_is_one_body(registry: Place, image: str) -> None:
    assert main(["push", image, registry.name("app") + ":1", "-q", "--chunk-size=auto"]) == 0
    assert methods(registry).count("PATCH") == 2


def test_a_size_that_is_none_is_exit_code_2(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", image, "registry.example/app", "--chunk-size", "large"]) == 2
    assert "`--chunk-size` must be a number of bytes" in capsys.readouterr().err


class TestCheckPush:
    def test_a_session_is_opened_and_given_back_and_nothing_is_written(
        self, registry: Place, image: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        name = registry.name("app") + ":1"
        assert main(["plan", image, name, "--check-push", "--output", "json"]) == 0
        assert json.loads(capsys.readouterr().out)["status"] == "pushed"
        asked = methods(registry)
        assert [asked.count(method) for method in ("POST", "DELETE")] == [1, 1]
        assert set(asked) <= {"HEAD", "GET", "POST", "DELETE"}

    def test_a_dry_run_takes_it_and_a_push_does_not(
        self, registry: Place, image: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        name = registry.name("app") + ":1"
        assert main(["push", image, name, "--dry-run", "--check-push"]) == 0
        assert methods(registry).count("POST") == 1
        assert main(["push", image, name, "--check-push"]) == 2
        assert "`--check-push` goes with" in capsys.readouterr().err

    def test_without_it_a_plan_only_reads(self, registry: Place, image: str) -> None:
        assert main(["plan", image, registry.name("app") + ":1"]) == 0
        assert set(methods(registry)) <= {"HEAD", "GET"}

    def test_who_may_not_push_is_told_with_exit_code_4(
        self,
        start_docker_registry: StartDockerRegistry,
        image: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        registry = start_docker_registry(real.Options(htpasswd=True))
        assert main(["plan", image, registry.name("app:1"), "--check-push"]) == 4
        creds = ["--creds", f"{real.USER}:{real.PASSWORD}"]
        assert main(["plan", image, registry.name("app:1"), "--check-push", *creds]) == 0
        capsys.readouterr()

    def test_a_registry_that_is_read_only_is_told_with_exit_code_5(
        self,
        start_docker_registry: StartDockerRegistry,
        image: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        registry = start_docker_registry(real.Options(read_only=True))
        name = registry.name("app:1")
        assert main(["plan", image, name]) == 0
        assert main(["plan", image, name, "--check-push", "--retries=0"]) == 5
        capsys.readouterr()


def test_the_sources_account_lets_in_whoever_only_looks(
    start_docker_registry: StartDockerRegistry, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = start_docker_registry(real.Options(htpasswd=True))
    name, account = registry.name("app:1"), f"{real.USER}:{real.PASSWORD}"
    assert main(["push", image, name, "-q", "--creds", account]) == 0
    capsys.readouterr()
    for command, word in (("inspect", name), ("digest", name), ("tags", registry.name("app"))):
        assert main([command, word]) == 4
        assert main([command, word, "--src-creds", account]) == 0
        assert main([command, word, "--creds", account]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("command", ["push", "plan"])
def test_credentials_of_a_source_that_is_in_no_registry_are_refused_where_they_are_typed(
    oci_registry: TestRegistry,
    image: str,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = oci_registry.name("app:1")
    assert main([command, image, name, "--src-creds", "me:secret"]) == 2
    said = capsys.readouterr().err
    assert "`--src-creds` is for a source in a registry" in said
    assert "--creds" in said
    assert "secret" not in said
    assert not oci_registry.requests
    monkeypatch.setenv("TOWLINE_SRC_CREDS", "me:secret")
    assert main([command, image, name, "-q"]) == 0


def test_a_rate_is_kept_to_by_all_uploads_together(registry: Place, image: str) -> None:
    began = time.monotonic()
    assert main(["push", image, registry.name("app") + ":1", "-q", "--limit-rate", "2M"]) == 0
    assert 1.3 < time.monotonic() - began < 6


def test_a_plan_knows_that_uploads_resume_once_one_has(
    oci_registry: TestRegistry, image: str
) -> None:
    name = oci_registry.name("app")
    before = towline.plan(image, f"{name}:1")
    assert isinstance(before, towline.PlanResult)
    assert before.resumable is None
    oci_registry.cut(after_bytes=2 * MiB)
    result = towline.push(image, f"{name}:1", compression="none")
    assert "resumed" in {layer.outcome for layer in result.layers}
    after = towline.plan(image, f"{oci_registry.name('other')}:1")
    assert isinstance(after, towline.PlanResult)
    assert after.resumable is True


def test_a_plan_knows_that_uploads_do_not_resume_where_one_has_not(
    docker_registry: real.DockerRegistry, image: str
) -> None:
    """Distribution 2.8 keeps nothing of a PATCH that was cut."""
    cut = Rule("PATCH", "/uploads/", Fault("cut", body_cut=2 * MiB))
    with faulty(docker_registry.host, cut) as proxy:
        name = f"{proxy.host}/resume/app"
        result = towline.push(image, f"{name}:1")
        assert cut.hit
        assert {layer.outcome for layer in result.layers} == {"pushed"}
        planned = towline.plan(image, f"{proxy.host}/resume/other:1")
    assert isinstance(planned, towline.PlanResult)
    assert planned.resumable is False


SEVERAL = [
    ImageSpec(names=("app:1",)),
    ImageSpec(layers=({"a": b"a"},), names=("app:2", "web:1")),
]


@pytest.mark.parametrize(
    ("form", "transport"),
    [("docker", "docker-archive"), ("oci", "oci"), ("oci-archive", "oci-archive")],
)
def test_the_images_of_a_source_are_listed_and_a_hint_names_one_ready_to_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: Any, transport: str
) -> None:
    path = make_images(tmp_path / "many", SEVERAL, form)[0].path
    listed = towline.inspect(path)
    names = {name.rpartition("/")[2] for name in listed.images}
    assert names >= {"app:1", "app:2", "web:1"}
    assert main(["inspect", str(path), "--output", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"reference": str(path), "images": list(listed.images)}
    assert main(["inspect", str(path)]) == 0
    assert [line.strip() for line in capsys.readouterr().out.splitlines()[2:]] == told["images"]
    assert main(["push", str(path), "reg.example/app"]) == 3
    hint = capsys.readouterr().err.splitlines()[-1].removeprefix("hint: name one: ")
    assert hint == f"{transport}:{path}:{listed.images[0]}"
    assert towline.inspect(hint).platform == "linux/amd64"


def test_a_tag_that_containerd_writes_beside_a_full_name_is_no_image_more(tmp_path: Path) -> None:
    specs = [ImageSpec([{"a": name.encode()}], names=[f"{name}:1"]) for name in ("app", "web")]
    make_images(tmp_path / "two.tar", specs, "docker-containerd")
    names = ("docker.io/library/app:1", "docker.io/library/web:1")
    assert towline.inspect(tmp_path / "two.tar").images == names


def test_where_several_images_have_tags_of_one_repository_all_of_them_are_offered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_images(tmp_path / "many.tar", [SEVERAL[0], replace(SEVERAL[1], names=("app:2",))])
    assert main(["push", str(path[0].path), "reg.example/app"]) == 3
    assert capsys.readouterr().err.endswith(":app:1, or push all: `--all-tags`\n")


def test_a_registry_alone_has_no_tags_and_what_is_not_there_is_named_with_its_tag(
    oci_registry: TestRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    for command, word in (("tags", oci_registry.host), ("tags", "registry.example")):
        assert main([command, word]) == 2
        assert f"hint: name one: {word}/REPOSITORY" in capsys.readouterr().err
    name = oci_registry.name("app")
    for command in ("inspect", "digest"):
        assert main([command, name]) == 5
        assert capsys.readouterr().err.splitlines() == [
            f"towline: error: there is no {name}:latest at the registry",
            f"hint: towline tags {name} lists what is there",
        ]


def test_plain_http_at_a_registry_of_https_is_said_to_be_left_out(
    image: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate = make_authority(tmp_path).issue()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    with Server(tls=context) as server:
        name = server.url.partition("//")[2] + "/app:1"
        assert main(["push", image, name, "--plain-http", "-q"]) == 6
    assert "hint: the registry speaks https: leave out `--plain-http`" in capsys.readouterr().err
