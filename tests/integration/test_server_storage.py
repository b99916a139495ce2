"""What the embedded registry keeps: through kills, restarts, full disks, and everything at once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import random
import resource
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import stored
from tests.support.raw_client import (
    RawClient,
    image,
    location,
    sha256,
    with_query,
)
from tests.support.serving import Serving, serving, towline
from towline.server import Server
from towline.server.gc import collect
from towline.server.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KiB, MiB = 1 << 10, 1 << 20
HANGS_UP = (OSError, http.client.HTTPException)
# Each restart costs about half a second of two cores; `make soak` kills more often.
KILLS = int(os.environ.get("SOAK_KILLS", "20"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def server(root: Path) -> Iterator[Server]:
    with Server(root) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[RawClient]:
    with RawClient(server.host) as client:
        yield client


# The layout


def test_the_root_is_a_layout_that_holds_each_blob_once(
    root: Path, server: Server, client: RawClient
) -> None:
    for name in ("a", "b", "deep/er/c"):
        client.put_image(name, "1", b"the same layer", b"another")
    names = sorted(path.name for path in (root / "blobs" / "sha256").iterdir())
    assert len(names) == 4, "a config, two layers and a manifest"
    assert stored.check(root) == (4, 3)
    assert (root / "repositories" / "deep" / "er" / "c" / "_tags" / "1").is_file()
    server.stop()
    index = json.loads((root / "index.json").read_text())
    found = [
        entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]
    ]
    assert found == ["a:1", "b:1", "deep/er/c:1"]


@pytest.mark.needs("skopeo")
def test_others_read_the_stopped_root_as_a_layout(
    root: Path, server: Server, client: RawClient, skopeo_bin: Path
) -> None:
    digest = client.put_image("team/app", "1.0", b"a layer")
    client.put_image("team/app", "2.0", b"another layer")
    server.stop()
    done = subprocess.run(
        [skopeo_bin, "inspect", "--raw", f"oci:{root}:team/app:1.0"],
        capture_output=True,
        check=True,
    )
    assert sha256(done.stdout) == digest


# Kills


def _push(host: str, name: str, seed: int, acknowledged: list[tuple[str, str, str]]) -> None:
    """Push images, some of whose layers others push too, until the registry is gone."""
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    with RawClient(host) as client, contextlib.suppress(*HANGS_UP):
        for _ in range(1000):
            layers = [chance.randbytes(chance.choice([10, 5000, 300_000])), _common(chance)]
            _push_one(client, name, f"t{chance.randrange(5)}", layers, acknowledged)


def _common(chance: random.Random) -> bytes:
    return bytes([chance.randrange(8)]) * 100_000


def _push_one(
    client: RawClient,
    name: str,
    tag: str,
    layers: list[bytes],
    acknowledged: list[tuple[str, str, str]],
) -> None:
    for layer in layers:
        session = client.open_upload(name)
        half = len(layer) // 2
        after = location(client.ask("PATCH", session, layer[:half]))
        done = client.ask("PUT", with_query(after, digest=sha256(layer)), layer[half:])
        assert done.status == 201
    digest = client.put_image(name, tag, *layers)
    acknowledged.append((name, tag, digest))


def test_whenever_it_is_killed_what_was_acknowledged_is_there_and_whole(root: Path) -> None:
    chance = random.Random()  # noqa: S311 - not for secrets
    acknowledged: list[tuple[str, str, str]] = []
    for round_ in range(KILLS):
        with serving(root) as registry:
            _check_acknowledged(registry, acknowledged)
            acknowledged.clear()
            threads = [
                threading.Thread(
                    target=_push, args=(registry.host, f"r{n % 4}", round_ * 8 + n, acknowledged)
                )
                for n in range(8)
            ]
            for thread in threads:
                thread.start()
            time.sleep(chance.uniform(0.02, 0.4))
            registry.kill()
            for thread in threads:
                thread.join()
        stored.check(root)
    with serving(root) as registry:
        _check_acknowledged(registry, acknowledged)


def _check_acknowledged(registry: Serving, acknowledged: list[tuple[str, str, str]]) -> None:
    """Every image whose manifest was taken is pulled whole by its digest, every tag resolves."""
    with RawClient(registry.host) as client:
        for name, _, digest in set(acknowledged):
            assert sha256(client.pull(name, digest)[0]) == digest
        for name in {name for name, _, _ in acknowledged}:
            for tag in client.tags(name):
                client.pull(name, tag)


# Sessions


def test_a_session_survives_a_kill_with_what_it_had(root: Path) -> None:
    data = os.urandom(300_000)
    with serving(root) as registry, RawClient(registry.host) as client:
        session = client.open_upload("team/app")
        assert client.ask("PATCH", session, data[:200_000]).status == 202
        registry.kill()
    with serving(root) as registry, RawClient(registry.host) as client:
        assert client.ask("GET", session).headers["range"] == "0-199999"
        rest = {"Content-Range": "200000-299999"}
        assert client.ask("PATCH", session, data[200_000:], rest).status == 202
        done = client.ask("PUT", with_query(session, digest=sha256(data)), b"")
        assert done.status == 201
        assert client.ask("GET", f"/v2/team/app/blobs/{sha256(data)}").body == data


def test_nothing_is_left_of_uploads_that_ended(root: Path, client: RawClient) -> None:
    client.put_image("a", "1", b"a layer")
    session = client.open_upload("a")
    client.ask("PUT", with_query(session, digest=sha256(b"other")), b"bytes")
    client.ask("DELETE", client.open_upload("a"))
    client.ask("POST", f"/v2/a/blobs/uploads/?digest={sha256(b'x')}", b"y")
    assert list((root / "uploads").iterdir()) == []


# Everything at once


def test_the_same_blob_pushed_at_once_is_one_blob(root: Path, server: Server) -> None:
    data = os.urandom(2 * MiB)

    def push(n: int) -> None:
        with RawClient(server.host) as client:
            client.put_image(f"r{n % 3}", f"t{n}", data)

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        list(pool.map(push, range(24)))
    assert stored.check(root) == (3, 24)


def test_tags_that_move_and_go_at_once_leave_no_tag_without_its_image(
    root: Path, server: Server
) -> None:
    def work(seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - not for secrets
        with RawClient(server.host) as client:
            for _ in range(25):
                tag = f"t{chance.randrange(4)}"
                digest = client.put_image("a", tag, bytes([chance.randrange(6)]))
                gone = chance.choice([tag, digest, digest])
                answer = client.ask("DELETE", f"/v2/a/manifests/{gone}")
                assert answer.status in {202, 404}

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    stored.check(root)
    with RawClient(server.host) as client:
        for tag in client.tags("a"):
            client.pull("a", tag)


def test_collections_beside_pushes_take_nothing_that_a_push_needs(root: Path) -> None:
    done = threading.Event()
    acknowledged: list[tuple[str, str, str]] = []

    def push(seed: int, host: str) -> None:
        chance = random.Random(seed)  # noqa: S311 - not for secrets
        with RawClient(host) as client:
            for _ in range(12):
                layers = [chance.randbytes(1000), _common(chance)]
                _push_one(client, "a", f"t{seed}", layers, acknowledged)
                client.ask("DELETE", f"/v2/a/manifests/{acknowledged[-1][2]}")
                acknowledged.pop()
                _push_one(client, "a", f"t{seed}", layers, acknowledged)

    def gather() -> None:
        beside = Storage(root)
        while not done.is_set():
            collect(beside)
            assert towline("serve", "--root", str(root), "--gc").returncode == 0
        beside.close()

    with Server(root) as server, concurrent.futures.ThreadPoolExecutor(7) as pool:
        collecting = pool.submit(gather)
        try:
            list(pool.map(lambda seed: push(seed, server.host), range(6)))
        finally:
            done.set()
        collecting.result()
        with RawClient(server.host) as client:
            for name, _, digest in acknowledged:
                client.pull(name, digest)
    stored.check(root)


def _age(root: Path, seconds: float) -> None:
    """Let everything look as if it had been there for so long."""
    then = time.time() - seconds
    for path in root.rglob("*"):
        if path.is_file() and path.stat().st_mtime > 0:
            os.utime(path, (then, then))


def test_a_manifest_that_cannot_be_read_lets_nothing_of_its_repository_go(
    root: Path, client: RawClient
) -> None:
    digest = client.put_image("a", "1", b"a layer")
    torn = root / "blobs" / "sha256" / digest[7:]
    torn.write_bytes(b"{")
    _age(root, 3700)
    storage = Storage(root)
    assert collect(storage).blobs == 0
    storage.close()
    assert client.ask("GET", f"/v2/a/blobs/{sha256(b'a layer')}").body == b"a layer"


# Little room


def test_a_full_disk_is_507_and_leaves_nothing_half_there(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = f'mount -t tmpfs -o size=4m tmpfs {small} && exec "$@"'
    namespace = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        return  # a machine without namespaces: the next test says the same of quotas
    with serving(small / "root", prefix=namespace) as registry, RawClient(registry.host) as client:
        _check_no_room(client, first=1 * MiB, too_much=6 * MiB)


def test_a_file_that_may_not_grow_is_507_and_leaves_nothing_half_there(root: Path) -> None:
    limited = ("prlimit", f"--fsize={MiB}", "--")
    with serving(root, prefix=limited) as registry, RawClient(registry.host) as client:
        _check_no_room(client, first=512 * KiB, too_much=3 * MiB)
    stored.check(root)
    assert list((root / "uploads").iterdir()) == []


def _check_no_room(client: RawClient, *, first: int, too_much: int) -> None:
    digest = client.put_image("a", "1", os.urandom(first))
    large = os.urandom(too_much)
    for chunked in (False, True):
        session = client.open_upload("a")
        blocks = (large[n : n + 4096] for n in range(0, len(large), 4096))
        with contextlib.suppress(*HANGS_UP):  # it may hang up on a body that nobody can take
            refused = client.ask("PATCH", session, blocks if chunked else large)
            assert refused.status == 507
            assert "no room" in refused.json()["errors"][0]["message"]
        client.close()
        assert client.ask("GET", session).refusal == (404, "BLOB_UPLOAD_UNKNOWN")
    assert client.ask("HEAD", f"/v2/a/blobs/{sha256(large)}").status == 404
    assert sha256(client.pull("a", "1")[0]) == digest
    client.put_image("a", "2", b"there is room for this")


# Memory and counts


def test_memory_is_constant_in_the_blobs_size_both_ways(root: Path) -> None:
    peaks = []
    for size in (8 * MiB, 96 * MiB):
        with serving(root) as registry, RawClient(registry.host) as client:
            block = os.urandom(MiB)
            session = client.open_upload("a")
            sent = client.ask("PATCH", session, (block for _ in range(size // MiB)))
            data = block * (size // MiB)
            done = client.ask("PUT", with_query(location(sent), digest=sha256(data)), b"")
            assert done.status == 201
            assert client.ask("GET", f"/v2/a/blobs/{sha256(data)}").body == data
            peaks.append(_peak(registry.process.pid))
    assert peaks[1] < 64 * MiB
    assert peaks[1] - peaks[0] < 4 * MiB


def _peak(pid: int) -> int:
    """Bytes of a process's largest resident set."""
    with open(f"/proc/{pid}/status") as file:  # noqa: PTH123 - no path of ours
        line = next(line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) * KiB


def test_ten_thousand_tags_cost_a_push_nothing(server: Server, client: RawClient) -> None:
    config = b"{}"
    client.put_blob("a", config)
    content = image(config)
    client.put_manifest("a", "first", content)
    folder = server.root / "repositories" / "a" / "_tags"
    for n in range(10_000):
        os.link(folder / "first", folder / f"t{n}")
    begun = time.monotonic()
    for n in range(20):
        assert client.put_manifest("a", f"new{n}", content).status == 201
        assert client.ask("HEAD", f"/v2/a/manifests/t{n}").status == 200
    assert time.monotonic() - begun < 2
    assert len(client.tags("a")) == 10_021
    page = client.ask("GET", "/v2/a/tags/list?n=3&last=t9998")
    assert page.json()["tags"] == ["t9999"]


def test_it_lives_with_few_descriptors(root: Path) -> None:
    limited = ("prlimit", "--nofile=40", "--")
    with serving(root, prefix=limited) as registry, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(RawClient(registry.host)) for _ in range(60)]
        for client in clients[:20]:
            assert client.ask("GET", "/v2/").status == 200
        for client in clients:
            with contextlib.suppress(*HANGS_UP):
                client._connection.timeout = 0.05
                client.ask("GET", "/v2/")
            client.close()
        with RawClient(registry.host) as client:
            client.put_image("a", "1", b"a layer")
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 40
