"""Programs that some tests need and not every machine has; tests/conftest.py acts on it.

A test asks for one by its marker, `needs("skopeo")`, or by a fixture that hands it out.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

TOOLS = Path(__file__).resolve().parents[2] / ".tools" / "bin"

# The fixtures that start or hand out a program, so that a test which uses one needs no marker.
BEHIND_FIXTURE = {
    "docker_registry": "docker-registry",
    "docker_registry_bin": "docker-registry",
    "start_docker_registry": "docker-registry",
    "redis_server": "redis-server",
    "redis_server_bin": "redis-server",
    "skopeo_bin": "skopeo",
    "nginx_bin": "nginx",
    "tinyproxy_bin": "tinyproxy",
    "browser": "chromium",
}


def find(name: str) -> Path | None:
    """Where a program is: what `make test` brought first, then PEERS, then PATH."""
    return next(iter(find_all(name)), None)


def find_all(name: str) -> list[Path]:
    """Every program of that name, as `find` would choose; several versions may be there."""
    peers = os.environ.get("PEERS")
    folders = [TOOLS, *([Path(peers), Path(peers) / "bin"] if peers else [])]
    places = [*map(str, folders), None]
    found = (shutil.which(name, path=place) for place in places)
    return [Path(path) for path in dict.fromkeys(found) if path]


def missing_for(item: pytest.Item) -> list[str]:
    """The programs, by name, that this test needs and this machine lacks."""
    needed = {name for mark in item.iter_markers("needs") for name in mark.args}
    fixtures: list[str] = getattr(item, "fixturenames", [])
    needed |= {BEHIND_FIXTURE[name] for name in fixtures if name in BEHIND_FIXTURE}
    return sorted(name for name in needed if find(name) is None)


def missing_peers_for(item: pytest.Item) -> list[str]:
    """The programs of others that this test would try, were they here; nobody is asked for them."""
    wanted = {name for mark in item.iter_markers("peer") for name in mark.args}
    return sorted(name for name in wanted if find(name) is None)
