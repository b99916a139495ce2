"""Both registries that a push must work with: the embedded one, and Debian's `docker-registry`."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Place:
    """A registry to push to, and what it has been asked so far."""

    host: str
    url: str
    prefix: str
    asked: Callable[[], list[Any]]

    def name(self, repository: str) -> str:
        """A repository of this test's own, host included."""
        return f"{self.host}/{self.path(repository)}"

    def path(self, repository: str) -> str:
        """The same without the host."""
        return f"{self.prefix}/{repository}"

    def requests(self) -> list[tuple[str, str]]:
        """Method and path of every request of this test, oldest first."""
        return [
            (request.method, request.path)
            for request in self.asked()
            if f"/{self.prefix}/" in request.path
        ]


@pytest.fixture(
    params=["embedded", pytest.param("debian", marks=pytest.mark.needs("docker-registry"))]
)
def registry(request: pytest.FixtureRequest) -> Place:
    """Each registry in turn."""
    if request.param == "debian":
        real = request.getfixturevalue("docker_registry")
        prefix = f"t{uuid.uuid4().hex[:12]}"
        return Place(real.host, real.url, prefix, real.requests)
    embedded = request.getfixturevalue("oci_registry")
    prefix = embedded.name("x").partition("/")[2].rpartition("/")[0]
    return Place(embedded.host, embedded.url, prefix, lambda: embedded.requests)
