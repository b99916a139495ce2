"""Decompresses a stream in bounded memory, and tells damage in words.

Takes gzip of several members, zstd of several frames (skippable ones too), and plain bytes. A
`decoder_of` is fed by a caller who reads the stream for another purpose; `decoded` is a Reader. A
stream must be whole: one that ends too early, fails its check sum or has something else behind its
end raises SourceError. Of gzip, zeros behind the end may be allowed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from towline.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from isal import igzip_lib

    from towline.layers.reader import Reader
    from towline.spec.media_types import Compression

STEP = 1 << 20
"""Plain bytes that a decoder gives at most at once, however well the stream is compressed."""
MAX_ZSTD_WINDOW = 128 << 20
"""Bytes; the library's own bound, which only `zstd --long` exceeds."""
_READ = 256 << 10
"""Bytes read at once from the reader of a stream that is decoded."""
_SLICE = 64 << 10
"""Bytes that a gzip member is given at once. When it ends, isal copies the rest: with many tiny
members in a large piece that would take quadratic time."""
_HEADER_MAX = 1 << 17
"""Bytes of the longest header: an extra field of 64 KiB and two long texts fit."""

# Gzip (RFC 1952).
_GZIP_MAGIC = b"\x1f\x8b"
_DEFLATE = 8
"""The only compression method that gzip has."""
_FIXED = 10
"""Bytes before the optional fields: magic, method, flags, time, extra flags, system."""
_HEADER_CHECK, _EXTRA, _NAME, _COMMENT = 0x02, 0x04, 0x08, 0x10
"""Flags of the optional fields (section 2.3.1)."""
_RESERVED = 0xE0
"""Flags that must be zero: they may stand for fields that we could not skip."""

# Zstd (RFC 8878).
_BLOCK_LIMIT = 128 << 10
"""Plain bytes of a block at most (section 3.1.1.2.4)."""
_ZSTD_MAGIC = 0xFD2FB528
_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
_WINDOW, _DICTIONARY, _CONTENT_SIZE = 1, (0, 1, 2, 4), (0, 2, 4, 8)
"""Bytes of the fields of a frame's header; two by their flags (section 3.1.1.1)."""
_SINGLE_SEGMENT, _CHECKSUM = 0x20, 0x04
"""Flags of a frame's header (section 3.1.1.1.1)."""
_RLE, _NO_TYPE = 1, 3
"""Types of a block: one byte to repeat, and one that must not be used (section 3.1.1.2.2)."""


class Decoder:
    """Decodes one stream; this one is of bytes that are plain already."""

    def feed(self, data: memoryview) -> Iterator[bytes]:
        """The plain bytes that `data` adds, in pieces of at most `STEP`.

        Take them all before feeding more. Raises SourceError when the stream is damaged.
        """
        for start in range(0, len(data), STEP):
            yield bytes(data[start : start + STEP])

    def finish(self) -> None:
        """The stream has ended. Raises SourceError when it ends too early."""


def decoder_of(compression: Compression, name: str, *, padded: bool = False) -> Decoder:
    """A new decoder; its errors call the stream `name`.

    `padded`: zeros behind the end of gzip data are ignored, as `gzip -dc` does.
    """
    match compression:
        case "gzip":
            return GzipDecoder(name, padded=padded)
        case "zstd":
            return ZstdDecoder(name)
        case "none":
            return Decoder()


def decoded(reader: Reader, compression: Compression, name: str, *, padded: bool = False) -> Reader:
    """A reader of the plain bytes; closing it closes `reader`. For the rest see `decoder_of`."""
    if compression == "none":
        return reader
    return DecodedReader(reader, decoder_of(compression, name, padded=padded))


class GzipDecoder(Decoder):
    """Members one after another (RFC 1952, section 2.2)."""

    def __init__(self, name: str, *, padded: bool = False) -> None:
        from isal import igzip_lib

        self._isal = igzip_lib
        # The library's type stub calls this class an instance.
        self._error: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # untyped
        self._name = name
        self._padded = padded
        self._header = bytearray()
        """The next member's, as far as it has come; a zero: padding has begun."""
        self._member: igzip_lib.IgzipDecompressor | None = None
        self._members = 0

    def feed(self, data: memoryview) -> Iterator[bytes]:
        """See Decoder."""
        rest = data
        while rest:
            if self._member is None:
                rest = self._begin(rest)
            else:
                part = rest[:_SLICE]
                yield from self._inflate(self._member, part)
                # At a member's end, what it left over is the next one's header.
                rest = rest[len(part) - len(self._member.unused_data) :]
                if self._member.eof:
                    self._member = None

    def _begin(self, data: memoryview) -> memoryview:
        """Collect a header. isal's own reader does not, where it comes in several parts."""
        taken = min(len(data), _HEADER_MAX - len(self._header))
        self._header += data[:taken]
        try:
            length = _header_length(self._header)
        except ValueError as error:
            if self._padded and self._members and not any(self._header):
                del self._header[1:]  # one zero stays, so that no member can follow
                return data[taken:]
            if self._members:
                what = "has something else behind the end of its gzip data"
            else:
                what = f"is no gzip data: {error}"
            raise SourceError(f"{self._name} {what}") from None
        if length is None:
            return data[taken:]
        rest = data[taken - (len(self._header) - length) :]
        self._header.clear()
        self._members += 1
        flag = self._isal.DECOMP_GZIP_NO_HDR_VER
        self._member = self._isal.IgzipDecompressor(flag=flag)
        return rest

    def _inflate(self, member: igzip_lib.IgzipDecompressor, data: memoryview) -> Iterator[bytes]:
        try:
            yield member.decompress(data, STEP)
            while not member.needs_input and not member.eof:
                yield member.decompress(b"", STEP)
        except self._error as error:
            words = re.sub(r"^Error -?\d+ ", "", str(error)).lower()  # without the number
            raise SourceError(f"{self._name} is damaged: {words} in its gzip data") from error

    def finish(self) -> None:
        """See Decoder."""
        if self._member is not None or any(self._header) or not self._members:
            raise SourceError(f"{self._name} is cut short: it ends inside its gzip data")


def _header_length(data: bytes | bytearray) -> int | None:
    """The length of the header at the beginning of `data`; None: more bytes are needed.

    Raises ValueError when that is no header (RFC 1952, section 2.3).
    """
    if data[:2] != _GZIP_MAGIC[: len(data)]:
        raise ValueError("it does not begin as gzip does")
    if len(data) < _FIXED:
        return None
    flags, end = data[3], _FIXED
    if data[2] != _DEFLATE or flags & _RESERVED:
        raise ValueError("its header names a method that nobody uses")
    # The order of the fields: extra, name, comment, check sum of the header.
    if flags & _EXTRA:
        end += 2 + int.from_bytes(data[end : end + 2], "little")
    for text in (_NAME, _COMMENT):
        if flags & text:
            end = data.find(0, end) + 1 or len(data) + 1
    if flags & _HEADER_CHECK:
        end += 2
    if len(data) >= _HEADER_MAX and end > len(data):
        raise ValueError("its header does not end")
    return end if end <= len(data) else None


class ZstdDecoder(Decoder):
    """Frames one after another, skippable ones passed over (RFC 8878, section 3)."""

    def __init__(self, name: str) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._name = name
        self._frames = _FrameWalker()
        self._stream = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)

    def feed(self, data: memoryview) -> Iterator[bytes]:
        """See Decoder."""
        # The library has no bound on its output, so it gets only as many blocks at once as can
        # come to `STEP` bytes.
        while data:
            try:
                taken = self._frames.advance(data, STEP // _BLOCK_LIMIT)
                plain = self._stream.decompress(data[:taken])
            except ValueError as error:
                if self._frames.frames:
                    what = "is damaged: among its zstd frames is something else"
                else:
                    what = f"is no zstd data: {error}"
                raise SourceError(f"{self._name} {what}") from None
            except self._error as error:
                if "too much memory" in str(error):
                    raise SourceError(
                        f"{self._name} was compressed with a zstd window above the "
                        f"{MAX_ZSTD_WINDOW} bytes that are read",
                        hint="compress it again without --long, or decompress it",
                    ) from error
                raise SourceError(f"{self._name} is damaged: {error}") from error
            data = data[taken:]
            yield plain

    def finish(self) -> None:
        """See Decoder."""
        if not self._frames.between or not self._frames.frames:
            raise SourceError(f"{self._name} is cut short: it ends inside its zstd data")


class _FrameWalker:
    """Finds where frames and blocks end in a stream that comes in pieces of any size.

    The library tells neither whether a stream was cut inside a frame, nor how many plain bytes a
    piece of input will make. Both follow from the lengths in the headers of frames and blocks.
    """

    def __init__(self) -> None:
        self.frames = 0
        """Frames begun so far, skippable ones not counted."""
        self._open = False
        self._blocks = 0
        self._skip = 0
        self._field = bytearray()
        self._steps = self._walk()
        self._wanted = next(self._steps)

    @property
    def between(self) -> bool:
        """Whether the stream may end here: no frame is open."""
        return not (self._open or self._field or self._skip)

    def advance(self, data: memoryview, blocks: int) -> int:
        """Follow `data` until so many `blocks` have begun. Returns the bytes that this took.

        Raises ValueError where a frame should begin and none does.
        """
        self._blocks = blocks
        at = 0
        while at < len(data) and (self._skip or self._blocks):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
            else:
                step = min(self._wanted - len(self._field), len(data) - at)
                self._field += data[at : at + step]
                if len(self._field) == self._wanted:
                    value = int.from_bytes(self._field, "little")
                    self._field.clear()
                    self._wanted = self._steps.send(value)
            at += step
        return at

    def _walk(self) -> Generator[int, int, None]:
        """Asks for one field after the other by its bytes, behind `_skip` bytes without meaning."""
        while True:
            self._open = False
            magic = yield 4
            self._open = True
            if magic in _SKIPPABLE:
                self._skip = yield 4
                continue
            if magic != _ZSTD_MAGIC:
                raise ValueError("it does not begin as zstd does")
            self.frames += 1
            descriptor = yield 1
            single = bool(descriptor & _SINGLE_SEGMENT)
            # A frame of a single segment has no window, but a size: one byte where the flag is 0.
            content_size = _CONTENT_SIZE[descriptor >> 6] or int(single)
            self._skip = (not single) * _WINDOW + _DICTIONARY[descriptor & 3] + content_size
            last = 0
            while not last:
                header = yield 3
                self._blocks -= 1
                last, kind, size = header & 1, header >> 1 & 3, header >> 3
                if kind == _NO_TYPE:
                    raise ValueError("it has a block of a kind that does not exist")
                # The size of a repeated byte is how often it is repeated: the block has that alone.
                self._skip = 1 if kind == _RLE else size
            self._skip += 4 if descriptor & _CHECKSUM else 0


class DecodedReader:
    """A Reader that decodes the bytes of another reader."""

    def __init__(self, reader: Reader, decoder: Decoder) -> None:
        self._reader = reader
        self._pieces = self._decode(decoder)
        self._piece = memoryview(b"")

    def readinto(self, buffer: memoryview) -> int:
        """As Reader.readinto; raises SourceError when the stream is damaged or cut short."""
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._piece = memoryview(piece)
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count

    def _decode(self, decoder: Decoder) -> Iterator[bytes]:
        room = memoryview(bytearray(_READ))
        while count := self._reader.readinto(room):
            yield from decoder.feed(room[:count])
        decoder.finish()

    def close(self) -> None:
        """Close the reader below."""
        self._reader.close()
        self._piece = memoryview(b"")
