"""The embedded registry, killed at random moments: what it confirmed is there, nothing is torn."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from random import Random
from typing import TYPE_CHECKING

from tests.support.pushes import Known, Pusher
from tests.support.raw_client import RawClient
from towline.server import Server

if TYPE_CHECKING:
    from pathlib import Path

CHANCE = Random()  # noqa: S311 - the moment of a kill is no secret
CLIENTS = 8
KILLS = int(os.environ.get("TOWLINE_TEST_KILLS", "30"))
SERVE = """
import sys
from pathlib import Path
from towline.server import Server
server = Server(Path(sys.argv[1]))
server.start()
print(server.host, flush=True)
sys.stdin.read()
"""


def layers() -> list[bytes]:
    sizes = [10, 10, 5_000, 5_000, 200_000, 200_000, 2_000_000]
    return [CHANCE.randbytes(size) for size in sizes]


def live_and_die(root: Path, blobs: list[bytes], known: Known) -> None:
    """One life of a registry: some pushes, and a kill in the middle of them."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as registry:
        assert registry.stdout is not None
        host = registry.stdout.readline().strip()
        pushers = [Pusher(host, number, blobs, known) for number in range(CLIENTS)]
        for pusher in pushers:
            pusher.start()
        time.sleep(CHANCE.uniform(0.01, 0.3))
        registry.kill()
        for pusher in pushers:
            pusher.stop.set()
            pusher.join()


def check_blobs(root: Path) -> int:
    """Hash every file again; how many there are."""
    count = 0
    for folder in (root / "blobs").iterdir():
        for path in folder.iterdir():
            assert hashlib.new(folder.name, path.read_bytes()).hexdigest() == path.name
            count += 1
    return count


def test_kills_leave_every_confirmed_tag_whole_and_no_torn_blob(tmp_path: Path) -> None:
    root, known, blobs = tmp_path / "root", Known(), layers()
    for _ in range(KILLS):
        live_and_die(root, blobs, known)
        assert known.faults == []
        check_blobs(root)
        with Server(root) as server, RawClient(server.host) as client:
            known.check(client)
            for name in client.ask("GET", "/v2/_catalog").json()["repositories"]:
                for tag in client.tags(name):
                    client.pull(name, tag)
    assert known.pushes > KILLS
    assert check_blobs(root) > len(blobs)


def test_many_clients_at_once_leave_a_registry_that_verifies(tmp_path: Path) -> None:
    root, known, blobs = tmp_path / "root", Known(), layers()
    with Server(root) as server:
        pushers = [Pusher(server.host, number, blobs, known) for number in range(20)]
        for pusher in pushers:
            pusher.start()
        time.sleep(2.0)
        for pusher in pushers:
            pusher.stop.set()
        for pusher in pushers:
            pusher.join()
        assert known.faults == []
        with RawClient(server.host) as client:
            known.check(client)
        assert known.pushes > len(pushers)
    check_blobs(root)
