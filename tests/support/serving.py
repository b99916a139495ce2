"""`towline serve` as a process of its own, which a test may stop, kill and start again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

TOWLINE = (sys.executable, "-m", "towline")
STOPS_WITHIN = 10.0  # seconds, then it is killed
_LISTENING = "listening on "


@dataclass(frozen=True)
class Serving:
    """A registry that accepts."""

    process: subprocess.Popen[str]
    url: str

    @property
    def host(self) -> str:
        """HOST:PORT."""
        return self.url.partition("://")[2]

    def kill(self) -> None:
        """End it without a word."""
        self.process.kill()
        self.process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """End it by a signal; its exit code, and what it said on standard error."""
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=STOPS_WITHIN)
        return self.process.returncode, said


@contextlib.contextmanager
def serving(
    root: Path | None, *options: str, prefix: Sequence[str] = (), **environ: str
) -> Iterator[Serving]:
    """Serve on a free port of loopback until the end; `prefix` is a command to run it with."""
    words = [] if root is None else ["--root", str(root)]
    if "--listen" not in options:
        words += ["--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        [*prefix, *TOWLINE, "serve", *words, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith(_LISTENING):
                _, said = process.communicate(timeout=STOPS_WITHIN)
                raise AssertionError((line, said))
            yield Serving(process, line.removeprefix(_LISTENING).rstrip("\n"))
        finally:
            process.terminate()
            try:
                process.communicate(timeout=STOPS_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def towline(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*TOWLINE, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environ},
    )
