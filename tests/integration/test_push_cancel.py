"""A push that is cancelled ends within a second, writes nothing more, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

import pytest

import towline
from tests.support.processes import hears, until
from tests.support.scripted import HANG, Heard, Reply, Scripted, scripted
from towline.server import Server
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from towline.events import Event
    from towline.testing.image_formats import Made

KiB = 1 << 10
SECOND = 1.0
"""What a cancelled push may take."""
LOADED = 1.0
"""What a busy machine may add."""
PATIENCE = 60.0
AT_ONCE = 16
"""Questions that a host is asked at once."""
OURS = ("towline", "encoder", "transfer")
"""How names of a push's threads begin; those of the registries in this process do not."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    random = Random(7)  # noqa: S311 - no secret
    layers = [{f"file{n}": random.randbytes(n * 100 * KiB) + bytes(KiB * KiB)} for n in range(1, 8)]
    return make_image(tmp_path_factory.mktemp("image") / "image.tar", layers)


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Server]]:
    with Server() as one, Server() as other:
        yield [one, other]


@pytest.fixture
def registry() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


def own_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(OURS)}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - pathlib keeps none open either


def troubled(server: Server, random: Random) -> None:
    """Give a registry something that makes a push wait in one place or another."""
    server.faults.clear()
    server.faults.stall(random.choice((0.0, 0.0, 0.03, 0.3, 5.0)))
    if random.random() < 0.4:
        where = random.choice(("blobs/uploads", "blobs", "manifests"))
        headers = {"Retry-After": "20"} if random.random() < 0.5 else {}
        status = random.choice((429, 500, 503))
        server.faults.fail("*", where, status, random.randint(1, 9), headers=headers)


@pytest.mark.parametrize("seed", range(50))
def test_a_push_can_be_cancelled_at_any_moment(
    seed: int, made: Made, servers: list[Server]
) -> None:
    random = Random(seed)  # noqa: S311 - no secret
    for server in servers:
        troubled(server, random)
    asked = [len(server.requests) for server in servers]
    threads, files, cancel = own_threads(), descriptors(), towline.Cancel()
    places = [f"{server.host}/app{seed}:1" for server in servers[: random.randint(1, 2)]]
    told: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, towline.TagPushed):
            told.append(event.reference)

    jobs = random.randint(1, 5)
    heard = Heard()
    with towline.Pusher(cache="none", jobs=jobs, on_event=hear, log=heard) as pusher:
        push = ThreadPoolExecutor(1, "pushing")
        done = push.submit(pusher.push, made.path, places, cancel=cancel)
        time.sleep(random.random() * 0.5)
        began, before_it = time.monotonic(), len(heard.lines)
        cancel.cancel()
        error = done.exception(PATIENCE)
        seconds = time.monotonic() - began
        push.shutdown()
    for server in servers:
        server.faults.clear()
    assert seconds < SECOND, f"seed {seed}"
    assert time.monotonic() - began < SECOND + LOADED, "closing took too long"
    until(lambda: own_threads() == threads, 3)
    until(lambda: descriptors() == files, 3)
    if error is None:
        return  # it was quicker
    assert isinstance(error, towline.TransferCancelled)
    assert not [
        line for line in heard.lines[before_it:] if "> PUT" in line and "/manifests/" in line
    ]
    for server, place, before in zip(servers, places, asked, strict=False):
        written = [one for one in server.requests[before:] if one.status == 201]
        if any("/manifests/1" in one.path for one in written):
            assert place in told or f"{place} may have" in str(error) or f"{place}, " in str(error)


def test_a_push_that_is_cancelled_before_it_begins_asks_nothing(
    made: Made, registry: Scripted
) -> None:
    cancel = towline.Cancel()
    cancel.cancel()
    with pytest.raises(towline.TransferCancelled), towline.Pusher(cache="none") as pusher:
        pusher.push(made.path, f"{registry.host}/app:1", cancel=cancel)
    assert not registry.asked


def cancelled_when(met: Callable[[], bool], pusher: towline.Pusher, made: Made, place: str) -> str:
    """Cancel a push as soon as something is so; its error's words."""
    cancel = towline.Cancel()
    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(lambda: pusher.push(made.path, place, cancel=cancel))
        until(met)
        began = time.monotonic()
        cancel.cancel()
        error = done.exception(PATIENCE)
    assert time.monotonic() - began < SECOND
    assert isinstance(error, towline.TransferCancelled)
    return str(error)


def test_what_waits_for_a_slot_leaves_at_once(made: Made, registry: Scripted) -> None:
    registry.on("POST", "/uploads/", HANG, forever=True)
    with towline.Pusher(cache="none", jobs=1) as pusher:
        place = f"{registry.host}/app:1"
        cancelled_when(lambda: bool(registry.requests("POST")), pusher, made, place)
        until(lambda: not len(pusher._resources.flights), SECOND)
    assert len(registry.requests("POST")) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_backs_off_leaves_at_once(status: int, made: Made, registry: Scripted) -> None:
    registry.on("POST", "/uploads/", Reply(status, {"Retry-After": "30"}), forever=True)
    with towline.Pusher(cache="none") as pusher:
        place = f"{registry.host}/app:1"
        cancelled_when(lambda: bool(registry.requests("POST")), pusher, made, place)
        until(lambda: not len(pusher._resources.flights), SECOND)


def test_sessions_are_given_back(made: Made, registry: Scripted) -> None:
    registry.on("PATCH", "/uploads/", HANG, forever=True)
    with towline.Pusher(cache="none", jobs=2) as pusher:
        place = f"{registry.host}/app:1"
        cancelled_when(lambda: len(registry.requests("PATCH")) == 2, pusher, made, place)
    assert len(registry.requests("DELETE", "/uploads/")) == 2


def test_a_tag_that_was_in_flight_is_named(made: Made, registry: Scripted) -> None:
    registry.on("PUT", "/manifests/", HANG, forever=True)
    with towline.Pusher(cache="none") as pusher:
        place = f"{registry.host}/app:1"
        said = cancelled_when(
            lambda: bool(registry.requests("PUT", "/manifests/")), pusher, made, place
        )
    assert said.endswith(f"{place} may have been written")


def test_a_tag_that_was_not_sent_is_not_named(made: Made, registry: Scripted) -> None:
    registry.on("PATCH", "/uploads/", HANG, forever=True)
    with towline.Pusher(cache="none") as pusher:
        place = f"{registry.host}/app:1"
        said = cancelled_when(lambda: bool(registry.requests("PATCH")), pusher, made, place)
    assert "written" not in said


def test_of_several_tags_in_flight_each_is_named(made: Made, registry: Scripted) -> None:
    with scripted() as other:
        for one in (registry, other):
            one.on("PUT", "/manifests/", HANG, forever=True)
        places = [f"{one.host}/app:1" for one in (registry, other)]
        cancel = towline.Cancel()
        with towline.Pusher(cache="none") as pusher, ThreadPoolExecutor(1) as threads:
            done = threads.submit(pusher.push, made.path, places, cancel=cancel)
            for one in (registry, other):
                until(lambda one=one: bool(one.requests("PUT", "/manifests/")))  # type: ignore[misc]  # a lambda's default
            cancel.cancel()
            error = done.exception(PATIENCE)
    assert isinstance(error, towline.TransferCancelled)
    assert all(place in str(error) for place in places)


def stuck_behind(
    made: Made, server: Server, registry: Scripted
) -> tuple[towline.TransferCancelled, list[str]]:
    """A push to two registries that is cancelled when one is done and the other hangs."""
    places = [f"{registry.host}/app:1", f"{server.host}/app:1"]
    registry.on("PATCH", "/uploads/", HANG, forever=True)
    done, cancel = threading.Event(), towline.Cancel()

    def hear(event: Event) -> None:
        if isinstance(event, towline.TagPushed):
            done.set()

    with (
        towline.Pusher(cache="none", on_event=hear) as pusher,
        ThreadPoolExecutor(1) as threads,
    ):
        push = threads.submit(pusher.push, made.path, places, cancel=cancel)
        assert done.wait(PATIENCE)
        cancel.cancel()
        error = push.exception(PATIENCE)
    assert isinstance(error, towline.TransferCancelled)
    return error, places


def test_a_tag_that_was_finished_is_named_and_has_its_result(
    made: Made, servers: list[Server], registry: Scripted
) -> None:
    error, places = stuck_behind(made, servers[0], registry)
    assert str(error) == f"the push was cancelled; {places[1]} is in place"
    assert error.references == tuple(places)
    none, finished = error.results
    assert none is None
    assert isinstance(finished, towline.PushResult)
    assert finished.reference == places[1]
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (str(again), again.results) == (str(error), error.results)


def test_of_several_tags_those_finished_and_the_one_in_flight_are_named(
    made: Made, registry: Scripted
) -> None:
    a, b, c = (f"{registry.host}/app:{tag}" for tag in "abc")
    registry.on("PUT", "/manifests/c", HANG, forever=True)
    cancel, ended = towline.Cancel(), []

    def hear(event: Event) -> None:
        if isinstance(event, towline.TagPushed):
            ended.append(event.reference)

    with (
        towline.Pusher(cache="none", on_event=hear) as pusher,
        ThreadPoolExecutor(1) as threads,
    ):
        push = threads.submit(pusher.push, made.path, [c, b, a], cancel=cancel)
        until(lambda: ended == [a, b] and bool(registry.requests("PUT", "/manifests/c")))
        cancel.cancel()
        error = push.exception(PATIENCE)
    assert str(error) == f"the push was cancelled; {b}, {a} are in place; {c} may have been written"


def test_of_further_tags_those_set_and_the_one_in_flight_are_named(
    made: Made, registry: Scripted
) -> None:
    old, a, b, c = (f"{registry.host}/app:{tag}" for tag in ("old", *"abc"))
    towline.push(made.path, old, cache="none")
    registry.on("PUT", "/manifests/b", HANG, forever=True)
    cancel = towline.Cancel()
    with towline.Pusher(cache="none") as pusher, ThreadPoolExecutor(1) as threads:
        tagging = threads.submit(pusher.tag, old, ["a", "b", "c"], cancel=cancel)
        until(lambda: bool(registry.requests("PUT", "/manifests/b")))
        cancel.cancel()
        error = tagging.exception(PATIENCE)
    assert isinstance(error, towline.TransferCancelled)
    assert str(error) == f"the push was cancelled; {a} is in place; {b} may have been written"
    assert error.references == (a, b, c)
    assert [getattr(result, "tag", None) for result in error.results] == ["a", None, None]


@pytest.mark.parametrize("call", ["tag", "copy", "copy all"])
def test_another_push_that_holds_the_threads_of_a_host_holds_up_no_cancel(
    call: str, made: Made, registry: Scripted, tmp_path: Path
) -> None:
    """One push hangs with each of the questions that a host is asked at once."""
    old, cancels = f"{registry.host}/app:1", [towline.Cancel(), towline.Cancel()]
    towline.push(made.path, old, cache="none")
    registry.on("HEAD", "/manifests/x[1-9]", HANG, forever=True)
    calls: dict[str, Callable[..., object]] = {
        "tag": lambda pusher, **given: pusher.tag(old, ["a", "b"], **given),
        "copy": lambda pusher, **given: pusher.copy(old, f"oci:{tmp_path}/there", **given),
        "copy all": lambda pusher, **given: pusher.copy(
            f"{registry.host}/app", f"oci:{tmp_path}/there", all_tags=True, **given
        ),
    }
    last = {"tag": "HEAD /v2/app/manifests/a", "copy": "HEAD /v2/app/manifests/1"}.get(call, "tags")
    with towline.Pusher(cache="none") as pusher, ThreadPoolExecutor(2) as threads:
        tags = [f"x{n}" for n in range(20)]
        hanging = threads.submit(pusher.tag, old, tags, cancel=cancels[0])
        until(lambda: len(registry.requests("HEAD", "/manifests/x[1-9]")) == AT_ONCE)
        before = len(registry.asked)
        waiting = threads.submit(calls[call], pusher, cancel=cancels[1])
        until(lambda: any(last in f"{a.method} {a.target}" for a in registry.asked[before:]))
        time.sleep(0.3)  # whatever it can be asked without one of these threads is answered
        began = time.monotonic()
        cancels[1].cancel()
        wait([waiting], 10 * SECOND)
        took = time.monotonic() - began
        cancels[0].cancel()
        errors = [type(each.exception(PATIENCE)) for each in (hanging, waiting)]
    assert errors == [towline.TransferCancelled] * 2
    assert took < SECOND + LOADED


def test_a_tag_that_was_being_verified_is_in_place(made: Made, registry: Scripted) -> None:
    place, cancel = f"{registry.host}/app:1", towline.Cancel()
    registry.on("GET", "/blobs/", HANG, forever=True)
    with towline.Pusher(cache="none") as pusher, ThreadPoolExecutor(1) as threads:
        push = threads.submit(pusher.push, made.path, place, verify="full", cancel=cancel)
        until(lambda: bool(registry.requests("GET", "/blobs/")))
        cancel.cancel()
        error = push.exception(PATIENCE)
    assert str(error) == f"the push was cancelled; {place} is in place"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_prints_what_was_finished_before_a_signal(
    number: signal.Signals, code: int, made: Made, servers: list[Server], registry: Scripted
) -> None:
    registry.on("PATCH", "/uploads/", HANG, forever=True)
    places = [f"{registry.host}/app:1", f"{servers[0].host}/signal{code}:1"]
    command = [sys.executable, "-m", "towline", "push", str(made.path), *places, "--output=json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr
        while b"digest: sha256:" not in process.stderr.readline():
            pass
        began = time.monotonic()
        process.send_signal(number)
        out, said = process.communicate(timeout=PATIENCE)
        seconds = time.monotonic() - began
    message = f"the push was cancelled; {places[1]} is in place"
    assert process.returncode == code
    assert seconds < SECOND + LOADED
    assert said.decode().splitlines()[-1] == f"towline: error: {message}"
    first, second = json.loads(out)
    assert first == {"reference": places[0], "error": {"exit_code": code, "message": message}}
    assert (second["reference"], second["status"]) == (places[1], "pushed")


MOMENTS = [
    ("HEAD", "/manifests/"),
    ("POST", "/uploads/"),
    ("PATCH", "/uploads/"),
    ("PUT", "/manifests/"),
]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("moment", MOMENTS, ids=["learn", "upload", "body", "tag"])
def test_a_signal_ends_the_command_within_a_second(
    moment: tuple[str, str], number: signal.Signals, code: int, made: Made, registry: Scripted
) -> None:
    method, pattern = moment
    registry.on(method, pattern, HANG, forever=True)
    place = f"{registry.host}/app:1"
    command = [sys.executable, "-m", "towline", "push", str(made.path), place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(lambda: bool(registry.requests(method, pattern)))
        began = time.monotonic()
        process.send_signal(number)
        out, said = process.communicate(timeout=PATIENCE)
        seconds = time.monotonic() - began
    last = said.decode().splitlines()[-1]
    assert process.returncode == code
    assert seconds < SECOND + LOADED
    assert out == b""
    assert last.startswith("towline: error: ")
    assert ("may have been written" in last) == (method == "PUT")
    puts = registry.requests("PUT", "/manifests/")
    assert len(puts) == (1 if method == "PUT" else 0)


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """The writing end of a pipe that takes nothing more, since nobody reads it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    yield writing
    os.close(writing)
    os.close(reading)


@pytest.mark.parametrize("over", [False, True], ids=["under way", "over"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_whose_standard_error_nobody_reads(
    number: signal.Signals, made: Made, registry: Scripted, full_pipe: int, *, over: bool
) -> None:
    if not over:
        registry.on("PUT", "/manifests/", HANG, forever=True)
    command = [sys.executable, "-m", "towline", "push", str(made.path), f"{registry.host}/app:1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=full_pipe) as process:
        until(lambda: bool(registry.requests("PUT", "/manifests/")))
        process.send_signal(number)
        try:
            assert process.wait(PATIENCE) == 128 + number
        finally:
            process.kill()


@pytest.mark.parametrize("seed", range(50))
def test_a_signal_at_any_moment_ends_the_command_within_a_second(
    seed: int, made: Made, servers: list[Server]
) -> None:
    random = Random(seed)  # noqa: S311 - no secret
    for server in servers:
        server.faults.clear()
        server.faults.stall(random.choice((0.0, 0.02, 0.1, 5.0)))
    number = random.choice((signal.SIGINT, signal.SIGTERM))
    places = [f"{server.host}/at{seed}:1" for server in servers[: random.randint(1, 2)]]
    command = [sys.executable, "-m", "towline", "push", str(made.path), *places, "--cache=none"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(lambda: hears(process.pid, signal.SIGTERM))
        time.sleep(random.random() * 0.6)
        began = time.monotonic()
        process.send_signal(number)
        _, told = process.communicate(timeout=PATIENCE)
        seconds = time.monotonic() - began
    for server in servers:
        server.faults.clear()
    last = told.decode().splitlines()[-1]
    assert seconds < SECOND + LOADED
    assert "Traceback" not in told.decode()
    if process.returncode == 0 or last.startswith("sent "):
        return  # it was quicker: all that was left was Python's own end
    assert process.returncode == 128 + number, told
    assert last.startswith("towline: error: ")
    if last.endswith("interrupted"):
        return  # before it had begun, or not to be ended otherwise
    for server, place in zip(servers, places, strict=False):
        tag = place.removeprefix(f"{server.host}/").replace(":", "/manifests/")
        written = [one for one in server.requests if one.path.endswith(tag) and one.status == 201]
        assert not written or place in last, "a tag that was written is named"
