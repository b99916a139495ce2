"""Bad input, as a user meets it: the command's exit code, one sentence, and nothing half done."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import docker_registry as real
from tests.support.certificates import make_authority
from tests.support.scripted import Reply, Scripted, scripted
from towline.spec.media_types import OCI_INDEX
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import StartDockerRegistry
    from towline.testing import TestRegistry

LAYERS = [{"etc/one": b"1" * 3000}, {"etc/two": b"2" * 3000}]


def command(*words: str, **environ: str) -> tuple[int, str, str]:
    """One command in a child: its exit code, standard output and standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "towline", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environ},
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def refused(code: int, *words: str, says: str, **environ: str) -> str:
    """Run a command that must fail with that code and one sentence."""
    found, out, err = command(*words, **environ)
    lines = err.splitlines()
    errors = [line for line in lines if line.startswith("towline: error: ")]
    assert (found, out, len(errors)) == (code, "", 1), err
    assert "Traceback" not in err
    assert says in errors[0], err
    assert sum(line.startswith("hint: ") for line in lines) <= 1
    return err


def members(path: Path) -> dict[str, bytes]:
    """Every regular file of an archive."""
    with tarfile.open(path) as archive:
        return {
            member.name: file.read()
            for member in archive
            if (file := archive.extractfile(member)) is not None
        }


def write(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def edited(change: Callable[[dict[str, bytes]], object]) -> Callable[[Path], None]:
    """An archive whose members were changed."""

    def spoil(path: Path) -> None:
        files = members(path)
        change(files)
        write(path, files)

    return spoil


def manifest_of(files: dict[str, bytes]) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads(files["manifest.json"])[0]
    return entry


def without_layer(files: dict[str, bytes]) -> None:
    del files[manifest_of(files)["Layers"][1]]


def short_layer(files: dict[str, bytes]) -> None:
    name = manifest_of(files)["Layers"][1]
    files[name] = files[name][:1000]


def bad_config(files: dict[str, bytes]) -> None:
    files[manifest_of(files)["Config"]] = b"{not json"


def outside(files: dict[str, bytes]) -> None:
    entry = manifest_of(files)
    entry["Layers"][1] = "../../etc/passwd"
    files["manifest.json"] = json.dumps([entry]).encode()


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9000])


def large_manifest(files: dict[str, bytes]) -> None:
    files["manifest.json"] += b" " * (100 << 20)


def older_than_its_list(files: dict[str, bytes]) -> None:
    del files["manifest.json"]
    files["repositories"] = b"{}"


def changed_layer(files: dict[str, bytes]) -> None:
    entry = manifest_of(files)
    name = f"blobs/sha256/{'0' * 64}"
    files[name] = files[entry["Layers"][1]]
    entry["Layers"][1] = name
    files["manifest.json"] = json.dumps([entry]).encode()


def listing(*descriptors: dict[str, Any]) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": descriptors}).encode()


def described(content: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {"mediaType": OCI_INDEX, "digest": digest, "size": len(content)}


def as_layout(index: bytes, *blobs: bytes) -> Callable[[Path], None]:
    """An archive of a layout with these blobs."""
    files = {f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}": blob for blob in blobs}
    return lambda path: write(path, {**files, "index.json": index})


def deep() -> Callable[[Path], None]:
    """Indexes in indexes, as near to a circle as digests allow."""
    chain = [listing()]
    for _ in range(20):
        chain.append(listing(described(chain[-1])))
    return as_layout(chain[-1], *chain[:-1])


SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "not a tar": (lambda path: path.write_bytes(b"PK\x03\x04" * 500), "tar"),
    "empty": (lambda path: path.write_bytes(b""), ""),
    "torn": (torn, "torn"),
    "no manifest": (edited(lambda files: files.pop("manifest.json")), "manifest.json"),
    "layer missing": (edited(without_layer), "layer"),
    "layer cut short": (edited(short_layer), "layer"),
    "config not JSON": (edited(bad_config), "JSON"),
    "member outside": (edited(outside), ".."),
    "a manifest of 100 MB": (edited(large_manifest), "bytes long"),
    "older than its list": (edited(older_than_its_list), "older than 1.10 (2016)"),
    "a layer that was changed": (edited(changed_layer), "found it changed, to sha256:0000"),
    "a missing manifest": (as_layout(listing(described(b"gone"))), "lacks the manifest sha256:"),
    "indexes without end": (deep(), "lists indexes more than 8 deep"),
    "sha512": (
        as_layout(listing({**described(b""), "digest": "sha512:" + "a" * 128})),
        "only what is named by sha256 is pushed",
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_spoiled_archive_is_exit_3_and_no_tag(
    oci_registry: TestRegistry, tmp_path: Path, name: str
) -> None:
    spoil, says = SPOILED[name]
    made = make_image(tmp_path / "image.tar", LAYERS, format="docker-legacy")
    spoil(made.path)
    refused(3, "push", str(made.path), oci_registry.name("app") + ":1", says=says)
    assert oci_registry.tags(oci_registry.name("app")) == []


def test_a_compressed_layer_that_is_cut_short_is_named_where_it_is_looked_into(
    oci_registry: TestRegistry, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS, format="docker-legacy", compression="gzip")
    edited(shorter)(made.path)
    name = oci_registry.name("app")
    words = ["push", str(made.path), f"{name}:1", "--check-diffids"]
    refused(3, *words, says=f"layer {made.diff_ids[1].short} is cut short")
    assert oci_registry.tags(name) == []


def shorter(files: dict[str, bytes]) -> None:
    name = manifest_of(files)["Layers"][1]
    files[name] = files[name][:-10]


def test_a_wrong_reference_has_a_caret_under_the_wrong_character(tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    err = refused(2, "push", str(made.path), "reg.example/Team/app:1", says="upper case")
    assert err.splitlines()[1:3] == ["  reg.example/Team/app:1", "              ^"]


def always(server: Scripted, reply: Reply) -> None:
    for method in ("GET", "HEAD", "POST", "PATCH", "PUT", "DELETE"):
        server.on(method, ".*", reply, forever=True)


def test_a_server_that_answers_html_is_told_by_status_and_first_words(tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    page = Reply(200, {"Content-Type": "text/html"}, "<html><body>Welcome!</body></html>")
    with scripted() as server:
        always(server, page)
        refused(5, "push", str(made.path), f"{server.host}/app:1", "--plain-http", says="200")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--ca", "none.pem"], "there is no file none.pem"),
        (["--ca", "IMAGE"], "IMAGE cannot be read as a certificate: no certificate or crl found"),
        (["--ca", "."], ". cannot be read as a certificate: Is a directory"),
        (["--cert", "none.pem"], "there is no file none.pem"),
        (
            ["--cert", "IMAGE", "--key", "IMAGE"],
            "IMAGE cannot be read as a client certificate with its key: PEM lib",
        ),
        (["--key", "IMAGE"], "a client's key was given without its certificate"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_exit_2_where_no_tls_is_spoken_too(
    oci_registry: TestRegistry, tmp_path: Path, words: list[str], says: str
) -> None:
    image = str(make_image(tmp_path / "image.tar", LAYERS).path)
    given = [image if word == "IMAGE" else word for word in words]
    said = says.replace("IMAGE", image)
    err = refused(2, "push", image, oci_registry.name("app") + ":1", *given, says=said)
    assert "[" not in err, "no names of C"
    assert oci_registry.requests == []


@pytest.mark.parametrize("verb", ["inspect", "digest"])
def test_a_path_that_leads_nowhere_is_no_reference_and_the_hint_says_so(
    tmp_path: Path, verb: str
) -> None:
    path = tmp_path / "none.tar"
    hint = f"hint: check its path, if {path} is to be a file: there is none"
    assert hint in refused(2, verb, str(path), says="cannot stand here in the repository name")


def test_a_certificate_without_its_key_is_told_what_it_lacks(tmp_path: Path) -> None:
    certificate = make_authority(tmp_path).issue().cert
    words = ("tags", "reg.example/app", "--cert", str(certificate))
    assert "hint: give its key, too: `--key`" in refused(2, *words, says="client certificate")


DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.mark.parametrize(
    ("media_type", "content", "says"),
    [
        (DOCKER_MANIFEST, "", "not JSON"),
        (DOCKER_MANIFEST, "{}", "a descriptor is an object"),
        ("application/json", "{}", "neither an image manifest nor an index"),
        (OCI_INDEX, '{"manifests": [1]}', "a descriptor is an object"),
    ],
)
def test_what_a_registry_holds_and_nobody_can_read_is_exit_5(
    media_type: str, content: str, says: str
) -> None:
    with scripted() as server:
        reply = Reply(200, {"Content-Type": media_type}, content)
        server.on("GET", "/manifests/", reply, forever=True)
        name = f"{server.host}/app:1"
        err = refused(5, "inspect", f"docker://{name}", "--plain-http", says=says)
    assert f"{name} cannot be read: " in err


def test_401_without_a_challenge_is_exit_4(tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    with scripted() as server:
        always(server, Reply(401))
        refused(4, "push", str(made.path), f"{server.host}/app:1", "--plain-http", says="401")


@pytest.mark.needs("docker-registry")
def test_a_wrong_password_is_exit_4_and_not_shown(
    start_docker_registry: StartDockerRegistry, tmp_path: Path
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    registry = start_docker_registry(real.Options(htpasswd=True))
    words = ["push", str(made.path), registry.name("app") + ":1", "--creds"]
    err = refused(4, *words, f"{real.USER}:s3cret-and-wrong", says=registry.host)
    assert "s3cret" not in err


def small_folder(tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder with room for 1 MiB, as a child sees it; the words to run the child with."""
    small = tmp_path / "small"
    small.mkdir()
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=1m tmpfs {small} && exec"
    try:
        works = subprocess.run([*namespace, f"{mount} true"], capture_output=True, check=False)
    except FileNotFoundError:
        works = None
    if works and works.returncode == 0:
        return small, [*namespace, f'{mount} "$@"', "sh"]
    return small, ["sh", "-c", 'ulimit -f 1024; exec "$@"', "sh"]


_SERVE = """
import sys, pathlib
from towline.server import Server
with Server(pathlib.Path(sys.argv[1])) as server:
    print(server.host, flush=True)
    sys.stdin.read()
    left = [str(path) for path in pathlib.Path(sys.argv[1]).rglob("*") if path.is_file()]
    print("\\n".join(left), flush=True)
"""


def test_a_full_disk_at_the_registry_is_a_sentence_and_leaves_no_tag(tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", [{"big": os.urandom(4 << 20)}])
    small, run = small_folder(tmp_path)
    with subprocess.Popen(
        [*run, sys.executable, "-c", _SERVE, str(small)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        host = server.stdout.readline().strip()
        err = refused(5, "push", str(made.path), f"{host}/app:1", says="507")
        assert "Retrying" not in err, "waiting makes no room"
        out, _ = server.communicate(timeout=30)
    assert server.returncode == 0
    assert "_tags/1" not in out
    assert "session-" not in out


@pytest.mark.parametrize("home", ["", "/dev/null/home"])
def test_without_a_home_a_push_warns_and_goes_on(
    oci_registry: TestRegistry, tmp_path: Path, home: str
) -> None:
    made = make_image(tmp_path / "image.tar", LAYERS)
    name = oci_registry.name("app")
    code, out, err = command(
        "push",
        str(made.path),
        f"{name}:1",
        HOME=home,
        XDG_CACHE_HOME="",
        XDG_DATA_HOME="",
        TOWLINE_CACHE="",
    )
    assert code == 0, err
    assert out.startswith(f"{name}@sha256:")
    warnings = [line for line in err.splitlines() if "warning" in line]
    assert len(warnings) <= 1
    if home:
        assert len(warnings) == 1
    assert "Traceback" not in err
