"""Opens the cache that `--cache` names: a path, an address, `none`, or the user's own.

For a push (`open_knowledge`) a cache that cannot be used is a warning. For a command that is about
the cache itself, such as `cache stats` (`open_store`), it is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.errors import UsageError
from towline.knowledge.places import default_cache_path, machine_id
from towline.knowledge.safe import DEADLINE, SafeKnowledge
from towline.knowledge.signing import Signer
from towline.knowledge.store import Knowledge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REMOTE = ("redis", "rediss", "unix")
KEY_VARIABLE = "TOWLINE_CACHE_KEY"
PLACE_VARIABLE = "TOWLINE_CACHE"
"""The variable that names the cache where nothing else does, for the library too."""


def open_knowledge(
    text: str | None, environ: Mapping[str, str], warn: Callable[[str], None]
) -> Knowledge:
    """The cache that `text` names, connected at its first use; errors are one call of `warn`.

    Without a text it is the one that TOWLINE_CACHE names, else the SQLite file in the user's cache
    directory. Raises UsageError for a text that can name no cache.
    """
    text = text or environ.get(PLACE_VARIABLE)
    if text == "none":
        return Knowledge()
    # A file is on this machine's disk: it has a time limit of its own, and needs no thread beside.
    deadline = DEADLINE if _scheme(text) in REMOTE else None
    return SafeKnowledge(_opener(text, environ), warn, deadline=deadline)


def open_store(text: str | None, environ: Mapping[str, str]) -> Knowledge:
    """The cache that `text` names, connected now; its errors are raised as KnowledgeError.

    Raises UsageError for a text that can name no cache.
    """
    return _opener(text or environ.get(PLACE_VARIABLE), environ)()


def _scheme(text: str | None) -> str | None:
    scheme, separator, _ = (text or "").partition("://")
    return scheme.lower() if separator else None


def _opener(text: str | None, environ: Mapping[str, str]) -> Callable[[], Knowledge]:
    """The function that connects the cache. Raises UsageError for a text that can name none."""
    if text == "none":
        return Knowledge
    scheme = _scheme(text)
    if scheme is None:
        kind, colon, rest = (text or "").partition(":")
        if colon and kind in REMOTE:  # `redis:127.0.0.1` would be a file of that name
            raise UsageError(
                f"{text} is no address of a cache",
                hint=f"write {kind}://{rest.lstrip('/')}, or ./{text} for a file of that name",
            )

        def open_file() -> Knowledge:
            from towline.knowledge.sqlite import SqliteKnowledge

            return SqliteKnowledge(text or default_cache_path(environ), _signer(environ))

        return open_file
    if scheme not in REMOTE:
        raise UsageError(
            f"no cache can be kept at {scheme}://",
            hint="give `cache` a path, redis://, rediss://, unix:// or none",
        )
    from towline.knowledge.redis import Address, RedisKnowledge

    address = Address.parse(text or "")
    return lambda: RedisKnowledge(address, _signer(environ))


def _signer(environ: Mapping[str, str]) -> Signer:
    if key := environ.get(KEY_VARIABLE):
        return Signer(key.encode("utf-8", "surrogateescape"), shared=True)
    return Signer(machine_id(environ), shared=False)
