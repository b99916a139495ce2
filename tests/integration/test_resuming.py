"""What was cut goes on in another process where it was cut, and nothing under a tag is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random
from signal import SIGINT, SIGTERM, Signals
from threading import Thread
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

import towline
from tests.support import proxies
from tests.support.docker_registry import Options
from tests.support.processes import until
from tests.support.raw_client import RawClient
from tests.support.scripted import HANG, Scripted, complaint, scripted
from tests.support.serving import TOWLINE, serving
from tests.support.serving import towline as command
from towline.reference import parse
from towline.server.server import Server
from towline.spec.digest import Digest
from towline.testing import make_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import StartDockerRegistry
    from tests.support.docker_registry import DockerRegistry
    from tests.support.redis_server import RedisServer
    from tests.support.scripted import Asked

MiB = 1 << 20
SIZE = 6 * MiB
SLOWLY = ("--limit-rate", "6M")
NEEDS_REDIS = pytest.mark.needs("redis-server")
KILLS = int(os.environ.get("SOAK_KILLS", "6"))
ROOM = 1.1
"""Times the bytes that lack: what may be sent of a push that goes on."""
HEADS = 20_000
"""Bytes of a config, and of what compressing adds."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(root=tmp_path / "registry") as server:
        yield server


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("image") / "image.tar", [SIZE])


def made(path: Path, sizes: list[int], seed: int = 1, **options: Any) -> Path:
    """An image whose layers do not compress."""
    random = Random(seed)  # noqa: S311 - no secret
    layers = [{f"{n}": random.randbytes(size)} for n, size in enumerate(sizes)]
    make_image(path, layers=layers, **options)
    return path


def held(root: Path) -> int:
    """Bytes of unfinished uploads that a registry holds."""
    size = 0
    for path in root.rglob("session-*"):
        with contextlib.suppress(FileNotFoundError):  # given back at this moment
            size += path.stat().st_size
    return size


@contextlib.contextmanager
def pushing(
    image: Path, place: str, *words: str, **environ: str
) -> Iterator[subprocess.Popen[str]]:
    """A push that is under way; killed at the end."""
    with subprocess.Popen(
        [*TOWLINE, "push", str(image), place, *SLOWLY, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def killed(server: Server, image: Path, place: str, *words: str, **environ: str) -> int:
    """Kill a push in the middle of its layer; how many bytes the registry holds of that."""
    with pushing(image, place, *words, **environ):
        until(lambda: held(server.root) > SIZE // 3)
    quiet = -1
    while quiet != (quiet := held(server.root)):  # what was on its way still arrives
        time.sleep(0.1)
    return quiet


def pushed(image: Path, place: str, **settings: Any) -> towline.PushResult:
    with towline.Pusher(**settings) as pusher:
        return pusher.push(image, place, verify="full")


def outcomes(result: towline.PushResult | towline.PlanResult) -> list[str]:
    return [layer.outcome for layer in result.layers]


@pytest.mark.parametrize("kind", ["compressed", "stored"])
def test_a_push_that_was_killed_goes_on_where_it_was(
    server: Server, image: Path, tmp_path: Path, kind: str
) -> None:
    place = f"{server.host}/app:1"
    if kind == "stored":
        image = made(tmp_path / "layout", [SIZE], format="oci")
    there = killed(server, image, place)
    result = pushed(image, place)
    assert outcomes(result) == ["resumed"]
    assert result.layers[0].sent_bytes == result.layers[0].size - there
    assert held(server.root) == 0
    again = pushed(image, f"{server.host}/app:2")
    assert again.sent_bytes == 0


def test_a_compression_that_was_chosen_for_a_link_is_kept_to(
    server: Server, image: Path, tmp_path: Path
) -> None:
    place, cache = f"{server.host}/app:1", tmp_path / "cache"
    there = killed(server, image, place, "--compression", "auto", "--cache", str(cache))
    (left,) = (json.loads(text)[3] for text in stored(cache))
    with contextlib.closing(sqlite3.connect(cache)) as database:  # a link that wants another one
        database.execute("DELETE FROM value WHERE kind = 'facts'")
        database.commit()
    with towline.Pusher(cache=cache) as pusher:
        facts = pusher._resources.client.repository(parse(place).repository).facts
        facts.rate = 100_000
        result = pusher.push(image, place, compression="auto", verify="full")
    (layer,) = result.layers
    assert (layer.outcome, layer.sent_bytes) == ("resumed", layer.size - there)
    assert left.startswith(f"{layer.compression}/")


@NEEDS_REDIS
def test_the_cache_may_be_a_redis_and_the_other_run_on_another_machine(
    server: Server, image: Path, redis_server: RedisServer, tmp_path: Path
) -> None:
    place, cache = f"{server.host}/app:1", f"{redis_server.url}?prefix={uuid4()}:"
    there = killed(server, image, place, "--cache", cache, XDG_DATA_HOME=str(tmp_path / "one"))
    run = command(
        "push", str(image), place, "--cache", cache, "--output", "json",
        XDG_DATA_HOME=str(tmp_path / "other"),
    )  # fmt: skip
    (layer,) = json.loads(run.stdout)["layers"]
    assert layer["outcome"] == "resumed"
    assert layer["sent_bytes"] == layer["size"] - there


@NEEDS_REDIS
def test_what_others_left_is_passed_over_where_nothing_of_theirs_is_believed(
    server: Server, image: Path, redis_server: RedisServer, tmp_path: Path
) -> None:
    place, cache = f"{server.host}/app:1", f"{redis_server.url}?prefix={uuid4()}:"
    killed(server, image, place, "--cache", cache, XDG_DATA_HOME=str(tmp_path / "one"))
    words = ("push", str(image), place, "--cache", cache, "--output", "json", "--no-learn")
    run = command(*words, XDG_DATA_HOME=str(tmp_path / "other"))
    assert json.loads(run.stdout)["layers"][0]["outcome"] == "pushed"


def interrupted(
    image: Path, place: str, begun: Callable[[], bool], number: Signals, *words: str
) -> str:
    """What a push says when a signal ends it, once it has `begun`."""
    with pushing(image, place, *words) as process:
        until(begun)
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    return said


@pytest.mark.parametrize("number", [SIGINT, SIGTERM])
def test_a_signal_leaves_what_can_be_gone_on_with_and_says_so(
    server: Server, image: Path, tmp_path: Path, number: Signals
) -> None:
    # Whether the registry keeps what is cut is not known before it has done so once.
    for path, verb in ((image, "may"), (made(tmp_path / "2.tar", [SIZE], seed=2), "can")):
        place = f"{server.host}/app:{path.stem}"
        said = interrupted(path, place, lambda: held(server.root) > SIZE // 3, number)
        assert f"1 upload to {server.host}/app {verb} be resumed: push again" in said
        assert not [one for one in server.requests if one.method == "DELETE"]
        assert outcomes(pushed(path, place)) == ["resumed"]


@pytest.mark.needs("docker-registry")
def test_where_what_is_cut_is_lost_no_such_thing_is_said(
    start_docker_registry: StartDockerRegistry, image: Path
) -> None:
    registry = start_docker_registry(Options())
    place = f"{registry.host}/app:1"
    for told in (True, False):
        begun = partial(has_more, registry, uploaded(registry) + SIZE // 3)
        said = interrupted(image, place, begun, SIGINT)
        assert (f"1 upload to {registry.host}/app may be resumed" in said) is told
        assert ("resumed" in said) is told
        planned = towline.plan(image, place)  # which asks what is held
        assert (outcomes(planned), planned.resumable) == (["pushed"], False)


def test_without_a_cache_a_signal_gives_the_session_back(server: Server, image: Path) -> None:
    with pushing(image, f"{server.host}/app:1", "--cache", "none") as process:
        until(lambda: held(server.root) > SIZE // 3)
        process.send_signal(SIGINT)
        _, said = process.communicate(timeout=20)
    assert "resumed" not in said
    until(lambda: held(server.root) == 0)


def test_of_two_that_push_at_once_each_has_a_session_of_its_own(
    server: Server, image: Path
) -> None:
    place = f"{server.host}/app:1"
    with pushing(image, place):
        until(lambda: held(server.root) > SIZE // 3)
        result = pushed(image, place)
        assert outcomes(result) == ["pushed"]
        assert len([one for one in server.requests if one.method == "POST"]) >= 2
        assert not [one for one in server.requests if one.method == "GET" and "uploads" in one.path]


def test_of_two_that_want_what_was_left_one_goes_on(server: Server, image: Path) -> None:
    place = f"{server.host}/app:1"
    killed(server, image, place)
    found: list[str] = []
    threads = [Thread(target=lambda: found.extend(outcomes(pushed(image, place)))) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.count("resumed") == 1


@pytest.mark.parametrize("alive", [True, False])
def test_an_owner_on_another_machine_is_dead_when_it_says_nothing(
    server: Server, image: Path, tmp_path: Path, *, alive: bool
) -> None:
    place, cache = f"{server.host}/app:1", tmp_path / "cache"
    killed(server, image, place, "--cache", str(cache))
    elsewhere, until = "another/pid:[1] 1 1 x", time.time() + (600 if alive else -1)
    rewrite(cache, OWNER, elsewhere)
    with contextlib.closing(sqlite3.connect(cache)) as database:
        database.execute("INSERT INTO value VALUES ('alive', ?, ?, ?)", (elsewhere, until, b"1"))
        database.commit()
    assert outcomes(pushed(image, place, cache=cache)) == ["pushed" if alive else "resumed"]


def test_who_was_taken_for_dead_begins_anew_and_leaves_the_session_alone(
    server: Server, image: Path, tmp_path: Path
) -> None:
    place, cache = f"{server.host}/app:1", tmp_path / "cache"
    words = ("--cache", str(cache), "--chunk-size", "1M", "--output", "json")
    with pushing(image, place, *words) as process:
        until(lambda: noted(cache, ACKNOWLEDGED) > MiB)
        rewrite(cache, OWNER, "somebody else")
        out, said = process.communicate(timeout=60)
    assert "another process goes on with an upload" in said
    (layer,) = json.loads(out)["layers"]
    assert layer["outcome"] == "pushed"
    assert layer["sent_bytes"] > layer["size"] + MiB
    assert not [one for one in server.requests if one.method == "DELETE"]


def test_a_push_that_a_registry_s_end_has_cut_goes_on_when_that_is_back(
    image: Path, tmp_path: Path
) -> None:
    root = tmp_path / "registry"
    with serving(root) as first:
        place = f"{first.host}/app:1"
        with pushing(image, place, "--retries", "0") as process:
            until(lambda: held(root) > SIZE // 3)
            first.kill()
            _, said = process.communicate(timeout=60)
    assert process.returncode == 6
    assert "1 upload to" in said
    with serving(root, "--listen", first.host):
        assert outcomes(pushed(image, place)) == ["resumed"]


def test_a_session_that_holds_other_bytes_ends_in_a_fresh_upload(
    server: Server, image: Path, tmp_path: Path
) -> None:
    place, cache = f"{server.host}/app:1", tmp_path / "cache"
    there = killed(server, image, place, "--cache", str(cache))
    with RawClient(server.host) as client:
        session = client.open_upload("app")
        assert client.ask("PATCH", session, os.urandom(there)).status == 202
    rewrite(cache, ADDRESS, server.url + session)
    result = pushed(image, place, cache=cache)
    assert outcomes(result) == ["pushed"]
    assert result.sent_bytes > SIZE
    assert result.verified
    assert [one.status for one in server.requests if one.method == "PUT"].count(400) == 1


def test_another_image_does_not_go_on_with_it(server: Server, image: Path, tmp_path: Path) -> None:
    place = f"{server.host}/app:1"
    killed(server, image, place)
    result = pushed(made(tmp_path / "changed.tar", [SIZE], seed=2), place)
    assert outcomes(result) == ["pushed"]


def test_neither_does_another_way_of_compressing_nor_another_place(
    server: Server, image: Path
) -> None:
    killed(server, image, f"{server.host}/app:1")
    for name, compression in (("elsewhere", "gzip"), ("app", "none")):
        result = towline.push(image, f"{server.host}/{name}:1", compression=compression)
        assert outcomes(result) == ["pushed"]


def test_a_session_that_has_expired_is_none(server: Server, image: Path) -> None:
    place = f"{server.host}/app:1"
    killed(server, image, place)
    with RawClient(server.host) as client:
        (asked,) = {one.path for one in server.requests if one.method == "PATCH"}
        assert client.ask("DELETE", asked).status == 204
    result = pushed(image, place)
    assert outcomes(result) == ["pushed"]


def test_a_plan_says_what_would_go_on(server: Server, image: Path) -> None:
    place = f"{server.host}/app:1"
    there = killed(server, image, place)
    planned = towline.plan(image, place)
    assert outcomes(planned) == ["resumed"]
    assert planned.resumable
    assert planned.send_bytes < SIZE - there + HEADS
    assert {one.method for one in server.requests[-5:]} <= {"GET", "HEAD"}
    assert "resumed" in command("plan", str(image), place).stdout
    assert outcomes(pushed(image, place)) == ["resumed"]


def test_a_cache_that_fails_on_the_way_ends_no_upload(
    server: Server, image: Path, tmp_path: Path
) -> None:
    """Another process locks it for longer than is waited for, once the session is in it."""
    cache = tmp_path / "cache"
    said: list[str] = []
    options: dict[str, Any] = {"cache": cache, "limit_rate": "6M", "chunk_size": "1M"}
    with (
        towline.Pusher(on_event=lambda event: said.append(str(event)), **options) as pusher,
        ThreadPoolExecutor(1) as beside,
    ):
        going = beside.submit(pusher.push, image, f"{server.host}/app:1")
        until(lambda: stored(cache) != [])
        with contextlib.closing(sqlite3.connect(cache, isolation_level=None)) as locked:
            locked.execute("BEGIN IMMEDIATE")
            result = going.result()
    assert outcomes(result) == ["pushed"]
    assert result.sent_bytes < SIZE + HEADS
    assert [warning.endswith("; going on without it") for warning in result.warnings] == [True]
    assert not [line for line in said if "another process" in line]


def test_a_plan_forgets_what_the_registry_has_lost(server: Server, image: Path) -> None:
    place = f"{server.host}/app:1"
    killed(server, image, place)
    assert len(unfinished()) == 1
    session = next(one.path for one in server.requests if one.method == "PATCH")
    with RawClient(server.host) as client:
        assert client.ask("DELETE", session).status == 204
    assert towline.plan(image, place).resumable is False
    assert unfinished() == []


def unfinished() -> list[dict[str, Any]]:
    """The uploads that `towline cache stats` lists."""
    uploads: list[dict[str, Any]] = json.loads(
        command("cache", "stats", "--output", "json").stdout
    )["uploads"]
    return uploads


def test_the_cache_shows_and_forgets_it(server: Server, image: Path) -> None:
    place = f"{server.host}/app:1"
    killed(server, image, place)
    shown = command("cache", "stats").stdout
    assert "uploads: 1 unfinished" in shown
    assert f"to {server.host}/app" in shown
    (upload,) = json.loads(command("cache", "stats", "--output", "json").stdout)["uploads"]
    assert upload["repository"] == f"{server.host}/app"
    assert "uploads/" not in str(upload), "its address may let in who knows it"
    command("cache", "prune", "--older-than", "0")
    assert "uploads: 0 unfinished" in command("cache", "stats").stdout
    assert outcomes(pushed(image, place)) == ["pushed"]


def test_what_was_complete_is_found_by_its_digest(image: Path) -> None:
    """Killed while the answer to the closing PUT was waited for."""
    with scripted() as registry:
        place = f"{registry.host}/app:1"
        registry.on("PUT", "/blobs/uploads/", lambda one: None if one.body else HANG, forever=True)
        with pushing(image, place):
            until(lambda: bool(closings(registry)))
        (whole,) = (one.body for one in registry.requests("PATCH"))
        registry.blobs[str(Digest.of(whole))] = whole
        assert outcomes(towline.push(image, place)) == ["exists"]


def closings(registry: Scripted) -> list[Asked]:
    return [one for one in registry.requests("PUT", "/blobs/uploads/") if not one.body]


class TestHostsThatLoseSessions:
    def test_one_is_asked_once_and_never_again(self, image: Path, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        with scripted() as registry:
            place = f"{registry.host}/app:1"
            registry.on("GET", "/uploads/", complaint(404, "BLOB_UPLOAD_INVALID"), forever=True)
            with pushing(image, place, "--cache", str(cache)):
                until(lambda: stored(cache) != [])
            assert outcomes(pushed(image, place, cache=cache)) == ["pushed"]
            assert len(registry.requests("GET", "/uploads/")) == 1
            registry.blobs.clear()
            registry.manifests.clear()
            before = len(registry.requests("POST", "/uploads/"))
            with pushing(image, place, "--cache", str(cache)):
                until(lambda: len(registry.requests("POST", "/uploads/")) > before + 1)
            assert outcomes(pushed(image, place, cache=cache)) == ["pushed"]
            assert len(registry.requests("GET", "/uploads/")) == 1

    def test_an_address_elsewhere_is_never_followed(self, image: Path, tmp_path: Path) -> None:
        """Whoever can write to the cache would have our password sent there."""
        cache = tmp_path / "cache"
        with scripted() as registry, scripted() as thief:
            with pushing(image, f"{registry.host}/app:1", "--cache", str(cache)) as process:
                until(lambda: bool(registry.requests("POST", "/uploads/")))
                until(lambda: stored(cache) != [])
                process.kill()
            for address in (
                f"{thief.url}/v2/app/blobs/uploads/1",
                f"{registry.url}/v2/other/blobs/uploads/1",
                f"{registry.url}/v2/app/blobs/uploads/../../../other/blobs/uploads/1",
                f"{registry.url}/v2/app/blobs/uploads/%2e%2e/1",
                f"{registry.url}/v2/app/manifests/1",
                f"{registry.url}/v2/app/blobs/uploads/..",
            ):
                rewrite(cache, ADDRESS, address)
                before = len(registry.requests("GET"))
                result = towline.plan(image, f"{registry.host}/app:1", cache=cache, creds="a:b")
                assert outcomes(result) == ["pushed"]
                asked = [one.target for one in registry.requests("GET")[before:]]
                assert not [target for target in asked if "uploads" in target]
            assert not thief.asked


def stored(cache: Path) -> list[str]:
    """The texts of sessions in a SQLite cache."""
    with contextlib.closing(sqlite3.connect(cache)) as database, contextlib.suppress(sqlite3.Error):
        found = database.execute("SELECT content FROM value WHERE kind = 'session'")
        return [text.decode() for (text,) in found]
    return []


def rewrite(cache: Path, at: int, value: str) -> None:
    """As somebody would who has no key: the entry is another machine's by then."""
    parts = json.loads(stored(cache)[0])
    parts[at] = value
    with contextlib.closing(sqlite3.connect(cache)) as database:
        content = json.dumps(parts, separators=(",", ":")).encode()
        database.execute("UPDATE value SET content = ? WHERE kind = 'session'", (content,))
        database.commit()


@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_any_moment_the_next_push_sends_what_lacks(
    seed: int, server: Server, tmp_path: Path
) -> None:
    """With `SOAK_KILLS`, in pushes of a real size at a real rate."""
    sizes, rate = [6 * MiB, 2 * MiB, 300_000, 9], 6
    if "SOAK_KILLS" in os.environ:
        sizes, rate = [40 * MiB, 15 * MiB, 5 * MiB, 300_000, 100_000, 9], 20
    image, place = made(tmp_path / "image.tar", sizes), f"{server.host}/app:1"
    with pushing(image, place, "--limit-rate", f"{rate}M"):
        seconds = 0.4 + sum(sizes) / (rate * MiB)
        time.sleep(Random(seed).uniform(0.2, seconds))  # noqa: S311 - no secret
    time.sleep(0.2)
    there = held(server.root) + sum(
        path.stat().st_size for path in (server.root / "blobs").rglob("*") if path.is_file()
    )
    result = pushed(image, place)
    whole = sum(layer.size for layer in result.layers)
    assert result.sent_bytes <= ROOM * max(0, whole - there) + MiB // 2
    assert held(server.root) < MiB, "less is not worth a question"


@pytest.mark.needs("docker-registry", "nginx")
def test_where_bodies_are_lost_chunks_that_were_acknowledged_are_not(
    start_docker_registry: StartDockerRegistry, nginx_bin: Path, tmp_path: Path
) -> None:
    """Distribution 2 loses what is cut; nginx before it passes on whole bodies alone."""
    registry, size, chunk = start_docker_registry(Options()), 48 * MiB, 16 * MiB
    image, cache = made(tmp_path / "large.tar", [size]), tmp_path / "cache"
    words = ("--limit-rate", "20M", "--cache", str(cache))
    limits = "client_max_body_size 0;"
    with proxies.nginx(nginx_bin, tmp_path / "nginx", registry.host, more=limits) as host:
        place = f"{host}/app:1"
        with pushing(image, place, *words):
            until(lambda: noted(cache, SENT) > 0)
        assert towline.plan(image, place, cache=cache).resumable is False
        with pushing(image, place, *words):
            until(lambda: noted(cache, ACKNOWLEDGED) == 2 * chunk)
        planned = towline.plan(image, place, cache=cache)
        result = pushed(image, place, cache=cache)
    assert outcomes(planned) == outcomes(result) == ["resumed"]
    assert planned.resumable
    assert result.sent_bytes < size - 2 * chunk + HEADS


@pytest.mark.needs("docker-registry")
@pytest.mark.parametrize("seed", range(2 + KILLS // 10))
def test_killed_at_any_moment_at_such_a_host_the_next_push_is_whole(
    seed: int, docker_registry: DockerRegistry, tmp_path: Path
) -> None:
    image = made(tmp_path / "image.tar", [20 * MiB, 2 * MiB, 300_000], seed)
    place = f"{docker_registry.host}/{uuid4().hex}:1"
    for _ in range(2):  # in one body, then in chunks
        with pushing(image, place, "--limit-rate", "20M"):
            time.sleep(Random(seed).uniform(0.2, 1.5))  # noqa: S311 - no secret
    result = pushed(image, place)
    assert result.verified
    assert result.sent_bytes < 23 * MiB


@pytest.mark.needs("docker-registry")
def test_a_host_that_loses_all_gets_one_body_again(
    start_docker_registry: StartDockerRegistry, tmp_path: Path
) -> None:
    registry, cache = start_docker_registry(Options()), tmp_path / "cache"
    image, place = made(tmp_path / "large.tar", [40 * MiB]), f"{registry.host}/app:1"
    words = ("--limit-rate", "15M", "--cache", str(cache))
    with pushing(image, place, *words):
        until(lambda: noted(cache, SENT) > 0)
    with pushing(image, place, *words):
        until(lambda: noted(cache, ACKNOWLEDGED) > 0)
        chunks = uploaded(registry)
        until(lambda: uploaded(registry) > chunks)  # in the middle of the next
    before = len(registry.requests())
    result = pushed(image, place, cache=cache)
    assert outcomes(result) == ["pushed"]
    asked = [one.method for one in registry.requests()[before:] if "/uploads/" in one.path]
    # The chunk that was cut is logged when the registry has noticed.
    assert [method for method in asked if method != "PATCH"] == ["GET", "POST", "PUT"]
    assert stored(cache) == []


def uploaded(registry: DockerRegistry) -> int:
    """Bytes of unfinished uploads that it has written down."""
    return sum(path.stat().st_size for path in registry.root.rglob("_uploads/*/data"))


def has_more(registry: DockerRegistry, size: int) -> bool:
    return uploaded(registry) > size


OWNER, ADDRESS, ACKNOWLEDGED, SENT = 0, 5, 6, 7


def noted(cache: Path, what: int) -> int:
    """What the cache has of a session: bytes that were sent, or acknowledged."""
    return sum(json.loads(text)[what] for text in stored(cache))
