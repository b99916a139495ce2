"""What bounds a first push on other machines and links: a simulation, on rates measured here.

`JOBS` layers go at once, the largest first. Of each a thread reads and hashes, and another one
hashes and sends what was encoded; the encoders of all share the processors with these. Connections
share the link, and each has at most a window of bytes on its way. A layer costs its round trips
besides: asked for, opened, confirmed, and as many as TCP takes to fill its window.
"""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

JOBS = 5
WINDOW = 4 << 20
"""Bytes that the kernel lets one connection have on its way (the last of `net.ipv4.tcp_wmem`)."""
_FIRST_WINDOW = 14600
_TRIPS = 3
"""Round trips of a layer beside its bytes."""
_SAMPLE = 64
"""Blocks of 1 MiB, from all over the image."""
_SENDING = 2.5e9
"""Bytes a second that a thread hands to the kernel."""
_LAYERS = (4, 3, 2, 1, 0.5, 0.05, 0.02, 0.01)
"""Of a ten-gigabyte image, in GB."""


class Rates(NamedTuple):
    """Bytes a second of one processor, and what becomes of them."""

    reading: float
    """Read and hashed."""
    encoding: float
    sending: float
    """Hashed and sent, of the encoded bytes."""
    ratio: float
    """Encoded bytes for each plain one."""


@dataclass(frozen=True, slots=True)
class Place:
    """A machine and its link."""

    cores: int
    link: float
    """Bytes a second."""
    trip: float
    """Seconds of a round trip."""


@dataclass(slots=True)
class _Layer:
    left: float
    """Plain bytes."""
    begins: float
    """Seconds until its first byte may go."""


def measured(image: Path) -> Rates:
    """Rates of this machine, on bytes of an image."""
    from isal import isal_zlib

    every = image.stat().st_size // _SAMPLE
    with image.open("rb") as file:
        blocks = [file.read(1 << 20) for n in range(_SAMPLE) if file.seek(n * every) >= 0]
    data = b"".join(blocks)
    hashing = _rate(lambda: hashlib.sha256(data).digest(), len(data))
    encoded: list[bytes] = []

    def encode() -> None:
        encoded.extend(isal_zlib.compress(block, 1) for block in blocks)

    encoding = _rate(encode, len(data))
    return Rates(
        reading=1 / (1 / hashing + 1 / 8e9),
        encoding=encoding,
        sending=1 / (1 / hashing + 1 / _SENDING),
        ratio=sum(map(len, encoded)) / len(data),
    )


def _rate(work: Callable[[], object], size: int) -> float:
    began = time.process_time()
    work()
    return size / (time.process_time() - began)


def simulated(place: Place, rates: Rates, layers: Sequence[float]) -> dict[str, float]:
    """For how many seconds of a push of layers of so many bytes each thing bounds it."""
    waiting = sorted(layers)
    going: list[_Layer] = []
    bounds: dict[str, float] = {}
    window = min(WINDOW, place.link * place.trip)
    trips = _TRIPS + max(0.0, math.log2(window / _FIRST_WINDOW))
    while waiting or going:
        while waiting and len(going) < JOBS:
            going.append(_Layer(waiting.pop(), trips * place.trip))
        moving = [layer for layer in going if layer.begins <= 0]
        name, rate = _bound(place, rates, len(moving)) if moving else ("round trips", 0.0)
        ends = [layer.left / rate if layer in moving else layer.begins for layer in going]
        step = min(ends)
        for layer in going:
            if layer in moving:
                layer.left -= rate * step
            else:
                layer.begins -= step
        going = [layer for layer in going if layer.left > 1]
        bounds[name] = bounds.get(name, 0.0) + step
    return bounds


def _bound(place: Place, rates: Rates, moving: int) -> tuple[str, float]:
    """What holds each of so many layers, and their plain bytes a second."""
    spent = 1 / rates.reading + 1 / rates.encoding + rates.ratio / rates.sending
    caps = {
        "processors": place.cores / spent / moving,
        "reading in one thread": rates.reading,
        "sending in one thread": rates.sending / rates.ratio,
        "link": place.link / rates.ratio / moving,
        "TCP's window": WINDOW / place.trip / rates.ratio,
    }
    name = min(caps, key=lambda one: caps[one])
    return name, caps[name]


PLACES = [
    Place(cores, link / 8, trip)
    for cores in (2, 16, 64)
    for link in (1e9, 10e9)
    for trip in (0.0005, 0.2)
]


def table(rates: Rates) -> list[list[str]]:
    """For each place the time of a push of a large image, and of one layer of that size."""
    head = ["cores", "link", "round trip", "8 layers", "bound by", "one layer", "bound by"]
    rows = [head]
    for place in PLACES:
        row = [f"{place.cores}", f"{place.link * 8 / 1e9:.0f} Gbit/s", f"{place.trip * 1000:g} ms"]
        for layers in (_LAYERS, (sum(_LAYERS),)):
            bounds = simulated(place, rates, [size * 1e9 for size in layers])
            seconds, most = sum(bounds.values()), max(bounds, key=lambda one: bounds[one])
            row += [f"{seconds:.1f} s", f"{most} ({bounds[most] / seconds:.0%})"]
        rows.append(row)
    return rows


def told(rates: Rates) -> str:
    """The rates."""
    figures = rates._asdict().items()
    each = (f"{name} {rate / 1e6:.0f} MB/s" for name, rate in figures if name != "ratio")
    return f"{', '.join(each)}, a processor; {rates.ratio:.2f} of the bytes are left"
