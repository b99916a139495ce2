"""A program that runs beside a test: started, waited for, stopped, its output in files."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

STARTS_WITHIN = 20.0  # seconds; a busy machine, not a slow program
STOPS_WITHIN = 10.0  # seconds, then it is killed
HAPPENS_WITHIN = 60.0  # seconds


class DidNotStartError(RuntimeError):
    """The program ended, or did not get ready in time; holds the end of what it said."""


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], folder: Path, **environ: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a folder, `stdout` and `stderr` in files of that name there."""
    with (folder / "stdout").open("ab") as out, (folder / "stderr").open("ab") as err:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            # A Ctrl-C at the test run is for the tests, which then stop what they started.
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process by SIGTERM, then by SIGKILL; one that has ended already is fine."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOPS_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until(process: subprocess.Popen[bytes], folder: Path, ready: Callable[[], T | None]) -> T:
    """Ask `ready` until it gives something; raises DidNotStartError."""
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline:
        if (answer := ready()) is not None:
            return answer
        if process.poll() is not None:
            break
        time.sleep(0.02)
    said = (folder / "stderr").read_text(errors="replace")[-2000:]
    message = f"{process.args!r} is not ready (status {process.poll()}): {said}"
    raise DidNotStartError(message)


def hears(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal (proc(5), `SigCgt`)."""
    status = Path(f"/proc/{pid}/status").read_text()
    (caught,) = re.findall(r"^SigCgt:\s+(\w+)$", status, re.MULTILINE)
    return bool(int(caught, 16) >> number - 1 & 1)


def until(met: Callable[[], bool], seconds: float = HAPPENS_WITHIN) -> None:
    """Wait for something to have happened."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)
