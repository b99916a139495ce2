"""Compression profiles: a name, and the promise that its bytes never change.

A blob is recorded under `recorded`: the profile's name and version and, where the encoder's output
depends on it, the family of machines.
"""

# No `from __future__ import annotations`: at every start Python would compile each text that
# annotates a field of a named tuple.

import os
from typing import NamedTuple

from towline.errors import UsageError
from towline.spec.media_types import Compression

GZIP_BEST_LEVEL = 6
"""Of libdeflate. Level 7 makes 0.4 % less at three quarters of the speed, 9 as much at a third."""
ZSTD_LEVELS = range(1, 20)
"""Without 20 to 22, which `zstd` itself gives only to those who add `--ultra`."""
ZSTD_DEFAULT_LEVEL = 3
"""That of `zstd`."""
_LIBRARY = (1, 5, 7)
"""The libzstd that zstandard bundles; another version, such as a system's, gives other bytes."""


class Profile(NamedTuple):
    """How a layer is compressed."""

    name: str
    """As on the command line: `gzip`, `gzip:best`, `zstd:3`, `none`."""
    compression: Compression
    recorded: str
    """Name, version and family of machines: equal texts mean equal bytes."""
    level: int = 0
    """0: the encoder's only one."""


DEFAULT = "gzip"
AUTO = Profile("auto", "gzip", "auto")
"""Stands for a choice: each layer gets a profile when it is about to be read."""
_SPEEDS = (
    ("zstd:9", 0.313, 82),
    ("zstd:6", 0.323, 125),
    ("zstd:3", 0.343, 353),
    ("gzip:best", 0.365, 105),
)
"""Share of the plain size, and plain MB a second on one core, measured on a real image of 690 MB;
the smallest result first."""
_CORES = 2 / 3
"""The share of the processors that `auto` counts on."""


def parse(text: str) -> Profile:
    """The profile of that name. Raises UsageError when there is none."""
    name, colon, level = text.partition(":")
    if name == "gzip" and not colon:
        return Profile("gzip", "gzip", f"gzip/3@{family()}")
    if text == AUTO.name:
        return AUTO
    if text == "gzip:best":
        return Profile(text, "gzip", "gzip:best/1", GZIP_BEST_LEVEL)
    if name == "none" and not colon:
        return Profile("none", "none", "none")
    if name != "zstd" or not level.isascii():
        msg = f"no compression profile is called {text!r}"
        raise UsageError(msg, hint="use auto, gzip, gzip:best, none, zstd or zstd:1 to zstd:19")
    level = level if colon else str(ZSTD_DEFAULT_LEVEL)
    if not level.isdigit() or int(level) not in ZSTD_LEVELS:
        raise UsageError(f"{text!r} is no zstd level", hint="use zstd:1 to zstd:19")
    import zstandard

    version = zstandard.ZSTD_VERSION
    other = "" if version == _LIBRARY else "+" + ".".join(str(part) for part in version)
    name = f"zstd:{int(level)}"
    return Profile(name, "zstd", f"{name}/1{other}", int(level))


def of_record(recorded: str | None) -> Profile | None:
    """The profile that still makes the bytes recorded under that text, if there is one."""
    if not recorded:
        return None
    try:
        found = parse(recorded.partition("/")[0])
    except UsageError:
        return None
    return found if found.recorded == recorded else None


def smallest(rate: float, cores: int, *, zstd: bool) -> Profile:
    """The profile with the smallest result that still makes `rate` bytes a second."""
    for name, share, speed in _SPEEDS:
        if (zstd or not name.startswith("zstd")) and cores * _CORES * speed * share * 1e6 >= rate:
            return parse(name)
    return parse(DEFAULT)


def family() -> str:
    """The family of machines whose gzip bytes are the same (measured, not derived)."""
    machine = os.uname().machine.lower()
    if machine in {"aarch64", "arm64"}:
        return "arm64"
    if machine in {"x86_64", "amd64"}:
        return "x86-64" if _has_sse42() else "x86-64-old"
    return machine or "unknown"


def _has_sse42() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as text:  # noqa: PTH123 - pathlib costs start-up
            # Without such a line it counts as there, for the reason given below.
            flags = next((line for line in text if line.startswith("flags")), "sse4_2")
    except OSError:
        return True  # not Linux: machines without it are older than the systems we run on
    return "sse4_2" in flags
