"""A credential helper that does not answer keeps nobody who has given up waiting for it."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

import towline
from tests.support.guards import basic
from tests.support.processes import until
from tests.support.scripted import Reply, Scripted, scripted
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.scripted import Asked
    from towline.testing.image_formats import Made

SECOND = 1.0
LOADED = 1.0
"""What a busy machine may add."""
LOGIN = """echo '{"Username":"me","Secret":"s3cret-word"}'\n"""


@dataclass
class Helper:
    """The program `docker-credential-box`; it writes down its number before anything else."""

    folder: Path

    def does(self, script: str) -> None:
        path = self.folder / "docker-credential-box"
        path.write_text(
            f"#!/bin/sh\necho $$ > {self.folder}/new\nmv {self.folder}/new {self.pid}\n{script}"
        )
        path.chmod(0o755)
        (self.folder / "config.json").write_text('{"credsStore":"box"}')

    @property
    def pid(self) -> Path:
        return self.folder / "pid"

    @property
    def environ(self) -> dict[str, str]:
        path = f"{self.folder}:{os.environ['PATH']}"
        return {"PATH": path, "DOCKER_CONFIG": str(self.folder), "HOME": str(self.folder)}

    @property
    def is_gone(self) -> bool:
        try:
            os.kill(int(self.pid.read_text()), 0)
        except ProcessLookupError:
            return True
        return False


@pytest.fixture
def helper(tmp_path: Path) -> Helper:
    return Helper(tmp_path)


@pytest.fixture
def registry() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make_image(tmp_path / "image.tar", [{"hello": b"hello\n"}])


def seconds_to_end(work: Callable[[towline.Cancel], object], met: Callable[[], bool]) -> float:
    """Cancel once something is met; how long it then took to end as cancelled."""
    cancel = towline.Cancel()
    began: list[float] = []

    def stop() -> None:
        until(met)
        began.append(time.monotonic())
        cancel.cancel()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(towline.TransferCancelled):
        work(cancel)
    thread.join()
    return time.monotonic() - began[0]


@pytest.mark.parametrize(
    "script", ["exec sleep 60\n", "sleep 5\nexit 1\n"], ids=["itself", "a child of it"]
)
@pytest.mark.parametrize("verb", ["push", "plan", "inspect", "digest", "tags"])
def test_a_cancel_ends_the_wait_for_a_helper_and_the_helper(
    verb: str, script: str, helper: Helper, registry: Scripted, made: Made
) -> None:
    helper.does(script)
    place = f"{registry.host}/app:1"
    words = (str(made.path), place) if verb in {"push", "plan"} else (place.removesuffix(":1"),)
    with towline.Pusher(cache="none", environ=helper.environ) as pusher:
        call = getattr(pusher, verb)
        seconds = seconds_to_end(lambda cancel: call(*words, cancel=cancel), helper.pid.exists)
    assert seconds < SECOND + LOADED
    assert helper.is_gone
    assert registry.asked == []


def test_a_cancel_ends_the_wait_for_a_login_that_is_asked_for_again(
    helper: Helper, registry: Scripted, made: Made
) -> None:
    helper.does(
        f"if mkdir {helper.folder}/once 2> {os.devnull}; then {LOGIN}else exec sleep 60; fi\n"
    )
    expired = Reply(403, (), "your token has expired")

    def guard(asked: Asked) -> Reply:
        return (
            expired
            if asked.header("Authorization") == basic()
            else Reply(401, {"WWW-Authenticate": "Basic"})
        )

    def push(cancel: towline.Cancel) -> None:
        """To the end of its threads, of which one waits for the helper."""
        with towline.Pusher(cache="none", environ=helper.environ) as pusher:
            pusher.push(made.path, f"{registry.host}/app:1", cancel=cancel)

    def is_asked_again() -> bool:
        return bool(registry.asked) and not helper.is_gone

    registry.guard = guard
    seconds = seconds_to_end(push, is_asked_again)
    assert (helper.folder / "once").exists()
    assert seconds < SECOND + LOADED
    assert helper.is_gone


def test_a_cancel_ends_the_wait_for_another_ones_helper_and_leaves_that_alone(
    helper: Helper, registry: Scripted, made: Made
) -> None:
    helper.does(f"while [ ! -e {helper.folder}/go ]; do sleep 0.05; done\n{LOGIN}")
    with (
        towline.Pusher(cache="none", environ=helper.environ) as pusher,
        ThreadPoolExecutor(1) as threads,
    ):
        first = threads.submit(pusher.push, made.path, f"{registry.host}/app:1")
        until(helper.pid.exists)
        seconds = seconds_to_end(
            lambda cancel: pusher.push(made.path, f"{registry.host}/app:2", cancel=cancel),
            lambda: True,
        )
        assert seconds < SECOND + LOADED
        assert not helper.is_gone
        (helper.folder / "go").touch()
        assert first.result().status == "pushed"
