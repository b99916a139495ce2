"""The pytest plugin: the fixture `oci_registry`, and `--oci-registry URL` for another registry.

Loaded into every pytest run of an environment that has towline, so nothing is imported before a
test asks for the fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.server import Server
    from towline.testing.registry import TestRegistry


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let tests run on another registry."""
    parser.getgroup("towline").addoption(
        "--oci-registry",
        metavar="URL",
        help="run tests of oci_registry on this registry instead of an embedded one; those that "
        "order faults or look at requests are skipped",
    )


@pytest.fixture(scope="session")
def _oci_server(request: pytest.FixtureRequest) -> Iterator[Server | None]:
    if request.config.getoption("--oci-registry"):
        yield None
        return
    from towline.server import Limits, Server

    with Server(limits=Limits(mounts_apart=True)) as server:
        yield server


@pytest.fixture
def oci_registry(
    request: pytest.FixtureRequest, _oci_server: Server | None
) -> Iterator[TestRegistry]:
    """A real OCI registry on loopback: a repository prefix and a cache of this test's own."""
    from towline.testing.registry import TestRegistry, own_cache

    url = _oci_server.url if _oci_server else request.config.getoption("--oci-registry")
    with own_cache():
        yield TestRegistry(url, _oci_server)
