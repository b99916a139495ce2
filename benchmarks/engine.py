"""An image that is in a Docker engine: towline beside `docker push`, for both kinds of store.

Each of them pushes the image into an empty registry, pushes it again, and pushes one with a small
layer more. The engine's own export is measured by itself, as `docker save` to nowhere: with
overlay2 most of a push is that. A containerd store is tried with the plain layers that were loaded
into it, and with compressed ones, as they are pulled; and with these also over TCP, where its
files cannot be read: then its export passes through, and the system lets towline write no file.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Literal

from benchmarks import links, registry
from benchmarks.image import NAME
from benchmarks.measure import CommandError, cost
from benchmarks.peers import Docker, SkippedError, home_environ, towline_command
from benchmarks.report import MB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.peers import Command, Place

Store = Literal["overlay2", "containerd"]
STORES: tuple[Store, ...] = ("overlay2", "containerd")
REPOSITORY = "bench/app"
CHANGED = "towline-bench:2"
PULLED, PULLED_CHANGED = "pulled:1", "pulled:2"
# What it prints goes through a pipe: where it is kept is a file too.
NO_FILES: Command = ["bash", "-o", "pipefail", "-c", '(ulimit -f 0; exec "$@") 2>&1 | cat', "bash"]


@dataclass(frozen=True, slots=True)
class Run:
    """One push, or one export."""

    store: str
    layers: str
    """`plain` or `compressed`."""
    case: str
    pusher: str
    wall: float
    """Seconds."""
    peak: int
    """Bytes of memory of the command; the daemons' are not in it."""
    sent: int
    """Bytes that the registry holds more than before."""
    requests: int


def measured(place: Place, rounds: int) -> tuple[list[Run], dict[str, str]]:
    """All runs; and by store the engine's version, or why it is not measured."""
    runs: list[Run] = []
    told: dict[str, str] = {}
    for store in STORES:
        with ExitStack() as stack:
            try:
                course = _Course(replace(place, stack=stack), store)
            except SkippedError as why:
                told[store] = f"not measured: {why}"
                continue
            told[store] = course.engine.version
            try:
                for run in (run for _ in range(rounds) for run in course.turns()):
                    case = f"{run.store}, {run.layers}, {run.case}"
                    print(f"  {case}: {run.pusher}: {run.wall:.2f} s", file=sys.stderr)
                    runs.append(run)
            except CommandError as failure:  # the figures so far are worth having
                told[store] += f", until a command failed: {failure}"
    return runs, told


class _Course:
    """What is done with one engine, which has the image."""

    def __init__(self, place: Place, store: Store) -> None:
        self._place = place
        self._store = store
        self._server = place.program("docker-registry")
        self._tcp = f"tcp://{links.free_address()}"
        feature = f"--feature=containerd-snapshotter={str(store == 'containerd').lower()}"
        self.engine = Docker(place, [feature, "--host", self._tcp, "--tls=false"])

    def _load(self) -> None:
        """Have the image as it was loaded, and one with a small layer more."""
        self.engine.run("load", "--quiet", "--input", str(self._place.image))
        folder = self._place.new("build")
        (folder / "small").write_bytes(os.urandom(20_000))
        (folder / "Dockerfile").write_text(f"FROM {NAME}\nCOPY small /small\n", encoding="utf-8")
        # BuildKit would want networks, or containers; this needs neither.
        self.engine.run("build", "--tag", CHANGED, str(folder), DOCKER_BUILDKIT="0")

    def turns(self) -> Iterator[Run]:
        """Every case, once."""
        self._load()
        with registry.started(self._server, self._place.folder) as where:
            yield from self._pushes(where, "docker push", "plain", NAME, CHANGED)
        yield self._export("plain", NAME)
        with registry.started(self._server, self._place.folder) as where:
            yield from self._pushes(where, "towline", "plain", NAME, CHANGED)
            if self._store == "containerd":
                self._pull(where)
        if self._store == "containerd":
            for pusher in ("towline", "towline, by export", "docker push"):
                with registry.started(self._server, self._place.folder) as where:
                    yield from self._pushes(where, pusher, "compressed", PULLED, PULLED_CHANGED)
            yield self._export("compressed", PULLED)

    def _pull(self, where: registry.Registry) -> None:
        """Have what was pushed as it is at the registry, instead of what was loaded."""
        # Else no layer would be pulled whose unpacked files are there already.
        self.engine.run("image", "prune", "--all", "--force")
        for tag, name in ("1", PULLED), ("2", PULLED_CHANGED):
            target = f"{where.host}/{REPOSITORY}:{tag}"
            self.engine.run("pull", "--quiet", target)
            self.engine.run("tag", target, name)
            self.engine.run("rmi", target)

    def _pushes(
        self, where: registry.Registry, pusher: str, layers: str, name: str, changed: str
    ) -> Iterator[Run]:
        """A first push, and those that find it there."""
        home = self._place.new("home")
        cases = [("first", pusher, name, "1"), ("unchanged", pusher, name, "1")]
        if pusher == "towline" and layers == "plain":
            cases.append(("unchanged", "towline, archive", name, "1"))
        for case, by, image, tag in (*cases, ("small layer more", pusher, changed, "2")):
            target = f"{where.host}/{REPOSITORY}:{tag}"
            command, environ = self._push(by, image, target, home)
            requests, stored = where.requests(), where.stored()
            spent = cost(command, environ)
            sent, asked = where.stored() - stored, where.requests() - requests
            yield Run(self._store, layers, case, by, spent.wall, spent.peak, sent, asked)

    def _push(
        self, pusher: str, image: str, target: str, home: Path
    ) -> tuple[Command, dict[str, str]]:
        if pusher == "docker push":
            self.engine.prepare(target, image)
            return self.engine.push(target), self.engine.environ()
        environ = {**home_environ(home), "DOCKER_HOST": self.engine.environ()["DOCKER_HOST"]}
        source = self._place.image if pusher == "towline, archive" else f"docker-daemon:{image}"
        command: Command = [*towline_command(), "push", source, target]
        if pusher == "towline, by export":
            return [*NO_FILES, *command, "--cache", "none", "--engine", self._tcp], environ
        return command, environ

    def _export(self, layers: str, name: str) -> Run:
        command: Command = ["sh", "-c", 'exec "$@" >/dev/null', "sh", self.engine.program]
        spent = cost([*command, "save", name], self.engine.environ())
        return Run(self._store, layers, "export alone", "docker save", spent.wall, spent.peak, 0, 0)


def table(runs: list[Run]) -> list[list[str]]:
    """Medians, and towline's wall time and bytes by `docker push`'s of the same case."""
    cases = dict.fromkeys((run.store, run.layers, run.case, run.pusher) for run in runs)
    lines = [["store", "layers", "", "", "wall s", "peak MB", "sent MB", "requests", "to docker"]]
    for store, layers, case, pusher in cases:

        def of(pusher: str, by: str, key: tuple[str, ...] = (store, layers, case)) -> float:
            found = [run for run in runs if (run.store, run.layers, run.case) == key]
            figures: list[float] = [getattr(run, by) for run in found if run.pusher == pusher]
            return median(figures or [0])

        docker = of("docker push", "wall")
        lines.append(
            [
                *(store, layers, case, pusher),
                f"{of(pusher, 'wall'):.2f}",
                f"{of(pusher, 'peak') / MB:.0f}",
                f"{of(pusher, 'sent') / MB:.2f}",
                f"{of(pusher, 'requests'):.0f}",
                f"{of(pusher, 'wall') / docker:.2f}" if docker else "",
            ]
        )
    return lines
