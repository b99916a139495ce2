"""Programs that some tests need and not every machine has; tests/conftest.py acts on it.

A test asks for one by its marker, `needs("skopeo")`, or by a fixture that hands it out.
"""

from __future__ import annotations

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
}


def find(name: str) -> Path | None:
    """Where a program is: what `make test` brought first, then PATH."""
    found = shutil.which(name, path=str(TOOLS)) or shutil.which(name)
    return Path(found) if found else None


def missing_for(item: pytest.Item) -> list[str]:
    """The programs, by name, that this test needs and this machine lacks."""
    needed = {name for mark in item.iter_markers("needs") for name in mark.args}
    fixtures: list[str] = getattr(item, "fixturenames", [])
    needed |= {BEHIND_FIXTURE[name] for name in fixtures if name in BEHIND_FIXTURE}
    return sorted(name for name in needed if find(name) is None)
