"""From a reader to the blocks of a blob, in order: as they are, looked into, or encoded.

Each is a generator that the stream's own thread drives. What takes long (compressing,
decompressing) is the pool's; hashing the plain bytes stays with the thread that reads them,
while they are in its cache. A block given as a memoryview is overwritten by a later one.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from towline.layers.buffers import Buffers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from concurrent.futures import Future
    from hashlib import _Hash

    from towline.context import Cancel
    from towline.layers.buffers import Spares
    from towline.layers.decoders import Decoder
    from towline.layers.encoders import Encoder
    from towline.layers.reader import Reader

T = TypeVar("T")

STORED_BLOCK = 512 << 10
"""Bytes of a block of a blob that goes as it is."""
_LOOK = 0.2
"""Seconds between two looks at the cancel switch while the pool works on a block."""


class Source:
    """A reader that fills whole blocks and counts."""

    position = 0
    """Bytes read so far."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def fill(self, room: memoryview) -> int:
        """Fill `room` however little the reader gives at once; less only at the end."""
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


class Work:
    """A pool whose results are waited for with one eye on the cancel switch."""

    def __init__(self, pool: Pool, cancel: Cancel) -> None:
        self.submit = pool.submit
        self.check = cancel.check

    def result(self, future: Future[T]) -> T:
        """The result, as soon as it is there; Cancelled if the switch is thrown before."""
        while True:
            try:
                return future.result(_LOOK)
            except TimeoutError:
                self.check()


def stored(source: Source) -> Generator[memoryview, None, None]:
    """The bytes as they are."""
    room = memoryview(bytearray(STORED_BLOCK))
    while count := source.fill(room):
        yield room[:count]


def checked(
    source: Source, decoder: Decoder, plain: _Hash, work: Work
) -> Generator[memoryview, None, None]:
    """The bytes as they are; what they decode to is hashed by the pool meanwhile.

    It is at most one block behind. Raises SourceError when the bytes do not decode.
    """

    def look_into(block: memoryview) -> None:
        for piece in decoder.feed(block):
            work.check()
            plain.update(piece)

    rooms = (memoryview(bytearray(STORED_BLOCK)), memoryview(bytearray(STORED_BLOCK)))
    looking: Future[None] | None = None
    while count := source.fill(rooms[0]):
        if looking:
            work.result(looking)
        looking = work.submit(partial(look_into, rooms[0][:count]))
        yield rooms[0][:count]
        rooms = (rooms[1], rooms[0])
    if looking:
        work.result(looking)
    decoder.finish()


class _Reading:
    """Reads plain blocks, each into a buffer that has the block's history before it."""

    def __init__(self, source: Source, encoder: Encoder, plain: _Hash) -> None:
        self._source = source
        self._encoder = encoder
        self._plain = plain
        self._history = memoryview(b"")
        self.ended = False

    def next(self, buffer: memoryview) -> tuple[memoryview, memoryview] | None:
        """The next block and its history; None at the end."""
        # The buffer may be the one that the history lies in: copy before it is overwritten.
        start = self._encoder.history
        history = buffer[start - len(self._history) : start]
        history[:] = self._history
        block = buffer[start:]
        count = self._source.fill(block)
        self.ended = count < len(block)
        if not count:
            return None
        block = block[:count]
        self._plain.update(block)
        self._encoder.saw(block)
        self._history = block[count - start :] if start else block[:0]
        return history, block


def encoded(
    source: Source, encoder: Encoder, plain: _Hash, work: Work, spares: Spares
) -> Generator[bytes, None, None]:
    """The encoded bytes; as many blocks are encoded at once as there are buffers to hold them."""
    buffers = Buffers(encoder.history + encoder.block_size, spares)
    reading = _Reading(source, encoder, plain)
    pending: deque[tuple[Future[bytes], memoryview]] = deque()

    def look_ahead() -> None:
        while not reading.ended and (buffer := buffers.take()):
            if block := reading.next(buffer):
                pending.append((work.submit(partial(encoder.encode, *block)), buffer))

    try:
        look_ahead()
        yield encoder.head()
        while pending:
            future, buffer = pending.popleft()
            block = work.result(future)
            buffers.give(buffer)
            # Before the block is handed on: its receiver may hold this thread for a while.
            look_ahead()
            yield block
        yield encoder.tail()
    finally:
        for future, _ in pending:
            future.cancel()
        buffers.close()
