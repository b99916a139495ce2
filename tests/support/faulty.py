"""A faulting proxy before a real registry: passes everything on, but for one request.

It speaks HTTP on both sides, so that a fault can stand at any point of one exchange.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.forwarding import HOP, forwarded

if TYPE_CHECKING:
    from collections.abc import Iterator

RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Fault:
    """What happens to the `at`th request (from 0) whose method and target match."""

    name: str
    status: int = 0
    """Answer so instead of the registry."""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    early: bool = False
    """Before the request's body is read."""
    forward: bool = False
    """The registry carries it out all the same."""
    say: bytes | None = None
    """These bytes instead of an answer; b"" hangs up."""
    reset: bool = False
    """With a reset."""
    cut: int | None = None
    """Of the registry's own answer only so many bytes arrive."""
    body_cut: int | None = None
    """Of the request's body only so many bytes reach the registry, then both ends are closed."""
    stall: float = 0.0
    """Seconds before anything is done."""
    flip: bool = False
    """A bit of the request's body is flipped."""
    header: tuple[str, str] | None = None
    """A field of the registry's answer is replaced; an empty value removes it."""
    close: bool = False
    """Answer, then close the connection without having said so."""
    times: int = 1


@dataclass
class Message:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""


@dataclass
class Rule:
    """A fault, and the request that it strikes; `hit` counts how often it did."""

    method: str
    pattern: str
    fault: Fault
    at: int = 0
    seen: int = 0
    hit: int = 0

    def strikes(self, message: Message) -> bool:
        if message.method != self.method or not re.search(self.pattern, message.target):
            return False
        self.seen += 1
        struck = self.at < self.seen <= self.at + self.fault.times
        self.hit += struck
        return struck


@dataclass
class FaultyProxy:
    """`host` is where to push to."""

    backend: str
    rules: tuple[Rule, ...]
    host: str = ""
    asked: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)
    sockets: list[socket.socket] = field(default_factory=list)

    @property
    def hit(self) -> bool:
        """Whether every fault has struck."""
        return all(rule.hit for rule in self.rules)

    def struck(self, message: Message) -> Fault | None:
        with self.lock:
            self.asked.append(f"{message.method} {message.target.partition('?')[0]}")
            found = [rule.fault for rule in self.rules if rule.strikes(message)]
        return found[0] if found else None

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.sockets.append(connection)
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError, EOFError), connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            reader = connection.makefile("rb")
            with reader:
                while (message := _head(reader)) is not None:
                    if not self.exchange(connection, reader, message):
                        break

    def exchange(self, connection: socket.socket, reader: object, message: Message) -> bool:
        """Whether the connection goes on."""
        fault = self.struck(message)
        if fault is None:
            message.body = _body(reader, message)
            connection.sendall(_answer(message.method, *self.forward(message)))
            return True
        if fault.stall:
            self.closing.wait(fault.stall)
        if not fault.early:
            message.body = _body(reader, message)
        return self.strike(connection, message, fault)

    def strike(self, connection: socket.socket, message: Message, fault: Fault) -> bool:
        if fault.flip and message.body:
            middle = len(message.body) // 2
            flipped = bytes([message.body[middle] ^ 1])
            message.body = message.body[:middle] + flipped + message.body[middle + 1 :]
        if fault.body_cut is not None:
            self.forward_part(message, fault.body_cut)
        answered = None
        ours = fault.status or fault.say is not None or fault.body_cut is not None
        if fault.forward or not ours:
            answered = self.forward(message)
        if fault.reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if fault.say is not None or fault.body_cut is not None:
            connection.sendall(fault.say or b"")
            return False
        if fault.status:
            connection.sendall(
                _answer(message.method, fault.status, list(fault.headers), fault.body)
            )
            if fault.early:
                time.sleep(0.05)
            return not fault.early and not fault.close
        assert answered is not None
        status, headers, body = answered
        if fault.header:
            name, value = fault.header
            headers = [pair for pair in headers if pair[0].lower() != name.lower()]
            headers += [(name, value)] if value else []
        data = _answer(message.method, status, headers, body)
        connection.sendall(data if fault.cut is None else data[: fault.cut])
        return fault.cut is None and not fault.close

    def forward(self, message: Message) -> tuple[int, list[tuple[str, str]], bytes]:
        return forwarded(
            self.backend, message.method, message.target, message.headers, message.body
        )

    def forward_part(self, message: Message, size: int) -> None:
        host, _, port = self.backend.rpartition(":")
        with socket.create_connection((host, int(port))) as upstream:
            lines = [f"{message.method} {message.target} HTTP/1.1"]
            lines += [
                f"{name}: {value}" for name, value in message.headers if name.lower() not in HOP
            ]
            lines.append(f"Content-Length: {len(message.body)}")
            upstream.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + message.body[:size])
            time.sleep(0.1)


def _head(reader: object) -> Message | None:
    readline = reader.readline  # type: ignore[attr-defined]  # makefile
    first = readline(65536)
    if not first or first[:1] == b"\x16":
        return None
    method, target, _ = first.decode("latin-1").split(" ", 2)
    headers = []
    while (line := readline(65536)) not in {b"\r\n", b""}:
        name, _, value = line.decode("latin-1").partition(":")
        headers.append((name, value.strip()))
    return Message(method, target, headers)


def _body(reader: object, message: Message) -> bytes:
    read, readline = reader.read, reader.readline  # type: ignore[attr-defined]  # makefile
    fields = {name.lower(): value for name, value in message.headers}
    if "transfer-encoding" not in fields:
        size = int(fields.get("content-length", 0))
        data: bytes = read(size)
        if len(data) < size:
            raise EOFError
        return data
    parts = []
    while size := int(readline(100) or b"", 16):
        parts.append(read(size))
        readline(10)
    readline(10)
    return b"".join(parts)


def _answer(method: str, status: int, headers: list[tuple[str, str]], body: bytes) -> bytes:
    fields = list(headers)
    if not any(name.lower() == "content-length" for name, _ in fields):
        fields.append(("Content-Length", str(len(body))))
    lines = [f"HTTP/1.1 {status} Said so", *(f"{name}: {value}" for name, value in fields)]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head if method == "HEAD" else head + body


@contextlib.contextmanager
def faulty(backend: str, *rules: Rule) -> Iterator[FaultyProxy]:
    """Run one on a free loopback port until the end."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    proxy = FaultyProxy(backend, rules)
    proxy.host = f"127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=proxy.serve, args=(listener,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        for one in proxy.sockets:
            one.close()


HTML = (("Content-Type", "text/html"),)
PAGE = b"<html><title>Oops</title></html>"


def _said(name: str, status: int, *, forward: bool = False, early: bool = False) -> Fault:
    return Fault(name, status, HTML, PAGE, forward=forward, early=early)


NOWHERE = "http://127.0.0.1:1"
FAULTS = [
    *(_said(f"{status}", status) for status in (408, 429, 499, 500, 502, 503, 504, 522)),
    *(_said(f"{status}-carried-out", status, forward=True) for status in (408, 499, 500, 503)),
    *(Fault(f"{status}-untrue", status) for status in (200, 201)),
    *(_said(f"{status}-early", status, early=True) for status in (401, 500)),
    Fault("401-bare", 401),
    Fault("401-basic", 401, (("WWW-Authenticate", "Basic"),)),
    Fault("401-dead-service", 401, (("WWW-Authenticate", f'Bearer realm="{NOWHERE}/token"'),)),
    Fault("503-retry-after", 503, (("Retry-After", "1"),)),
    Fault("hang-up", say=b""),
    Fault("hang-up-early", say=b"", early=True),
    Fault("reset", say=b"", reset=True),
    Fault("reset-early", say=b"", early=True, reset=True),
    Fault("answer-lost", say=b"", forward=True),
    Fault("answer-reset", say=b"", forward=True, reset=True),
    Fault("answer-cut-in-head", cut=20),
    Fault("answer-cut-early", cut=3),
    Fault("garbage", say=b"\x00\x01\x02garbage\r\n\r\n"),
    Fault("garbage-forwarded", say=b"nonsense\r\n\r\n", forward=True),
    Fault("stall", stall=1.5),
    Fault("closed-afterwards", close=True),
    Fault("twice-500", 500, times=2),
    Fault("twice-hang-up", say=b"", times=2),
    Fault("no-location", header=("Location", "")),
    Fault("no-digest", header=("Docker-Content-Digest", "")),
    Fault("other-digest", header=("Docker-Content-Digest", "sha256:" + 64 * "0")),
    Fault("odd-range", header=("Range", "0-0")),
    Fault("set-cookie", header=("Set-Cookie", "a=b")),
]
BODY_FAULTS = [
    Fault("body-flipped", flip=True),
    Fault("body-cut", body_cut=1000),
    Fault("body-cut-reset", body_cut=1000, reset=True),
]
