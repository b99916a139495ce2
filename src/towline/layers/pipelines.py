"""Three ways from a reader to the blocks of a blob, in order: stored, checked, or encoded.

Each is a generator that the stream's own thread drives. The pool does what takes long (compressing,
decompressing). The thread that reads plain bytes also hashes them, while they are in its cache:
another thread if one is free to be lent, so that a layer alone is read and sent at the same time.
A block that is a memoryview is overwritten by a later one.

The memory for blocks that are encoded is bounded: one for each stream, and some that all share.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from functools import partial
from threading import Condition, Lock
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future
    from hashlib import _Hash

    from towline.context import Cancel
    from towline.layers.decoders import Decoder
    from towline.layers.encoders import Encoder
    from towline.layers.reader import Reader

T = TypeVar("T")
Look = Callable[[memoryview, int, float], None]
"""Is told of each block, the number of bytes that were made of it, and the seconds that took."""

STORED_BLOCK = 1 << 20
"""Bytes of a block of a blob that goes as it is. Blocks of half the size took a sixth more
processor time."""
_LOOK = 0.2
"""Seconds between two looks at the cancel switch, while the pool works on a block."""

# Two cores get five gzip blocks or one zstd block. With fewer, the encoders of a stream that is
# alone wait for it (measured); more cost memory and win next to nothing.
_SHARED = 7 << 19
_SHARED_A_CORE = 1 << 20
_MOST_CORES = 16
"""Cores for which memory grows: at most 19.5 MiB, however large the machine."""


class Source:
    """A reader that fills whole blocks, and counts the bytes."""

    position = 0
    """Bytes read so far."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def fill(self, room: memoryview) -> int:
        """Fill `room`, and return how many bytes that took: fewer only at the end."""
        # Blocks must be whole, however little a reader gives at once: cuts decide on the digest.
        filled = 0
        while filled < len(room):
            count = self._reader.readinto(room[filled:] if filled else room)
            if not count:
                break
            filled += count
            self.position += count
        return filled

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()


class Pool(Protocol):
    """Threads that do what is submitted."""

    def submit(self, work: Callable[[], T], /) -> Future[T]:
        """Have `work` called."""
        ...


Lend = Callable[[Callable[[], None]], bool]
"""Has work that never raises done by another thread, if one is free to begin it now; says so."""


def nobody(_work: Callable[[], None]) -> bool:
    """A `Lend` that lends no thread."""
    return False


class Work:
    """A pool whose results are waited for until the cancel switch is thrown."""

    def __init__(self, pool: Pool, cancel: Cancel, lend: Lend) -> None:
        self.submit = pool.submit
        self.check = cancel.check
        self.lend = lend

    def result(self, future: Future[T]) -> T:
        """Wait for the result. Raises Cancelled if the switch is thrown before."""
        while True:
            try:
                return future.result(_LOOK)
            except TimeoutError:
                self.check()


def stored(source: Source, rooms: Iterable[memoryview]) -> Generator[memoryview, None, None]:
    """The bytes as they are, read into these buffers in turn."""
    for room in rooms:
        if not (count := source.fill(room)):
            return
        yield room[:count]


def checked(
    source: Source, decoder: Decoder, plain: _Hash, work: Work, rooms: Iterable[memoryview]
) -> Generator[memoryview, None, None]:
    """The bytes as they are. Meanwhile the pool decodes them and hashes the plain bytes.

    Raises SourceError when the bytes do not decode.
    """

    def look_into(block: memoryview) -> None:
        for piece in decoder.feed(block):
            work.check()
            plain.update(piece)

    # One is decoded while the next is filled: the pool is at most one block behind.
    looking: Future[None] | None = None
    for block in stored(source, rooms):
        if looking:
            work.result(looking)
        looking = work.submit(partial(look_into, block))
        yield block
    if looking:
        work.result(looking)
    decoder.finish()


class Spares:
    """Bytes of memory that all streams together may hold beyond one block each.

    A stream that is alone needs several blocks to keep the cores busy; many streams keep them busy
    with one each. No stream waits for memory: one that gets none goes on with the blocks it has.
    The default grows with the cores, up to 16.
    """

    def __init__(self, size: int | None = None) -> None:
        cores = min(os.cpu_count() or 1, _MOST_CORES)
        self._lock = Lock()
        self._left = _SHARED + cores * _SHARED_A_CORE if size is None else size

    def take(self, size: int) -> bool:
        """Take so many bytes. False: there are not as many left."""
        with self._lock:
            enough = self._left >= size
            if enough:
                self._left -= size
            return enough

    def give(self, size: int) -> None:
        """Give so many bytes back."""
        with self._lock:
            self._left += size


class Buffers:
    """One stream's buffers, made when first needed and used again. Not for two threads at once."""

    def __init__(self, size: int, spares: Spares) -> None:
        self._size = size
        self._spares = spares
        self._free: list[memoryview] = []
        self._made = 0

    def take(self) -> memoryview | None:
        """A buffer with any content; None: the stream may hold no more."""
        if self._free:
            return self._free.pop()
        # The first one is never refused: a stream that had none could not go on at all.
        if self._made and not self._spares.take(self._size):
            return None
        self._made += 1
        return memoryview(bytearray(self._size))

    def give(self, buffer: memoryview) -> None:
        """Take a buffer back."""
        self._free.append(buffer)

    def close(self) -> None:
        """Drop all buffers, and give back the memory beyond the first."""
        self._free.clear()
        if self._made > 1:
            self._spares.give((self._made - 1) * self._size)
        self._made = 0


class _Ahead:
    """Reads ahead of the thread that takes the encoded blocks, as far as there are buffers.

    Another thread reads if one is free, else the one that takes the blocks. Each plain block is
    read into a buffer that holds the block's history before it.
    """

    def __init__(
        self,
        source: Source,
        encoder: Encoder,
        plain: _Hash,
        work: Work,
        spares: Spares,
        *,
        look: Look | None,
    ) -> None:
        self._source = source
        self._encoder = encoder
        self._plain = plain
        self._work = work
        self._look = look
        self._buffers = Buffers(encoder.history + encoder.block_size, spares)
        self._history = memoryview(b"")
        self._moved = Condition()
        self._encoding: deque[tuple[Future[bytes], memoryview]] = deque()
        self._at_it = False
        """Whether some thread is reading."""
        self._over = False
        """Whether nothing more is to be read: the source has ended, or the stream was closed."""
        self._error: BaseException | None = None

    def go_on(self) -> None:
        """Have more blocks read, unless a thread does so already."""
        with self._moved:
            if self._at_it or self._over:
                return
            self._at_it = True
        if not self._work.lend(self._read):
            self._read()

    def _read(self) -> None:
        try:
            while (buffer := self._buffer()) is not None:
                if block := self._block(buffer):
                    future = self._work.submit(partial(self._encode, *block))
                    with self._moved:
                        self._encoding.append((future, buffer))
                        self._moved.notify()
        except BaseException as error:  # noqa: BLE001 - who takes the blocks hears of it
            with self._moved:
                self._error, self._at_it = error, False
                self._moved.notify()

    def _buffer(self) -> memoryview | None:
        """A buffer for the next block; None: stop reading."""
        with self._moved:
            # `_at_it` is cleared under the same lock, so that `go_on` cannot miss it.
            buffer = None if self._over else self._buffers.take()
            self._at_it = buffer is not None
            self._moved.notify()
            return buffer

    def _block(self, buffer: memoryview) -> tuple[memoryview, memoryview] | None:
        """Read the next block, and give it with its history; None at the end."""
        # The buffer may be the one that the history lies in: copy before it is overwritten.
        start = self._encoder.history
        history = buffer[start - len(self._history) : start]
        history[:] = self._history
        count = self._source.fill(buffer[start:])
        block = buffer[start : start + count]
        if start + count < len(buffer):
            self._over = True
        if not count:
            return None
        self._plain.update(block)
        self._encoder.saw(block)
        self._history = block[count - start :] if start else block[:0]
        return history, block

    def _encode(self, history: memoryview, block: memoryview) -> bytes:
        began = time.monotonic()
        encoded = self._encoder.encode(history, block)
        if self._look:
            self._look(block, len(encoded), time.monotonic() - began)
        return encoded

    def next(self) -> bytes | None:
        """The next encoded block; None at the end. Raises what reading or encoding raised."""
        with self._moved:
            while self._at_it and not self._encoding:
                self._moved.wait(_LOOK)
                self._work.check()
            if self._error:
                raise self._error
            if not self._encoding:
                return None
            future, buffer = self._encoding.popleft()
        block = self._work.result(future)
        with self._moved:
            self._buffers.give(buffer)
        return block

    def close(self) -> None:
        """Stop. When this returns, no thread reads any more."""
        with self._moved:
            self._over = True
            while self._at_it:
                self._moved.wait()
        for future, _ in self._encoding:
            future.cancel()
        self._buffers.close()


def encoded(
    source: Source,
    encoder: Encoder,
    plain: _Hash,
    work: Work,
    spares: Spares | None,
    *,
    look: Look | None = None,
) -> Generator[bytes, None, None]:
    """The encoded bytes. As many blocks are encoded at once as there are buffers for them."""
    ahead = _Ahead(source, encoder, plain, work, spares or Spares(), look=look)
    try:
        ahead.go_on()
        yield encoder.head()
        while (block := ahead.next()) is not None:
            # Before the block is yielded: sending it may keep this thread for a while.
            ahead.go_on()
            yield block
        yield encoder.tail()
    finally:
        ahead.close()
