"""`towline cache`: counts what is remembered of registries, or drops old entries or all."""

from __future__ import annotations

import os
import time
from contextlib import closing
from typing import TYPE_CHECKING

from towline.cli import options, output, wording
from towline.cli.options import Arguments, Command
from towline.errors import TowlineError, UsageError

if TYPE_CHECKING:
    from towline.knowledge.store import Knowledge

_DAY = 24 * 3600.0
_DEFAULT_DAYS = 90
_TOLD = ("repository", "blob", "size", "acknowledged", "saved")
"""The fields of an unfinished upload in JSON."""


def _cache(args: Arguments) -> int:
    from towline.knowledge.base import KnowledgeError
    from towline.knowledge.open import open_store
    from towline.wire.secrets import Secrets

    actions = {"stats": _stats, "prune": _prune, "clear": _clear}
    word = args.words[0] if args.words else ""
    if word not in actions:
        message = f"`towline cache` does not know `{word}`" if word else "nothing is asked for"
        raise UsageError(message, hint="towline cache stats, prune or clear")
    if word != "prune" and "older_than" in args.typed:
        message = f"`--older-than` is for `towline cache prune`, and `{word}` looks at no age"
        raise UsageError(message, hint=f"towline cache prune --older-than {args.older_than}")
    where = getattr(args, "cache", None)
    secrets = Secrets()
    secrets.add_environment(os.environ)
    secrets.add_address(where)
    try:
        with closing(open_store(where, os.environ)) as store:
            actions[word](store, args)
    except KnowledgeError as error:
        raise TowlineError(secrets.redact(str(error))) from None
    return 0


def _stats(store: Knowledge, args: Arguments) -> None:
    stats, sessions = store.stats(), store.sessions()
    shown = {
        "path": stats.path,
        "diff_ids": stats.diff_ids,
        "entries": stats.entries,
        "bytes": stats.bytes,
        # Without their addresses, which may contain a secret of the registry.
        "uploads": [{name: getattr(each, name) for name in _TOLD} for each in sessions],
    }
    lines = (
        f"path:    {stats.path}",
        f"layers:  {stats.diff_ids}",
        f"entries: {stats.entries}",
        f"size:    {wording.size(stats.bytes)}",
        f"uploads: {len(sessions)} unfinished",
        *(f"  {session.blob} to {session.repository}" for session in sessions),
    )
    output.write_as(args, lambda: shown, lines)


def _prune(store: Knowledge, args: Arguments) -> None:
    days = getattr(args, "older_than", _DEFAULT_DAYS)
    dropped = store.prune(time.time() - days * _DAY)
    said = f"dropped {dropped} entries not seen for {days} days"
    output.write_as(args, lambda: {"dropped": dropped}, [said])


def _clear(store: Knowledge, args: Arguments) -> None:
    stats = store.stats()
    dropped = stats.entries + len(store.sessions())
    store.clear()
    output.write_as(args, lambda: {"dropped": dropped}, [f"dropped all {dropped} entries"])


_OLDER = options.Option(
    "--older-than",
    f"with prune: not seen for so many days (default {_DEFAULT_DAYS})",
    "DAYS",
    options.whole(0),
)
CACHE = Command(
    _cache,
    "stats|prune|clear [OPTION...]",
    """\
Look after the cache: `stats` counts what is in it, `prune` drops what was not seen for a while,
`clear` drops everything. The cache only saves work: without it a push sends or asks more.""",
    (options.Group("which cache", options.CACHE, _OLDER), options.PRINTED, options.MESSAGES),
    words=1,
)
