"""Readers of what comes once: a pipe by its descriptor, or a caller's object that cannot seek."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, BinaryIO

from towline.sources.access import unreadable

if TYPE_CHECKING:
    from towline.context import Cancel


_WAKE_MS = 200
"""How often a read that waits for data looks whether the push was cancelled."""


class PipeReader:
    """A descriptor that it owns; a read that waits for data ends when the push is cancelled."""

    def __init__(self, descriptor: int, name: str, cancel: Cancel) -> None:
        self._descriptor = descriptor
        self._name = name
        self._cancel = cancel
        self._closed = False
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Reader`."""
        while True:
            # A poll by steps: a thread that cancels has nothing to write to that cannot be
            # closed, and reused, under its hands.
            while not self._poll.poll(_WAKE_MS):
                self._cancel.check()
            self._cancel.check()
            try:
                return os.readv(self._descriptor, [buffer])
            except BlockingIOError:
                continue  # somebody else who has the pipe was faster
            except OSError as error:
                raise unreadable(self._name, error) from None

    def close(self) -> None:
        """See `Reader`."""
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)


class ObjectReader:
    """A caller's object, which the caller closes."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name

    def readinto(self, buffer: memoryview, /) -> int:
        """See `Reader`."""
        try:
            data = self._file.read(len(buffer)) or b""
        except (OSError, ValueError, EOFError) as error:
            raise unreadable(self._name, error) from None
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """See `Reader`."""
