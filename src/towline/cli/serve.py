"""`towline serve`: runs the embedded registry until a signal ends it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

from towline.cli import options, output, report
from towline.cli.options import Arguments, Command, Group, Option
from towline.cli.wording import counted, one_line
from towline.errors import UsageError

if TYPE_CHECKING:
    from towline.server import LoggedRequest, Server

_PORTS = 65_535
"""The largest number of a port."""
_LISTEN = ("127.0.0.1", 5000)
"""Loopback, since without `--htpasswd` anybody may write; the port is that of distribution."""
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


def _serve(args: Arguments) -> int:
    """Serve until a signal, and give 0; raises TowlineError when the registry cannot start."""
    if "gc" in args:
        if "root" not in args:
            raise UsageError("`--gc` needs `--root`", hint="name the folder of the registry")
        from towline.server.gc import collect_once

        swept = collect_once(Path(args.root))
        output.write([f"removed {counted(swept.blobs, 'blob')} of {swept.bytes} bytes"])
        return 0
    # Blocked before the first thread starts: threads inherit it, so `sigwait` gets every signal.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        with _server(args) as server:
            if "htpasswd" not in args and server.reachable:
                done = "read" if "read_only" in args else "read and write"
                report.warn(
                    f"whoever reaches {server.host} can {done} this registry; "
                    "--htpasswd asks for a password"
                )
            output.write([f"listening on {server.url}"])
            signal.sigwait(_SIGNALS)
            # A second signal ends the process at once, as in all commands.
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return 0


def _server(args: Arguments) -> Server:
    from towline.server import Server, tls_context

    guard = tls = None
    if "htpasswd" in args:
        from towline.server.auth import Guard

        guard = Guard(Path(args.htpasswd))
    if ("tls_cert" in args) != ("tls_key" in args):
        raise UsageError("`--tls-cert` and `--tls-key` go together")
    if "tls_cert" in args:
        tls = tls_context(Path(args.tls_cert), Path(args.tls_key))
    host, port = getattr(args, "listen", _LISTEN)
    return Server(
        Path(args.root) if "root" in args else None,
        host,
        port,
        guard=guard,
        tls=tls,
        read_only="read_only" in args,
        schema1="schema1" in args,
        kept_requests=0,
        on_request=_tell if "debug" in args else None,
        report=_report,
    )


def _tell(seen: LoggedRequest) -> None:
    """Write the line of `--debug` for one request."""
    line = f"{seen.method} {seen.path} {seen.status} {seen.received} bytes {seen.seconds:.3f} s"
    report.write_lines([one_line(line)])


def _report(error: BaseException) -> None:
    """Show an error inside the registry, whose client only sees a 500."""
    report.write_lines(["towline: error: the registry failed", *report.traceback_of(error)])


def _address(value: str) -> tuple[str, int]:
    """Read `HOST:PORT`, with IPv6 in brackets; raises ValueError for anything else."""
    host, colon, port = value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > _PORTS:
        raise ValueError("takes HOST:PORT, such as 127.0.0.1:5000 or [::1]:0")
    if ":" in host and not bracketed:
        raise ValueError("takes an IPv6 address in brackets, such as [::1]:5000")
    return (host[1:-1] if bracketed else host), int(port)


_REGISTRY = Group(
    "the registry",
    Option("--root", "where it keeps everything (default: temporary)", "DIR"),
    Option("--listen", "default 127.0.0.1:5000; port 0 takes a free one", "HOST:PORT", _address),
    Option("--htpasswd", "only users of this file (bcrypt) may use it", "FILE"),
    Option("--tls-cert", "speak https with this certificate", "FILE"),
    Option("--tls-key", "and its key", "FILE"),
    Option("--read-only", "refuse everything that writes"),
    Option("--schema1", "accept manifests of schema 1 too"),
    Option("--gc", "throw away once what no manifest needs, and exit"),
)
SERVE = Command(
    _serve,
    "[--root DIR] [--listen HOST:PORT] [OPTION...]",
    """Run a registry for tests, demos and small trusted networks.

Prints `listening on http://HOST:PORT` once it accepts; SIGINT and SIGTERM end it.""",
    (_REGISTRY, options.MESSAGES),
    words=0,
)
