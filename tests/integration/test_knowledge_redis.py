"""What only a server can do: be away, be slow, refuse, hold what others wrote."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
import time
import uuid
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
import redis

from tests.support import certificates, processes
from tests.support.knowledge import AGREED, BLOB, DIFF_ID, OURS, entry
from towline.knowledge.base import MAX_ENTRIES, KnowledgeError, is_sound
from towline.knowledge.open import open_knowledge, open_store
from towline.knowledge.redis import Address, RedisKnowledge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.redis_server import RedisServer
    from towline.knowledge.store import Knowledge

NEEDS_REDIS = pytest.mark.needs("redis-server")


@pytest.fixture
def prefix() -> str:
    return f"{uuid.uuid4()}[*]:"


@pytest.fixture
def raw(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """The server as others see it."""
    with closing(redis.Redis.from_url(redis_server.url, protocol=2)) as client:
        yield client


@pytest.fixture
def store(redis_server: RedisServer, prefix: str) -> Iterator[RedisKnowledge]:
    address = Address(redis_server.url, "redis://test", prefix)
    with closing(RedisKnowledge(address, OURS)) as store:
        yield store


@pytest.fixture
def peer() -> Iterator[Callable[[Callable[[socket.socket], None]], int]]:
    """A server that does with each connection what a test says; gives its port."""
    ended = threading.Event()
    with ExitStack() as stack:

        def serve(behave: Callable[[socket.socket], None]) -> int:
            listener = socket.create_server(("127.0.0.1", 0))
            stack.callback(listener.close)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            connections: list[socket.socket] = []
            thread = threading.Thread(target=accept, args=(listener, behave, connections))
            thread.start()
            stack.callback(close_all, connections)
            port: int = listener.getsockname()[1]
            return port

        def close_all(connections: list[socket.socket]) -> None:
            for connection in connections:
                connection.close()

        def accept(
            listener: socket.socket,
            behave: Callable[[socket.socket], None],
            connections: list[socket.socket],
        ) -> None:
            with contextlib.suppress(OSError):
                while not ended.is_set():
                    connections.append(listener.accept()[0])
                    with contextlib.suppress(OSError):
                        behave(connections[-1])

        stack.callback(ended.set)
        yield serve


def warnings_of(address: str) -> list[str]:
    """What a push hears, and that it goes on."""
    warnings: list[str] = []
    with closing(open_knowledge(address, {}, warnings.append)) as knowledge:
        for _ in range(3):
            knowledge.record([entry()])
            assert knowledge.entries([DIFF_ID]) == {}
        assert len(knowledge.account_key()) == 32
    return warnings


def test_a_server_that_is_away_is_one_warning_without_the_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (warning,) = warnings_of(f"redis://user:hunter2@127.0.0.1:{port}/0")
    assert warning.startswith(f"the cache redis://127.0.0.1:{port}/0 cannot be used: ")
    assert "refused" in warning
    assert "hunter2" not in warning


def test_a_socket_that_is_away_is_one_warning(tmp_path: Path) -> None:
    (warning,) = warnings_of(f"unix://{tmp_path}/redis.sock")
    assert f"unix://{tmp_path}/redis.sock cannot be used" in warning


def test_a_silent_server_is_one_warning_within_seconds(
    peer: Callable[[Callable[[socket.socket], None]], int],
) -> None:
    port = peer(lambda connection: None)
    begun = time.monotonic()
    assert len(warnings_of(f"redis://127.0.0.1:{port}")) == 1
    assert time.monotonic() - begun < 4


def test_a_server_that_dribbles_is_given_up_at_the_deadline(
    peer: Callable[[Callable[[socket.socket], None]], int],
) -> None:
    """Each read succeeds in time; the answer never ends."""

    def dribble(connection: socket.socket) -> None:
        for _ in range(60):
            connection.sendall(b"+")
            time.sleep(0.1)

    port = peer(dribble)
    begun = time.monotonic()
    (warning,) = warnings_of(f"redis://127.0.0.1:{port}")
    assert warning == "the cache did not answer in time; going on without it"
    assert time.monotonic() - begun < 4


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03", b""])
def test_a_server_that_is_no_redis_is_one_warning(
    peer: Callable[[Callable[[socket.socket], None]], int], answer: bytes
) -> None:
    def behave(connection: socket.socket) -> None:
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_RDWR)

    assert len(warnings_of(f"redis://127.0.0.1:{peer(behave)}")) == 1


QUESTIONS: dict[str, Callable[[Knowledge], object]] = {
    "entries": lambda knowledge: knowledge.entries([DIFF_ID]),
    "record": lambda knowledge: knowledge.record([entry()]),
    "facts": lambda knowledge: knowledge.host_facts("reg"),
    "config": lambda knowledge: knowledge.config(BLOB),
    "account key": lambda knowledge: knowledge.account_key(),
    "stats": lambda knowledge: knowledge.stats(),
    "prune": lambda knowledge: knowledge.prune(older_than=1.0),
    "clear": lambda knowledge: knowledge.clear(),
}
ODD = {
    "a number": b":5\r\n",
    "nothing": b"*-1\r\n",
    "a list": b"*2\r\n:0\r\n*0\r\n",
    "a long number": b"$999999999999999999999\r\n",
    "nested lists": b"*1\r\n" * 3000 + b":1\r\n",
    "texts": b"*1\r\n$3\r\n\xff\xfe\0\r\n",
}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("answer", ODD)
def test_an_answer_of_another_kind_is_one_warning_at_most(
    peer: Callable[[Callable[[socket.socket], None]], int], question: str, answer: str
) -> None:
    """An error that only the asking thread meets is one of pytest's warnings, which fail."""

    def behave(connection: socket.socket) -> None:
        while connection.recv(1 << 16):
            connection.sendall(ODD[answer])

    warnings: list[str] = []
    address = f"redis://127.0.0.1:{peer(behave)}"
    with closing(open_knowledge(address, {}, warnings.append)) as knowledge:
        QUESTIONS[question](knowledge)
    assert [w for w in warnings if "cannot be used: " not in w] == []
    assert len(warnings) <= 1


@NEEDS_REDIS
def test_a_server_that_refuses_the_password_is_one_warning(redis_server: RedisServer) -> None:
    (warning,) = warnings_of(f"redis://nobody:hunter2@127.0.0.1:{redis_server.port}")
    assert "password" in warning
    assert "hunter2" not in warning


@NEEDS_REDIS
def test_a_full_server_is_one_warning(redis_server_bin: Path, tmp_path: Path) -> None:
    with own_server(redis_server_bin, tmp_path, "--maxmemory", "1") as url:
        (warning,) = warnings_of(url)
    assert "maxmemory" in warning


@NEEDS_REDIS
def test_a_server_that_restarts_between_two_pushes_is_no_matter(
    redis_server_bin: Path, tmp_path: Path
) -> None:
    """A connection kept open over the end of the server is replaced without a word."""
    with own_server(redis_server_bin, tmp_path) as url:
        store = open_store(url, {})
        store.record([entry()])
        port = url.rpartition(":")[2]
    with own_server(redis_server_bin, tmp_path, port=port):
        assert store.entries([DIFF_ID]) == {}
        store.record([entry()])
        assert len(store.entries([DIFF_ID])) == 1
    store.close()


@contextlib.contextmanager
def own_server(program: Path, folder: Path, *options: str, port: str = "") -> Iterator[str]:
    """A Redis of this test's own, over a socket in the folder unless a port is given."""
    path = folder / "own.sock"
    path.unlink(missing_ok=True)
    command: list[str | Path] = [
        program,
        "--port",
        "0",
        "--unixsocket",
        str(path),
        "--save",
        "",
        *options,
    ]
    with processes.running(command, folder) as process:
        processes.wait_until(process, folder, lambda: path.exists() or None)
        yield f"unix://{path}"


@NEEDS_REDIS
def test_tls_is_spoken_and_the_certificate_checked(redis_server_bin: Path, tmp_path: Path) -> None:
    authority = certificates.make_authority(tmp_path)
    issued = authority.issue()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    options = ("--tls-port", str(port), "--tls-auth-clients", "no", "--bind", "127.0.0.1")
    files = ("--tls-cert-file", str(issued.cert), "--tls-key-file", str(issued.key))
    ca = ("--tls-ca-cert-file", str(authority.ca))
    with own_server(redis_server_bin, tmp_path, *options, *files, *ca):
        url = f"rediss://localhost:{port}/0"
        with closing(open_store(f"{url}?ssl_ca_certs={authority.ca}&prefix=p:", {})) as trusting:
            trusting.record([entry()])
            assert len(trusting.entries([DIFF_ID])) == 1
        (warning,) = warnings_of(url)
    assert "certificate verify failed" in warning


@NEEDS_REDIS
def test_all_keys_begin_with_the_prefix_and_only_they_are_touched(
    store: RedisKnowledge, raw: redis.Redis, prefix: str
) -> None:
    foreign = f"{prefix.replace('[*]', 'x')}layer:{DIFF_ID}"
    raw.rpush(foreign, "somebody else's")
    store.record([entry(seen=1.0)])
    store.record_host("reg", {"scheme": "https"})
    store.record_config(BLOB, b"")
    store.account_key()
    ours = [key for key in raw.scan_iter() if bytes(key).startswith(prefix.encode())]
    assert len(ours) == 4
    assert store.stats().diff_ids == 1
    assert store.prune(older_than=2.0) == 1
    store.clear()
    assert raw.exists(foreign) == 1
    raw.delete(foreign)


@NEEDS_REDIS
@pytest.mark.parametrize(
    "value",
    [
        b"no json",
        b"\xff\xfe",
        b"{}",
        b"[]",
        b"7",
        json.dumps([BLOB]).encode(),
        json.dumps(["md5:0", "r", "", 0, 1, "m", "gzip", None, 1.0, "mac"]).encode(),
        json.dumps([BLOB, "r", "", 0, 1, "m", "lz4", None, 1.0, "mac"]).encode(),
        json.dumps([BLOB, "r", "", 0, "?", "m", "gzip", None, 1.0, "mac"]).encode(),
        json.dumps([7, "r", "", 0, 1, "m", "gzip", None, 1.0, "mac"]).encode(),
        json.dumps([BLOB, "r", "", 0, 1, "m", [], None, 1.0, "mac"]).encode(),
        json.dumps([BLOB, "r", "", 0, 1e999, "m", "gzip", None, 1.0, "mac"]).encode(),
        json.dumps([BLOB, "r", "", 0, 1, "m", "gzip", None, 10**400, "mac"]).encode(),
        b"[" * 100_000,
    ],
)
def test_what_nobody_can_read_is_passed_over(
    store: RedisKnowledge, raw: redis.Redis, prefix: str, value: bytes
) -> None:
    store.record([entry()])
    raw.lpush(f"{prefix}layer:{DIFF_ID}", value)
    raw.set(f"{prefix}facts:reg", value)
    assert list(filter(is_sound, store.entries([DIFF_ID])[DIFF_ID])) == [entry()]
    assert store.host_facts("reg") == {}
    store.record([entry(repository="reg.example/b")])
    assert store.prune(older_than=2.0) in (0, 1)
    assert sum(map(is_sound, store.entries([DIFF_ID])[DIFF_ID])) == 2


@NEEDS_REDIS
def test_what_is_no_text_at_all_is_somebody_elses_word(
    store: RedisKnowledge, raw: redis.Redis, prefix: str
) -> None:
    odd = json.loads('"\\ud800"')
    value = json.dumps([BLOB, odd, odd, 0, 1, odd, "gzip", odd, 1.0, odd])
    raw.lpush(f"{prefix}layer:{DIFF_ID}", value)
    raw.set(f"{prefix}facts:reg", json.dumps([odd, odd]))
    (found,) = store.entries([DIFF_ID])[DIFF_ID]
    assert found.learned
    assert store.host_facts("reg") == {}


@NEEDS_REDIS
def test_facts_are_believed_of_their_host_alone(
    store: RedisKnowledge, raw: redis.Redis, prefix: str
) -> None:
    store.record_host("reg", {"mounts": "1"})
    value = raw.get(f"{prefix}facts:reg")
    assert isinstance(value, bytes)
    raw.set(f"{prefix}facts:other", value)
    raw.set(f"{prefix}facts:reg", value.replace(b"1", b"0"))
    assert store.host_facts("reg") == store.host_facts("other") == {}


@NEEDS_REDIS
def test_of_more_entries_than_are_kept_the_newest_are_read(
    store: RedisKnowledge, raw: redis.Redis, prefix: str
) -> None:
    store.record([entry()])
    (value,) = raw.lrange(f"{prefix}layer:{DIFF_ID}", 0, -1)
    raw.rpush(f"{prefix}layer:{DIFF_ID}", *[b"[]"] * MAX_ENTRIES)
    assert store.entries([DIFF_ID]) == {}
    raw.rpush(f"{prefix}layer:{DIFF_ID}", value)
    assert store.entries([DIFF_ID]) == {DIFF_ID: [entry()]}


@NEEDS_REDIS
def test_a_forged_entry_is_no_knowledge_where_a_key_was_agreed_on(
    redis_server: RedisServer, raw: redis.Redis, prefix: str
) -> None:
    address = Address(redis_server.url, "redis://test", prefix)
    with closing(RedisKnowledge(address, AGREED)) as store:
        store.record([entry()])
        key = f"{prefix}layer:{DIFF_ID}"
        (value,) = raw.lrange(key, 0, -1)
        assert isinstance(value, bytes)
        forged = value.replace(b'"registry.example:5000/team/app"', b'"reg/false"')
        raw.rpush(key, forged)
        assert store.entries([DIFF_ID]) == {DIFF_ID: [entry()]}


@NEEDS_REDIS
def test_a_key_of_another_kind_is_one_warning(redis_server: RedisServer, raw: redis.Redis) -> None:
    prefix = f"{uuid.uuid4()}:"
    raw.set(f"{prefix}layer:{DIFF_ID}", "not a list")
    (warning,) = warnings_of(f"{redis_server.url}?prefix={prefix}")
    assert "WRONGTYPE" in warning


@pytest.mark.parametrize("options", ["db=x", "nonsense=1", "socket_timeout=soon"])
def test_an_option_that_redis_does_not_know_is_one_warning(options: str) -> None:
    (warning,) = warnings_of(f"redis://127.0.0.1?{options}")
    assert warning.startswith("the cache redis://127.0.0.1 cannot be used: ")


def test_without_the_library_the_warning_says_what_to_install() -> None:
    script = """
import sys
sys.modules["redis"] = None
from towline.knowledge.open import open_knowledge
open_knowledge("redis://127.0.0.1", {}, print).record([])
"""
    import sys

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "cannot be used: pip install 'towline[redis]', in a clone '.[redis]'" in done.stdout


def test_asking_about_an_unreachable_cache_itself_is_an_error() -> None:
    with closing(open_store("unix:///nowhere/redis.sock", {})) as store:
        for question in (store.stats, store.clear, lambda: store.prune(1.0)):
            with pytest.raises(KnowledgeError, match="unix:///nowhere/redis"):
                question()
