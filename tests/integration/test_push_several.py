"""Several destinations: one read, and nobody waits long for one that is slow, stalled or dead."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

import towline
from tests.support import readback
from tests.support.processes import until
from tests.support.scripted import HANG, Reply, Scripted, running, scripted
from tests.support.sources import Counted
from tests.support.unsteady import Trouble, Unsteady
from towline.server import Server
from towline.testing.images import make_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import Place
    from tests.support.scripted import Asked
    from towline.events import Event
    from towline.testing.image_formats import Made

MiB = 1 << 20
BUDGET = 2.0
"""Seconds that a target may cost the others."""
STOPS_READING = Reply(early=0, hang=True)


def noise(seed: str, size: int) -> bytes:
    return Random(seed).randbytes(size)  # noqa: S311 - no secret


_SMALL = {"one": MiB, "two": 2, "three": 9999}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    layers = [{name: noise(name, size) + bytes(MiB)} for name, size in _SMALL.items()]
    return make_image(tmp_path_factory.mktemp("small") / "image.tar", layers)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One layer that no socket's buffers can hold."""
    layers = [{"large": noise("large", 16 * MiB)}]
    return make_image(tmp_path_factory.mktemp("large") / "image.tar", layers)


@pytest.fixture
def loaded(small: Made) -> float:
    """Seconds that a push itself may take, on a machine that is as busy as this one is now."""
    with Server() as unhindered:
        began = time.monotonic()
        towline.push(small.path, f"{unhindered.host}/app:1", cache="none")
        return 2.0 + 5 * (time.monotonic() - began)


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Server()) for _ in range(3)]


@pytest.fixture
def stalled() -> Iterator[Scripted]:
    with scripted() as server:
        yield server


class Watched:
    """A push in a thread of its own, and when each of its tags was pushed."""

    def __init__(self, source: Any, places: list[str], **options: Any) -> None:
        self.tags: dict[str, float] = {}
        self.statuses: list[tuple[str, str]] = []
        how = {
            name: options.pop(name)
            for name in ("jobs", "retries", "timeout", "creds")
            if name in options
        }
        self.pusher = towline.Pusher(cache="none", on_event=self._hear, **how)
        self._threads = ThreadPoolExecutor(1, "pushing")
        self.began = time.monotonic()
        self.done = self._threads.submit(lambda: self._push(source, places, options))

    def _push(
        self, source: Any, places: list[str], options: dict[str, Any]
    ) -> list[towline.PushResult]:
        pushed: list[towline.PushResult] = self.pusher.push(source, places, **options)
        return pushed

    def _hear(self, event: Event) -> None:
        if isinstance(event, towline.TagPushed):
            self.tags[event.reference] = time.monotonic() - self.began
        elif isinstance(event, towline.LayerProgress):
            self.statuses.append((event.reference, event.status))

    def await_tags(self, *places: str) -> float:
        """Seconds until all of these were pushed."""
        while not set(places) <= set(self.tags):
            assert time.monotonic() - self.began < 30, f"only {self.tags}"
            time.sleep(0.01)
        return max(self.tags[place] for place in places)

    def result(self) -> list[towline.PushResult]:
        """What it came to; the pusher is closed then."""
        try:
            return self.done.result(60)
        finally:
            self.pusher.close()
            self._threads.shutdown()


def names(servers: list[Server], *others: Scripted) -> list[str]:
    hosts = [*(server.host for server in servers), *(other.host for other in others)]
    return [f"{host}/app:1" for host in hosts]


def whole(servers: list[Server]) -> set[str]:
    return {readback.image(server.url, "app", "1").digest for server in servers}


def test_three_registries_get_one_digest_from_one_read(servers: list[Server], large: Made) -> None:
    source = Counted(large.path.read_bytes())
    with towline.Pusher(cache="none") as pusher:
        results = pusher.push(source, names(servers))
    assert {result.digest for result in results} == whole(servers)
    assert len(whole(servers)) == 1
    assert source.count < 1.5 * 16 * MiB
    assert [result.reference for result in results] == names(servers)


def test_a_registry_that_is_silent_from_the_start_costs_the_others_no_more_than_its_budget(
    servers: list[Server], small: Made, loaded: float
) -> None:
    servers[2].faults.stall(60)
    push = Watched(small.path, names(servers))
    assert push.await_tags(*names(servers[:2])) < BUDGET + loaded
    servers[2].faults.clear()
    assert len(push.result()) == 3
    assert len(whole(servers)) == 1


def test_a_registry_that_hangs_over_questions_costs_the_others_no_more_than_its_budget(
    servers: list[Server], stalled: Scripted, tmp_path: Path, loaded: float
) -> None:
    made = make_image(tmp_path / "layout", [{"a": b"a\n"}, {"b": b"b\n"}], format="oci")
    stalled.on("HEAD", "/blobs/", HANG, HANG, HANG)
    push = Watched(made.path, names(servers[:2], stalled), timeout=8, retries=1)
    assert push.await_tags(*names(servers[:2])) < BUDGET + loaded
    stalled.stop()
    with pytest.raises(towline.PartialFailure, match=stalled.host):
        push.result()


def test_a_login_that_is_long_in_coming_costs_the_others_no_more_than_its_budget(
    servers: list[Server], small: Made, loaded: float
) -> None:
    come = threading.Event()

    def creds(host: str) -> None:
        assert host != servers[0].host or come.wait(30)

    push = Watched(small.path, names(servers), creds=creds)
    assert push.await_tags(*names(servers[1:])) < BUDGET + loaded
    come.set()
    assert len(push.result()) == 3
    assert len(whole(servers)) == 1


def test_a_login_that_is_long_in_coming_costs_the_others_of_a_copy_no_more_than_its_budget(
    servers: list[Server], small: Made, loaded: float
) -> None:
    towline.push(small.path, f"{servers[0].host}/app:1", cache="none")
    come = threading.Event()

    def creds(host: str) -> None:
        assert host != servers[1].host or come.wait(30)

    push = Watched(f"docker://{servers[0].host}/app:1", names(servers[1:]), creds=creds)
    assert push.await_tags(*names(servers[2:])) < BUDGET + loaded
    come.set()
    assert [result.status for result in push.result()] == ["pushed", "pushed"]
    assert len(whole(servers)) == 1


def test_a_login_that_is_long_in_coming_keeps_no_other_push(
    servers: list[Server], small: Made
) -> None:
    asked, come = threading.Event(), threading.Event()

    def creds(host: str) -> None:
        if host == servers[0].host:
            asked.set()
            assert come.wait(30)

    with towline.Pusher(cache="none", creds=creds) as pusher, ThreadPoolExecutor(2) as threads:
        one, other = names(servers[:2])
        late = threads.submit(pusher.push, small.path, one)
        assert asked.wait(30)
        assert threads.submit(pusher.push, small.path, other).result(20).status == "pushed"
        assert not late.done()
        come.set()
        assert late.result(30).status == "pushed"


def test_a_login_is_asked_for_once_for_each_repository_though_one_mounts_from_the_other(
    servers: list[Server], small: Made
) -> None:
    host = servers[0].host
    asked: list[str] = []
    results = towline.push(
        small.path, [f"{host}/app:1", f"{host}/other:1"], cache="none", creds=asked.append
    )
    assert {layer.outcome for result in results for layer in result.layers} >= {"mounted"}
    assert asked == [host, host]


def test_a_registry_that_stops_reading_gets_a_pass_of_its_own(
    servers: list[Server], stalled: Scripted, large: Made, loaded: float
) -> None:
    stalled.on("PATCH", "/uploads/", STOPS_READING)
    source = Counted(large.path.read_bytes())
    push = Watched(source, names(servers[:2], stalled), retries=0)
    assert push.await_tags(*names(servers[:2])) < BUDGET + loaded
    results = push.result()
    assert len({result.digest for result in results}) == 1
    assert whole(servers[:2]) == {results[2].digest}
    assert results[2].digest in stalled.manifests
    assert 1.5 * 16 * MiB < source.count < 2.5 * 16 * MiB, "one read more, for itself alone"
    assert not any("Retrying" in status for _, status in push.statuses)


class Slow(Counted):
    """A file that takes its time."""

    def read(self, size: int | None = -1, /) -> bytes:
        time.sleep(0.05)
        return super().read(size)


def test_a_lost_seat_does_not_wait_for_the_end_of_the_pass(
    servers: list[Server], stalled: Scripted, large: Made
) -> None:
    stalled.on("PATCH", "/uploads/", Reply(500, early=0))
    source = Slow(large.path.read_bytes())
    read_at: list[int] = []

    def hear(event: Event) -> None:
        if isinstance(event, towline.LayerProgress) and event.status.startswith("Retrying"):
            read_at.append(source.count)

    with towline.Pusher(cache="none", on_event=hear) as pusher:
        results = pusher.push(source, names(servers[:1], stalled))
    assert len({result.digest for result in results}) == 1
    assert read_at
    assert read_at[0] < 8 * MiB


def refusing() -> str:
    """A host on this machine where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_dead_registry_is_named_and_the_others_are_whole(
    servers: list[Server], small: Made
) -> None:
    dead = f"{refusing()}/app:1"
    places = [names(servers)[0], dead, names(servers)[1]]
    with (
        towline.Pusher(cache="none", retries=1) as pusher,
        pytest.raises(towline.PartialFailure) as caught,
    ):
        pusher.push(small.path, places)
    good, bad, also_good = caught.value.results
    assert isinstance(bad, towline.NetworkError)
    assert dead.partition("/")[0] in bad.message
    assert isinstance(good, towline.PushResult)
    assert isinstance(also_good, towline.PushResult)
    assert {good.digest, also_good.digest} == whole(servers[:2])


def test_a_dead_registry_is_exit_code_7_for_the_command(servers: list[Server], small: Made) -> None:
    good, dead = names(servers)[0], f"{refusing()}/app:1"
    command = [sys.executable, "-m", "towline", "push", str(small.path), good, dead]
    done = subprocess.run([*command, "--retries", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert done.stdout.startswith(f"{good.partition(':1')[0].rpartition(':')[0]}")
    assert dead.partition("/")[0] in done.stderr
    assert len(whole(servers[:1])) == 1


def test_a_host_whose_slots_are_taken_does_not_keep_the_others(
    servers: list[Server], stalled: Scripted, small: Made, tmp_path: Path, loaded: float
) -> None:
    stalled.on("PATCH", "/first/", HANG, forever=True)
    cancel = towline.Cancel()
    push = Watched(small.path, [f"{stalled.host}/first:1"], jobs=1, cancel=cancel)
    while not stalled.requests("PATCH"):
        time.sleep(0.01)
    other = make_image(tmp_path / "other.tar", [{"other": noise("other", MiB)}])
    places = [names(servers)[0], f"{stalled.host}/second:1"]
    with ThreadPoolExecutor(1) as threads:
        began = time.monotonic()
        second = threads.submit(lambda: push.pusher.push(other.path, places))
        push.await_tags(places[0])
        assert time.monotonic() - began < BUDGET + loaded
        cancel.cancel()
        assert len({result.digest for result in second.result(30)}) == 1
    with pytest.raises(towline.TransferCancelled):
        push.result()


def test_two_repositories_of_one_host_get_the_bytes_once(registry: Place, small: Made) -> None:
    source = Counted(small.path.read_bytes())
    places = [registry.name("one") + ":1", registry.name("two") + ":1"]
    with towline.Pusher(cache="none", jobs=1) as pusher:
        first, second = pusher.push(source, places)
    assert first.digest == second.digest
    assert source.count < 1.5 * 4 * MiB
    outcomes = {layer.outcome for result in (first, second) for layer in result.layers}
    assert outcomes == {"pushed", "mounted"}
    named = {path.rpartition("digest=")[2] for _, path in registry.requests() if "digest=" in path}
    assert len(named) == 4
    for name in ("one", "two"):
        assert readback.image(registry.url, registry.path(name), "1").digest == first.digest


@pytest.mark.parametrize("status", [202, 401, 404, 500])
def test_two_repositories_of_a_host_that_mounts_nothing_are_both_whole(
    status: int, stalled: Scripted, small: Made
) -> None:
    def answer(asked: Any) -> Reply | None:
        return Reply(status) if "mount=" in asked.target and status != 202 else None

    stalled.on("POST", "/uploads/", answer, forever=True)
    places = [f"{stalled.host}/one:1", f"{stalled.host}/two:1"]
    with towline.Pusher(cache="none") as pusher:
        results = pusher.push(small.path, places)
    assert {layer.outcome for result in results for layer in result.layers} == {"pushed"}
    assert len(stalled.requests("PATCH")) >= 6


def test_jobs_are_never_more_than_asked_for(servers: list[Server], tmp_path: Path) -> None:
    layers = [{f"f{n}": noise(str(n), 99_999) + bytes(MiB)} for n in range(12)]
    made = make_image(tmp_path / "image.tar", layers)
    with scripted() as counting:
        open_now, most, lock = 0, 0, threading.Lock()

        def slowly(asked: Any) -> None:
            nonlocal open_now, most
            with lock:
                open_now += 1
                most = max(most, open_now)
            time.sleep(0.01)
            with lock:
                open_now -= 1

        counting.on("PATCH", "/uploads/", slowly, forever=True)
        places = [*names(servers[:1]), *(f"{counting.host}/app{n}:1" for n in range(3))]
        with towline.Pusher(cache="none", jobs=2) as pusher:
            pusher.push(made.path, places)
    assert most == 2


def test_registries_of_which_one_has_other_bytes_get_one_digest(
    servers: list[Server], small: Made
) -> None:
    """What one of them holds of a layer is left aside: it would make two images of one push."""
    with towline.Pusher(cache="none") as pusher:
        before = f"{servers[0].host}/app:1"
        pusher.push(small.path, before, compression="none", format="oci")
        alone = pusher.push(small.path, f"{servers[0].host}/app:2", cache_from=[before])
        assert {layer.outcome for layer in alone.layers} == {"exists"}
        first, second = pusher.push(small.path, names(servers[:2]))
    assert first.digest == second.digest != alone.digest
    assert not first.warnings
    assert whole(servers[:2]) == {first.digest}


def test_a_late_registry_that_has_other_digests_is_told_of(
    servers: list[Server], small: Made
) -> None:
    late, other = servers[:2]
    with towline.Pusher(cache="none") as pusher:
        pusher.push(small.path, f"{late.host}/app:1", compression="none", format="oci")
    late.faults.stall(60)
    push = Watched(small.path, names([late, other]))
    push.await_tags(*names([other]))
    late.faults.clear()
    first, second = push.result()
    assert first.digest != second.digest
    (warning,) = first.warnings
    assert first.digest in warning
    assert second.digest in warning
    assert len(whole([late, other])) == 2


def test_the_largest_layer_that_waits_goes_first(stalled: Scripted, tmp_path: Path) -> None:
    sizes = [20, 900, 60, 300, 40, 120]
    made = make_image(
        tmp_path / "image.tar", [{"f": noise(str(n), n * 999) + bytes(MiB)} for n in sizes]
    )
    now: dict[str, str] = {}

    def hear(event: Event) -> None:
        if isinstance(event, towline.LayerProgress):
            now[event.id] = event.status

    def others_wait() -> bool:
        return list(now.values()).count("Waiting") == len(sizes) - 1

    stalled.on("PATCH", "/uploads/", lambda _: until(others_wait))  # the first one lasts so long
    with towline.Pusher(cache="none", jobs=1, on_event=hear) as pusher:
        pusher.push(made.path, f"{stalled.host}/app:1")
    _, *sent = [len(one.body) for one in stalled.requests("PATCH")]
    assert len(sent) == len(sizes) - 1
    assert sent == sorted(sent, reverse=True)


def test_while_one_slot_is_waited_for_no_other_is_held(
    servers: list[Server], stalled: Scripted, small: Made, tmp_path: Path, loaded: float
) -> None:
    """What waits for a busy host and a free one leaves the free one to whoever can use it."""
    stalled.on("PATCH", "/first/", HANG, forever=True)
    cancel = towline.Cancel()
    push = Watched(small.path, [f"{stalled.host}/first:1"], jobs=1, cancel=cancel)
    while not stalled.requests("PATCH"):
        time.sleep(0.01)
    images = [make_image(tmp_path / f"{n}.tar", [{"f": noise(f"{n}", MiB)}]).path for n in range(2)]
    free, other = names(servers)[0], f"{servers[0].host}/other:1"
    with ThreadPoolExecutor(2) as threads:
        both = threads.submit(push.pusher.push, images[0], [free, f"{stalled.host}/second:1"])
        while not any(status == "Waiting" for _, status in push.statuses):
            time.sleep(0.01)
        began = time.monotonic()
        threads.submit(push.pusher.push, images[1], other).result(30)
        assert time.monotonic() - began < loaded / 2, "it waited for who waited"
        cancel.cancel()
        assert len(both.result(30)) == 2
    with pytest.raises(towline.TransferCancelled):
        push.result()


def test_a_registry_that_reads_slowly_does_not_keep_the_others(
    servers: list[Server], large: Made, loaded: float
) -> None:
    with running(Unsteady) as slow:
        slow.script.always["send"] = Trouble(block_wait=0.02)  # 5 s at least for all of it
        source = Counted(large.path.read_bytes())
        push = Watched(source, [*names(servers[:2]), f"{slow.host}/app:1"])
        assert push.await_tags(*names(servers[:2])) < BUDGET + loaded
        results = push.result()
        assert not slow.premature
        assert "1" in slow.repository("app").manifests
    assert {result.digest for result in results} == whole(servers[:2])
    assert source.count < 2.5 * 16 * MiB, "one read more, for itself alone"


def test_where_the_repository_that_is_sent_to_fails_its_siblings_send_themselves(
    small: Made,
) -> None:
    with running(Unsteady) as registry:
        registry.script.troubles["send", 1] = Trouble(status=403)
        push = Watched(small.path, [f"{registry.host}/app{n}:1" for n in range(3)], retries=0)
        with pytest.raises(towline.PartialFailure) as caught:
            push.result()
        outcomes = [type(one) for one in caught.value.results]
        assert sorted(outcomes, key=str).count(towline.PushResult) == 2
        for place, outcome in enumerate(caught.value.results):
            there = "1" in registry.repository(f"app{place}").manifests
            assert there == isinstance(outcome, towline.PushResult)
        assert not registry.premature


def test_a_listener_that_wants_the_process_to_end_does_not_keep_the_push_waiting(
    servers: list[Server], tmp_path: Path
) -> None:
    layers = [{"f": noise(f"{n}", 99_999)} for n in range(6)]
    made = make_image(tmp_path / "image.tar", layers)
    waited = threading.Event()

    def hear(event: Event) -> None:
        if isinstance(event, towline.LayerProgress) and event.status == "Waiting":
            waited.set()
            sys.exit(3)

    with (
        towline.Pusher(cache="none", jobs=1, on_event=hear) as pusher,
        ThreadPoolExecutor(1) as threads,
    ):
        assert len(threads.submit(pusher.push, made.path, names(servers)).result(30)) == 3
    assert waited.is_set()
    assert len(whole(servers)) == 1


def test_a_log_that_wants_the_process_to_end_does_not_keep_the_push_waiting(
    large: Made, tmp_path: Path
) -> None:
    """It does so while the session of an upload that has failed is given back."""
    heard = threading.Event()

    def log(line: str) -> None:
        if "DELETE" in line:
            heard.set()
            sys.exit(3)

    with scripted() as registry, ThreadPoolExecutor(1) as threads:
        registry.on("PATCH", "/uploads/", Reply(403), forever=True)
        with towline.Pusher(cache="none", log=log) as pusher:
            push = threads.submit(pusher.push, large.path, f"{registry.host}/app:1")
            assert isinstance(push.exception(30), towline.AuthError)
    assert heard.is_set()


def test_where_all_hosts_want_a_pause_the_source_is_not_read_for_nobody(tmp_path: Path) -> None:
    layers = [{"a": noise("a", 3 * MiB)}, {"b": noise("b", 2 * MiB)}]
    made = make_image(tmp_path / "image.tar", layers, format="oci")
    refused: set[str] = set()

    def busy(asked: Asked) -> Reply | None:
        """For the first try of the larger layer, which goes first."""
        host = asked.header("Host") or ""
        if len(asked.body) < 2.5 * MiB or host in refused:
            return None
        refused.add(host)
        return Reply(503, {"Retry-After": "2"})

    with scripted() as source, scripted() as one, scripted() as other:
        result = towline.push(made.path, f"{source.host}/app:1", cache="none")
        second = f"/blobs/{result.layers[1].digest}"
        for registry in (one, other):
            registry.on("PUT", "/uploads/", busy, forever=True)
            registry.on("PATCH", "/uploads/", busy, forever=True)
        places = [f"{registry.host}/app:1" for registry in (one, other)]
        with towline.Pusher(cache="none", jobs=1) as pusher:
            before = len(source.asked)
            pusher.copy(f"{source.host}/app:1", places)
        read = [asked for asked in source.asked[before:] if asked.target.endswith(second)]
    # By each of them alone, or once for both where the pauses were over when the slots were taken.
    assert [asked.method for asked in read] in (["GET"], ["GET", "GET"])
