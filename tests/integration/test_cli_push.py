"""The command against real registries: what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import docker_registry as real
from tests.support.terminal import on_terminal
from towline.cli.main import main
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import StartDockerRegistry
    from tests.integration.conftest import Place
    from towline.testing import TestRegistry

    Capture = pytest.CaptureFixture[str]

TOWLINE = [sys.executable, "-m", "towline"]
LAYERS = 3


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "image.tar"
    make_image(path, layers=[{f"file{n}": os.urandom(100_000)} for n in range(LAYERS)])
    return str(path)


@pytest.fixture
def deaf() -> Iterator[str]:
    """A registry that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def towline(capsys: Capture, *words: str) -> tuple[int, str, str]:
    code = main(words)
    return (code, *capsys.readouterr())


def test_a_push_prints_the_pinned_name_and_tells_the_rest_on_standard_error(
    registry: Place, image: str, capsys: Capture
) -> None:
    name = registry.name("app")
    code, out, err = towline(capsys, "push", image, f"{name}:1")
    assert code == 0
    pinned = re.fullmatch(rf"{re.escape(name)}@(sha256:[0-9a-f]{{64}})\n", out)
    assert pinned
    lines = err.splitlines()
    assert lines[0] == f"The push refers to repository [{name}]"
    assert sum(line.endswith(": Preparing") for line in lines) == LAYERS
    assert sum(line.endswith(": Pushed") for line in lines) == LAYERS
    assert re.fullmatch(rf"1: digest: {pinned[1]} size: \d+", lines[-2])
    assert re.fullmatch(r"sent [\d.]+ kB of [\d.]+ kB, \d+ requests, [\d.]+ s", lines[-1])
    code, again, err = towline(capsys, "push", image, f"{name}:1", "-q")
    assert (code, again, err) == (0, out, "")
    code, again, err = towline(capsys, "push", image, f"docker://{name}:1")
    assert (code, again) == (0, out)
    assert err.splitlines()[-1].startswith("nothing sent of ")


def test_the_result_as_json_has_the_contracts_fields(
    registry: Place, image: str, capsys: Capture, tmp_path: Path
) -> None:
    name, file = registry.name("app"), tmp_path / "digest"
    words = ["push", image, f"{name}:1", "--output", "json", "--digest-file", str(file), "-q"]
    code, out, err = towline(capsys, *words)
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert {**result, "layers": [], "digest": "", "size": 0, "requests": 0, "seconds": 0} == {
        "reference": f"{name}:1",
        "tag": "1",
        "digest": "",
        "size": 0,
        "media_type": "application/vnd.docker.distribution.manifest.v2+json",
        "status": "pushed",
        "layers": [],
        "manifests": [],
        "digest_differs": None,
        "learned_from": None,
        "verified": None,
        "warnings": [],
        "sent_bytes": result["sent_bytes"],
        "requests": 0,
        "seconds": 0,
    }
    assert len(result["layers"]) == LAYERS
    for layer in result["layers"]:
        assert (layer["outcome"], layer["compression"]) == ("pushed", "gzip")
        assert layer["mounted_from"] is None
        assert layer["sent_bytes"] == layer["size"]
    assert file.read_text() == f"{result['digest']}\n"


def test_json_progress_has_objects_alone_on_standard_error(
    registry: Place, image: str, capsys: Capture
) -> None:
    name = registry.name("app")
    code, out, err = towline(capsys, "push", image, f"{name}:1", "--progress=json", "--debug")
    assert code == 0
    told = [json.loads(line) for line in err.splitlines()]
    assert all({"event", "reference", "time"} <= set(event) for event in told)
    assert {"push", "layer", "tag", "summary", "debug"} <= {event["event"] for event in told}
    tag = next(event for event in told if event["event"] == "tag")
    assert (tag["reference"], tag["aux"]["Tag"]) == (f"{name}:1", "1")
    assert out == f"{name}@{tag['aux']['Digest']}\n"


def test_tags_digest_and_inspect_agree_with_what_was_pushed(
    registry: Place, image: str, capsys: Capture
) -> None:
    name = registry.name("app")
    _, out, _ = towline(capsys, "push", image, f"{name}:b", "-q")
    towline(capsys, "push", image, f"{name}:a", "-q")
    digest = out.strip().partition("@")[2]
    assert towline(capsys, "tags", name) == (0, "a\nb\n", "")
    assert json.loads(towline(capsys, "tags", name, "--output=json")[1]) == ["a", "b"]
    assert towline(capsys, "digest", image) == (0, f"{digest}\n", "")
    assert towline(capsys, "digest", f"{name}:a") == (0, f"{digest}\n", "")
    shown = json.loads(towline(capsys, "inspect", f"{name}:a", "--output=json")[1])
    assert (shown["digest"], len(shown["layers"])) == (digest, LAYERS)
    assert towline(capsys, "inspect", f"{name}:a")[1].splitlines()[1] == f"digest:     {digest}"


def test_standard_input_is_a_source(registry: Place, image: str) -> None:
    with open(image, "rb") as archive:  # noqa: PTH123 - handed to a child as it is
        done = subprocess.run(
            [*TOWLINE, "push", "-", f"{registry.name('app')}:1"],
            stdin=archive,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{registry.name('app')}@sha256:")


def test_options_come_from_the_environment(
    registry: Place, image: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOWLINE_OUTPUT", "json")
    monkeypatch.setenv("TOWLINE_PROGRESS", "none")
    monkeypatch.setenv("TOWLINE_COMPRESSION", "none")
    code, out, err = towline(capsys, "push", image, f"{registry.name('app')}:1")
    assert (code, err) == (0, "")
    layers = json.loads(out)["layers"]
    assert all(layer["diff_id"] == layer["digest"] for layer in layers)


def test_bars_are_drawn_on_a_terminal_and_the_result_is_apart(registry: Place, image: str) -> None:
    name = registry.name("app")
    with on_terminal(["-m", "towline", "push", image, f"{name}:1"]) as terminal:
        assert terminal.finish() == 0
        assert terminal.process.stdout is not None
        assert terminal.process.stdout.read().startswith(f"{name}@sha256:".encode())
        shown = terminal.screen.text.replace("\n", "")
        assert shown.startswith(f"The push refers to repository [{name}]")
        assert shown.count(": Pushed") == LAYERS
        assert "1: digest: sha256:" in shown


def test_a_reader_that_goes_away_fails_no_push(registry: Place, image: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    for stream in ("stdout", "stderr"):
        command = [*TOWLINE, "push", image, f"{registry.name(stream)}:1"]
        other = "stderr" if stream == "stdout" else "stdout"
        streams = {stream: writing, other: subprocess.PIPE}
        done = subprocess.run(
            command, check=False, stdout=streams["stdout"], stderr=streams["stderr"]
        )
        assert done.returncode == 0
        assert b"Traceback" not in (done.stderr or b"")
    os.close(writing)
    assert main(["tags", registry.name("stderr")]) == 0


def test_what_was_pushed_is_told_where_it_can_be(
    oci_registry: TestRegistry, image: str, tmp_path: Path
) -> None:
    def push(words: str) -> tuple[int, list[str], list[str]]:
        script = f"{sys.executable} -m towline push -q {image} {words}"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    name = oci_registry.name("app")
    unwritten = "towline: error: the result cannot be written to"
    code, out, err = push(f"{name}:1 --digest-file /dev/full")
    assert (code, len(out)) == (1, 1)
    assert err == [f"{unwritten} /dev/full: No space left on device"]
    digest = out[0].removeprefix(f"{name}@")
    code, out, err = push(f"{name}:1 --digest-file {tmp_path}/digest >&-")
    assert (code, err) == (1, [f"{unwritten} standard output: it is closed"])
    assert (tmp_path / "digest").read_text() == f"{digest}\n"
    code, _, err = push(f"{name}:1 [::1]:1/app:1 --retries 0 --output json > /dev/full")
    assert (code, err[0]) == (7, f"{unwritten} standard output: No space left on device")
    assert err[-1] == "towline: error: 1 of 2 pushes failed"


def test_a_digest_file_is_replaced_but_a_link_or_a_pipe_is_written(
    oci_registry: TestRegistry, image: str, tmp_path: Path
) -> None:
    name, pipe, plain = oci_registry.name("app"), tmp_path / "pipe", tmp_path / "plain"
    link, led_to = tmp_path / "link", tmp_path / "led-to"
    os.mkfifo(pipe)
    link.symlink_to(led_to)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for file in (pipe, plain, plain, link, link):
        assert main(["push", image, f"{name}:1", "-q", "--digest-file", str(file)]) == 0
    digest = plain.read_text()
    assert os.read(reading, 1000).decode() == digest
    os.close(reading)
    assert (pipe.is_fifo(), link.is_symlink(), led_to.read_text()) == (True, True, digest)
    script = f"{sys.executable} -m towline push -q {image} {name}:1 --digest-file /dev/stdout"
    done = subprocess.run(["sh", "-c", f"{script} | cat"], capture_output=True, check=True)
    assert done.stdout.decode() == f"{digest}{name}@{digest}"


def test_a_digest_file_that_may_be_written_and_not_replaced_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "digest").touch()
    (folder / "digest").chmod(0o666)
    folder.chmod(0o555)
    program = (
        "import os, pathlib, sys, towline.sources.spool, towline.targets.blob_files\n"
        "from towline.cli import options, output\n"
        "os.chdir(sys.argv[1])\n"
        "os.geteuid() or os.setuid(65534)\n"  # root may write everywhere
        "output.write_digests(options.Arguments(digest_file='digest'), ['sha256:new'])\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    folder.chmod(0o755)
    assert (done.stderr, (folder / "digest").read_text()) == ("", "sha256:new\n")
    assert [each.name for each in folder.iterdir()] == ["digest"]


def test_a_digest_file_that_cannot_be_is_told_before_anything_is_asked(
    oci_registry: TestRegistry, image: str, tmp_path: Path, capsys: Capture
) -> None:
    name = oci_registry.name("app")
    for words in (["push", image, f"{name}:1"], ["tag", f"{name}:1", "2"]):
        for file in (f"{tmp_path}/absent/x", "", "n" * 300):
            code, out, err = towline(capsys, *words, "--digest-file", file)
            assert (code, out) == (2, "")
            assert err.startswith("towline: error: `--digest-file")
    assert oci_registry.requests == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_push_within_a_second(
    deaf: str, image: str, number: signal.Signals, code: int
) -> None:
    command = [*TOWLINE, "push", image, f"{deaf}/app:1", "--plain-http"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("The push refers")
        time.sleep(0.3)
        started = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
        assert time.monotonic() - started < 1.1
    assert (process.returncode, out) == (code, "")
    assert err.splitlines()[-1].startswith("towline: error: ")
    assert "Traceback" not in err


def test_what_goes_wrong_has_its_code_one_sentence_and_no_result(
    registry: Place, image: str, capsys: Capture, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    torn = tmp_path / "torn.tar"
    torn.write_bytes((tmp_path / "image.tar").read_bytes()[:150_000])
    name = registry.name("app")
    cases = [
        (["push", str(tmp_path / "none.tar"), f"{name}:1"], 3),
        (["push", str(torn), f"{name}:1"], 3),
        (["push", __file__, f"{name}:1"], 3),
        (["copy", f"{name}:1", f"{name}:1"], 2),
        (["push", image, f"127.0.0.1:{port}/app:1", "--retries=0"], 6),
        (["push", image, f"{name}:1", "--compression", "brotli"], 2),
        (["push", image, f"{name}:1", "--creds", "nobody"], 2),
        (["inspect", f"{name}:nothing"], 5),
        (["tags", f"{name}:1"], 2),
    ]
    for words, wanted in cases:
        code, out, err = towline(capsys, *words)
        errors = [line for line in err.splitlines() if line.startswith("towline: error: ")]
        assert (code, out, len(errors)) == (wanted, "", 1), (words, err)
        assert "Traceback" not in err


@pytest.mark.needs("docker-registry")
def test_credentials_are_taken_from_the_option_and_a_wrong_password_is_exit_4(
    start_docker_registry: StartDockerRegistry, image: str, capsys: Capture
) -> None:
    registry = start_docker_registry(real.Options(htpasswd=True))
    words = ["push", image, f"{registry.name('app')}:1", "-q", "--creds"]
    assert towline(capsys, *words, f"{real.USER}:{real.PASSWORD}")[0] == 0
    code, out, err = towline(capsys, *words, f"{real.USER}:a-wrong-one")
    assert (code, out) == (4, "")
    assert err.startswith("towline: error: ")
    assert "a-wrong-one" not in err


@pytest.mark.needs("docker-registry")
def test_a_password_comes_by_standard_input(
    start_docker_registry: StartDockerRegistry, image: str
) -> None:
    registry = start_docker_registry(real.Options(htpasswd=True))
    words = ["push", image, f"{registry.name('app')}:1", "-u", real.USER, "--password-stdin"]

    def push(stdin: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*TOWLINE, *words], input=stdin, capture_output=True, text=True, check=False
        )

    assert push(f"{real.PASSWORD}\r\n").returncode == 0
    assert push("a wrong one").returncode == 4
    assert push("").stderr.startswith("towline: error: no password came by standard input\n")


def test_all_tags_and_several_destinations_give_a_list_in_their_order(
    registry: Place, image: str, capsys: Capture, tmp_path: Path
) -> None:
    one, two, file = registry.name("one"), registry.name("two"), tmp_path / "digests"
    code, out, _ = towline(capsys, "push", "-a", image, one, "--output=json")
    assert (code, [result["tag"] for result in json.loads(out)]) == (0, ["1"])
    words = ["push", image, f"{two}:b", f"{one}:a", "--digest-file", str(file)]
    code, out, err = towline(capsys, *words)
    digest = file.read_text().splitlines()[0]
    assert (code, out) == (0, f"{two}@{digest}\n{one}@{digest}\n")
    assert file.read_text() == f"{digest}\n{digest}\n"
    assert err.count("The push refers to repository") == 2
    assert words_of_layers(err) == {
        one: ["Layer already exists"] * LAYERS,
        two: [f"Mounted from {registry.path('one')}"] * LAYERS,
    }


def words_of_layers(err: str) -> dict[str, list[str]]:
    """The last word of each layer in plain progress, by repository."""
    repository, words = "", dict[str, dict[str, str]]()
    for line in err.splitlines():
        if heading := re.fullmatch(r"(?:The push refers to repository )?\[(\S+)\]", line):
            repository = heading[1]
        if layer := re.fullmatch(r"([0-9a-f]{12}): ([A-Z][a-z ]+\S+)", line):
            words.setdefault(repository, {})[layer[1]] = layer[2]
    return {name: sorted(last.values()) for name, last in words.items()}


def test_one_of_several_that_fails_is_named_and_the_others_are_results(
    registry: Place, image: str, capsys: Capture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = f"127.0.0.1:{server.getsockname()[1]}/app:1"
    good = f"{registry.name('app')}:1"
    words = ["push", image, gone, good, "--retries=0", "--output=json"]
    code, out, err = towline(capsys, *words)
    failed, pushed = json.loads(out)
    assert (code, pushed["reference"]) == (7, good)
    assert (failed["reference"], failed["error"]["exit_code"]) == (gone, 6)
    errors = [line for line in err.splitlines() if line.startswith("towline: error: ")]
    assert gone.partition("/")[0] in errors[0]
    assert errors[1:] == ["towline: error: 1 of 2 pushes failed"]
    code, out, err = towline(capsys, "push", image, gone, f"{gone}x", "--retries=0", "-q")
    assert (code, out) == (6, "")
