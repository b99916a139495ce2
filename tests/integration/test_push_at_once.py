"""How much of a push goes at once to a host, and that small blobs wait for no large one."""

from __future__ import annotations

import gc
import os
import socket
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import towline
from tests.support.scripted import HANG, scripted
from towline.context import Context
from towline.registry.client import RegistryClient, Settings
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.scripted import Asked, Scripted
    from towline.testing.image_formats import Made

ROOM = bytes(1 << 20)
"""What makes a layer count as one of `jobs`."""
AT_ONCE = 16


@pytest.fixture
def registry() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


class Counting:
    """Answers each request a little later, and counts how many are there at once.

    None is answered before `expected` of them have been there at once, as a busy machine is slow.
    """

    def __init__(
        self,
        registry: Scripted,
        *patterns: tuple[str, str],
        seconds: float = 0.3,
        expected: int = 1,
    ) -> None:
        self.most = 0
        self._seconds = seconds
        self._expected = expected
        self._there = threading.Event()
        self._now = 0
        self._lock = threading.Lock()
        self._pause = threading.Event()
        for method, pattern in patterns:
            registry.on(method, pattern, self, forever=True)

    def __call__(self, asked: Asked) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            if self.most >= self._expected:
                self._there.set()
        if not self._there.wait(20):
            self._there.set()  # they do not come: the test fails, but not after minutes
        self._pause.wait(self._seconds)
        with self._lock:
            self._now -= 1


def tiny_layers(path: Path, count: int, **options: str) -> Made:
    return make_image(path, [{f"f{n}": bytes([n])} for n in range(count)], **options)  # type: ignore[arg-type]  # a format


def test_a_small_layer_costs_two_requests(registry: Scripted, tmp_path: Path) -> None:
    made = tiny_layers(tmp_path / "image.tar", 30)
    with towline.Pusher(cache="none") as pusher:
        result = pusher.push(made.path, f"{registry.host}/app:1")
    assert len(registry.requests("POST")) == 31
    assert len(registry.requests("PUT", "/uploads/")) == 31
    assert not registry.requests("PATCH")
    assert result.requests <= 2.3 * 31


def test_small_layers_and_questions_go_sixteen_at_once(registry: Scripted, tmp_path: Path) -> None:
    bodies = Counting(registry, ("PUT", "/uploads/"), expected=AT_ONCE)
    questions = Counting(registry, ("HEAD", "/blobs/"), expected=AT_ONCE)
    made = tiny_layers(tmp_path / "layout", 40, format="oci")
    with towline.Pusher(cache="none", jobs=2) as pusher:
        pusher.push(made.path, f"{registry.host}/app:1")
    assert (bodies.most, questions.most) == (AT_ONCE, AT_ONCE)


def test_small_layers_wait_for_no_large_one(registry: Scripted, tmp_path: Path) -> None:
    layers = [{f"large{n}": ROOM, "n": bytes([n])} for n in range(40)]
    layers += [{f"small{n}": bytes([n])} for n in range(40)]
    made = make_image(tmp_path / "image.tar", layers)
    registry.on("PATCH", "/uploads/", HANG, forever=True)
    cancel, arrived, hanging = towline.Cancel(), [], 0

    def hear(event: towline.Event) -> None:
        nonlocal hanging
        if isinstance(event, towline.LayerProgress) and event.status == "Pushed":
            arrived.append(event.id)
            if len(arrived) == 40:
                hanging = len(registry.requests("PATCH"))
                cancel.cancel()

    with (
        towline.Pusher(cache="none", jobs=2, on_event=hear) as pusher,
        pytest.raises(towline.TransferCancelled),
    ):
        pusher.push(made.path, f"{registry.host}/app:1", cancel=cancel)
    assert hanging == 2


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_with_one_job_nothing_runs_beside_another(
    registry: Scripted, tmp_path: Path, form: str
) -> None:
    layers = [{f"f{n}": bytes([n]), **({"room": ROOM} if n % 3 else {})} for n in range(9)]
    made = make_image(tmp_path / "image", layers, format=form)  # type: ignore[arg-type]  # a format
    methods = ("HEAD", "POST", "PATCH", "PUT")
    anything = Counting(registry, *((method, "") for method in methods), seconds=0.03)
    with towline.Pusher(cache="none", jobs=1) as pusher:
        pusher.push(made.path, [f"{registry.host}/app:{tag}" for tag in "12"])
    assert anything.most == 1


def test_all_tags_but_the_first_are_put_side_by_side(registry: Scripted, tmp_path: Path) -> None:
    made = tiny_layers(tmp_path / "image.tar", 1)
    puts = Counting(registry, ("PUT", r"/manifests/(?!00)\d\d$"), expected=AT_ONCE)
    tags = [f"{registry.host}/app:{number:02}" for number in range(33)]
    with towline.Pusher(cache="none") as pusher:
        results = pusher.push(made.path, tags)
    assert [result.reference for result in results] == tags
    assert puts.most == AT_ONCE


def test_one_blob_alone_finds_out_whether_small_ones_go_by_one_request(
    registry: Scripted, tmp_path: Path
) -> None:
    made = tiny_layers(tmp_path / "image.tar", 20)
    later = Counting(registry)
    registry.on("POST", r"uploads/\?digest=", later, forever=True)
    towline.push(made.path, f"{registry.host}/app:1", cache="none")
    assert len(registry.requests("POST", "digest=")) == 1
    assert len(registry.requests("POST")) == len(registry.requests("PUT", "/blobs/")) == 21


def test_a_connection_is_opened_while_the_source_is(tmp_path: Path) -> None:
    made = tiny_layers(tmp_path / "image.tar", 1)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as threads:
        os.mkfifo(tmp_path / "slow")
        host, cancel = f"127.0.0.1:{server.getsockname()[1]}", towline.Cancel()
        with towline.Pusher(cache="none", plain_http=True) as pusher:
            push = threads.submit(pusher.push, tmp_path / "slow", f"{host}/app:1", cancel=cancel)
            server.settimeout(30)
            connection, _ = server.accept()  # before a byte of the source is there
            with connection, (tmp_path / "slow").open("wb") as source:
                source.write(made.path.read_bytes())
                source.close()
                connection.settimeout(30)
                assert connection.recv(5) == b"HEAD "
            cancel.cancel()
            assert isinstance(push.exception(30), towline.TransferCancelled)


def test_a_connection_that_is_kept_serves_the_next_push(registry: Scripted, tmp_path: Path) -> None:
    made = tiny_layers(tmp_path / "image.tar", 1)
    heard: list[str] = []
    with towline.Pusher(cache="none", log=heard.append, jobs=1) as pusher:
        for tag in range(5):
            pusher.push(made.path, f"{registry.host}/app:{tag}")
    assert sum(line.startswith("* connecting") for line in heard) == 1


def test_a_client_that_is_closed_keeps_no_connection(registry: Scripted) -> None:
    settings = Settings()
    settings.plain_http = True
    client = RegistryClient(settings)
    client.close()
    client.connect(registry.host, Context())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        del client
        gc.collect()
    assert said == []
