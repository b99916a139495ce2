"""Many clients of overlapping images at once leave the embedded registry whole."""

from __future__ import annotations

import time
from random import Random
from typing import TYPE_CHECKING

from tests.support import stored
from tests.support.pushes import Known, Pusher
from tests.support.raw_client import RawClient
from towline.server import Server

if TYPE_CHECKING:
    from pathlib import Path

CLIENTS = 20
SIZES = (10, 10, 5_000, 5_000, 200_000, 200_000, 2_000_000)


def test_many_clients_at_once_leave_a_registry_that_verifies(tmp_path: Path) -> None:
    chance, known = Random(6), Known()  # noqa: S311 - no secret
    blobs = [chance.randbytes(size) for size in SIZES]
    with Server(tmp_path / "root") as server:
        pushers = [Pusher(server.host, number, blobs, known) for number in range(CLIENTS)]
        for pusher in pushers:
            pusher.start()
        time.sleep(1.5)
        for pusher in pushers:
            pusher.stop.set()
        for pusher in pushers:
            pusher.join()
        assert known.faults == []
        with RawClient(server.host) as client:
            known.check(client)
        assert known.pushes > CLIENTS
    stored.check(tmp_path / "root")
