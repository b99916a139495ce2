"""Standard output: the result and nothing else; and the digest file.

A reader that has gone away is no error of ours: what was asked for is done. A full disk is one.
"""

from __future__ import annotations

import os
import sys

# As in towline/__init__.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from towline.errors import TowlineError


def write(lines: Iterable[str]) -> None:
    """Print the result's lines. Raises TowlineError when they cannot be written."""
    if sys.stdout is None:  # the descriptor was closed when we started
        raise _failed("it is closed")
    try:
        for line in lines:
            sys.stdout.write(_spelled(line) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        forget(sys.stdout.fileno())
    except OSError as error:
        forget(sys.stdout.fileno())
        raise _failed(error.strerror) from error


def write_json(value: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    """Print one JSON document."""
    import json

    write([json.dumps(value, indent=2)])


def _spelled(line: str) -> str:
    """With escapes where standard output has no bytes for a part of it: of file names, say."""
    if line.isascii():
        return line
    encoding = sys.stdout.encoding
    try:
        line.encode(encoding, sys.stdout.errors or "strict")
    except UnicodeEncodeError:
        return line.encode(encoding, "backslashreplace").decode(encoding)
    return line


def _failed(reason: str | None, where: str = "standard output") -> TowlineError:
    from towline.errors import TowlineError

    return TowlineError(f"the result cannot be written to {where}: {reason}")


def forget(descriptor: int) -> None:
    """Let the interpreter's last flush go nowhere instead of failing a second time."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def check_digest_file(path: str) -> None:
    """Find out before a push, not after it, that the file cannot be written. Raises UsageError."""
    try:
        wrong = _cannot_be_written(path)
    except OSError as error:  # nobody may even look, or the name is too long
        wrong = f" cannot be written: {str(error.strerror).lower()}"
    if wrong:
        from towline.errors import UsageError

        raise UsageError(f"`--digest-file {path}`{wrong}")


def _cannot_be_written(path: str) -> str | None:
    """Why not, as the end of a sentence. Raises OSError where that cannot be seen."""
    from pathlib import Path

    target = Path(path)
    folder = target.parent
    if target.is_dir():
        return " is a directory"
    if not folder.is_dir():
        return f": there is no directory `{folder}`"
    if not os.access(target if target.exists() else folder, os.W_OK):
        return " cannot be written: permission denied"
    return None


def write_digests(path: str, digests: Sequence[str]) -> None:
    """One bare digest a line. Raises TowlineError."""
    from pathlib import Path

    try:
        Path(path).write_text("".join(f"{digest}\n" for digest in digests), encoding="ascii")
    except OSError as error:
        raise _failed(error.strerror, path) from error
