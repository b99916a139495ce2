"""Between a pusher and the registry: nothing, a narrow link, or a long way."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.peers import SkippedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from benchmarks.peers import Command, Place

    Link = Callable[["Place"], AbstractContextManager["Way"]]

_RELAY = Path(__file__).with_name("relay.py")
_NEAR, _FAR = "10.231.7.1", "10.231.7.2"
_BUCKET = "128kb"
"""Twice of what such a pair of interfaces hands over at once."""


class Way(NamedTuple):
    """To a registry that is still to be started."""

    address: str
    """Where it is to listen."""
    host: str
    """What pushers are told."""
    inside: tuple[str | Path, ...] = ()
    """Words before its command, which run it where that is."""


def free_address() -> str:
    """An address of this machine where nobody listens yet."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def direct(_place: Place) -> Iterator[Way]:
    """Over loopback."""
    address = free_address()
    yield Way(address, address)


def late(seconds: float) -> Link:
    """Over loopback, and a round trip takes so long."""

    @contextmanager
    def link(_place: Place) -> Iterator[Way]:
        address = free_address()
        command: Command = [sys.executable, _RELAY, address, str(seconds)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as relay:
            assert relay.stdout is not None  # noqa: S101 - it is a pipe
            try:
                yield Way(address, f"127.0.0.1:{relay.stdout.readline().strip()}")
            finally:
                relay.kill()

    return link


def narrow(rate: str) -> Link:
    """Through a token bucket of that rate, as `tc` writes it, to a network namespace."""

    @contextmanager
    def link(place: Place) -> Iterator[Way]:
        if os.geteuid():
            raise SkippedError("a link of its own needs root")
        ip, tc = place.program("ip"), place.program("tc")
        space = f"bench{os.getpid()}"
        near, far = f"{space}a", f"{space}b"
        with ExitStack() as stack:
            _run(ip, "netns", "add", space)
            stack.callback(partial(_run, ip, "netns", "del", space))
            _run(ip, "link", "add", near, "type", "veth", "peer", "name", far, "netns", space)
            stack.callback(partial(_run, ip, "link", "del", near))  # alone it goes too late
            for where, name, address in (((), near, _NEAR), (("-n", space), far, _FAR)):
                _run(ip, *where, "address", "add", f"{address}/30", "dev", name)
                _run(ip, *where, "link", "set", name, "up")
                bucket = ("tbf", "rate", rate, "burst", _BUCKET, "latency", "50ms")
                _run(tc, *where, "qdisc", "add", "dev", name, "root", *bucket)
            address = f"{_FAR}:5000"
            yield Way(address, address, (ip, "netns", "exec", space))

    return link


def _run(*command: str | Path) -> None:
    """Raises SkippedError, as where the kernel lacks it."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise SkippedError(f"no narrow link can be made: {said[-1]}")
