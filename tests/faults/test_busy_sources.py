"""A source that takes so many requests a second and no more."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

import towline
from tests.faults.test_broken_reads import fill
from tests.support.quick import quick
from tests.support.scripted import Asked, Reply, Scripted, scripted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.testing import TestRegistry

TAGS = 25
A_SECOND = 40.0
"""Requests that the source takes."""


@pytest.fixture
def source() -> Iterator[Scripted]:
    with scripted() as registry:
        fill(registry)
        for n in range(TAGS):
            registry.manifests[f"v{n}"] = registry.manifests["1"]
        yield registry


class Busy:
    """Answers HEADs, but for those that come too soon after the last that was answered."""

    def __init__(self, registry: Scripted) -> None:
        self.refused = 0
        self._registry = registry
        self._lock = threading.Lock()
        self._last = 0.0

    def __call__(self, asked: Asked) -> Reply:
        with self._lock:
            now = time.monotonic()
            if now - self._last < 1 / A_SECOND:
                self.refused += 1
                return Reply(429, {"Retry-After": "1"})
            self._last = now
        return self._registry.sound(asked)


def test_all_tags_keep_within_what_a_source_takes(
    source: Scripted, oci_registry: TestRegistry
) -> None:
    name = oci_registry.name("app")
    with towline.Pusher() as pusher:
        pusher.copy(f"{source.host}/app", name, all_tags=True)
        busy = Busy(source)
        source.on("HEAD", "manifests/", busy, forever=True)
        again = pusher.copy(f"{source.host}/app", name, all_tags=True)
    assert {result.status for result in again} == {"unchanged"}
    assert len(again) == TAGS + 1
    assert 0 < busy.refused < 2 * TAGS


def test_what_is_left_of_a_window_is_spread_over_it(
    source: Scripted, oci_registry: TestRegistry
) -> None:
    name = oci_registry.name("app")
    with quick(towline.Pusher()) as pusher:
        pusher.copy(f"{source.host}/app", name, all_tags=True)

        def few(asked: Asked) -> Reply:
            reply = source.sound(asked)
            said = {"RateLimit-Limit": "1000;w=2", "RateLimit-Remaining": "20;w=2"}
            return Reply(reply.status, {**dict(reply.headers), **said}, reply.body)

        source.on("HEAD", "manifests/", few, forever=True)
        began = time.monotonic()
        pusher.copy(f"{source.host}/app", name, all_tags=True, tags="v*")
    # The first ones are asked side by side, before anything is known.
    assert time.monotonic() - began > (TAGS - 16) / 10 / 2
