"""Connections without a host: to a socket in the file system, or through a command (`ssh`)."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING

from towline.wire.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from towline.context import Cancel

_FULL_QUEUE = 0.05
"""Seconds between two attempts to connect to a server whose queue is full."""
_GOODBYE = 2.0
"""Seconds that a command has to end by itself after its connection was closed."""


def dial_unix(path: str, cancel: Cancel, timeout: float) -> Channel:
    """A connection to a socket in the file system. Raises OSError, Cancelled."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(0)
    patient_until = time.monotonic() + timeout
    try:
        while True:
            try:
                sock.connect(path)
                return Channel(sock, cancel, timeout)
            except BlockingIOError:  # its queue is full, and no `poll` tells when it is not
                if time.monotonic() > patient_until:
                    raise
                cancel.wait(_FULL_QUEUE)
    except BaseException:
        sock.close()
        raise


class Command:
    """A program that carries a connection over its standard input and output, as `ssh` does."""

    def __init__(self, words: Sequence[str], environ: Mapping[str, str], errors: IO[bytes]) -> None:
        """`errors` takes the command's standard error. Raises OSError when it cannot start."""
        import subprocess

        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                words,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=errors,
                env=dict(environ),
                start_new_session=True,  # an interrupt is ours to act on
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._socket = ours

    def channel(self, cancel: Cancel, timeout: float) -> Channel:
        """The connection. The command ends when it is closed."""
        return Channel(self._socket, cancel, timeout)

    def close(self) -> None:
        """Close the connection, and kill the command if it does not end by itself."""
        with suppress(OSError):
            self._socket.close()
        import subprocess

        try:
            self._process.wait(_GOODBYE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
