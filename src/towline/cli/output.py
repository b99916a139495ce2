"""Writes the result to standard output, and the digest file.

A reader that has gone away is no error, since the command has done its work. A full disk is one.
"""

from __future__ import annotations

import os
import sys

# As in towline/__init__.py.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from typing import Any

    from towline.cli.options import Arguments
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
        forget(sys.stdout.fileno())  # as by `| head -1`
    except OSError as error:
        forget(sys.stdout.fileno())
        raise _failed(error.strerror) from error


def write_as(args: Arguments, value: Callable[[], Any], lines: Iterable[str]) -> None:
    """Print what `value` gives as one JSON document where `--output` says so, else `lines`."""
    if getattr(args, "output", "text") == "json":
        import json

        lines = [json.dumps(value(), indent=2)]
    write(lines)


def _spelled(line: str) -> str:
    """The line, with escapes for characters that standard output's encoding does not have."""
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
    """Point the descriptor at /dev/null: the interpreter's last flush would fail a second time."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def check_digest_file(args: Arguments) -> None:
    """Raise UsageError, before a push begins, where the digest file cannot be written."""
    if "digest_file" not in args:
        return
    from contextlib import suppress
    from pathlib import Path

    from towline.errors import UsageError

    target = Path(args.digest_file)
    folder, wrong = target.parent, ""
    try:
        # From Python 3.14 on `is_dir` and `exists` below are False on any error: ask once first.
        with suppress(FileNotFoundError, NotADirectoryError):
            target.stat()
        if target.is_dir():
            wrong = " is a directory"
        elif not folder.is_dir():
            wrong = f": there is no directory `{folder}`"
        elif not os.access(target if target.exists() else folder, os.W_OK):
            wrong = " cannot be written: permission denied"
    except OSError as error:  # a folder above may not be searched, or the name is too long
        wrong = f" cannot be written: {str(error.strerror).lower()}"
    if wrong:
        raise UsageError(f"`--digest-file {target}`{wrong}")


def write_digests(args: Arguments, digests: Iterable[str]) -> None:
    """Write the digests, one a line, to the file of `--digest-file`, if it is given.

    On a full disk what was there stays. Raises TowlineError where it cannot be written.
    """
    if "digest_file" not in args:
        return
    from pathlib import Path

    path, content = Path(args.digest_file), "".join(f"{digest}\n" for digest in digests)
    try:
        # What a link (/dev/stdout), a pipe or a device leads to is written; it is not replaced.
        if path.is_symlink() or (path.exists() and not path.is_file()):
            path.write_text(content, "ascii")
        else:
            _put_whole(path, content.encode())
    except OSError as error:
        raise _failed(error.strerror, args.digest_file) from error


def _put_whole(path: Path, content: bytes) -> None:
    """Put a file in its place as a whole. Raises OSError."""
    from towline.sources.spool import FULL
    from towline.targets.blob_files import PartialFile

    try:
        file = PartialFile(path.parent)
        try:
            file.write(content)
            file.rename(path)
        finally:
            file.drop()
    except OSError as error:
        if error.errno in FULL:
            raise
        # It may be written and not replaced: a mount of its own, in a folder that is another's.
        path.write_bytes(content)
