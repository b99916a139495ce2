"""A registry that says exactly what a test wants said, on a raw socket.

It is a sound little registry by itself; a test overrides single answers, by the byte where it
must: `registry.on("PATCH", r"/uploads/", Reply(405))`. Everything asked is kept in `asked`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from tests.support.raw_client import sha256

if TYPE_CHECKING:
    from tests.support.certificates import Certificate

REASONS = {200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 401: "Unauthorized"}


@dataclass(frozen=True)
class Asked:
    """One request as it came in."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    connection: int
    """Number of the connection, from 0."""

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return found[0] if found else None

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]


@dataclass(frozen=True)
class Reply:
    """One answer."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] | dict[str, str] = ()
    body: bytes | str = b""
    early: int | None = None
    """Answer after that many bytes of the body, and read no further."""
    close: bool = False
    """Close the connection afterwards."""
    reset: bool = False
    """Close it with a reset."""
    raw: bytes | None = None
    """Said instead of all the above; b"" says nothing and hangs up."""
    wait: float = 0.0
    """Seconds before it is said."""
    drip: float | None = None
    """Seconds between single bytes that follow for as long as somebody listens."""
    hang: bool = False
    """Say nothing, and keep the connection until the test ends."""

    def encoded(self, method: str) -> bytes:
        if self.raw is not None:
            return self.raw
        body = self.body.encode() if isinstance(self.body, str) else self.body
        fields = list(self.headers.items() if isinstance(self.headers, dict) else self.headers)
        names = {name.lower() for name, _ in fields}
        if not names & {"content-length", "transfer-encoding"}:
            fields.append(("Content-Length", str(len(body))))
        head = f"HTTP/1.1 {self.status} {REASONS.get(self.status, 'Whatever')}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in fields)
        return f"{head}\r\n".encode("latin-1") + (b"" if method == "HEAD" else body)


CUT = Reply(raw=b"")
"""Hang up without a word."""
HANG = Reply(hang=True)
GREETING_OF_TLS = b"\x16\x03"
HTML = Reply(200, {"Content-Type": "text/html"}, "<!DOCTYPE html><title>Welcome</title>")


def complaint(status: int, code: str, message: str = "", detail: object = None) -> Reply:
    """An error as the specification has it."""
    error = {"code": code, "message": message, "detail": detail}
    return Reply(status, {"Content-Type": "application/json"}, json.dumps({"errors": [error]}))


Answering = Callable[[Asked], "Reply | None"]
"""None: as the sound registry would."""


@dataclass
class _Rule:
    method: str
    pattern: re.Pattern[str]
    replies: deque[Reply | Answering]
    forever: bool


@dataclass
class _Head:
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    rest: bytes


class HungUp(Exception):
    """The client has closed the connection."""


class Scripted:
    """The server. `host` is HOST:PORT as a reference has it."""

    def __init__(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        address, port = listener.getsockname()
        self.host = f"{address}:{port}"
        self.url = f"http{'s' if tls else ''}://{self.host}"
        self.asked: list[Asked] = []
        self.drips = 0
        """Answers that went on byte by byte."""
        self.greeted = 0
        """Connections that began with something else than HTTP."""
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, tuple[str, bytes]] = {}
        """Media type and content, by tag and by digest."""
        self.sessions: dict[str, bytearray] = {}
        self.guard: Answering | None = None
        """Asked first about each request to the API; its refusal goes before all else."""
        self.ended = threading.Event()
        self._numbers = itertools.count()
        self._listener = listener
        self._tls = tls
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []

    # What a test says.

    def on(
        self, method: str, pattern: str, *replies: Reply | Answering, forever: bool = False
    ) -> None:
        """Answer requests of that method whose target holds the pattern: in turn, once each.

        With `forever` the last reply is repeated.
        """
        self._rules.append(_Rule(method, re.compile(pattern), deque(replies), forever))

    def forget(self, method: str) -> None:
        """Answer requests of that method as a sound registry from here on."""
        self._rules = [rule for rule in self._rules if rule.method != method]

    def requests(self, method: str = "", pattern: str = "") -> list[Asked]:
        """What was asked, oldest first."""
        return [
            one
            for one in self.asked
            if one.method.startswith(method) and re.search(pattern, one.target)
        ]

    # Serving.

    def serve(self) -> None:
        number = 0
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._talk, args=(connection, number), daemon=True)
            thread.start()
            self._threads.append(thread)
            number += 1

    def stop(self) -> None:
        self.ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for connection in self._connections:
            connection.close()

    def _talk(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, HungUp):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._connections.append(connection)
            rest = b""
            while (head := self._head(connection, rest)) is not None:
                left = self._answer(connection, head, number)
                if left is None:
                    break
                rest = left
        with contextlib.suppress(OSError):
            connection.close()

    def _head(self, connection: socket.socket, data: bytes) -> _Head | None:
        while b"\r\n\r\n" not in data and not data.startswith(GREETING_OF_TLS):
            more = connection.recv(65536)
            if not more:
                return None
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        if not re.fullmatch(r"[A-Z]+ \S+ HTTP/1\.1", first):
            self.greeted += 1
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            return None
        method, target, _ = first.split(" ")
        fields = tuple(
            (name, value.strip()) for name, _, value in (x.partition(":") for x in lines)
        )
        return _Head(method, target, fields, rest)

    def _answer(self, connection: socket.socket, head: _Head, number: int) -> bytes | None:
        """What came after the request; None: the connection ends."""
        asked = Asked(head.method, head.target, head.headers, b"", number)
        reply = self._guarded(asked) or self._scripted(asked)
        early = reply.early if isinstance(reply, Reply) else None
        body, rest = _body(connection, head, early)
        asked = Asked(head.method, head.target, head.headers, body, number)
        with self._lock:
            self.asked.append(asked)
        answer = reply if reply is None or isinstance(reply, Reply) else reply(asked)
        if answer is None:
            with self._lock:
                answer = self.sound(asked)
        return rest if self._say(connection, answer, asked) else None

    def _say(self, connection: socket.socket, reply: Reply, asked: Asked) -> bool:
        if reply.hang:
            self.ended.wait(60)
            return False
        if reply.wait:
            self.ended.wait(reply.wait)
        connection.sendall(reply.encoded(asked.method))
        if reply.drip is not None:
            self.drips += 1
            while not self.ended.wait(reply.drip):
                connection.sendall(b"v")
        if reply.reset:
            time.sleep(0.05)  # let the answer arrive before the reset overtakes it
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ends = reply.close or reply.reset or reply.raw is not None or reply.early is not None
        return not ends

    def _guarded(self, asked: Asked) -> Reply | None:
        return self.guard(asked) if self.guard and asked.path.startswith("/v2/") else None

    def _scripted(self, asked: Asked) -> Reply | Answering | None:
        with self._lock:
            for rule in self._rules:
                if rule.method == asked.method and rule.pattern.search(asked.target):
                    if len(rule.replies) > 1 or (rule.replies and not rule.forever):
                        return rule.replies.popleft()
                    if rule.replies:
                        return rule.replies[0]
        return None

    # The sound registry.

    def sound(self, asked: Asked) -> Reply:
        """As a registry answers that has no quirks."""
        match = re.fullmatch(r"/v2/(.+)/(blobs/uploads|blobs|manifests|tags)/?([^/]*)", asked.path)
        if match is None:
            return Reply(200, {"Content-Type": "application/json"}, "{}")
        name, kind, last = match.groups()
        if kind == "blobs/uploads":
            return self._upload(asked, name, last)
        if kind == "blobs":
            found = self.blobs.get(last)
            return complaint(404, "BLOB_UNKNOWN") if found is None else Reply(200, (), found)
        if kind == "manifests":
            return self._manifest(asked, last)
        tags = [tag for tag in self.manifests if ":" not in tag]
        body = json.dumps({"name": name, "tags": tags})
        return Reply(200, {"Content-Type": "application/json"}, body)

    def _upload(self, asked: Asked, name: str, session: str) -> Reply:
        if asked.method == "POST":  # a blob in it is ignored, as distribution does
            session = f"s{next(self._numbers)}"
            self.sessions[session] = bytearray()
            asked = replace(asked, body=b"")
        elif session not in self.sessions:
            return complaint(404, "BLOB_UPLOAD_UNKNOWN")
        held = self.sessions[session]
        start = (asked.header("Content-Range") or f"{len(held)}-").partition("-")[0]
        if int(start) != len(held):
            return complaint(416, "RANGE_INVALID")
        held += asked.body
        location = {"Location": f"/v2/{name}/blobs/uploads/{session}?_state={len(held)}"}
        if asked.method == "PUT":
            return self._commit(asked, session)
        if asked.method == "DELETE":
            del self.sessions[session]
            return Reply(204)
        end = max(0, len(held) - 1)
        status = 204 if asked.method == "GET" else 202
        return Reply(status, {**location, "Range": f"0-{end}"})

    def _commit(self, asked: Asked, session: str) -> Reply:
        content = bytes(self.sessions.pop(session))
        digest = asked.query.rpartition("digest=")[2].replace("%3A", ":")
        if sha256(content) != digest:
            return complaint(400, "DIGEST_INVALID", "provided digest did not match")
        self.blobs[digest] = content
        return Reply(201, {"Docker-Content-Digest": digest})

    def _manifest(self, asked: Asked, target: str) -> Reply:
        if asked.method == "PUT":
            digest = sha256(asked.body)
            entry = (asked.header("Content-Type") or "", asked.body)
            self.manifests[digest] = self.manifests[target] = entry
            return Reply(201, {"Docker-Content-Digest": digest})
        if target not in self.manifests:
            return complaint(404, "MANIFEST_UNKNOWN")
        media_type, content = self.manifests[target]
        digest = sha256(content)
        headers = {"Content-Type": media_type, "Docker-Content-Digest": digest}
        if asked.method == "HEAD":
            headers["Content-Length"] = str(len(content))
        return Reply(200, headers, content)


def _body(connection: socket.socket, head: _Head, early: int | None) -> tuple[bytes, bytes]:
    """The request's body and what came after it; no more than `early` bytes of it."""
    fields = {name.lower(): value for name, value in head.headers}
    data = head.rest
    if fields.get("transfer-encoding") == "chunked":
        return _chunks(connection, data, early)
    wanted = int(fields.get("content-length", 0))
    if early is not None:
        wanted = min(wanted, early)
    body = bytearray(data)
    while len(body) < wanted:
        body += _received(connection)
    return bytes(body[:wanted]), bytes(body[wanted:])


def _chunks(connection: socket.socket, rest: bytes, early: int | None) -> tuple[bytes, bytes]:
    data, body = bytearray(rest), bytearray()
    while early is None or len(body) < early:
        while b"\r\n" not in data:
            data += _received(connection)
        line = data[: data.index(b"\r\n")]
        del data[: len(line) + 2]
        size = int(line, 16)
        while len(data) < size + 2:
            if early is not None and len(body) + len(data) >= early:
                return bytes(body + data)[:early], b""
            data += _received(connection)
        body += data[:size]
        del data[: size + 2]
        if not size:
            break
    return bytes(body), bytes(data)


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise HungUp
    return data


Kind = TypeVar("Kind", bound=Scripted)


@contextlib.contextmanager
def scripted(tls: Certificate | None = None, *, address: str = "127.0.0.1") -> Iterator[Scripted]:
    """Run one on a free port of a loopback address until the end."""
    with running(Scripted, tls, address=address) as server:
        yield server


@contextlib.contextmanager
def running(
    kind: type[Kind], tls: Certificate | None = None, *, address: str = "127.0.0.1"
) -> Iterator[Kind]:
    """The same for a kind of it."""
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.cert, tls.key)
    server = kind(socket.create_server((address, 0), backlog=64), context)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(5)


@dataclass
class Heard:
    """A sink for lines."""

    lines: list[str] = field(default_factory=list)

    def __call__(self, line: str) -> None:
        self.lines.append(line)

    def __str__(self) -> str:
        return "\n".join(self.lines)
