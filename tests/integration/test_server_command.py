"""`towline serve` from outside: what it prints, how it ends, what its options do."""

from __future__ import annotations

import base64
import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.support import certificates
from tests.support.docker_registry import HTPASSWD, PASSWORD, USER
from tests.support.raw_client import RawClient, exchange, raw_socket, read_to_end, sha256
from tests.support.serving import TOWLINE, serving, towline

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DATA = b"some bytes of a layer"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_and_a_signal_ends_it_with_0(number: signal.Signals) -> None:
    with serving(None) as registry:
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9][0-9]*", registry.url)
        with RawClient(registry.host) as client:
            digest = client.put_image("team/app", "1", DATA)
            assert client.tags("team/app") == ["1"]
            assert digest.startswith("sha256:")
            assert registry.stop(number) == (0, "")


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with serving(tmp_path) as registry, raw_socket(registry.host) as busy:
        busy.sendall(
            b"PATCH /v2/a/blobs/uploads/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
        )
        registry.process.send_signal(signal.SIGTERM)
        registry.process.send_signal(signal.SIGTERM)
        assert registry.process.wait(10) in {0, 128 + signal.SIGTERM}


def test_without_a_root_everything_is_gone_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    with serving(None, TMPDIR=str(folder)) as registry, RawClient(registry.host) as client:
        client.put_image("team/app", "1", DATA)
        assert list(folder.iterdir())
        registry.stop()
    assert list(folder.iterdir()) == []


def test_with_a_root_everything_is_there_again(tmp_path: Path) -> None:
    root = tmp_path / "not" / "yet"
    with serving(root) as registry, RawClient(registry.host) as client:
        digest = client.put_image("team/app", "1", DATA)
        registry.stop()
    with serving(root) as registry, RawClient(registry.host) as client:
        assert sha256(client.pull("team/app", "1")[0]) == digest


@pytest.mark.parametrize("by", ["options", "variables"])
def test_options_are_read_from_the_environment_too(tmp_path: Path, by: str) -> None:
    if by == "options":
        options: Sequence[str] = ("--read-only", "--listen", "127.0.0.1:0")
        environ = {}
    else:
        options, environ = (), {"TOWLINE_READ_ONLY": "1"}
    with serving(tmp_path, *options, **environ) as registry, RawClient(registry.host) as client:
        refused = client.ask("POST", "/v2/a/blobs/uploads/", b"")
        assert refused.refusal == (405, "UNSUPPORTED")


def test_htpasswd_lets_in_its_users_alone(tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text(HTPASSWD)
    with serving(None, "--htpasswd", str(users)) as registry:
        with RawClient(registry.host) as client:
            assert client.ask("GET", "/v2/").refusal == (401, "UNAUTHORIZED")
        encoded = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        with RawClient(registry.host, {"Authorization": f"Basic {encoded}"}) as client:
            assert client.ask("GET", "/v2/").status == 200


def test_a_certificate_makes_it_https(tmp_path: Path) -> None:
    authority = certificates.make_authority(tmp_path)
    issued = authority.issue("registry")
    with serving(None, "--tls-cert", str(issued.cert), "--tls-key", str(issued.key)) as registry:
        assert registry.url.startswith("https://")
        trust = ssl.create_default_context(cafile=authority.ca)
        with urllib.request.urlopen(  # noqa: S310 - our own
            f"{registry.url}/v2/", context=trust
        ) as answer:
            assert answer.status == 200


def test_schema_1_is_taken_where_asked_to() -> None:
    layers = [{"blobSum": sha256(DATA)}]
    history = [{"v1Compatibility": "{}"}]
    document = {"schemaVersion": 1, "name": "a", "tag": "1", "fsLayers": layers, "history": history}
    content, media_type = (
        json.dumps(document).encode(),
        "application/vnd.docker.distribution.manifest.v1+json",
    )
    for options, status in (((), 400), (("--schema1",), 201)):
        with serving(None, *options) as registry, RawClient(registry.host) as client:
            client.put_blob("a", DATA)
            assert client.put_manifest("a", "1", content, media_type).status == status


def test_beyond_loopback_without_a_password_it_warns() -> None:
    with serving(None, "--listen", "0.0.0.0:0") as registry:
        code, said = registry.stop()
    assert code == 0
    assert re.fullmatch(
        r"towline: warning: whoever reaches 0\.0\.0\.0:\d+ can read and write this registry; "
        r"--htpasswd asks for a password\n",
        said,
    )


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:0", "127.9.9.9:0"])
def test_on_loopback_it_does_not_warn(listen: str) -> None:
    with serving(None, "--listen", listen) as registry:
        assert registry.stop() == (0, "")


def test_a_port_in_use_and_a_root_in_use_are_one_sentence_each(tmp_path: Path) -> None:
    with serving(tmp_path) as registry:
        done = towline("serve", "--listen", registry.host)
        assert (done.returncode, done.stdout) == (1, "")
        assert re.match(
            rf"towline: error: cannot listen on {registry.host}: .*in use\nhint: ", done.stderr
        )
        done = towline("serve", "--root", str(tmp_path), "--listen", "127.0.0.1:0")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"towline: error: another server uses {tmp_path}\nhint: ")


@pytest.mark.parametrize(
    "words",
    [
        ["--listen", "nowhere"],
        ["--listen", "127.0.0.1"],
        ["--listen", "127.0.0.1:"],
        ["--listen", "127.0.0.1:70000"],
        ["--listen", "::1:5000"],
        ["--tls-cert", "x"],
        ["--tls-key", "x"],
        ["--tls-cert", "none", "--tls-key", "none"],
        ["--htpasswd", "none"],
        ["--gc"],
        ["a-word"],
        ["--jobs", "3"],
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(words: list[str]) -> None:
    done = towline("serve", *words)
    assert (done.returncode, done.stdout) == (2, ""), done
    assert re.fullmatch(r"towline: error: [^\n]+\n(hint: [^\n]+\n)?", done.stderr)


def test_a_certificate_that_is_none_is_told_without_names_in_c(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no PEM\n")
    file = str(tmp_path / "x")
    done = towline("serve", "--tls-cert", file, "--tls-key", file)
    assert done.stderr.endswith(f"the certificate {file} with the key {file}: PEM lib\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gc", "--root", "/proc/none"], "/proc/none holds no registry"),
        (["--root", "/proc/none"], "cannot keep a registry in /proc/none"),
        (["--listen", "192.0.2.1:0"], "cannot listen on 192.0.2.1:0: Cannot assign"),
    ],
)
def test_what_cannot_begin_is_one_sentence(words: list[str], message: str) -> None:
    done = towline("serve", *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"towline: error: {message}")


def test_a_host_that_is_none_is_one_sentence() -> None:
    done = towline("serve", "--listen", "no-such-host.invalid:0")
    assert (done.returncode, done.stdout) == (1, "")
    said = r"cannot listen on no-such-host.invalid:0: (Name|Temporary|No address)[\w ]+"
    assert re.match(f"towline: error: {said}\n", done.stderr)


def test_debug_shows_each_request_without_credentials() -> None:
    with serving(None, "--debug") as registry:
        with RawClient(registry.host, {"Authorization": "Basic c2VjcmV0"}) as client:
            client.ask("GET", "/v2/?x=1")
        code, said = registry.stop()
    assert code == 0
    assert re.fullmatch(r"GET /v2/\?x=1 200 0 bytes \d\.\d{3} s\n", said)


def test_debug_shows_nothing_that_moves_the_cursor() -> None:
    with serving(None, "--debug") as registry:
        for target in (b"/v2/\x9b2J", b"/v2/\xc2\x9b2J", b"/v2/\x1b[2J", b"/v2/%1b%9b2J"):
            exchange(registry.host, b"GET %b HTTP/1.0\r\n\r\n" % target)
        code, said = registry.stop()
    assert code == 0
    assert "GET /v2/%1b%9b2J 404" in said
    assert all(line.isprintable() for line in said.split("\n"))


def test_a_gone_reader_of_standard_output_does_not_end_it() -> None:
    with subprocess.Popen(
        [*TOWLINE, "serve", "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        host = process.stdout.readline().rpartition("/")[2].strip()
        process.stdout.close()
        with RawClient(host) as client:
            assert client.ask("GET", "/v2/").status == 200
        process.terminate()
        assert process.wait(10) == 0


# Collecting


def test_gc_frees_what_was_deleted_and_keeps_the_rest(tmp_path: Path) -> None:
    with serving(tmp_path) as registry, RawClient(registry.host) as client:
        gone = client.put_image("team/app", "1", b"one layer")
        kept = client.put_image("team/app", "2", b"another layer")
        assert client.ask("DELETE", f"/v2/team/app/manifests/{gone}").status == 202
        registry.stop()
    done = towline("serve", "--root", str(tmp_path), "--gc")
    assert (done.returncode, done.stderr) == (0, "")
    # Both images have the same config.
    assert re.fullmatch(r"removed 2 blobs of \d+ bytes\n", done.stdout)
    held = {path.name for path in (tmp_path / "blobs" / "sha256").iterdir()}
    assert gone[7:] not in held
    assert sha256(b"one layer")[7:] not in held
    with serving(tmp_path) as registry, RawClient(registry.host) as client:
        assert sha256(client.pull("team/app", "2")[0]) == kept
    again = towline("serve", "--root", str(tmp_path), "--gc")
    assert again.stdout == "removed 0 blobs of 0 bytes\n"


def test_gc_keeps_the_blobs_of_a_push_whose_manifest_has_not_come(tmp_path: Path) -> None:
    with serving(tmp_path) as registry, RawClient(registry.host) as client:
        client.put_blob("team/app", DATA)
        for _ in range(2):
            assert towline("serve", "--root", str(tmp_path), "--gc").returncode == 0
        assert client.ask("HEAD", f"/v2/team/app/blobs/{sha256(DATA)}").status == 200
        registry.stop()
    assert towline("serve", "--root", str(tmp_path), "--gc").returncode == 0
    with serving(tmp_path) as registry, RawClient(registry.host) as client:
        assert client.ask("HEAD", f"/v2/team/app/blobs/{sha256(DATA)}").status == 200
        client.put_image("team/app", "1", DATA)


def test_gc_of_what_is_no_registry_touches_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "file").write_text("")
    done = towline("serve", "--root", str(folder), "--gc")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"towline: error: {folder} holds no registry\n")
    assert [path.name for path in folder.iterdir()] == ["file"]


# Start-up


def test_serving_loads_no_more_than_it_needs() -> None:
    code = (
        "import sys; from towline.cli.main import main; "
        "main(['serve', '--listen', '127.0.0.1:0']); print(*sorted(sys.modules))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it listens
        process.terminate()
        out, _ = process.communicate(timeout=30)
    loaded = set(out.decode().split())
    heavy = {"ssl", "rich", "isal", "zstandard", "sqlite3", "redis", "http.client", "bcrypt"}
    assert "towline.server.server" in loaded
    assert loaded & heavy == set()
    assert not {name for name in loaded if name.startswith("towline.registry")}


def test_a_page_in_the_readers_hand_is_not_lost_at_the_end() -> None:
    with serving(None) as registry, raw_socket(registry.host) as sock:
        sock.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.settimeout(5)
        assert sock.recv(12) == b"HTTP/1.1 200"
        registry.stop()
        read_to_end(sock)
        with pytest.raises(OSError, match=r"refused"):
            socket.create_connection(("127.0.0.1", int(registry.host.rpartition(":")[2])))
