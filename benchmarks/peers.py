"""The pushers that are compared, and how each of them is asked to push the same archive.

Each gets a home of its own, so that nothing of the user's is read or changed and a first push is
one. Docker and buildah push from their own storage only: they load the archive beforehand, which
is not counted.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from benchmarks.image import NAME
from towline.testing import make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import ExitStack

Command = list[str | Path]
KNOWN = ", rate known"
"""Behind a towline's options: the host's rate is remembered."""
DAEMON_LIMIT = 30.0
"""Seconds that a daemon may take to answer."""


class SkippedError(Exception):
    """A peer that cannot be measured here; the text says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer runs."""

    image: Path
    """What is pushed."""
    tools: tuple[Path, ...]
    """Folders to look for programs in, before PATH."""
    folder: Path
    """For homes, storage, sockets."""
    stack: ExitStack
    """Stops what was started, at the end."""
    source: str = ""
    """What is copied instead: an image at a registry, or without a tag all of a repository."""

    def program(self, name: str) -> Path:
        """Raises SkippedError when there is none."""
        path = os.pathsep.join([*map(str, self.tools), os.environ.get("PATH", os.defpath)])
        found = shutil.which(name, path=path)
        if found is None:
            raise SkippedError(f"no {name} on PATH or in PEERS")
        return Path(found)

    def new(self, prefix: str) -> Path:
        """An empty folder of its own."""
        return Path(tempfile.mkdtemp(dir=self.folder, prefix=f"{prefix}-"))


class Peer(Protocol):
    """One pusher, ready to push."""

    version: str
    daemons: tuple[int, ...]
    """Processes that work for it and outlive a push."""

    def forget(self) -> None:
        """Make the next push a first one."""
        ...

    def prepare(self, target: str) -> None:
        """What has to happen before a push to that target and is not part of it."""
        ...

    def push(self, *targets: str) -> Command:
        """The command that is measured; targets are HOST/REPOSITORY:TAG."""
        ...

    def environ(self) -> dict[str, str]:
        """For that command."""
        ...


class Plain:
    """A program that reads the archive itself."""

    daemons: tuple[int, ...] = ()

    def __init__(
        self,
        place: Place,
        program: Command,
        version: list[str],
        arguments: Callable[..., Command],
    ) -> None:
        """`arguments` makes them of the targets."""
        self._place = place
        self._program = program
        self._arguments = arguments
        self._home = place.new("home")
        self.version = _first_line([*program, *version], self.environ())

    def forget(self) -> None:
        shutil.rmtree(self._home)
        self._home = self._place.new("home")

    def prepare(self, target: str) -> None:
        pass

    def push(self, *targets: str) -> Command:
        return [*self._program, *self._arguments(*targets)]

    def environ(self) -> dict[str, str]:
        return home_environ(self._home)


def towline(place: Place, *options: str, known: bool = False) -> Peer:
    """With `known` another image has been pushed to the host before, which is not counted."""

    def arguments(*targets: str) -> Command:
        http = () if targets[0].startswith("127.") else ("--plain-http",)
        return ["push", *options, *http, place.image, *targets]

    return (_Known if known else Plain)(place, towline_command(), ["--version"], arguments)


class _Known(Plain):
    """A towline that knows the host's rate from an earlier push."""

    def prepare(self, target: str) -> None:
        other = self._home / "other.tar"
        make_image(other, [{"file": random.Random(3).randbytes(24 << 20)}])  # noqa: S311
        command = [
            *self._program,
            "push",
            "--plain-http",
            other,
            f"{target.partition('/')[0]}/other:1",
        ]
        done = subprocess.run(command, capture_output=True, env=self.environ(), check=False)
        if done.returncode:
            raise SkippedError(f"the push before it fails: {done.stderr.decode()[-200:]}")


def crane(place: Place) -> Peer:
    program: Command = [place.program("crane")]
    return Plain(
        place, program, ["version"], lambda target: ["push", "--insecure", place.image, target]
    )


def skopeo(place: Place) -> Peer:
    source = f"oci:{place.image}:1" if place.image.is_dir() else f"docker-archive:{place.image}"

    def arguments(target: str) -> Command:
        copy = ["--insecure-policy", "copy", "--dest-tls-verify=false"]
        return [*copy, source, f"docker://{target}"]

    return Plain(place, [place.program("skopeo")], ["--version"], arguments)


def oras(place: Place) -> Peer:
    if not place.image.is_dir():
        raise SkippedError("it reads layouts alone")

    def arguments(target: str) -> Command:
        return ["cp", "--from-oci-layout", f"{place.image}:1", "--to-plain-http", target]

    return Plain(place, [place.program("oras")], ["version"], arguments)


class Buildah:
    """Pushes from its own storage."""

    daemons: tuple[int, ...] = ()

    def __init__(self, place: Place) -> None:
        self._home = place.new("buildah")
        self._policy = self._home / "policy.json"
        self._policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        storage = self._home / "storage"
        self._program: Command = [place.program("buildah"), "--root", storage]
        self._program += ["--runroot", storage / "run"]
        self.version = _first_line([*self._program, "--version"], self.environ())
        self._run("pull", "--quiet", *self._options(), f"docker-archive:{place.image}")

    def forget(self) -> None:
        pass

    def prepare(self, target: str) -> None:
        pass

    def push(self, *targets: str) -> Command:
        options = ["--tls-verify=false", *self._options()]
        return [*self._program, "push", *options, f"localhost/{NAME}", f"docker://{targets[0]}"]

    def _options(self) -> Command:
        return ["--signature-policy", self._policy]

    def environ(self) -> dict[str, str]:
        return home_environ(self._home)

    def _run(self, *arguments: str | Path) -> None:
        done = subprocess.run(
            [*self._program, *arguments], capture_output=True, env=self.environ(), check=False
        )
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise SkippedError(f"it cannot load the image here: {''.join(reason)[:200]}")


class Docker:
    """Pushes from its daemon's storage; the daemon's work is counted as its own."""

    def __init__(self, place: Place, options: Command | None = None) -> None:
        """With `options` for the daemon it is one of its own, or none."""
        self.program = place.program("docker")
        self._home = place.new("docker")
        self._socket: Path | None = None
        self._options = options or []
        self.daemons = self._own_daemon(place)
        if not self.daemons:
            if options:
                raise SkippedError("starting a daemon needs root, dockerd and containerd")
            self.daemons = self._running_daemon()
        self.run("load", "--quiet", "--input", str(place.image))
        server = self.run("version", "--format", "{{.Server.Version}}")
        self.version = f"docker {server}"
        self._names = [NAME]
        place.stack.callback(self._remove_names)

    def forget(self) -> None:
        pass  # what it remembers of a registry's layers is of no use to it at another registry

    def prepare(self, target: str, name: str = NAME) -> None:
        self.run("tag", name, target)
        self._names.append(target)

    def push(self, *targets: str) -> Command:
        return [self.program, "push", *targets]

    def environ(self) -> dict[str, str]:
        given = {"DOCKER_HOST": f"unix://{self._socket}"} if self._socket else _docker_host()
        return {**home_environ(self._home), **given}

    def _own_daemon(self, place: Place) -> tuple[int, ...]:
        try:
            dockerd, containerd = place.program("dockerd"), place.program("containerd")
        except SkippedError:
            return ()
        if os.geteuid() != 0:
            return ()
        self._socket = self._home / "docker.sock"
        pids = _start_docker(
            place, self._home, dockerd, containerd, self._socket, options=self._options
        )
        self._await()
        return pids

    def _running_daemon(self) -> tuple[int, ...]:
        try:
            self.run("version", "--format", "{{.Server.Version}}")
        except SkippedError:
            raise SkippedError("no daemon answers; starting one needs root and dockerd") from None
        return _processes({"dockerd", "containerd"})

    def _await(self) -> None:
        deadline = time.monotonic() + DAEMON_LIMIT
        while True:
            try:
                self.run("version")
            except SkippedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                return

    def _remove_names(self) -> None:
        self.run("rmi", "--force", *self._names)

    def run(self, *arguments: str, **environ: str) -> str:
        """What the command prints. Raises SkippedError."""
        done = subprocess.run(
            [self.program, *arguments],
            capture_output=True,
            env={**self.environ(), **environ},
            check=False,
        )
        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise SkippedError("".join(reason)[:200])
        return done.stdout.decode().strip()


def _start_docker(
    place: Place,
    home: Path,
    dockerd: Path,
    containerd: Path,
    socket: Path,
    *,
    options: Command,
) -> tuple[int, ...]:
    """The daemons with all their state below `home`, without networks; stopped at the end."""
    state = {**home_environ(home), "PATH": _path_of(dockerd, containerd)}
    engine: Command = [dockerd, "--data-root", home / "data", "--exec-root", home / "run"]
    engine += ["--host", f"unix://{socket}", "--pidfile", home / "pid", *options]
    engine += ["--bridge=none", "--iptables=false", "--ip6tables=false"]
    if options:  # it starts its own containerd, whose store lies where engines have it
        return (_daemon(place, engine, state, home / "dockerd.log", socket),)
    pipe = home / "containerd.sock"
    keeper: Command = [
        containerd,
        "--root",
        home / "c",
        "--state",
        home / "c-run",
        "--address",
        pipe,
    ]
    engine += ["--containerd", pipe]
    pids = [_daemon(place, keeper, state, home / "containerd.log", pipe)]
    return (*pids, _daemon(place, engine, state, home / "dockerd.log", socket))


def _daemon(
    place: Place,
    command: Command,
    environ: Mapping[str, str],
    log: Path,
    socket: Path,
) -> int:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=dict(environ))
    place.stack.callback(process.wait)
    place.stack.callback(process.terminate)
    deadline = time.monotonic() + DAEMON_LIMIT
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SkippedError(f"{Path(command[0]).name} does not start")
        time.sleep(0.05)
    return process.pid


def _path_of(*programs: Path) -> str:
    """PATH with the folders where the programs really lie: their helpers lie there too."""
    folders = [str(program.resolve().parent) for program in programs]
    return os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)])


def _processes(names: set[str]) -> tuple[int, ...]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/comm"):
        try:
            name = entry.read_text(encoding="utf-8").strip()
        except OSError:
            continue  # it has ended since
        if name in names:
            found.append(int(entry.parent.name))
    return tuple(found)


def _docker_host() -> dict[str, str]:
    return {name: os.environ[name] for name in ("DOCKER_HOST",) if name in os.environ}


def _first_line(command: Command, environ: Mapping[str, str]) -> str:
    done = subprocess.run(command, capture_output=True, env=dict(environ), check=False)
    lines = done.stdout.decode(errors="replace").strip().splitlines()
    told = lines[0] if lines and not done.returncode else ""
    return told if any(map(str.isdigit, told)) else "version unknown"


def home_environ(home: Path) -> dict[str, str]:
    """The whole environment of a peer that keeps everything below `home`."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_RUNTIME_DIR": str(home),
        "TMPDIR": str(home),
        # As root, skopeo would keep what it learns in the system's folder, also for the next round.
        "_CONTAINERS_ROOTLESS_UID": str(os.geteuid() or 1000),
        "LANG": "C.UTF-8",
    }


def towline_command() -> Command:
    """The command as installed beside the running Python, else as a module."""
    installed = Path(sys.executable).parent / "towline"
    return [installed] if installed.exists() else [sys.executable, "-m", "towline"]


def copier(place: Place, name: str) -> Peer:
    """A peer that copies `place.source`. Raises SkippedError."""
    source = place.source
    every = ":" not in source.rpartition("/")[2]

    def arguments(*targets: str) -> Command:
        names = [target.rpartition(":")[0] if every else target for target in targets]
        if name == "towline":
            return ["copy", "--cache", "none", *(["-a"] if every else []), source, *names]
        if name == "crane":
            return ["copy", "--insecure", *(["-a"] if every else []), source, *names]
        if name == "oras":
            return ["cp", "--from-plain-http", "--to-plain-http", source, *names]
        ways: Command = ["--all", "--src-tls-verify=false", "--dest-tls-verify=false"]
        if every:
            to = names[0].rpartition("/")[0]
            return ["--insecure-policy", "sync", *ways, "--src=docker", "--dest=docker", source, to]
        return ["--insecure-policy", "copy", *ways, f"docker://{source}", f"docker://{names[0]}"]

    if name == "oras" and every:
        raise SkippedError("it copies one tag")
    program: Command = towline_command() if name == "towline" else [place.program(name)]
    version = "version" if name in {"crane", "oras"} else "--version"
    return Plain(place, program, [version], arguments)


def ready(name: str, place: Place) -> Peer:
    """A peer by its name, behind which `towline` may have options. Raises SkippedError."""
    program, *options = name.removesuffix(KNOWN).partition(" x")[0].split()
    if place.source:
        return copier(place, program)
    if options:
        return towline(place, *options, known=name.endswith(KNOWN))
    return PEERS[program](place)


PEERS: dict[str, Callable[[Place], Peer]] = {
    "towline": towline,
    "crane": crane,
    "skopeo": skopeo,
    "oras": oras,
    "docker": Docker,
    "buildah": Buildah,
}
"""In the order in which they take turns."""
