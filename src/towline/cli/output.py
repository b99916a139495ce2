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
    """With escapes for what a strict standard output has no bytes for: parts of file names, say."""
    if line.isascii() or sys.stdout.errors != "strict":
        return line
    encoding = sys.stdout.encoding
    return line.encode(encoding, "backslashreplace").decode(encoding)


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
    from pathlib import Path

    target = Path(path)
    folder = target.parent
    if not path:
        message = "`--digest-file` is given without a name"
    elif target.is_dir():
        message = f"`--digest-file {path}` is a directory"
    elif not folder.is_dir():
        message = f"`--digest-file {path}`: there is no directory `{folder}`"
    elif not os.access(target if target.exists() else folder, os.W_OK):
        message = f"`--digest-file {path}` cannot be written: permission denied"
    else:
        return
    from towline.errors import UsageError

    raise UsageError(message)


def write_digests(path: str, digests: Sequence[str]) -> None:
    """One bare digest a line. Raises TowlineError."""
    from pathlib import Path

    try:
        Path(path).write_text("".join(f"{digest}\n" for digest in digests), encoding="ascii")
    except OSError as error:
        raise _failed(error.strerror, path) from error
