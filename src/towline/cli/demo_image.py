"""The image of `towline demo`: the Python that is running, in four layers.

Real files of every size and kind: an interpreter, shared libraries, a standard library in text.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

LAYER_BYTES = 40_000_000
"""What a layer is cut at: a demonstration takes seconds, whatever is installed."""
_LEFT_OUT = frozenset(
    {"__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "lib-dynload"}
)


def layers() -> list[Mapping[str, Path]]:
    """Base first: file names in the image, and the files of this machine that they hold."""
    library = Path(sysconfig.get_path("stdlib"))
    kinds = (
        _interpreter(),
        _below(library / "lib-dynload", "*.so"),
        _below(library, "*.py"),
        _below(Path(__file__).parent.parent, "*.py"),
    )
    return [layer for kind in kinds if (layer := _cut(kind))]


def _interpreter() -> Iterator[Path]:
    yield Path(sys.executable).resolve()
    folder, name = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDLIBRARY")
    if folder and name:
        yield (Path(folder) / name).resolve()


def _below(root: Path, pattern: str) -> Iterator[Path]:
    for path in sorted(root.rglob(pattern)):
        if not _LEFT_OUT & set(path.relative_to(root).parts):
            yield path


def _cut(paths: Iterable[Path]) -> dict[str, Path]:
    """As many of the files as a layer takes; what cannot be read is left out."""
    taken: dict[str, Path] = {}
    room = LAYER_BYTES
    for path in paths:
        # pathlib's own question raises where a folder may not be looked into.
        if not os.path.isfile(path) or not os.access(path, os.R_OK):  # noqa: PTH113 - see above
            continue
        room -= path.stat().st_size
        if room < 0:
            break
        taken[str(path).lstrip("/")] = path
    return taken
