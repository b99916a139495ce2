"""`towline demo`: what it shows is true, and it says so when it is not."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import towline
from towline.cli.demo import push, read_back
from towline.cli.main import main
from towline.context import Cancel
from towline.errors import TowlineError
from towline.server import Server
from towline.testing.images import make_image

if TYPE_CHECKING:
    from pathlib import Path


def test_files_that_may_not_be_read_are_left_out_of_the_image(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "file").write_bytes(b"content")
    closed.chmod(0)
    program = (
        "import os, sys; from pathlib import Path; from towline.cli import demo\n"
        "os.geteuid() or os.setuid(65534)\n"  # root may read everything
        "print(demo._cut([Path(sys.argv[1])]))\n"
    )
    command = [sys.executable, "-c", program, str(closed / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    closed.chmod(0o700)
    assert (done.stdout, done.stderr) == ("{}\n", "")


def test_the_demo_sends_nothing_a_second_time_and_says_what_to_type_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    build, push, again, read = out.splitlines()[3:7]
    assert re.match(r"build +4 layers, [\d.]+ MB +[\d.]+ s$", build)
    assert re.match(r"push +4 layers pushed +[\d.]+ MB +\d+ +[\d.]+ s$", push)
    assert re.match(r"push again +nothing sent +0 B +\d +[\d.]+ s$", again)
    assert re.match(r"read back +6 digests, 4 DiffIDs agree +[\d.]+ MB +6 +[\d.]+ s$", read)
    assert "push image.tar registry.example/team/app:1" in out
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize("step", ["step", "build"])
def test_an_interrupted_demo_leaves_nothing_behind(step: str, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "towline", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith(step):
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.startswith("towline: error: ")
    assert list(tmp_path.glob("towline-demo-*")) == []


def test_a_second_push_that_sends_something_is_called_untrue(tmp_path: Path) -> None:
    with Server(tmp_path / "registry") as server, towline.Pusher(cache="none") as pusher:
        image = make_image(tmp_path / "image.tar", layers=[{"a": b"a" * 5000}]).path
        first = push(image, server, pusher, Cancel())
        connection = http.client.HTTPConnection(server.host)
        for what in (f"manifests/{first.digest}", f"blobs/{first.layers[0].digest}"):
            connection.request("DELETE", f"/v2/demo/python/{what}")
            connection.getresponse().read()
        connection.close()
        with pytest.raises(TowlineError, match="the second push was not what it promises: POST"):
            push(image, server, pusher, Cancel(), first)


def test_reading_back_finds_what_differs(tmp_path: Path) -> None:
    made = make_image(tmp_path / "image.tar", layers=[{"a": b"a" * 5000}, {"b": b"b"}])
    with Server(tmp_path / "registry") as server, towline.Pusher(cache="none") as pusher:
        result = pusher.push(str(made.path), f"{server.host}/app:1")
        assert read_back(server.host, "app", "1", result.digest, made.diff_ids) == sum(
            layer.size or 0 for layer in result.layers
        ) + result.size + len(made.config)
        with pytest.raises(TowlineError, match="DiffIDs"):
            read_back(server.host, "app", "1", result.digest, made.diff_ids[::-1])
        with pytest.raises(TowlineError, match="the digest of manifests/1"):
            read_back(server.host, "app", "1", made.diff_ids[0], made.diff_ids)
        with pytest.raises(TowlineError, match="the registry answered 404"):
            read_back(server.host, "app", "2", result.digest, made.diff_ids)
        blob = server.root / "blobs" / "sha256" / str(result.layers[0].digest).partition(":")[2]
        blob.write_bytes(blob.read_bytes()[:-1] + b"x")
        with pytest.raises(TowlineError, match="the digest of blobs/"):
            read_back(server.host, "app", "1", result.digest, made.diff_ids)
