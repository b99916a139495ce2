"""The table of exit codes.

The first class that fits gives the number. An Interrupted carries the number of its signal. A
PartialFailure in which every push failed with the same code has that code.
"""

from __future__ import annotations

from towline.cli.signals import Interrupted
from towline.errors import (
    AuthError,
    NetworkError,
    PartialFailure,
    RegistryError,
    SourceError,
    TransferCancelled,
    UsageError,
)

DONE = 0
OTHER = 1
EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (UsageError, 2),
    (SourceError, 3),
    (AuthError, 4),
    (RegistryError, 5),
    (NetworkError, 6),
    (PartialFailure, 7),
    (TransferCancelled, 130),
    (KeyboardInterrupt, 130),
)


def of(error: BaseException) -> int:
    """The exit code of a command that failed with `error`."""
    if isinstance(error, Interrupted):
        return error.exit_code
    if isinstance(error, PartialFailure):
        codes = {of(failure) for failure in error.exceptions}
        if len(codes) == 1 and all(isinstance(one, BaseException) for one in error.results):
            return codes.pop()
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), OTHER)
