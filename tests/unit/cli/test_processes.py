"""The command as a process: signals, pipes that close, disks that are full, start-up."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import hears
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Sequence

TOWLINE = [sys.executable, "-m", "towline"]
NEVER_ENDS = """
import sys, threading, time
from towline.cli import exit_codes, report, signals
from towline.errors import Cancelled, TransferCancelled

def work(cancel):
    print("ready", flush=True)
    if sys.argv[1] == "stuck":
        time.sleep(60)
    try:
        cancel.wait(60)
    except Cancelled:
        raise TransferCancelled("the push was cancelled") from None

def hang():
    time.sleep(60)

try:
    with signals.cancel_on_signals(lambda code: signals.interrupted(code, None)) as cancel:
        if sys.argv[1] == "thread":
            threading.Thread(target=hang).start()
        work(cancel)
except BaseException as error:
    report.report(error, report.Style())
    raise SystemExit(exit_codes.of(error))
"""


def towline(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TOWLINE, *words], capture_output=True, text=True, check=False)


def interrupted(how: str, *numbers: signal.Signals) -> tuple[int, str, float]:
    """Exit code, standard error, and seconds from the first signal to the end."""
    with subprocess.Popen(
        [sys.executable, "-c", NEVER_ENDS, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        started = time.monotonic()
        for number in numbers:
            process.send_signal(number)
            time.sleep(0.1)
        _, said = process.communicate(timeout=10)
        return process.returncode, said, time.monotonic() - started


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_cancels_and_gives_its_code(number: signal.Signals, code: int) -> None:
    returned, said, seconds = interrupted("patient", number)
    assert (returned, said) == (code, "towline: error: the push was cancelled\n")
    assert seconds < 1


@pytest.mark.parametrize("how", ["stuck", "thread"])
def test_what_does_not_heed_a_signal_is_ended_within_a_second(how: str) -> None:
    returned, said, seconds = interrupted(how, signal.SIGTERM)
    assert returned == 143
    assert said.startswith("towline: error: ")
    assert seconds < 1.1


def test_a_second_signal_ends_at_once() -> None:
    returned, said, seconds = interrupted("stuck", signal.SIGINT, signal.SIGINT)
    assert (returned, said) == (130, "towline: error: interrupted\n")
    assert seconds < 0.7


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_anything_can_be_cancelled_gives_its_code_too(
    number: signal.Signals, code: int
) -> None:
    """`login` waits for its password, and has nothing to cancel."""
    words = ["login", "localhost:1", "-u", "me", "--password-stdin"]
    with subprocess.Popen(
        [*TOWLINE, *words], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not hears(process.pid, signal.SIGTERM):
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (code, "towline: error: interrupted\n")


def into_closed_pipe(words: Sequence[str], stream: str) -> subprocess.CompletedProcess[bytes]:
    """Run it with one of its streams a pipe whose reader has gone away."""
    reading, writing = os.pipe()
    os.close(reading)
    other = "stderr" if stream == "stdout" else "stdout"
    streams = {stream: writing, other: subprocess.PIPE}
    try:
        return subprocess.run(
            [*TOWLINE, *words],
            check=False,
            stdout=streams["stdout"],
            stderr=streams["stderr"],
        )
    finally:
        os.close(writing)


def test_a_closed_pipe_is_no_traceback() -> None:
    done = into_closed_pipe(["--help"], "stdout")
    assert (done.returncode, done.stderr) == (0, b"")
    done = into_closed_pipe(["push"], "stderr")
    assert (done.returncode, done.stdout) == (2, b"")


def shell(words: str) -> tuple[int, str, str]:
    """A command with redirections: its exit code, standard output and standard error."""
    script = f"{sys.executable} -m towline {words}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


UNWRITTEN = "towline: error: the result cannot be written to standard output: "


@pytest.mark.parametrize("words", ["--help", "--version", "push --help", "help push"])
@pytest.mark.parametrize(
    ("redirection", "reason"),
    [(">&-", "it is closed"), ("> /dev/full", "No space left on device")],
)
def test_a_result_that_cannot_be_written_is_exit_1(
    words: str, redirection: str, reason: str
) -> None:
    assert shell(f"{words} {redirection}") == (1, "", f"{UNWRITTEN}{reason}\n")
    assert shell(f"{words} {redirection} 2>&-") == (1, "", "")


def test_a_slow_reader_of_a_pipe_that_does_not_block_gets_all_of_it() -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writing, False)
    words = [*TOWLINE, "push", "--help"]
    with subprocess.Popen(words, stdout=writing) as process:
        os.close(writing)
        with suppress(subprocess.TimeoutExpired):  # the pipe is full by then, or it has failed
            process.wait(1)
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read()
    assert (process.returncode, said) == (0, towline("push", "--help").stdout.encode())
    assert len(said) > 4096


def test_without_standard_error_the_exit_code_tells() -> None:
    for redirection in ("2>&-", "2> /dev/full"):
        assert shell(f"push {redirection}") == (2, "", "")
        assert shell(f"--version {redirection}")[0] == 0


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii:strict", rb"im\xe4ge \ufffd.tar"), ("utf-8:strict", "imäge \ufffd.tar".encode())],
)
def test_a_name_that_standard_output_cannot_spell_is_told_all_the_same(
    tmp_path: Path, encoding: str, shown: bytes
) -> None:
    name = os.fsencode(tmp_path) + "/imäge ".encode() + b"\xff.tar"
    make_image(Path(os.fsdecode(name)), [{"a": b"a"}])
    environ = {**os.environ, "PYTHONIOENCODING": encoding}
    inspect: list[str | bytes] = [*TOWLINE, "inspect", name]
    done = subprocess.run(inspect, capture_output=True, check=True, env=environ)
    assert done.stdout.splitlines()[0].endswith(shown)
    done = subprocess.run(
        [*inspect, "--output", "json"], capture_output=True, check=True, env=environ
    )
    assert os.fsencode(json.loads(done.stdout)["reference"]) == name
    done = subprocess.run(
        [*TOWLINE, "plan", name + b"x", "reg.example/app", "--progress", "json"],
        capture_output=True,
        check=False,
        env=environ,
    )
    assert done.returncode == 3
    assert json.loads(done.stderr)["event"] == "error"


def test_help_is_told_where_nothing_but_ascii_can_be_written() -> None:
    environ = {**os.environ, "PYTHONIOENCODING": "ascii:surrogateescape"}  # as in the C locale
    done = subprocess.run([*TOWLINE, "--help"], capture_output=True, check=True, env=environ)
    assert done.stdout.startswith(rb"usage: towline COMMAND \u2026")


def test_the_version_is_told() -> None:
    done = towline("--version")
    assert re.fullmatch(r"towline \d+\.\d+\.\d+\S*\n", done.stdout)
    assert (done.returncode, done.stderr) == (0, "")


def loaded(*words: str) -> set[str]:
    """The modules that a command loads."""
    script = (
        "import sys\nfrom towline.cli.main import main\n"
        f"main({list(words)!r})\nprint(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


def test_version_and_help_load_next_to_nothing() -> None:
    heavy = {"argparse", "dataclasses", "json", "ssl", "socket", "sqlite3", "rich", "isal", "h11"}
    assert not loaded("--version") & heavy
    assert not loaded("--help") & heavy
    assert not loaded("push", "--help") & (heavy - {"dataclasses"})
