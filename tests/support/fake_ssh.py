"""An `ssh` that goes nowhere: a program of that name for the tests of what is run through it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_BRIDGE = """
import os, socket, sys, threading

open({words!r}, "w").write(repr(sys.argv[1:]))
there = socket.socket(socket.AF_UNIX)
there.connect({path!r})

def send():
    while data := os.read(0, 65536):
        there.sendall(data)
    there.shutdown(socket.SHUT_WR)

threading.Thread(target=send, daemon=True).start()
while data := there.recv(65536):
    while data:
        data = data[os.write(1, data):]
"""


def environ(folder: Path, program: str) -> dict[str, str]:
    """Variables of a user for whom `ssh` is that program of Python."""
    path = folder / "ssh-bin" / "ssh"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\n{program}\n")
    path.chmod(0o755)
    return {"PATH": f"{path.parent}:/usr/bin:/bin", "HOME": str(folder)}


def to_a_socket(folder: Path, url: str, words: Path) -> dict[str, str]:
    """Likewise: it connects to an engine's socket, and writes down what it was called with."""
    path = url.removeprefix("unix://")
    return environ(folder, _BRIDGE.format(path=path, words=str(words)))
