"""Where a shared Redis is, and the library's client for it (extra `[redis]`).

The library does TCP, TLS and Unix sockets, users and databases. Its own ways of waiting and
trying again are turned down: a cache that must be waited for is worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from towline.errors import UsageError
from towline.knowledge.base import KnowledgeError

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 1.0
"""Seconds to wait for a connection, and for an answer."""
_BATCH = 500
_GLOB = str.maketrans({character: "\\" + character for character in "\\*?[]^"})


@dataclass(frozen=True, slots=True)
class Address:
    """Where a Redis is, and what our keys in it begin with."""

    url: str
    """As the library takes it, password included."""
    shown: str
    """For messages: nothing secret."""
    prefix: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Of `redis://`, `rediss://` or `unix://`; raises UsageError for what can be no address."""
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            # The text may hold a password, and the error a part of it: neither is repeated.
            raise UsageError(
                "the address given with `cache` is wrong",
                hint="write what a password has beside letters and digits as %XX",
            ) from None
        missing = _missing(parts.scheme, parts.hostname, parts.path)
        if missing:
            raise UsageError(f"the cache {parts.scheme}:// names no {missing}")
        place = (parts.hostname or "") + (f":{port}" if port else "") + parts.path
        options = parse_qsl(parts.query, keep_blank_values=True)
        prefix = dict(options).get("prefix", "towline:")
        query = urlencode([option for option in options if option[0] != "prefix"])
        # Not `geturl`: it drops the slashes before a Unix socket's path.
        url = f"{parts.scheme}://{parts.netloc}{parts.path}" + (query and f"?{query}")
        return cls(url, f"{parts.scheme}://{place}", prefix)


def _missing(scheme: str, host: str | None, path: str) -> str | None:
    if scheme == "unix":
        return None if path else "path"
    return None if host else "host"


def connect(address: Address) -> Any:  # noqa: ANN401 - the library's types differ by its version
    """A client, safe from many threads, that connects when it is first used.

    Raises KnowledgeError where the library is missing or does not understand an option.
    """
    try:
        from redis import ConnectionError as Lost
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise KnowledgeError(
            f"the cache {address.shown} cannot be used: pip install 'towline[redis]', "
            "in a clone '.[redis]'"
        ) from None
    try:
        client = Redis.from_url(
            address.url,
            socket_timeout=PATIENCE,
            socket_connect_timeout=PATIENCE,
            # Once more for a connection that the server has closed while it was idle.
            retry=Retry(NoBackoff(), 1, supported_errors=(Lost,)),
            protocol=2,  # what every version of the server speaks
        )
        # Options meet their names only when a connection is made; this one is not opened.
        client.connection_pool.make_connection()
    except (TypeError, ValueError, AttributeError) as error:
        raise unusable(address, error) from error
    return client


def unusable(address: Address, reason: object) -> KnowledgeError:
    """What to raise when the server cannot be used."""
    said = str(reason).rstrip(".")  # the sentence may go on
    return KnowledgeError(f"the cache {address.shown} cannot be used: {said}")


def batches(client: Any, beginning: str) -> Iterator[list[bytes]]:  # noqa: ANN401 - as above
    """The keys that begin so, some hundreds at a time; none is given twice in one batch."""
    batch: set[bytes] = set()
    for key in client.scan_iter(match=beginning.translate(_GLOB) + "*", count=_BATCH):
        batch.add(key)
        if len(batch) >= _BATCH:
            yield list(batch)
            batch = set()
    if batch:
        yield list(batch)
