"""A registry on a socket: accepts connections, gives each a thread, keeps house, stops cleanly."""

from __future__ import annotations

import socket
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from towline.errors import TowlineError
from towline.server import gc
from towline.server.api import Api
from towline.server.connection import Connection, LoggedRequest
from towline.server.context import Registry
from towline.server.faults import Faults
from towline.server.limits import Limits
from towline.server.sessions import Sessions
from towline.server.storage import Storage

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from towline.server.auth import Guard

_BACKLOG = 128
_KEPT_REQUESTS = 100_000
"""Requests that the log of a running server holds; the oldest go first."""
_HOUSEKEEPING = 300.0
_STOP_SECONDS = 5.0
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)


class Server:
    """An OCI registry in this process (distribution-spec 1.1).

    `root` None keeps everything in a temporary folder, removed at the end; `port` 0 takes a free
    one. Use it in a `with` block, or call `start` and `stop`. Raises TowlineError when the root
    or the address cannot be used.
    """

    def __init__(
        self,
        root: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        guard: Guard | None = None,
        tls: ssl.SSLContext | None = None,
        read_only: bool = False,
        schema1: bool = False,
        limits: Limits | None = None,
        report: Callable[[BaseException], None] = lambda _error: None,
    ) -> None:
        self._limits = limits or Limits()
        self._storage = Storage(root)
        self._sessions = Sessions(self._storage, self._limits)
        registry = Registry(self._storage, self._sessions, self._limits, schema1)
        self._api = Api(registry, guard, read_only, report)
        self._tls = tls
        self._address = (host, port)
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        self._stopping = threading.Event()
        self._log: deque[LoggedRequest] = deque(maxlen=_KEPT_REQUESTS)
        self._threads: list[threading.Thread] = []
        self.faults = Faults()
        """Faults to order, for tests of clients."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def host(self) -> str:
        """`HOST:PORT`, as a reference has it."""
        host, port = self._bound()
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self._tls else 'http'}://{self.host}"

    @property
    def root(self) -> Path:
        """Where everything is stored."""
        return self._storage.layout.root

    @property
    def requests(self) -> list[LoggedRequest]:
        """What was asked so far, oldest first."""
        with self._lock:
            return list(self._log)

    def _bound(self) -> tuple[str, int]:
        if self._listener is None:
            raise RuntimeError("the server has not been started")
        host, port, *_ = self._listener.getsockname()
        return host, port

    def start(self) -> None:
        """Accept from now on, in threads of its own."""
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        try:
            self._listener = socket.create_server(self._address, family=family, backlog=_BACKLOG)
        except OSError as error:
            self._storage.close()
            host, port = self._address
            raise TowlineError(
                f"cannot listen on {host}:{port}: {error.strerror or error}",
                hint="choose another address with --listen; port 0 takes a free one",
            ) from None
        for work in (self._accept, self._keep_house):
            thread = threading.Thread(target=work, name=f"registry{work.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End every connection, write the index, let the root go."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self.faults.clear()
        listener = self._listener
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for thread in self._threads:
            thread.join()
        self._end_connections()
        with suppress(OSError):
            gc.write_index(self._storage)
        self._storage.close()

    def _end_connections(self) -> None:
        with self._lock:
            open_now = dict(self._open)
        for sock in open_now:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in open_now.values():
            thread.join(_STOP_SECONDS)

    def _keep_house(self) -> None:
        while not self._stopping.wait(_HOUSEKEEPING):
            with suppress(OSError):
                self._sessions.expire()
                gc.collect(self._storage)

    def _accept(self) -> None:
        assert self._listener is not None  # noqa: S101 - made before the thread
        while not self._stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                if self._stopping.wait(0.05):  # out of descriptors: others will be given back
                    return
                continue
            self._take(sock)

    def _take(self, sock: socket.socket) -> None:
        with self._lock:
            busy = len(self._open) >= self._limits.connections
        if busy:
            with suppress(OSError), sock:
                sock.sendall(_BUSY)
            return
        thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
        with self._lock:
            self._open[sock] = thread
        thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with suppress(OSError), self._secured(sock) as talking:
                Connection(talking, self._api, self._limits, self.faults, self._note).serve()
        finally:
            with self._lock:
                self._open.pop(sock, None)
            sock.close()

    def _secured(self, sock: socket.socket) -> socket.socket:
        """The handshake, in the connection's own thread: a slow one keeps nobody."""
        if self._tls is None:
            return sock
        sock.settimeout(self._limits.head_seconds)
        return self._tls.wrap_socket(sock, server_side=True)

    def _note(self, request: LoggedRequest) -> None:
        with self._lock:
            self._log.append(request)
