"""A real `docker-registry` with nothing in it, for one push: started, counted, thrown away.

Each push has a registry of its own, so that no client finds in it, or mounts from it, what an
earlier round has left.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.links import free_address
from benchmarks.measure import cpu_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.links import Way

START_LIMIT = 10.0
"""Seconds that it may take to answer."""
_CONFIG = """\
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
http: {{addr: '{host}'}}
"""
_MANIFESTS = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
)


class WrongPushError(Exception):
    """A client said that it pushed, and the registry does not hold the image."""


class Registry:
    """A running registry; `started` makes one."""

    def __init__(self, host: str, folder: Path, pid: int) -> None:
        self.host = host
        self._folder = folder
        self.pid = pid

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        return cpu_of(self.pid)

    def requests(self) -> int:
        """Requests answered so far, by its access log, once that is at rest."""
        count, before = self._logged(), -1
        while count != before:
            time.sleep(0.05)
            count, before = self._logged(), count
        return count

    def _logged(self) -> int:
        return (self._folder / "access.log").read_bytes().count(b" /v2/")

    def stored(self) -> int:
        """Bytes of all blobs, manifests included."""
        blobs = self._folder / "root/docker/registry/v2/blobs"
        return sum(path.stat().st_size for path in blobs.glob("*/*/*/data"))

    def check(self, repository: str, tag: str, layers: int) -> None:
        """Raise WrongPushError unless the tag names an image of so many layers, all stored."""
        manifest = self._manifest(f"/v2/{repository}/manifests/{tag}")
        blobs = [manifest["config"], *manifest["layers"]]
        if len(blobs) != layers + 1:
            raise WrongPushError(f"{len(blobs) - 1} layers instead of {layers}")
        for blob in blobs:
            algorithm, _, digits = blob["digest"].partition(":")
            stored = self._folder / "root/docker/registry/v2/blobs" / algorithm / digits[:2]
            if (stored / digits / "data").stat().st_size != blob["size"]:
                raise WrongPushError(f"{blob['digest']} has another size than the manifest says")

    def _manifest(self, path: str) -> dict[str, Any]:
        with closing(http.client.HTTPConnection(self.host, timeout=10)) as connection:
            connection.request("GET", path, headers={"Accept": ", ".join(_MANIFESTS)})
            answer = connection.getresponse()
            body = answer.read()
        if answer.status != http.client.OK:
            raise WrongPushError(f"the registry answers {answer.status} to GET {path}")
        manifest: dict[str, Any] = json.loads(body)
        return manifest


@contextmanager
def started(program: Path, folder: Path, way: Way | None = None) -> Iterator[Registry]:
    """A registry below that folder, at the end of a way; all of it is removed at the end."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="registry-") as own:
        address = way.address if way else free_address()
        host, inside = (way.host, way.inside) if way else (address, ())
        config = Path(own, "config.yml")
        config.write_text(_CONFIG.format(root=f"{own}/root", host=address), encoding="utf-8")
        with Path(own, "access.log").open("wb") as log, Path(own, "log").open("wb") as errors:
            server = subprocess.Popen(
                [*inside, program, "serve", config], stdout=log, stderr=errors, env=_environ()
            )
        try:
            _await(address)
            yield Registry(host, Path(own), server.pid)
        finally:
            server.terminate()
            server.wait()


def _environ() -> dict[str, str]:
    # It would read REGISTRY_… as its own configuration, and traces to nowhere without this.
    return {"PATH": os.environ.get("PATH", os.defpath), "OTEL_TRACES_EXPORTER": "none"}


def _await(host: str) -> None:
    name, _, port = host.partition(":")
    address = (name, int(port))
    deadline = time.monotonic() + START_LIMIT
    while True:
        try:
            socket.create_connection(address, timeout=1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
