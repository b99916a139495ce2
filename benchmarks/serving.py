"""How fast a registry takes and gives blobs: ours beside `docker-registry` and crane's.

One client for all, as thin as it can be, on the same machine: sockets, and the kernel's `sendfile`
for the large blob. Each registry starts with an empty folder on the same disk.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import re
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks import registry
from benchmarks.measure import cpu_of, peak_of
from benchmarks.peers import SkippedError, home_environ, towline_command
from benchmarks.report import aligned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from typing import Self

    from benchmarks.peers import Place

    Started = AbstractContextManager[tuple[str, int]]

MiB = 1 << 20
BIG = 512 * MiB
SMALL = 1000
SMALL_SIZE = 1024
CLIENTS = 4
ROUNDS = 3
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_LOCATION = re.compile(rb"\r\nlocation: *(\S+)", re.IGNORECASE)
_LISTENING = re.compile(r"(?:127\.0\.0\.1:|serving on port )([0-9]+)")


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one registry; medians of some rounds."""

    start_seconds: float
    """From starting the program to its first answer."""
    upload: float
    """Bytes a second, the large blob."""
    upload_cpu: float
    """Seconds of its processor for a GiB."""
    download: float
    download_cpu: float
    small_requests: float
    """Requests a second, POST and PUT of each small blob from several clients."""
    small_reads: float
    tags: float
    """Manifests put under a tag of their own, a second."""
    peak: float
    """Bytes of the largest resident set of all this."""


class _Client:
    """One kept connection."""

    def __init__(self, host: str) -> None:
        name, _, port = host.partition(":")
        self._socket = socket.create_connection((name, int(port)), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._host = host
        self._block = bytearray(MiB)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, method: str, target: str, body: bytes | Path = b"", more: str = "") -> bytes:
        """Do a request, read its answer over; the answer's head."""
        size = body.stat().st_size if isinstance(body, Path) else len(body)
        bare = target.partition(self._host)[2] if target.startswith("http") else target
        head = f"{method} {bare} HTTP/1.1\r\nHost: {self._host}\r\n"
        head += f"Content-Length: {size}\r\n{more}\r\n"
        if isinstance(body, Path):
            self._socket.sendall(head.encode())
            with body.open("rb") as file:
                self._socket.sendfile(file)
        else:
            self._socket.sendall(head.encode() + body)
        return self._answer(method)

    def _answer(self, method: str) -> bytes:
        got = b""
        while (end := got.find(b"\r\n\r\n")) < 0:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("the registry hung up")
            got += data
        head = got[: end + 2]
        if not head.startswith(b"HTTP/1.1 2"):
            raise ConnectionError(got[:300].decode(errors="replace"))
        length = _LENGTH.search(head)
        left = int(length[1]) - (len(got) - end - 4) if length and method != "HEAD" else 0
        while left > 0:
            left -= self._socket.recv_into(self._block, min(left, len(self._block)))
        return head

    def push(self, name: str, digest: str, body: bytes | Path) -> None:
        """POST and PUT of a blob."""
        head = self.ask("POST", f"/v2/{name}/blobs/uploads/")
        found = _LOCATION.search(head)
        if not found:
            raise ConnectionError("no Location")
        session = found[1].decode()
        mark = "&" if "?" in session else "?"
        octets = "Content-Type: application/octet-stream\r\n"
        self.ask("PUT", f"{session}{mark}digest={digest}", body, octets)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def measured(place: Place) -> dict[str, Figures]:
    """In turn, so that a drifting machine is fair to all."""
    big = place.folder / "big-blob"
    with big.open("wb") as file:
        for _ in range(BIG // MiB):
            file.write(os.urandom(MiB))
    with big.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    rounds: dict[str, list[Figures]] = {}
    registries = _registries(place)
    for _ in range(ROUNDS):
        for name, start in registries.items():
            rounds.setdefault(name, []).append(_round(start, big, digest))
    big.unlink()
    return {name: _median(figures) for name, figures in rounds.items()}


def _median(rounds: list[Figures]) -> Figures:
    return Figures(*(median(values) for values in zip(*map(astuple, rounds), strict=True)))


def _round(start: Callable[[], Started], big: Path, digest: str) -> Figures:
    begun = time.perf_counter()
    with start() as (host, pid), _Client(host) as client:
        client.ask("GET", "/v2/")
        started = time.perf_counter() - begun
        upload = _timed(pid, lambda: client.push("big/blob", digest, big))
        download = _timed(pid, lambda: client.ask("GET", f"/v2/big/blob/blobs/{digest}"))
        small = [os.urandom(SMALL_SIZE) for _ in range(SMALL)]
        pushed = _timed(pid, lambda: _spread(host, small, _push_small))
        read = _timed(pid, lambda: _spread(host, small, _read_small))
        tagged = _timed(pid, lambda: _tag(client))
        return Figures(
            start_seconds=started,
            upload=BIG / upload[0],
            upload_cpu=upload[1] * (1 << 30) / BIG,
            download=BIG / download[0],
            download_cpu=download[1] * (1 << 30) / BIG,
            small_requests=2 * SMALL / pushed[0],
            small_reads=SMALL / read[0],
            tags=SMALL / tagged[0],
            peak=peak_of(pid),
        )


def _timed(pid: int, work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock, and of the registry's processor."""
    cpu, begun = cpu_of(pid), time.perf_counter()
    work()
    return time.perf_counter() - begun, cpu_of(pid) - cpu


def _spread(host: str, small: list[bytes], work: Callable[[_Client, bytes], object]) -> None:
    def some(blobs: list[bytes]) -> None:
        with _Client(host) as client:
            for blob in blobs:
                work(client, blob)

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(some, (small[first::CLIENTS] for first in range(CLIENTS))))


def _push_small(client: _Client, blob: bytes) -> None:
    client.push("small/blobs", _digest(blob), blob)


def _read_small(client: _Client, blob: bytes) -> None:
    client.ask("GET", f"/v2/small/blobs/blobs/{_digest(blob)}")


def _tag(client: _Client) -> None:
    config = b"{}"
    client.push("many/tags", _digest(config), config)
    described = {"mediaType": "application/json", "digest": _digest(config), "size": len(config)}
    document = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": described, "layers": []}
    kind = f"Content-Type: {_MANIFEST}\r\n"
    for number in range(SMALL):
        content = json.dumps({**document, "annotations": {"n": str(number)}}).encode()
        client.ask("PUT", f"/v2/many/tags/manifests/t{number}", content, kind)


# The registries


def _registries(place: Place) -> dict[str, Callable[[], Started]]:
    found: dict[str, Callable[[], Started]] = {"towline serve": lambda: embedded(place)}
    for name, program, make in (
        ("docker-registry", "docker-registry", _docker_registry),
        ("crane registry serve", "crane", _crane),
    ):
        try:
            path = place.program(program)
        except SkippedError as why:
            print(f"{name} is not measured: {why}")
            continue
        found[name] = _bound(make, place, path)
    return found


def _bound(
    make: Callable[[Place, Path], Started], place: Place, program: Path
) -> Callable[[], Started]:
    return lambda: make(place, program)


@contextmanager
def embedded(place: Place) -> Iterator[tuple[str, int]]:
    """Ours: its host and its process."""
    root = place.new("serving")
    command = [*towline_command(), "serve", "--root", root, "--listen", "127.0.0.1:0"]
    with _process(command, place) as started:
        yield started


@contextmanager
def _docker_registry(place: Place, program: Path) -> Iterator[tuple[str, int]]:
    with registry.started(program, place.folder) as running:
        yield running.host, running.pid


@contextmanager
def _crane(place: Place, program: Path) -> Iterator[tuple[str, int]]:
    disk = place.new("crane")
    command: list[str | Path] = [
        program,
        "registry",
        "serve",
        "--address",
        "127.0.0.1:0",
        "--disk",
        disk,
    ]
    with _process(command, place) as started:
        yield started


@contextmanager
def _process(command: list[str | Path], place: Place) -> Iterator[tuple[str, int]]:
    """A registry that says where it listens, into a file: nobody has to read the rest."""
    home = place.new("home")
    said = home / "said"
    with said.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=home_environ(home))
    try:
        yield f"127.0.0.1:{_port(said, process)}", process.pid
    finally:
        process.terminate()
        process.wait()


def _port(said: Path, process: subprocess.Popen[bytes]) -> int:
    while not (found := _LISTENING.search(said.read_text(encoding="utf-8", errors="replace"))):
        if process.poll() is not None:
            raise SkippedError(f"{said.read_text(encoding='utf-8', errors='replace')[-200:]}")
        time.sleep(0.002)
    return int(found[1])


def table(found: Mapping[str, Figures]) -> str:
    """For people."""
    head = ["", "start ms", "up MB/s", "CPU s/GiB", "down MB/s", "CPU s/GiB"]
    head += ["small req/s", "reads/s", "tags/s", "peak MB"]
    rows = [head, *([name, *_row(figures)] for name, figures in found.items())]
    title = (
        f"Serving: a blob of {BIG // MiB} MiB; {SMALL} of 1 KiB, {CLIENTS} clients; {SMALL} tags"
    )
    return f"{title} (median of {ROUNDS})\n{aligned(rows)}"


def _row(figures: Figures) -> list[str]:
    return [
        f"{figures.start_seconds * 1000:.0f}",
        f"{figures.upload / 1e6:.0f}",
        f"{figures.upload_cpu:.2f}",
        f"{figures.download / 1e6:.0f}",
        f"{figures.download_cpu:.2f}",
        f"{figures.small_requests:.0f}",
        f"{figures.small_reads:.0f}",
        f"{figures.tags:.0f}",
        f"{figures.peak / 1e6:.0f}",
    ]
