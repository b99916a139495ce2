from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support import sources

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def sources_closed() -> Iterator[None]:
    yield
    sources.close_all()
