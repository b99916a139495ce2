"""Starts real engines, where this user may: Docker of two kinds of store, and Podman.

They have networks of no kind, and folders of their own, so that no other engine is touched.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.support import components, processes

if TYPE_CHECKING:
    from collections.abc import Iterator

Store = Literal["overlay2", "containerd", "podman"]
_FEATURE_SINCE = 24
"""The version that first has a containerd store to be chosen."""


class NotAllowedError(RuntimeError):
    """This user, or this place, may not run an engine."""


@dataclass(frozen=True)
class DockerEngine:
    """A running engine."""

    url: str
    store: Store

    def load(self, archive: Path) -> None:
        """As `docker load` does it, by the engine's own API."""
        status, said = ask(self.url, "POST", "/images/load", archive.read_bytes())
        assert status == 200, said
        assert b"errorDetail" not in said, said

    def tag(self, name: str, repository: str, tag: str) -> None:
        """As `docker tag`."""
        status, said = ask(self.url, "POST", f"/images/{name}/tag?repo={repository}&tag={tag}")
        assert status == 201, said


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("docker")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def ask(url: str, method: str, target: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of an answer."""
    with contextlib.closing(_Connection(url.removeprefix("unix://"))) as connection:
        connection.request(method, target, body, {"Content-Type": "application/x-tar"})
        answer = connection.getresponse()
        return answer.status, answer.read()


def program(store: Store) -> Path | None:
    """A `dockerd` that has such a store; or `podman`."""
    if store == "podman":
        return components.find("podman")
    for found in components.find_all("dockerd"):
        if store == "overlay2" or _major(found) >= _FEATURE_SINCE:
            return found
    return None


def _version(dockerd: Path) -> str:
    said = subprocess.run([dockerd, "--version"], check=True, capture_output=True, text=True)
    match = re.search(r"version (\S+?),", said.stdout)
    return match[1] if match else "0"


def _major(dockerd: Path) -> int:
    return int(_version(dockerd).partition(".")[0])


@contextlib.contextmanager
def serving(store: Store, program: Path) -> Iterator[DockerEngine]:
    """Run an engine in a folder of its own. Raises NotAllowedError."""
    if os.geteuid() != 0:
        raise NotAllowedError("an engine is started by root alone")
    # Sockets lie in it, whose paths must be short; Podman takes none above 50 characters.
    with tempfile.TemporaryDirectory(prefix="engine-", dir="/tmp") as name:
        try:
            with _serving(store, program, Path(name)) as engine:
                yield engine
        finally:
            unmount(name)


def unmount(folder: str) -> None:
    """Engines leave their storage mounted upon itself."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((each for each in mounts if each.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False)


@contextlib.contextmanager
def _serving(store: Store, program: Path, folder: Path) -> Iterator[DockerEngine]:
    path = folder / "engine.sock"
    command = _podman(program, folder) if store == "podman" else _dockerd(store, program, folder)
    # What they start themselves lies beside them or, in .tools, below.
    beside = [program.parent, program.parent.parent / "root" / "usr" / "bin"]
    search = os.pathsep.join([*map(str, beside), os.environ["PATH"]])
    words = ["env", f"PATH={search}", f"HOME={folder}", *command]
    with processes.running(words, folder) as process:

        def ready() -> bytes | None:
            with contextlib.suppress(OSError):
                return ask(f"unix://{path}", "GET", "/_ping")[1]
            return None

        try:
            processes.wait_until(process, folder, ready)
        except processes.DidNotStartError as error:
            if re.search(r"operation not permitted|permission denied|not supported", str(error)):
                raise NotAllowedError(str(error)) from None
            raise
        yield DockerEngine(f"unix://{path}", store)


def _podman(podman: Path, folder: Path) -> list[str | Path]:
    policy = folder / ".config" / "containers" / "policy.json"
    policy.parent.mkdir(parents=True)
    policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    storage: list[str | Path] = ["--root", folder / "data", "--runroot", folder / "run"]
    service = ["system", "service", "--time", "0", f"unix://{folder / 'engine.sock'}"]
    conmon = podman.parent.parent / "root" / "usr" / "bin" / "conmon"
    if conmon.exists():
        storage += ["--conmon", conmon]
    return [podman, *storage, "--storage-driver", "vfs", *service]


def _dockerd(store: Store, dockerd: Path, folder: Path) -> list[str | Path]:
    command: list[str | Path] = [dockerd, "--data-root", folder / "data"]
    command += ["--exec-root", folder / "run", "--pidfile", folder / "pid"]
    command += ["--host", f"unix://{folder / 'engine.sock'}"]
    command += ["--config-file", _no_configuration(folder)]
    command += ["--bridge=none", "--iptables=false", "--ip6tables=false"]
    if _major(dockerd) >= _FEATURE_SINCE:
        command.append(f"--feature=containerd-snapshotter={str(store == 'containerd').lower()}")
    return command


def _no_configuration(folder: Path) -> Path:
    path = folder / "daemon.json"
    path.write_text("{}")
    return path
