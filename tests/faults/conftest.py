"""A scripted registry and a client of it, for each test its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.pushing import Client, client_of
from tests.support.scripted import Scripted, scripted

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def registry() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture
def client(registry: Scripted) -> Iterator[Client]:
    with client_of(registry) as made:
        yield made
