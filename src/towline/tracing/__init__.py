"""Records where the time of a push goes, and writes it to a file at the end (`--trace`)."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from towline.errors import UsageError
from towline.tracing.recording import Recording

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def tracing(
    name: str | os.PathLike[str], redact: Callable[[str], str], warn: Callable[[str], None]
) -> Iterator[Recording]:
    """Record what the block does, and write the trace when it ends or fails.

    `redact` takes secrets out of a text. Raises UsageError, before the block, where the file
    cannot be written. A failure to write it at the end is only a warning: the push is over.
    """
    path = Path(name)
    if path.suffix not in {".json", ".html"}:
        raise UsageError(
            f"the name of a trace ends in .json or .html, not as {path}",
            hint=".json is for Perfetto and chrome://tracing, .html a page for people",
        )
    if path.is_dir():
        raise UsageError(f"the trace cannot be written to {path}: it is a directory")
    temporary = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
    try:
        file = temporary.open("x", encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"the trace cannot be written to {path}: {error.strerror}") from error
    recording = Recording()
    try:
        yield recording
    except BaseException as error:
        recording.failed(error)
        raise
    finally:
        try:
            if path.suffix == ".json":
                from towline.tracing.chrome import lines
            else:
                from towline.tracing.page import lines
            with file:
                file.writelines(lines(recording.end(), redact))
            temporary.replace(path)
        except Exception as error:  # noqa: BLE001 - whatever it is, it undoes no push
            why = getattr(error, "strerror", None) or error
            warn(f"the trace {path} is not written: {why}")
            with suppress(OSError):
                temporary.unlink()
