"""Real registries that refuse a type of manifest: the image gets there in another form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support import choosy, readback
from tests.support.choosy import DOCKER, OCI
from tests.support.docker_registry import Options
from tests.support.signatures import verify
from tests.support.sources import docker_archive, member, tar_of
from towline.server.server import Server
from towline.spec import media_types, schema1
from towline.spec.digest import Digest
from towline.spec.schema1 import EMPTY_LAYER_DIGEST
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import StartDockerRegistry
    from towline.testing.image_formats import Form

LAYERS = [{"etc/os-release": b"ID=towline\n" * 999}, {"app/hello": b"hello\n"}]


@pytest.fixture(
    params=["embedded", pytest.param("debian", marks=pytest.mark.needs("docker-registry"))]
)
def old(request: pytest.FixtureRequest) -> Iterator[str]:
    """The host of a registry that takes schema 1 too."""
    if request.param == "debian":
        start: StartDockerRegistry = request.getfixturevalue("start_docker_registry")
        yield start(Options(schema1=True)).host
        return
    with Server(schema1=True) as server:
        yield server.host


def push(source: object, destination: str, **options: Any) -> towline.PushResult:
    options = {"plain_http": True, "retries": 0, "cache": "none", **options}
    result: towline.PushResult = towline.push(source, destination, **options)  # type: ignore[call-overload]  # any
    return result


def archive(path: Path) -> Path:
    """An image whose history has entries that made no layer."""
    layers = {f"{n}.tar": tar_of(member(f"file{n}", b"content" * 500)) for n in range(2)}
    entries: list[dict[str, Any]] = [
        {"created": "2020-01-01T00:00:00.120Z", "created_by": "ADD <a> /"},
        {"created_by": "ENV a=b", "empty_layer": True},
        {"created_by": "RUN x", "author": "Ann", "comment": "ran"},
        {"created_by": "CMD x", "empty_layer": True},
    ]
    config = {
        "os": "linux",
        "architecture": "arm64",
        "config": {"Cmd": ["x"], "Env": ["a=b"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest.of(layer) for layer in layers.values()]},
        "history": entries,
    }
    return docker_archive(path, layers, config=json.dumps(config, indent=1).encode())


def served(host: str, path: str, target: str) -> tuple[bytes, dict[str, str]]:
    """A manifest of schema 1, and the answer's headers."""
    url = f"http://{host}/v2/{path}/manifests/{target}"
    wanted = urllib.request.Request(url, headers={"Accept": media_types.SCHEMA1_SIGNED})
    with urllib.request.urlopen(wanted, timeout=10) as answer:  # noqa: S310 - our own server
        return answer.read(), {name.lower(): value for name, value in answer.headers.items()}


def test_docker_becomes_oci_where_docker_is_refused(old: str, tmp_path: Path) -> None:
    source = archive(tmp_path / "image.tar")
    with choosy.before(old, DOCKER) as proxy:
        result = push(source, f"{proxy.host}/team/app:1", verify="full")
        image = readback.image(proxy.url, "team/app", "1")
    assert result.media_type == image.manifest["mediaType"] == media_types.OCI_MANIFEST
    assert result.digest == image.digest
    assert result.digest_differs == "converted"
    (warning,) = result.warnings
    assert "refused docker's format (schema 2) (415 MANIFEST_INVALID)" in warning
    assert "converted to OCI's format" in warning


@pytest.mark.parametrize("form", ["oci", "docker-containerd"])
def test_oci_becomes_docker_where_oci_is_refused(old: str, tmp_path: Path, form: Form) -> None:
    made = make_image(tmp_path / "image", LAYERS, format=form)
    with choosy.before(old, OCI) as proxy:
        result = push(made.path, f"{proxy.host}/team/app:1", verify=True)
        image = readback.image(proxy.url, "team/app", "1")
    assert result.media_type == image.manifest["mediaType"] == media_types.DOCKER_MANIFEST
    assert image.manifest["config"]["mediaType"] == media_types.DOCKER_CONFIG
    assert image.digest == result.digest != made.digest
    assert image.config_bytes == made.config
    assert result.digest_differs == "converted"
    assert [layer["digest"] for layer in image.manifest["layers"]] == [
        layer.blob.digest for layer in made.images[0].layers
    ]


def test_an_index_is_converted_with_all_its_children(old: str, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image", LAYERS, ["linux/amd64", "linux/arm64/v8"], "oci")
    with choosy.before(old, OCI) as proxy:
        result = push(made.path, f"{proxy.host}/team/app:1", verify=True)
        index = readback.read(proxy.url, "team/app", "1")
    assert isinstance(index, readback.Index)
    assert result.media_type == index.manifest["mediaType"] == media_types.DOCKER_LIST
    assert {image.manifest["mediaType"] for image in index.images} == {media_types.DOCKER_MANIFEST}
    assert [child.platform for child in result.manifests] == ["linux/amd64", "linux/arm64/v8"]
    assert [child.digest for child in result.manifests] == [image.digest for image in index.images]


def test_schema_1_is_pushed_where_nothing_else_is_taken(old: str, tmp_path: Path) -> None:
    source = archive(tmp_path / "image.tar")
    with choosy.before(old, DOCKER | OCI) as proxy:
        result = push(source, f"{proxy.host}/team/app:1", allow_schema1=True, verify="full")
        content, headers = served(proxy.host, "team/app", "1")
        by_digest, _ = served(proxy.host, "team/app", result.digest)
    payload = verify(content)
    assert verify(by_digest) == payload  # Distribution's own signature, each time anew
    assert result.media_type == headers["content-type"] == media_types.SCHEMA1_SIGNED
    assert result.digest == headers["docker-content-digest"] == Digest.of(payload)
    assert result.size == len(payload) < len(content)
    assert result.digest_differs == "converted"
    assert "converted to signed schema 1" in result.warnings[0]
    read = schema1.parse(content)
    assert {"name": "team/app", "tag": "1"}.items() <= json.loads(content).items()
    layers = [layer.digest for layer in result.layers]
    assert list(read.layers) == [EMPTY_LAYER_DIGEST, layers[1], EMPTY_LAYER_DIGEST, layers[0]]


def uploads(proxy: choosy.Choosy) -> int:
    return len(proxy.requests("POST"))


def test_the_empty_layer_is_sent_once_and_only_if_it_is_needed(old: str, tmp_path: Path) -> None:
    plain = make_image(tmp_path / "plain.tar", LAYERS)
    source = archive(tmp_path / "image.tar")
    with choosy.before(old, DOCKER | OCI) as proxy:
        push(plain.path, f"{proxy.host}/team/app:plain", allow_schema1=True)
        assert not proxy.requests("HEAD", EMPTY_LAYER_DIGEST)
        before = uploads(proxy)
        push(source, f"{proxy.host}/team/app:1", allow_schema1=True)
        assert uploads(proxy) - before == 4  # two layers, config, empty layer
        push(source, f"{proxy.host}/team/app:2", allow_schema1=True)
        assert proxy.requests("HEAD", EMPTY_LAYER_DIGEST)
        assert uploads(proxy) - before == 6  # the layers, of which nothing could be learned


def test_the_bytes_are_the_same_whenever_and_whoever_signs(old: str, tmp_path: Path) -> None:
    source = archive(tmp_path / "image.tar")
    digests = set()
    with choosy.before(old, DOCKER | OCI) as proxy:
        for home in ("a", "b"):
            environ = {"HOME": str(tmp_path / home)}
            name = f"{proxy.host}/team/app:1"
            digests.add(push(source, name, allow_schema1=True, environ=environ).digest)
    assert len(digests) == 1


def test_what_is_there_in_schema_1_is_not_pushed_again(old: str, tmp_path: Path) -> None:
    source = archive(tmp_path / "image.tar")
    options: dict[str, Any] = {"allow_schema1": True, "cache": tmp_path / "cache.sqlite"}
    with choosy.before(old, DOCKER | OCI) as proxy:
        pushed = push(source, f"{proxy.host}/team/app:1", **options)
        before = len(proxy.asked)
        again = push(source, f"{proxy.host}/team/app:1", **options)
        assert {asked.method for asked in proxy.asked[before:]} == {"HEAD"}
        other = push(source, f"{proxy.host}/team/app:2", **options)
    assert (again.status, again.digest, again.size) == ("unchanged", pushed.digest, pushed.size)
    assert (other.status, other.sent_bytes) == ("pushed", 0)
    assert other.digest != pushed.digest  # it names its tag


def test_tags_of_schema_1_differ_in_nothing_worth_a_warning(old: str, tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS, names=["app:1", "app:2"])
    with choosy.before(old, DOCKER | OCI) as proxy:
        results: Any = push(made.path, f"{proxy.host}/app", allow_schema1=True, all_tags=True)
    assert results[0].digest != results[1].digest
    assert len(results[-1].warnings) == 1


def command(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "towline", "push", "--plain-http", "--cache=none", "-q", *words],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
    )


def test_the_command_tells_what_it_did_and_what_it_may_do(old: str, tmp_path: Path) -> None:
    source = str(archive(tmp_path / "image.tar"))
    with choosy.before(old, DOCKER | OCI) as proxy:
        name = f"{proxy.host}/team/app:1"
        explicit = command(source, name, "--format=docker", "--allow-schema1")
        assert explicit.returncode == 5
        assert explicit.stderr.splitlines()[-1].startswith("hint: leave out `--format docker`")
        refused = command(source, name)
        assert refused.returncode == 5
        assert refused.stderr.splitlines()[-1].startswith("hint: add `--allow-schema1`")
        assert "; converted to OCI's format: the same" in refused.stderr
        assert refused.stdout == ""
        done = command(source, name, "--output=json", TOWLINE_ALLOW_SCHEMA1="true")
        assert done.returncode == 0
        assert "towline: warning: " in done.stderr
        result = json.loads(done.stdout)
        assert result["digest"] == Digest.of(verify(served(proxy.host, "team/app", "1")[0]))
    assert (result["status"], result["digest_differs"]) == ("pushed", "converted")
    assert result["media_type"] == media_types.SCHEMA1_SIGNED
    assert len(result["warnings"]) == 1


def skopeo(program: Path, *words: str) -> str:
    command = [str(program), "--insecure-policy", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.needs("docker-registry")
def test_skopeo_makes_the_same_of_the_same_image_and_can_pull_ours(
    start_docker_registry: StartDockerRegistry, tmp_path: Path, skopeo_bin: Path
) -> None:
    host = start_docker_registry(Options(schema1=True)).host
    source = archive(tmp_path / "image.tar")
    with choosy.before(host, DOCKER | OCI) as proxy:
        result = push(source, f"{proxy.host}/team/app:1", allow_schema1=True)
    # The same layers, of which skopeo makes its own schema 1.
    push(source, f"{host}/team/app:oci", format="oci")
    insecure = ("--src-tls-verify=false", "--dest-tls-verify=false")
    ours, theirs = f"docker://{host}/team/app:1", f"docker://{host}/team/theirs:1"
    skopeo(skopeo_bin, "copy", *insecure, "-f", "v2s1", f"docker://{host}/team/app:oci", theirs)
    content, theirs_content = (served(host, f"team/{n}", "1")[0] for n in ("app", "theirs"))
    for key in ("schemaVersion", "tag", "architecture", "fsLayers", "history"):
        assert json.loads(content)[key] == json.loads(theirs_content)[key]
    (tmp_path / "manifest").write_bytes(content)
    assert (
        skopeo(skopeo_bin, "manifest-digest", str(tmp_path / "manifest")).strip() == result.digest
    )
    skopeo(skopeo_bin, "copy", *insecure, "-f", "v2s2", ours, f"dir:{tmp_path / 'pulled'}")
    pulled = json.loads((tmp_path / "pulled/manifest.json").read_bytes())
    digests = [layer["digest"] for layer in pulled["layers"]]
    assert [layer.digest for layer in result.layers] == digests
