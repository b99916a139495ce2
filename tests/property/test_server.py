"""Any history of an upload, and of a repository's tags, against a model of a few lines."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support import stored
from tests.support.raw_client import RawClient, image, location, sha256, with_query
from towline.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNKS = st.binary(min_size=1, max_size=3000)
TAGS = st.sampled_from(["a", "b", "B", "_", "1"])
CONFIGS = st.sampled_from([b"{}", b'{"n":1}', b'{"n":2}'])


class _Running(RuleBasedStateMachine):
    """A registry on a folder, which may be stopped and started at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="towline-property-"))
        self._start()

    def _start(self) -> None:
        self.server = Server(self.root)
        self.server.start()
        self.client = RawClient(self.server.host)

    def _stop(self) -> None:
        self.client.close()
        self.server.stop()

    @rule()
    def restart(self) -> None:
        self._stop()
        self._start()

    def teardown(self) -> None:
        self._stop()
        stored.check(self.root)
        shutil.rmtree(self.root)


class Upload(_Running):
    """One session at a time; `received` is what the registry must have of it."""

    session = ""
    received = b""

    @initialize()
    def open(self) -> None:
        self.session, self.received = self.client.open_upload("a"), b""

    @precondition(lambda self: not self.session)
    @rule()
    def open_again(self) -> None:
        self.open()

    @precondition(lambda self: bool(self.session))
    @rule(chunk=CHUNKS, told=st.booleans(), pieces=st.integers(0, 3))
    def append(self, chunk: bytes, told: bool, pieces: int) -> None:  # noqa: FBT001 - drawn
        first = len(self.received)
        headers = {"Content-Range": f"{first}-{first + len(chunk) - 1}"} if told else {}
        body = _cut(chunk, pieces) if pieces else chunk
        answer = self.client.ask("PATCH", self.session, body, headers)
        assert answer.status == 202
        self.session, self.received = location(answer), self.received + chunk

    @precondition(lambda self: bool(self.session))
    @rule(chunk=CHUNKS, off=st.integers(-5000, 5000).filter(bool))
    def append_elsewhere(self, chunk: bytes, off: int) -> None:
        first = max(0, len(self.received) + off)
        if first == len(self.received):
            return
        headers = {"Content-Range": f"{first}-{first + len(chunk) - 1}"}
        assert self.client.ask("PATCH", self.session, chunk, headers).status == 416

    @precondition(lambda self: bool(self.session))
    @rule(rest=st.binary(max_size=2000), algorithm=st.sampled_from(["sha256", "sha512"]))
    def finish(self, rest: bytes, algorithm: str) -> None:
        whole = self.received + rest
        digest = f"{algorithm}:{hashlib.new(algorithm, whole).hexdigest()}"
        assert self.client.ask("PUT", with_query(self.session, digest=digest), rest).status == 201
        assert self.client.ask("GET", f"/v2/a/blobs/{digest}").body == whole
        assert self.client.ask("GET", self.session).status == 404
        self.session = ""

    @precondition(lambda self: bool(self.session))
    @rule(rest=st.binary(max_size=2000))
    def finish_wrongly(self, rest: bytes) -> None:
        wrong = sha256(self.received + rest + b"more")
        assert self.client.ask("PUT", with_query(self.session, digest=wrong), rest).status == 400
        assert self.client.ask("HEAD", f"/v2/a/blobs/{wrong}").status == 404
        self.session = ""

    @precondition(lambda self: bool(self.session))
    @rule()
    def cancel(self) -> None:
        assert self.client.ask("DELETE", self.session).status == 204
        self.session = ""

    @invariant()
    def tells_how_far_it_is(self) -> None:
        if self.session:
            status = self.client.ask("GET", self.session)
            assert status.headers["range"] == f"0-{max(0, len(self.received) - 1)}"


def _cut(chunk: bytes, pieces: int) -> list[bytes]:
    size = max(1, len(chunk) // pieces)
    return [chunk[n : n + size] for n in range(0, len(chunk), size)]


class Tags(_Running):
    """What tags point to, through moves and deletes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, str] = {}
        self.manifests: set[str] = set()

    @rule(tag=TAGS, config=CONFIGS)
    def put(self, tag: str, config: bytes) -> None:
        self.client.put_blob("a", config)
        content = image(config)
        assert self.client.put_manifest("a", tag, content).status == 201
        self.tags[tag] = sha256(content)
        self.manifests.add(sha256(content))

    @rule(tag=TAGS)
    def delete_tag(self, tag: str) -> None:
        answer = self.client.ask("DELETE", f"/v2/a/manifests/{tag}")
        assert answer.status == (202 if tag in self.tags else 404)
        self.tags.pop(tag, None)

    @rule(config=CONFIGS)
    def delete_manifest(self, config: bytes) -> None:
        digest = sha256(image(config))
        answer = self.client.ask("DELETE", f"/v2/a/manifests/{digest}")
        assert answer.status == (202 if digest in self.manifests else 404)
        self.manifests.discard(digest)
        self.tags = {tag: held for tag, held in self.tags.items() if held != digest}

    @invariant()
    def tells_what_there_is(self) -> None:
        listed = self.client.ask("GET", "/v2/a/tags/list")
        assert (listed.json().get("tags") or []) == sorted(self.tags)
        for tag, digest in self.tags.items():
            found = self.client.ask("HEAD", f"/v2/a/manifests/{tag}")
            assert found.headers["docker-content-digest"] == digest


# Each example starts and stops several registries.
PATIENT = settings(max_examples=max(10, settings().max_examples // 10), stateful_step_count=20)
TestUpload: Callable[..., object] = Upload.TestCase
TestTags: Callable[..., object] = Tags.TestCase
Upload.TestCase.settings = PATIENT
Tags.TestCase.settings = PATIENT
