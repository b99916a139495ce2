"""What the command will do and does not do yet: named, so that it is refused and never ignored.

One line each: whoever makes one of these work deletes its line.
"""

from __future__ import annotations

COMMANDS = frozenset(
    {
        "sign",
        "sync",
        "verify",
    }
)

OPTIONS = frozenset(
    {
        "annotation",
    }
)
"""By keyword: `dry_run` is `--dry-run`."""
