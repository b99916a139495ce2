"""A registry on a socket: a thread for each connection, housekeeping, and a clean stop."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qs

from towline.errors import TowlineError, UsageError
from towline.server import api, gc
from towline.server.call import LoggedRequest, PerClient, Registry, RequestLog
from towline.server.connection import Connection
from towline.server.faults import Faults
from towline.server.http import Body, Request
from towline.server.limits import Limits
from towline.server.sessions import Sessions
from towline.server.storage import Storage

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from towline.server.auth import Guard

_BACKLOG = 128
"""Connections that may wait to be accepted."""
_HOUSEKEEPING = 300.0
"""Seconds between two collections."""
_GRACE_SECONDS = 0.5
"""Seconds for requests that are under way when the server stops."""
_END_SECONDS = 5.0
"""Seconds for each thread to end after its connection was closed; it is left behind afterwards."""
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)


class Server:
    """An OCI registry in this process (distribution-spec 1.1).

    With `root` None everything is kept in a temporary folder, which is removed at the end; `port` 0
    takes a free one. Use it in a `with` block, or call `start` and `stop`. Without `referrers` it
    is a registry of version 1.0, whose clients list referrers under a tag. The last `kept_requests`
    requests are kept, and each is told to `on_request`; `report` is told of the registry's own
    faults. Raises TowlineError when the root or the address cannot be used.
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
        referrers: bool = True,
        limits: Limits | None = None,
        kept_requests: int = 100_000,
        on_request: Callable[[LoggedRequest], None] | None = None,
        report: Callable[[BaseException], None] = lambda _error: None,
    ) -> None:
        limits = limits or Limits()
        storage = Storage(root)
        if not storage.hold():
            storage.close()
            hint = "stop it, or choose another folder with `--root`"
            raise TowlineError(f"another server uses {root}", hint=hint)
        self.log = RequestLog(kept_requests, on_request)
        """The log of requests."""
        self.faults = Faults()
        """Takes orders for faults, for tests of clients."""
        self._registry = Registry(
            storage=storage,
            sessions=Sessions(storage, limits),
            limits=limits,
            guard=guard,
            read_only=read_only,
            schema1=schema1,
            referrers=referrers,
            report=report,
            log=self.log,
            faults=self.faults,
            bodies=PerClient(limits.client_bodies),
        )
        self._tls = tls
        self._address = (host, port)
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._open: dict[threading.Thread, Connection] = {}
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def host(self) -> str:
        """`HOST:PORT`, as a reference has it."""
        host, port = self._address[0], self._bound()[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def reachable(self) -> bool:
        """Whether it can be reached from other machines."""
        import ipaddress

        return not ipaddress.ip_address(self._bound()[0].partition("%")[0]).is_loopback

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self._tls else 'http'}://{self.host}"

    @property
    def root(self) -> Path:
        """The folder that stores everything."""
        return self._registry.storage.root

    @property
    def requests(self) -> list[LoggedRequest]:
        """The requests so far, the oldest first."""
        return self.log.since()

    def ask(self, path: str) -> bytes | None:
        """The content of a GET of `path`; None: it is refused. Neither logged nor made to fail."""
        bare, _, query = path.partition("?")
        request = Request("GET", bare, parse_qs(query), {}, Body(None, 0), path)
        answer = api.answer(self._registry, request)
        content = answer.content
        if not isinstance(content, bytes):
            with content.file as file:
                content = os.pread(file.fileno(), content.length, content.offset)
        return content if answer.status == HTTPStatus.OK else None

    def _bound(self) -> tuple[str, int]:
        if self._listener is None:
            raise RuntimeError("the server has not been started")
        host, port, *_ = self._listener.getsockname()
        return host, port

    def start(self) -> None:
        """Accept connections from now on, in threads. Raises TowlineError."""
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        try:
            self._listener = socket.create_server(self._address, family=family, backlog=_BACKLOG)
        except OSError as error:
            self._registry.storage.close()
            host, port = self._address
            # Without the address, which `create_server` adds to the system's words, and those of a
            # name that cannot be resolved, whose numbers are below 0.
            reason = (error.strerror or str(error)).partition(" (while")[0]
            raise TowlineError(
                f"cannot listen on {host}:{port}: {reason}",
                hint="choose another address with --listen; port 0 takes a free one",
            ) from None
        works = [self._accept, *([] if self._registry.read_only else [self._keep_house])]
        for work in works:
            thread = threading.Thread(target=work, name=f"registry{work.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End every connection, write the index, and release the root."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self.faults.clear()
        listener = self._listener
        if listener is not None:
            with suppress(OSError):  # closing it alone would leave `accept` waiting
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for thread in self._threads:
            thread.join()
        self._end_connections()
        if not self._registry.read_only:
            with suppress(OSError):
                gc.write_index(self._registry.storage)
        self._registry.storage.close()

    def _end_connections(self) -> None:
        deadline = time.monotonic() + _GRACE_SECONDS
        with self._lock:
            open_now = dict(self._open)
        for connection in open_now.values():
            if connection.idle:  # as if the client's next request came too late
                connection.end()
        for thread in open_now:
            thread.join(max(0.0, deadline - time.monotonic()))
        for connection in open_now.values():
            connection.end()
        for thread in open_now:
            thread.join(_END_SECONDS)

    def _keep_house(self) -> None:
        while not self._stopping.wait(_HOUSEKEEPING):
            try:
                self._registry.sessions.expire()
                gc.collect(self._registry.storage)
            except Exception as error:  # noqa: BLE001 - the next round may do better
                self._registry.report(error)

    def _accept(self) -> None:
        assert self._listener is not None  # noqa: S101 - made before the thread
        while not self._stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                if self._stopping.wait(0.05):  # no file can be opened: others will be closed
                    return
                continue
            self._take(sock)

    def _take(self, sock: socket.socket) -> None:
        connection = Connection(sock, self._registry, self._tls)
        thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
        with self._lock:
            busy = len(self._open) >= self._registry.limits.connections
            if not busy:
                self._open[thread] = connection
        if busy:
            with suppress(OSError), sock:
                sock.settimeout(0)  # a client that does not read at once must not hold this thread
                sock.send(_BUSY)
            return
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads, until connections end
            sock.close()
            with self._lock:
                del self._open[thread]

    def _serve(self, connection: Connection) -> None:
        try:
            connection.serve()
        finally:
            with self._lock:
                del self._open[threading.current_thread()]


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """The `tls` of a `Server`. Raises UsageError where the files cannot be used."""

    def encrypted() -> str:
        # Without this OpenSSL asks for a passphrase on the terminal, and no signal ends that.
        raise UsageError(
            f"the key in {key} is encrypted, and no passphrase is asked for",
            hint=f"give a key without a passphrase: openssl pkey -in {key} -out FILE",
        )

    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=encrypted)
    except OSError as error:  # SSLError too
        reason = (error.strerror or str(error)).rpartition("] ")[2].partition(" (_ssl.c")[0]
        message = f"cannot use the certificate {certificate} with the key {key}: {reason}"
        raise UsageError(message) from None
    return context
