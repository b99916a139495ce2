"""`towline cache`: what is remembered of registries, counted, thinned out or forgotten."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from towline.cli import options, output
from towline.cli.arguments import add
from towline.cli.progress import figures
from towline.errors import TowlineError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from towline.cli.arguments import Parser
    from towline.knowledge.base import Knowledge

USAGE = "stats|prune|clear [OPTION...]"
ABOUT = """\
Look after the cache: `stats` counts what is in it, `prune` drops what was not seen for a while,
`clear` drops everything. The cache only saves work: without it a push sends or asks more."""
WORDS = 1
_DAY = 24 * 3600.0
_DEFAULT_DAYS = 90
_OLDER = options.given(
    "--older-than",
    metavar="DAYS",
    convert=options.whole(0),
    help=f"with prune: not seen for so many days (default {_DEFAULT_DAYS})",
)
WHICH = options.Group("which cache", (options.CACHE, _OLDER))


def add_arguments(parser: Parser) -> None:
    """Its options."""
    add(parser, WHICH, options.PRINTED, options.MESSAGES)


def run(args: argparse.Namespace) -> int:
    """Do what the word says."""
    actions = {"stats": _stats, "prune": _prune, "clear": _clear}
    word = args.words[0] if args.words else ""
    if word not in actions:
        message = f"`towline cache` does not know `{word}`" if word else "nothing is asked for"
        raise UsageError(message, hint="towline cache stats, prune or clear")
    with _store(args) as store:
        actions[word](store, args)
    return 0


@contextmanager
def _store(args: argparse.Namespace) -> Iterator[Knowledge]:
    from towline.knowledge.base import KnowledgeError
    from towline.knowledge.open import open_store
    from towline.wire.secrets import Secrets

    secrets = Secrets()
    secrets.add_environment(os.environ)
    secrets.add_address(getattr(args, "cache", None))
    try:
        store = open_store(getattr(args, "cache", None), os.environ)
        try:
            yield store
        finally:
            store.close()
    except KnowledgeError as error:
        raise TowlineError(secrets.redact(str(error))) from None


def _stats(store: Knowledge, args: argparse.Namespace) -> None:
    stats = store.stats()
    if getattr(args, "output", "text") == "json":
        shown = {"path": stats.path, "diff_ids": stats.diff_ids}
        output.write_json({**shown, "entries": stats.entries, "bytes": stats.bytes})
        return
    output.write(
        [
            f"path:    {stats.path}",
            f"layers:  {stats.diff_ids}",
            f"entries: {stats.entries}",
            f"size:    {figures.size(stats.bytes)}",
        ]
    )


def _prune(store: Knowledge, args: argparse.Namespace) -> None:
    days = getattr(args, "older_than", _DEFAULT_DAYS)
    dropped = store.prune(time.time() - days * _DAY)
    _say(args, dropped, f"dropped {dropped} entries not seen for {days} days")


def _clear(store: Knowledge, args: argparse.Namespace) -> None:
    dropped = store.stats().entries
    store.clear()
    _say(args, dropped, f"dropped all {dropped} entries")


def _say(args: argparse.Namespace, dropped: int, sentence: str) -> None:
    if getattr(args, "output", "text") == "json":
        output.write_json({"dropped": dropped})
    else:
        output.write([sentence])
