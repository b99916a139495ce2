"""Starts the registry that most others are measured by, Distribution's, for one test or all.

Only what a test must choose is an option; all else is the program's default.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support import processes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.certificates import Certificate

USER, PASSWORD = "tester", "s3cret-word"
# The registry takes bcrypt alone, which the standard library can't make.
HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuuEpHRRKIlpAGo.iP7Bpa.htQEJMAAnRe\n"

LISTENING = re.compile(r"listening on ([^\s\",]+)")
LOGGED = re.compile(r'"(?P<method>[A-Z]+) (?P<path>\S+) HTTP/[\d.]+" (?P<status>\d+)')


class Request(NamedTuple):
    """One line of the registry's access log; the path has its query."""

    method: str
    path: str
    status: int


@dataclass(frozen=True)
class Options:
    """What a test chooses; `htpasswd` lets in USER with PASSWORD alone."""

    htpasswd: bool = False
    schema1: bool = False
    delete: bool = True
    tls: Certificate | None = None
    read_only: bool = False
    client_ca: Path | None = None
    """Whoever issues the certificates that clients must show."""
    auth: dict[str, Any] | None = None
    """The registry's `auth`, where `htpasswd` is not what is wanted."""


class AccessLog:
    """What a registry has answered; of a file that grows all day each line is read once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._read = 0
        self._found: list[Request] = []

    def requests(self) -> list[Request]:
        """Oldest first."""
        with self._lock, self._path.open("rb") as file:
            file.seek(self._read)
            lines, end, _ = file.read().rpartition(b"\n")
            self._read += len(lines + end)
            for line in LOGGED.finditer(lines.decode(errors="replace")):
                found = Request(line["method"], line["path"], int(line["status"]))
                self._found.append(found)
            return list(self._found)


@dataclass(frozen=True)
class DockerRegistry:
    """A running registry: `host` is HOST:PORT as a reference has it, `root` where it stores."""

    host: str
    url: str
    root: Path
    access_log: AccessLog

    def requests(self) -> list[Request]:
        """Every request answered so far, oldest first."""
        return self.access_log.requests()

    def name(self, repository: str) -> str:
        """The repository with this registry's host before it."""
        return f"{self.host}/{repository}"


@contextlib.contextmanager
def serving(program: Path, folder: Path, options: Options) -> Iterator[DockerRegistry]:
    """Run the registry on a free loopback port, its store and logs in a folder, until the end."""
    config = folder / "config.yml"
    # JSON is YAML too.
    config.write_text(json.dumps(_config(folder, options)))
    # Its heap is small, so that Go would collect garbage for a fifth of the processor's time.
    with processes.running([program, "serve", config], folder, GOGC="800") as process:
        host = processes.wait_until(process, folder, lambda: _address(folder / "stderr"))
        scheme = "https" if options.tls else "http"
        yield DockerRegistry(
            host, f"{scheme}://{host}", folder / "root", AccessLog(folder / "stdout")
        )


def _address(log: Path) -> str | None:
    # Said once the socket accepts, with the port that the system chose.
    found = LISTENING.search(log.read_text(errors="replace"))
    return found[1] if found else None


def _config(folder: Path, options: Options) -> dict[str, Any]:
    http: dict[str, Any] = {"addr": "127.0.0.1:0", "secret": "one-process"}
    if options.tls:
        http["tls"] = {"certificate": str(options.tls.cert), "key": str(options.tls.key)}
        if options.client_ca:
            http["tls"]["clientcas"] = [str(options.client_ca)]
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": False}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder / "root")},
            "delete": {"enabled": options.delete},
            "maintenance": {"readonly": {"enabled": options.read_only}},
        },
        "http": http,
        "compatibility": {"schema1": {"enabled": options.schema1}},
    }
    if options.auth:
        config["auth"] = options.auth
    elif options.htpasswd:
        (folder / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "towline", "path": str(folder / "htpasswd")}}
    return config
