"""Readers and writers for tests of the room that makes blobs of layers."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING

from towline.context import Cancel
from towline.layers.blobstream import BlobStream

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from towline.layers.blobstream import Blob
    from towline.layers.fan_out import Lane
    from towline.layers.profile import Profile
    from towline.spec.media_types import Compression


class BytesReader:
    """Gives some bytes, at most so many at once, and remembers how often it was closed."""

    def __init__(self, data: bytes, at_once: int = 1 << 30, error: Exception | None = None) -> None:
        self._rest = memoryview(data)
        self._at_once = at_once
        self._error = error
        self.given = 0
        self.closed = 0

    def readinto(self, buffer: memoryview) -> int:
        count = min(len(buffer), self._at_once, len(self._rest))
        if not count and self._error:
            raise self._error
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        self.given += count
        return count

    def close(self) -> None:
        self.closed += 1


class Writer:
    """Takes a lane's blocks in a thread of its own, and keeps what they came to.

    `before` is called for each block, with the switch that ends a stuck write; it may stall or
    raise. What ends the writing is in `error`, as the push sees it.
    """

    def __init__(self, before: Callable[[Cancel], object] = lambda _: None) -> None:
        self.size = 0
        self.blob: Blob | None = None
        self.error: BaseException | None = None
        self._before = before
        self._hash = hashlib.sha256()
        self._thread: threading.Thread

    def start(self, lane: Lane) -> None:
        self._thread = threading.Thread(target=self._write, args=(lane,), daemon=True)
        self._thread.start()

    def _write(self, lane: Lane) -> None:
        try:
            for block in lane:
                self._before(lane.writing)
                self._hash.update(block)
                self.size += len(block)
            self.blob = lane.blob
        except BaseException as error:  # noqa: BLE001 - it is looked at
            lane.leave()
            self.error = lane.error or error

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive(), "it waits for ever"

    @property
    def whole(self) -> bool:
        """Whether it has written all of the blob, and knows it."""
        if self.blob is None:
            return False
        written = ("sha256:" + self._hash.hexdigest(), self.size)
        return self.error is None and (self.blob.digest, self.blob.size) == written


def sample(size: int, seed: str = "towline") -> bytes:
    """The same bytes on every machine: in turn noise, a text that repeats, and zeros."""
    parts: list[bytes] = []
    made = 0
    while made < size:
        noise = hashlib.sha256(f"{seed} {made}".encode()).digest()
        line = f"usr/share/doc/{noise[0]:03}/copyright {made // 100_000}\n".encode()
        part = noise * 2 + line * (noise[1] % 90) + bytes(noise[2])
        parts.append(part)
        made += len(part)
    return b"".join(parts)[:size]


def make_blob(
    data: bytes,
    profile: Profile | None,
    executor: Executor,
    *,
    at_once: int = 1 << 30,
    diff_id_of: Compression | None = None,
) -> tuple[bytes, Blob]:
    """The blob that a stream makes of `data`, and what the stream says of it."""
    reader = BytesReader(data, at_once)
    stream = BlobStream(reader, profile, executor, Cancel(), diff_id_of=diff_id_of)
    made = b"".join(bytes(block) for block in stream)
    assert reader.closed
    return made, stream.blob
