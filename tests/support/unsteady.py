"""A registry that keeps each repository apart, counts what it gets, and has its faults by number.

The third request that opens an upload is answered 503, the first body is cut after 9,000 bytes:
what is to go wrong stands in a script before anything begins, so that a seed can say all of it.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import struct
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qs

from tests.support.raw_client import sha256
from tests.support.scripted import Asked, HungUp, Reply, Scripted, complaint

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from tests.support.scripted import _Head

Kind = Literal["ask", "open", "send", "commit", "progress", "drop", "look", "tag", "other"]
"""HEAD of a blob · POST, PATCH, PUT, GET, DELETE of an upload · HEAD or GET, PUT of a manifest."""
Mounts = Literal["yes", "session", "no"]
"""Mounts what it has; opens a session instead; answers 404."""
BLOCK = 1 << 16


@dataclass(frozen=True)
class Trouble:
    """What happens to one request."""

    status: int = 0
    """Answer so, and do nothing."""
    retry_after: int | None = None
    early: bool = False
    """Answer before the body is read, and close."""
    cut_after: int | None = None
    """Reset the connection when so many bytes of the body are here."""
    keeps: bool = True
    """What was cut stays in its session."""
    hang_up: bool = False
    """Do nothing, and hang up."""
    swallow: int | None = None
    """Do it, but say only so many bytes of the answer, and hang up."""
    lose: bool = False
    """The session is not known any more."""
    wait: float = 0.0
    """Seconds before the answer."""
    block_wait: float = 0.0
    """Seconds before each block of the body is read."""
    hang: bool = False
    """Hang up after `wait`, having said nothing."""

    @property
    def heavy(self) -> bool:
        """Whether the request fails; else it is only slow."""
        return bool(
            self.status
            or self.cut_after is not None
            or self.hang_up
            or self.swallow is not None
            or self.lose
            or self.hang
        )


@dataclass
class Script:
    """What is to go wrong at one registry."""

    troubles: dict[tuple[Kind, int], Trouble] = field(default_factory=dict)
    """By the kind of the request and its number among those, from 1."""
    always: dict[Kind, Trouble] = field(default_factory=dict)
    mounts: Mounts = "yes"
    saves: bool = False
    """Whether it takes a blob in one request, and several tags by one."""
    pace: float = 0.0
    """Seconds that each answer takes."""

    @property
    def sound(self) -> bool:
        """Whether nothing fails, and nothing takes so long that somebody may give it up."""
        every = [*self.troubles.values(), *self.always.values()]
        return not any(one.heavy or one.wait >= 1 for one in every)


@dataclass
class Logged:
    """One request as it came in."""

    at: float
    kind: Kind
    method: str
    target: str


@dataclass
class Repository:
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Media type and content, by tag and by digest."""
    commits: Counter[str] = field(default_factory=Counter)
    """How often each blob was sent and kept."""


class Unsteady(Scripted):
    """Give it its `script` before it is asked anything."""

    def __init__(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        super().__init__(listener, tls)
        self.script = Script()
        self.repositories: dict[str, Repository] = {}
        self.log: list[Logged] = []
        self.received = 0
        """Bytes of blobs, those that were thrown away too."""
        self.in_vain: list[int] = []
        """Bytes of each blob that came with the opening of a session, and was not taken so."""
        self.most = 0
        """Bodies of blobs that came in at once."""
        self.premature: list[str] = []
        """Manifests that came before something that they list."""
        self.on_request: Callable[[int], None] = lambda _number: None
        """Told the number of each request, from 1, when its head is here."""
        self._counts: Counter[Kind] = Counter()
        self._coming = 0
        self._session_numbers = itertools.count()

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    # One request.

    def _answer(self, connection: socket.socket, head: _Head, number: int) -> bytes | None:
        asked = Asked(head.method, head.target, head.headers, b"", number)
        trouble = self._note(asked)
        if trouble.early:
            self.ended.wait(trouble.wait)
            self._say(connection, Reply(trouble.status, close=True), asked)
            return None
        body = Body(connection, head)
        with self._coming_in(asked):
            content = self._read(body, trouble, asked, connection)
            reply = self._reply(Asked(*_head_of(asked), content, number), trouble)
        self.ended.wait(trouble.wait + self.script.pace)
        if reply is None:
            return None
        if trouble.swallow is not None:
            connection.sendall(reply.encoded(asked.method)[: trouble.swallow])
            return None
        return body.rest if self._say(connection, reply, asked) else None

    def _note(self, asked: Asked) -> Trouble:
        kind = kind_of(asked)
        with self._lock:
            self.log.append(Logged(time.monotonic(), kind, asked.method, asked.target))
            number = len(self.log)
            self._counts[kind] += 1
            trouble = self.script.troubles.get((kind, self._counts[kind]))
        self.on_request(number)
        return trouble or self.script.always.get(kind, SOUND)

    @contextmanager
    def _coming_in(self, asked: Asked) -> Iterator[None]:
        blob = "/blobs/uploads/" in asked.target and (
            asked.method in {"PATCH", "PUT"} or "?digest=" in asked.target
        )
        with self._lock:
            self._coming += blob
            self.most = max(self.most, self._coming)
        try:
            yield
        finally:
            with self._lock:
                self._coming -= blob

    def _read(self, body: Body, trouble: Trouble, asked: Asked, connection: socket.socket) -> bytes:
        content = bytearray()
        for block in body:
            content += block
            if "/blobs/uploads/" in asked.target:
                with self._lock:
                    self.received += len(block)
            if trouble.cut_after is not None and len(content) >= trouble.cut_after:
                if trouble.keeps:
                    with self._lock:
                        self._append(Asked(*_head_of(asked), bytes(content), asked.connection))
                _reset(connection)
                raise HungUp
            if trouble.block_wait:
                self.ended.wait(trouble.block_wait)
        return bytes(content)

    def _reply(self, asked: Asked, trouble: Trouble) -> Reply | None:
        if trouble.hang_up or trouble.hang:
            return None
        if trouble.status:
            after = trouble.retry_after
            return Reply(trouble.status, {} if after is None else {"Retry-After": str(after)})
        with self._lock:
            if trouble.lose:
                self.sessions.pop(_session(asked), None)
            return self.sound(asked)

    # The sound registry.

    def sound(self, asked: Asked) -> Reply:
        match = PATHS.fullmatch(asked.path)
        if match is None:
            return Reply(200, {"Content-Type": "application/json"}, "{}")
        name, kind, last = match.groups()
        repository = self.repository(name)
        if kind == "blobs/uploads":
            return self._upload_at(asked, name, last)
        if kind == "blobs":
            found = repository.blobs.get(last)
            return complaint(404, "BLOB_UNKNOWN") if found is None else Reply(200, (), found)
        if kind == "manifests":
            return self._manifest_at(asked, repository, last)
        tags = [tag for tag in repository.manifests if ":" not in tag]
        body = json.dumps({"name": name, "tags": tags})
        return Reply(200, {"Content-Type": "application/json"}, body)

    def _upload_at(self, asked: Asked, name: str, session: str) -> Reply:
        if asked.method == "POST":
            return self._open(asked, name)
        if session not in self.sessions:
            return complaint(404, "BLOB_UPLOAD_UNKNOWN")
        if asked.method == "DELETE":
            del self.sessions[session]
            return Reply(204)
        if not self._append(asked):
            return complaint(416, "RANGE_INVALID")
        if asked.method == "PUT":
            return self._keep(asked, name, session)
        return self._told(name, session, 204 if asked.method == "GET" else 202)

    def _open(self, asked: Asked, name: str) -> Reply:
        query = parse_qs(asked.query)
        if "mount" in query:
            digest, other = query["mount"][0], query.get("from", [""])[0]
            found = self.repository(other).blobs.get(digest)
            if self.script.mounts == "no":
                return complaint(404, "NAME_UNKNOWN")
            if found is not None and self.script.mounts == "yes":
                self.repository(name).blobs[digest] = found
                place = f"/v2/{name}/blobs/{digest}"
                return Reply(201, {"Location": place, "Docker-Content-Digest": digest})
        session = f"s{next(self._session_numbers)}"
        self.sessions[session] = bytearray()
        if "digest" in query and self.script.saves:
            self.sessions[session] += asked.body
            return self._keep(asked, name, session)
        if "digest" in query:
            self.in_vain.append(len(asked.body))
        return self._told(name, session, 202)

    def _told(self, name: str, session: str, status: int) -> Reply:
        held = len(self.sessions[session])
        place = f"/v2/{name}/blobs/uploads/{session}?_state={held}"
        return Reply(status, {"Location": place, "Range": f"0-{max(0, held - 1)}"})

    def _append(self, asked: Asked) -> bool:
        held = self.sessions.get(_session(asked))
        if held is None:
            return False
        start = (asked.header("Content-Range") or f"{len(held)}-").partition("-")[0]
        if int(start) != len(held):
            return False
        held += asked.body
        return True

    def _keep(self, asked: Asked, name: str, session: str) -> Reply:
        content = bytes(self.sessions.pop(session))
        digest = parse_qs(asked.query)["digest"][0]
        if sha256(content) != digest:
            return complaint(400, "DIGEST_INVALID", "provided digest did not match")
        repository = self.repository(name)
        repository.blobs[digest] = content
        repository.commits[digest] += 1
        return Reply(201, {"Location": asked.path, "Docker-Content-Digest": digest})

    def _manifest_at(self, asked: Asked, repository: Repository, target: str) -> Reply:
        if asked.method == "PUT":
            digest = sha256(asked.body)
            document = json.loads(asked.body)
            listed = [document["config"], *document["layers"]]
            if any(one["digest"] not in repository.blobs for one in listed):
                self.premature.append(asked.target)
            entry = (asked.header("Content-Type") or "", asked.body)
            repository.manifests[digest] = repository.manifests[target] = entry
            tags = parse_qs(asked.query).get("tag", []) if self.script.saves else []
            repository.manifests |= dict.fromkeys(tags, entry)
            return Reply(201, {"Docker-Content-Digest": digest, "OCI-Tag": ", ".join(tags)})
        if target not in repository.manifests:
            return complaint(404, "MANIFEST_UNKNOWN")
        media_type, content = repository.manifests[target]
        headers = {"Content-Type": media_type, "Docker-Content-Digest": sha256(content)}
        if asked.method == "HEAD":
            headers["Content-Length"] = str(len(content))
        return Reply(200, headers, content)


SOUND = Trouble()
PATHS = re.compile(r"/v2/(.+)/(blobs/uploads|blobs|manifests|tags)/?([^/]*)")
KINDS: dict[tuple[str, str], Kind] = {
    ("blobs/uploads", "POST"): "open",
    ("blobs/uploads", "PATCH"): "send",
    ("blobs/uploads", "PUT"): "commit",
    ("blobs/uploads", "GET"): "progress",
    ("blobs/uploads", "DELETE"): "drop",
    ("blobs", "HEAD"): "ask",
    ("manifests", "HEAD"): "look",
    ("manifests", "GET"): "look",
    ("manifests", "PUT"): "tag",
}


def kind_of(asked: Asked) -> Kind:
    match = PATHS.fullmatch(asked.path)
    return KINDS.get((match[2], asked.method), "other") if match else "other"


class Body:
    """A request's body, a block at a time; `rest` is what came behind it."""

    def __init__(self, connection: socket.socket, head: _Head) -> None:
        self.rest = head.rest
        self._connection = connection
        self._fields = {name.lower(): value for name, value in head.headers}

    def __iter__(self) -> Iterator[bytes]:
        if self._fields.get("transfer-encoding") != "chunked":
            yield from self._part(int(self._fields.get("content-length", 0)))
            return
        while size := int(self._line(), 16):
            yield from self._part(size)
            self._line()
        self._line()

    def _part(self, left: int) -> Iterator[bytes]:
        while left:
            if not self.rest:
                self._more()
            block, self.rest = self.rest[:left], self.rest[left:]
            left -= len(block)
            yield block

    def _line(self) -> bytes:
        while b"\r\n" not in self.rest:
            self._more()
        line, _, self.rest = self.rest.partition(b"\r\n")
        return line

    def _more(self) -> None:
        data = self._connection.recv(BLOCK)
        if not data:
            raise HungUp
        self.rest += data


def _head_of(asked: Asked) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    return asked.method, asked.target, asked.headers


def _session(asked: Asked) -> str:
    return asked.path.rpartition("/")[2]


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
