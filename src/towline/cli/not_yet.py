"""What the command will do and does not do yet: named, so that it is refused and never ignored.

One line each: whoever makes one of these work deletes its line.
"""

from __future__ import annotations

COMMANDS = frozenset(
    {
        "copy",
        "index",
        "sign",
        "sync",
        "tag",
        "verify",
    }
)

OPTIONS = frozenset(
    {
        "annotation",
        "by_digest",
        "preserve_digests",
        "referrers",
        "trace",
    }
)
"""By keyword: `dry_run` is `--dry-run`."""

VALUES = {
    "compression": ("gzip:best", "auto"),
}
"""Of options that exist: how the values begin that do not work yet."""

HIDDEN = {"push": frozenset({"src_creds"}), "plan": frozenset({"src_creds"})}
"""Options that a command takes and always refuses, for want of a source that they could be for."""

SOURCES = ("docker://",)
"""How a source of a push begins that cannot be read yet."""
