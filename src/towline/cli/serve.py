"""`towline serve`: a registry of one's own, until a signal ends it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

from towline.cli import options, output, report
from towline.cli.arguments import add
from towline.cli.options import Group, flag, given
from towline.cli.printable import one_line
from towline.errors import UsageError

if TYPE_CHECKING:
    import argparse
    import ssl

    from towline.cli.arguments import Parser
    from towline.server import LoggedRequest, Server
    from towline.server.auth import Guard

USAGE = "[--root DIR] [--listen HOST:PORT] [OPTION...]"
ABOUT = """Run a registry for tests, demos and small trusted networks.

Prints `listening on http://HOST:PORT` once it accepts; SIGINT and SIGTERM end it."""
WORDS = 0
_PORTS = 65_535
_LISTEN = ("127.0.0.1", 5000)
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


def _address(value: str) -> tuple[str, int]:
    """`HOST:PORT`, with IPv6 in brackets."""
    host, colon, port = value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > _PORTS:
        msg = "takes HOST:PORT, such as 127.0.0.1:5000 or [::1]:0"
        raise ValueError(msg)
    if ":" in host and not bracketed:
        msg = "takes an IPv6 address in brackets, such as [::1]:5000"
        raise ValueError(msg)
    return (host[1:-1] if bracketed else host), int(port)


SERVE = Group(
    "the registry",
    (
        given("--root", metavar="DIR", help="where it keeps everything (default: temporary)"),
        given(
            "--listen",
            metavar="HOST:PORT",
            convert=_address,
            help="default 127.0.0.1:5000; port 0 takes a free one",
        ),
        given("--htpasswd", metavar="FILE", help="only users of this file (bcrypt) may use it"),
        given("--tls-cert", metavar="FILE", help="speak https with this certificate"),
        given("--tls-key", metavar="FILE", help="and its key"),
        flag("--read-only", help="refuse everything that writes"),
        flag("--schema1", help="accept manifests of schema 1 too"),
        flag("--gc", help="throw away once what no manifest needs, and exit"),
    ),
)


def add_arguments(parser: Parser) -> None:
    """Its options."""
    add(parser, SERVE, options.MESSAGES)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; 0 then. Raises TowlineError when it cannot begin."""
    if getattr(args, "gc", False):
        return _collect(args)
    # Blocked before the first thread is made, which inherits it: the signal waits for us alone.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        with _server(args) as server:
            _warn(args, server)
            output.write([f"listening on {server.url}"])
            signal.sigwait(_SIGNALS)
            # The next one ends the process at once, as everywhere.
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return 0


def _server(args: argparse.Namespace) -> Server:
    from towline.server import Server

    host, port = getattr(args, "listen", _LISTEN)
    return Server(
        Path(args.root) if "root" in args else None,
        host,
        port,
        guard=_guard(args),
        tls=_tls(args),
        read_only=getattr(args, "read_only", False),
        schema1=getattr(args, "schema1", False),
        kept_requests=0,
        on_request=_tell if getattr(args, "debug", False) else None,
        report=_report,
    )


def _guard(args: argparse.Namespace) -> Guard | None:
    if "htpasswd" not in args:
        return None
    from towline.server.auth import Guard

    return Guard(Path(args.htpasswd))


def _tls(args: argparse.Namespace) -> ssl.SSLContext | None:
    if ("tls_cert" in args) != ("tls_key" in args):
        raise UsageError("`--tls-cert` and `--tls-key` go together")
    if "tls_cert" not in args:
        return None
    from towline.server.tls import tls_context

    return tls_context(Path(args.tls_cert), Path(args.tls_key))


def _collect(args: argparse.Namespace) -> int:
    if "root" not in args:
        raise UsageError("`--gc` needs `--root`", hint="name the folder of the registry")
    from towline.server.gc import collect_once

    swept = collect_once(Path(args.root))
    output.write([f"removed {swept.blobs} blobs of {swept.bytes} bytes"])
    return 0


def _warn(args: argparse.Namespace, server: Server) -> None:
    if "htpasswd" in args or not server.reachable:
        return
    done = "read" if "read_only" in args else "read and write"
    message = f"whoever reaches {server.host} can {done} this registry"
    report.write_lines(iter([f"towline: warning: {message}; --htpasswd asks for a password"]))


def _tell(seen: LoggedRequest) -> None:
    """`--debug`: a line for each request."""
    line = f"{seen.method} {seen.path} {seen.status} {seen.received} bytes {seen.seconds:.3f} s"
    report.write_lines(iter([one_line(line)]))


def _report(error: BaseException) -> None:
    """A fault of the registry's own: its user sees 500, and whoever runs it sees why."""
    import traceback

    lines = "".join(traceback.format_exception(error)).rstrip().split("\n")
    report.write_lines(map(one_line, ["towline: error: the registry failed", *lines]))
