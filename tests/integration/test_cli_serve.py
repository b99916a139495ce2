"""`towline serve` as a process: what it prints, how it ends, what it refuses."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.certificates import make_authority
from tests.support.raw_client import RawClient, raw_socket, sha256
from towline.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOWLINE = (sys.executable, "-m", "towline")


@contextmanager
def serving(*options: str, limit: int | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and the URL that it printed; `limit` bytes are the longest file it can write."""

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    words = [*TOWLINE, "serve", "--listen", "127.0.0.1:0", *options]
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limited,  # noqa: PLW1509 - no thread of ours is running yet
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield process, line.removeprefix("listening on ").rstrip()
        finally:
            process.kill()


def host_of(url: str) -> str:
    return url.partition("://")[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_listens_and_a_signal_ends_it_with_0(number: signal.Signals) -> None:
    with serving() as (process, url):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
        with RawClient(host_of(url)) as client, raw_socket(host_of(url)):
            client.put_image("app", "1", b"layer")
            assert client.pull("app", "1")
            process.send_signal(number)
            out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")


def test_what_it_keeps_is_an_oci_layout_that_the_next_one_serves(tmp_path: Path) -> None:
    root = str(tmp_path / "a" / "root")
    with serving("--root", root) as (process, url):
        with RawClient(host_of(url)) as client:
            digest = client.put_image("team/app", "1", b"layer")
        process.terminate()
        assert process.wait(10) == 0
    listed = json.loads((tmp_path / "a" / "root" / "index.json").read_bytes())["manifests"]
    assert [entry["digest"] for entry in listed] == [digest]
    with serving("--root", root) as (_, url), RawClient(host_of(url)) as client:
        assert client.pull("team/app", "1")


def test_a_temporary_folder_is_removed_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = set(tmp_path.iterdir())
    with serving() as (process, _):
        assert set(tmp_path.iterdir()) != before
        process.terminate()
        assert process.wait(10) == 0
    assert set(tmp_path.iterdir()) == before


def test_its_options_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOWLINE_READ_ONLY", "true")
    with serving() as (_, url), RawClient(host_of(url)) as client:
        assert client.ask("POST", "/v2/app/blobs/uploads/", b"").status == 405


def test_a_full_disk_is_one_clear_answer_and_nothing_half_visible(tmp_path: Path) -> None:
    data = b"more than fits " * 20_000
    with serving("--root", str(tmp_path / "root"), limit=100_000) as (process, url):
        with RawClient(host_of(url)) as client:
            session = client.open_upload("app")
            path = f"{session}?digest={sha256(data)}"
            answer = client.ask("PUT", path, data)
            assert answer.status == 507
            assert answer.json()["errors"][0]["message"] == "no room left on the registry's disk"
            assert client.ask("HEAD", f"/v2/app/blobs/{sha256(data)}").status == 404
            assert client.ask("GET", session).status == 404
            client.put_image("app", "1", b"this fits")
            assert client.pull("app", "1")
        process.terminate()
        _, err = process.communicate(timeout=10)
        assert (process.returncode, err) == (0, "")
    blobs = list((tmp_path / "root" / "blobs" / "sha256").iterdir())
    assert len(blobs) == 3
    assert not list((tmp_path / "root" / "uploads").iterdir())


def test_debug_tells_each_request_on_standard_error() -> None:
    with serving("--debug") as (process, url):
        with RawClient(host_of(url)) as client:
            client.ask("GET", "/v2/_catalog?n=1")
        process.terminate()
        _, err = process.communicate(timeout=10)
    assert re.fullmatch(r"GET /v2/_catalog\?n=1 200 0 bytes \d\.\d{3} s\n", err)


def test_it_speaks_https_and_asks_for_a_password(tmp_path: Path) -> None:
    import bcrypt

    own = make_authority(tmp_path).issue()
    users = tmp_path / "htpasswd"
    users.write_bytes(b"anna:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)) + b"\n")
    options = ("--tls-cert", str(own.cert), "--tls-key", str(own.key), "--htpasswd", str(users))
    with serving(*options) as (process, url):
        assert url.startswith("https://")
        process.terminate()
        assert process.wait(10) == 0
    with serving("--htpasswd", str(users)) as (_, url), RawClient(host_of(url)) as client:
        answer = client.ask("GET", "/v2/")
        assert answer.refusal == (401, "UNAUTHORIZED")
        assert answer.headers["www-authenticate"].startswith("Basic realm=")


def test_whoever_can_be_reached_from_elsewhere_without_a_password_is_told() -> None:
    with serving("--listen", "0.0.0.0:0") as (process, url):
        assert url.startswith("http://0.0.0.0:")
        process.terminate()
        _, err = process.communicate(timeout=10)
    assert re.fullmatch(r"towline: warning: whoever reaches 0\.0\.0\.0:\d+ can .*\n", err)


def test_it_collects_once_and_exits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = str(tmp_path / "root")
    with serving("--root", root) as (process, url):
        with RawClient(host_of(url)) as client:
            digest = client.put_image("app", "1", b"layer")
            client.ask("DELETE", f"/v2/app/manifests/{digest}")
        process.terminate()
        process.wait(10)
    assert main(["serve", "--gc", "--root", root]) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"removed 3 blobs of \d+ bytes\n", out)
    assert err == ""


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--listen", "5000"], 2, "`--listen` takes HOST:PORT, such as 127.0.0.1:5000"),
        (["--listen", "::1:5000"], 2, "`--listen` takes an IPv6 address in brackets"),
        (["--listen", "127.0.0.1:70000"], 2, "`--listen` takes HOST:PORT"),
        (["--tls-cert", "cert.pem"], 2, "`--tls-cert` and `--tls-key` go together"),
        (["--gc"], 2, "`--gc` needs `--root`"),
        (["--gc", "--root", "/proc/none"], 1, "/proc/none holds no registry"),
        (["--root", "/proc/none"], 1, "cannot keep a registry in /proc/none"),
        (["--htpasswd", "/proc/none"], 2, "cannot read /proc/none: No such file"),
        (["--listen", "192.0.2.1:0"], 1, "cannot listen on 192.0.2.1:0: Cannot assign"),
        (["more"], 2, "`more` is one word too many"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"towline: error: {message}")
    assert "Traceback" not in err
