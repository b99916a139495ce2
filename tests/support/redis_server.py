"""Starts a real Redis on a free loopback port and on a Unix socket, with nothing kept on disk."""

from __future__ import annotations

import contextlib
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.support import processes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READY = re.compile(r"Ready to accept connections")


@dataclass(frozen=True)
class RedisServer:
    """A running Redis: `port` on 127.0.0.1, and the path of its socket."""

    port: int
    socket: Path

    @property
    def url(self) -> str:
        """Its address over TCP, as `--cache` takes it."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """Its address over the Unix socket, as `--cache` takes it."""
        return f"unix://{self.socket}"


@contextlib.contextmanager
def serving(program: Path, folder: Path) -> Iterator[RedisServer]:
    """Run Redis with its files in a folder until the end."""
    # Redis takes port 0 as "no port", so one is chosen here.
    server = RedisServer(_free_port(), folder / "redis.sock")
    options = {
        "bind": "127.0.0.1",
        "port": str(server.port),
        "unixsocket": str(server.socket),
        "save": "",
        "appendonly": "no",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    with processes.running([program, *words], folder) as process:
        processes.wait_until(process, folder, lambda: READY.search(_log(folder)))
        yield server


def _log(folder: Path) -> str:
    return (folder / "stdout").read_text(errors="replace")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
