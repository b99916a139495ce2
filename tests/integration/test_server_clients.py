"""Other people's clients against `towline serve`: what they push comes back with its digest.

Each is run where it is found: in PEERS, in what `make test` brings, or on PATH.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import components, stored
from tests.support.docker_engine import unmount
from tests.support.processes import running
from tests.support.raw_client import RawClient, sha256
from tests.support.serving import Serving, serving
from towline.spec.digest import Digest
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from towline.testing.image_formats import Made

PLATFORMS = ["linux/amd64", "linux/arm64"]
SKOPEOS = components.find_all("skopeo")
DAEMON_STARTS_WITHIN = 60.0  # seconds


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def registry(root: Path) -> Iterator[Serving]:
    """One registry for all; everything in it is checked at the end."""
    with serving(root) as registry:
        yield registry
        assert registry.stop() == (0, "")
    stored.check(root)


@pytest.fixture
def client(registry: Serving) -> Iterator[RawClient]:
    with RawClient(registry.host) as client:
        yield client


@pytest.fixture
def single(tmp_path: Path) -> Made:
    """An image of one platform, as an OCI layout."""
    layers = [{"a": os.urandom(100_000)}, {"b": os.urandom(1000)}]
    return make_image(tmp_path / "single", layers, format="oci")


@pytest.fixture
def multi(tmp_path: Path) -> Made:
    """An index of two platforms, as an OCI layout."""
    layers = [{"c": os.urandom(100_000)}]
    return make_image(tmp_path / "multi", layers, PLATFORMS, format="oci")


def run(*words: str | Path, cwd: Path | None = None, **environ: str) -> str:
    """Standard output of a program that must succeed."""
    command = [str(word) for word in words]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=120,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout.strip()


def digest_of(client: RawClient, name: str, reference: str) -> str:
    return client.ask("HEAD", f"/v2/{name}/manifests/{reference}").headers["docker-content-digest"]


def layout_digest(path: Path) -> str:
    """What a layout's index points to."""
    manifests = json.loads((path / "index.json").read_text())["manifests"]
    return str(manifests[0]["digest"])


def program(name: str) -> Path:
    found = components.find(name)
    assert found is not None
    return found


# skopeo


@pytest.mark.needs("skopeo")
@pytest.mark.parametrize("which", range(max(1, len(SKOPEOS))))
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_skopeo_pushes_and_pulls(
    client: RawClient, tmp_path: Path, request: pytest.FixtureRequest, which: int, kind: str
) -> None:
    made: Made = request.getfixturevalue(kind)
    skopeo, name = SKOPEOS[which], f"skopeo{which}/{kind}"
    copy = (skopeo, "--insecure-policy", "copy", "--all", "--preserve-digests")
    there = f"docker://{client.host}/{name}:1"
    run(*copy, "--dest-tls-verify=false", f"oci:{made.path}", there)
    assert digest_of(client, name, "1") == made.digest
    run(*copy, "--src-tls-verify=false", there, f"oci:{tmp_path / 'back'}:x")
    assert layout_digest(tmp_path / "back") == made.digest
    listed = run(skopeo, "list-tags", "--tls-verify=false", f"docker://{client.host}/{name}")
    assert json.loads(listed)["Tags"] == ["1"]
    run(skopeo, "delete", "--tls-verify=false", there)
    assert client.tags(name) == []


# crane


@pytest.mark.peer("crane")
def test_crane_pushes_tags_copies_pulls_and_deletes(
    client: RawClient, tmp_path: Path, single: Made, multi: Made
) -> None:
    crane, host = program("crane"), client.host
    for made, words in ((single, []), (multi, ["--index"])):
        name, digest = f"crane/{made.path.name}", made.digest
        if words:  # it pushes the layout's own index
            digest = Digest.of((made.path / "index.json").read_bytes())
        run(crane, "push", made.path, f"{host}/{name}:1", *words)
        assert run(crane, "digest", f"{host}/{name}:1") == digest
        run(crane, "tag", f"{host}/{name}:1", "2")
        run(crane, "copy", f"{host}/{name}:2", f"{host}/{name}/copy:3")
        assert digest_of(client, f"{name}/copy", "3") == digest
        assert run(crane, "ls", f"{host}/{name}").split() == ["1", "2"]
        back = tmp_path / f"back-{made.path.name}"
        run(crane, "pull", "--format=oci", f"{host}/{name}:2", back)
        assert layout_digest(back) == digest
        run(crane, "validate", "--remote", f"{host}/{name}:1")
        assert name in run(crane, "catalog", host).split()
        run(crane, "delete", f"{host}/{name}@{digest}")
        assert client.tags(name) == []


# oras


@pytest.mark.peer("oras")
def test_oras_copies_layouts_both_ways(
    client: RawClient, tmp_path: Path, single: Made, multi: Made
) -> None:
    oras = program("oras")
    for made in (single, multi):
        there = f"{client.host}/oras/{made.path.name}:1"
        run(oras, "cp", "--to-plain-http", "--from-oci-layout", f"{made.path}@{made.digest}", there)
        assert digest_of(client, f"oras/{made.path.name}", "1") == made.digest
        back = tmp_path / f"back-{made.path.name}"
        run(oras, "cp", "--from-plain-http", "--to-oci-layout", there, f"{back}:x")
        assert layout_digest(back) == made.digest


@pytest.mark.peer("oras")
def test_oras_pushes_artifacts_and_finds_what_refers_to_them(
    client: RawClient, tmp_path: Path
) -> None:
    oras, there = program("oras"), f"{client.host}/oras/artifact:1"
    plain = "--plain-http"
    (tmp_path / "file.txt").write_text("some text")
    (tmp_path / "sbom.json").write_text("{}")
    run(oras, "push", plain, "--artifact-type", "app/x", there, "file.txt:text/plain", cwd=tmp_path)
    attached = ("--artifact-type", "sbom/x", there, "sbom.json:application/json")
    run(oras, "attach", plain, *attached, cwd=tmp_path)
    found = json.loads(run(oras, "discover", plain, "--format", "json", there))
    referrers = found.get("referrers") or found.get("manifests")
    assert [one["artifactType"] for one in referrers] == ["sbom/x"]
    (tmp_path / "back").mkdir()
    run(oras, "pull", plain, there, cwd=tmp_path / "back")
    assert (tmp_path / "back" / "file.txt").read_text() == "some text"
    assert run(oras, "repo", "tags", plain, f"{client.host}/oras/artifact") == "1"
    run(oras, "manifest", "delete", plain, "--force", there)
    assert client.tags("oras/artifact") == []


# buildah


@pytest.mark.peer("buildah")
def test_buildah_pushes_and_pulls(client: RawClient, tmp_path: Path, single: Made) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    store = tmp_path / "storage"
    own = ("--storage-driver", "vfs", "--root", store, "--runroot", tmp_path / "run")
    trust = ("--signature-policy", policy, "--tls-verify=false")
    buildah, there = (program("buildah"), *own), f"{client.host}/buildah/app:1"
    run(*buildah, "pull", "-q", *trust, f"oci:{single.path}")
    image = run(*buildah, "images", "-q").split()[0]
    run(*buildah, "push", "-q", *trust, image, f"docker://{there}")
    pushed = digest_of(client, "buildah/app", "1")
    run(*buildah, "rmi", "-a")
    run(*buildah, "pull", "-q", *trust, f"docker://{there}")
    listed = json.loads(run(*buildah, "images", "--json"))
    assert listed[0]["digest"] == pushed
    client.pull("buildah/app", "1")


# docker


@contextlib.contextmanager
def docker(folder: Path) -> Iterator[list[str | Path]]:
    """The client of a daemon with all its state in a folder, without networks."""
    containerd, dockerd = program("containerd"), program("dockerd")
    beside = [str(path.resolve().parent) for path in (containerd, dockerd)]
    path = os.pathsep.join([*beside, os.environ.get("PATH", os.defpath)])
    pipe, socket = folder / "c.sock", folder / "d.sock"
    state: list[str | Path] = [
        "--root",
        folder / "c",
        "--state",
        folder / "c-run",
        "--address",
        pipe,
    ]
    engine: list[str | Path] = ["--data-root", folder / "data", "--exec-root", folder / "run"]
    engine += ["--host", f"unix://{socket}", "--containerd", pipe, "--pidfile", folder / "pid"]
    engine += ["--bridge=none", "--iptables=false", "--ip6tables=false"]
    os.environ["PATH"], before = path, os.environ["PATH"]
    try:
        with running([containerd, *state], folder), running([dockerd, *engine], folder):
            command: list[str | Path] = [program("docker"), "--host", f"unix://{socket}"]
            deadline = time.monotonic() + DAEMON_STARTS_WITHIN
            while subprocess.run(
                [*command, "version"], capture_output=True, check=False
            ).returncode:
                assert time.monotonic() < deadline, (folder / "stderr").read_text()[-2000:]
                time.sleep(0.1)
            yield command
    finally:
        os.environ["PATH"] = before
        unmount(str(folder))


@pytest.mark.peer("docker", "dockerd", "containerd")
def test_docker_pushes_and_pulls(client: RawClient, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        return  # its daemon needs root
    image = tmp_path / "image.tar"
    make_image(image, [{"a": os.urandom(100_000)}, {"b": b"b"}], names=["app:1"])
    state = tmp_path / "d"
    state.mkdir()
    with docker(state) as command:
        run(*command, "load", "--input", image)
        there = f"{client.host}/docker/app:1"
        run(*command, "tag", "app:1", there)
        said = run(*command, "push", there)
        pushed = digest_of(client, "docker/app", "1")
        assert f"digest: {pushed}" in said
        assert "Layer already exists" in run(*command, "push", there)
        run(*command, "tag", "app:1", f"{client.host}/docker/other:1")
        assert "Mounted from docker/app" in run(*command, "push", f"{client.host}/docker/other:1")
        run(*command, "rmi", "--force", "app:1", there, f"{client.host}/docker/other:1")
        assert f"Digest: {pushed}" in run(*command, "pull", there)
    client.pull("docker/app", "1")


# All at once


@pytest.mark.peer("crane", "skopeo")
def test_twenty_clients_at_once_leave_a_registry_that_verifies(
    registry: Serving, root: Path, tmp_path: Path
) -> None:
    common = {"shared": os.urandom(300_000)}
    layouts = [
        make_image(tmp_path / f"l{n}", [common, {"own": bytes([n % 5]) * 50_000}], format="oci")
        for n in range(20)
    ]

    def push(number: int) -> None:
        there, made = f"{registry.host}/at-once/{number % 3}:{number}", layouts[number]
        if number % 2:
            run(program("crane"), "push", made.path, there)
        else:
            copy = (program("skopeo"), "--insecure-policy", "copy", "--dest-tls-verify=false")
            run(*copy, f"oci:{made.path}", f"docker://{there}")

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        list(pool.map(push, range(20)))
    with RawClient(registry.host) as client:
        for number, made in enumerate(layouts):
            assert sha256(client.pull(f"at-once/{number % 3}", str(number))[0]) == made.digest
    stored.check(root)
