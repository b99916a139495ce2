"""Real proxies beside a test: nginx before a registry, tinyproxy on the way to one."""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import ssl
import threading
from typing import TYPE_CHECKING

from tests.support import processes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.certificates import Certificate


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _accepts(port: int) -> bool | None:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return None


@contextlib.contextmanager
def tls_in_front(backend: str, cert: Certificate) -> Iterator[str]:
    """End TLS before a backend and pass all bytes on; gives its HOST:PORT."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert.cert, cert.key)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            host, _, port = backend.rpartition(":")
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(self.request, server_side=True) as near,
                socket.create_connection((host, int(port)), 10) as far,
            ):
                _pass_on(near, far)

    with _listening(Handler) as address:
        yield address


@contextlib.contextmanager
def _listening(handler: type[socketserver.BaseRequestHandler]) -> Iterator[str]:
    """Handle connections on a free port, a thread each; gives its HOST:PORT."""

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _pass_on(near: socket.socket, far: socket.socket) -> None:
    """Until either side has ended. One thread: OpenSSL's connections are not for two."""
    ways = {near: far, far: near}
    held = near.pending if isinstance(near, ssl.SSLSocket) else bool
    while ready := [near] if held() else select.select(list(ways), [], [], 30)[0]:
        for one in ready:
            data = one.recv(1 << 16)
            if not data:
                return
            ways[one].sendall(data)


@contextlib.contextmanager
def nginx(
    program: Path, folder: Path, backend: str, *, tls: Certificate | None = None, more: str = ""
) -> Iterator[str]:
    """Run nginx before a backend; gives its HOST:PORT. `more` goes into its `server`."""
    port = free_port()
    secure = f"ssl_certificate {tls.cert}; ssl_certificate_key {tls.key};" if tls else ""
    folder.mkdir(exist_ok=True)
    (folder / "nginx.conf").write_text(
        f"""
        daemon off; master_process off; pid nginx.pid; error_log stderr;
        events {{ }}
        http {{
          access_log access.log;
          client_body_temp_path body; proxy_temp_path proxy;
          fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
          server {{
            listen 127.0.0.1:{port}{" ssl" if tls else ""};
            {secure}
            {more}
            location / {{
              proxy_pass http://{backend};
              proxy_http_version 1.1;
              proxy_set_header Host $http_host;
            }}
          }}
        }}
        """
    )
    command: list[str | Path] = [program, "-p", folder, "-c", folder / "nginx.conf"]
    with processes.running(command, folder) as process:
        processes.wait_until(process, folder, lambda: _accepts(port))
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def tinyproxy(
    program: Path, folder: Path, *, login: tuple[str, str] | None = None
) -> Iterator[str]:
    """Run a forward proxy; gives its HOST:PORT. It lets any port be connected to."""
    port = free_port()
    folder.mkdir(exist_ok=True)
    lines = [f"Port {port}", "Listen 127.0.0.1", "Timeout 30", 'LogFile "tinyproxy.log"']
    if login:
        lines.append(f"BasicAuth {login[0]} {login[1]}")
    (folder / "tinyproxy.conf").write_text("\n".join(lines) + "\n")
    command: list[str | Path] = [program, "-d", "-c", folder / "tinyproxy.conf"]
    with processes.running(command, folder) as process:
        processes.wait_until(process, folder, lambda: _accepts(port))
        yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def leading_to(backend: str) -> Iterator[str]:
    """Run a forward proxy that leads to one server, whatever host is asked for; its HOST:PORT."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            host, _, port = backend.rpartition(":")
            with socket.create_connection((host, int(port)), 10) as far:
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                _pass_on(self.connection, far)

    with _listening(Handler) as address:
        yield address
