"""Real proxies beside a test: nginx before a registry, tinyproxy on the way to one."""

from __future__ import annotations

import contextlib
import socket
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
