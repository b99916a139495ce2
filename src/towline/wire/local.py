"""Ways to a server that has no host: a socket in the file system, or the pipes of a command."""

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
"""Seconds after which a server is asked again that has too many connections to take."""
_GOODBYE = 2.0
"""Seconds in which a command is to end by itself when nobody speaks to it any more."""


def dial_unix(path: str, cancel: Cancel, timeout: float) -> Channel:
    """A connection to a socket in the file system. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(0)
    patient_until = time.monotonic() + timeout
    try:
        while True:
            try:
                sock.connect(path)
                return Channel(sock, cancel, timeout)
            except BlockingIOError:  # its queue is full
                if time.monotonic() > patient_until:
                    raise
                cancel.wait(_FULL_QUEUE)
    except BaseException:
        sock.close()
        raise


class Command:
    """A program that carries a connection over its standard input and output, as `ssh` does."""

    def __init__(self, words: Sequence[str], environ: Mapping[str, str], errors: IO[bytes]) -> None:
        """`errors` takes what it says on standard error. Raises OSError when it cannot start."""
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
        """The connection; closing it, the command ends."""
        return Channel(self._socket, cancel, timeout)

    def close(self) -> None:
        """End it, if it has not ended by itself."""
        with suppress(OSError):
            self._socket.close()
        import subprocess

        try:
            self._process.wait(_GOODBYE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
