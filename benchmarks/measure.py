"""What a command costs: wall time, processor time, peak memory, as the kernel counts them.

Children are counted with the command. Work that a command hands to a daemon is the daemon's: its
share is read from /proc and added.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TIME_LIMIT = 900.0
"""Seconds after which a command is taken for hung, and killed."""
_LAUNCHER = Path(__file__).with_name("launcher.py")
_TICKS = os.sysconf("SC_CLK_TCK")


class CommandError(Exception):
    """A measured command ended with an error; the text is its last line of output."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One run of one command."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds of user and system time, on all processors together."""
    peak: int
    """Bytes: largest process of the command, plus the peaks of its daemons.

    Not told apart below a bare Python's size: the kernel hands the launcher's down to its child.
    """


def cost(
    command: Sequence[str | Path], environ: Mapping[str, str], daemons: Sequence[int] = ()
) -> Cost:
    """Run it to its end. Raises CommandError when it says that it failed."""
    for pid in daemons:
        _reset_peak(pid)
    cpu_before = sum(map(cpu_of, daemons))
    with tempfile.TemporaryFile() as output:
        told = _launched(command, environ, output.fileno())
        if told["code"]:
            output.seek(0)
            raise CommandError(_last_line(output.read()) or f"exit code {told['code']}")
    daemon_cpu = sum(map(cpu_of, daemons)) - cpu_before
    peak = int(told["peak"]) + sum(map(peak_of, daemons))
    return Cost(told["wall"], told["cpu"] + daemon_cpu, peak)


def _launched(
    command: Sequence[str | Path], environ: Mapping[str, str], output: int
) -> dict[str, float]:
    """Run it by the launcher, all of it in one session, and read what the launcher saw."""
    launcher = [sys.executable, "-I", "-S", _LAUNCHER, *command]
    with subprocess.Popen(
        launcher,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=output,
        env=dict(environ),
        start_new_session=True,
    ) as child:
        try:
            told, _ = child.communicate(timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            raise CommandError(f"not done after {TIME_LIMIT:.0f} s") from None
    if not told:
        raise CommandError(f"{command[0]} cannot be started")
    seen: dict[str, float] = json.loads(told)
    return seen


def cpu_of(pid: int) -> float:
    """Seconds of processor time of a running process, its finished children included."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    fields = text.rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def peak_of(pid: int) -> int:
    """Bytes of the most memory it had since `_reset_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _reset_peak(pid: int) -> None:
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # another user's daemon: its peak is that since its start


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
