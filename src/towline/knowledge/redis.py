"""Knowledge in a Redis that several machines share.

The entries of a DiffID are a list, the oldest first. An entry is its row as a JSON array, whose
first elements identify it, so that it is found again by comparing a prefix. Changes that must not
be seen half done are scripts: a script is atomic, and repeating it after a lost answer changes
nothing.

The library (extra `[redis]`) does TCP, TLS and Unix sockets, users and databases. It is told not to
wait and try again by itself: a cache that must be waited for is worse than none.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from towline.errors import UsageError
from towline.knowledge.base import MAX_ENTRIES, KnowledgeError, Signer, Stats
from towline.knowledge.store import UNREADABLE, Knowledge, beginning, entry_of
from towline.spec.media_types import layer_compression

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from towline.knowledge.base import Entry, Signed
    from towline.spec.digest import Digest

PATIENCE = 1.0
"""Seconds to wait for a connection, and for an answer."""
_BATCH = 500
"""Keys in one round trip."""
_GLOB = str.maketrans({character: "\\" + character for character in "\\*?[]^"})

# Drop the values that begin with ARGV[1]; append ARGV[2], if given, and keep the last ARGV[3].
_REPLACE = """
for _, old in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  if string.sub(old, 1, #ARGV[1]) == ARGV[1] then redis.call('LREM', KEYS[1], 0, old) end
end
if ARGV[2] then
  redis.call('RPUSH', KEYS[1], ARGV[2])
  redis.call('LTRIM', KEYS[1], -tonumber(ARGV[3]), -1)
end
"""

# See `Knowledge._swap`: ARGV[1] is what was there before, ARGV[2] what comes, ARGV[3] its life.
_SWAP = """
local old = redis.call('GET', KEYS[1]) or ''
if string.sub(old, 1, #ARGV[1]) ~= ARGV[1] or (ARGV[1] == '' and old ~= '') then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1])
elseif ARGV[3] == '0' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
return 1
"""


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a Redis, and the prefix of our keys in it."""

    url: str
    """As the library takes it, with the password."""
    shown: str
    """For messages, without any secret."""
    prefix: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse `redis://`, `rediss://` or `unix://`. Raises UsageError for a wrong address."""
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            # The text may hold a password, and the error a part of it: neither is repeated.
            raise UsageError(
                "the address given with `cache` is wrong",
                hint="write what a password has beside letters and digits as %XX",
            ) from None
        found, what = parts.hostname, "host"
        if parts.scheme == "unix":
            found, what = parts.path, "path"
        if not found:
            raise UsageError(f"the cache {parts.scheme}:// names no {what}")
        place = (parts.hostname or "") + (f":{port}" if port else "") + parts.path
        options = parse_qsl(parts.query, keep_blank_values=True)
        prefix = dict(options).get("prefix", "towline:")
        query = urlencode([option for option in options if option[0] != "prefix"])
        # Not `geturl`: it drops the slashes before a Unix socket's path.
        url = f"{parts.scheme}://{parts.netloc}{parts.path}" + (query and f"?{query}")
        return cls(url, f"{parts.scheme}://{place}", prefix)


class RedisKnowledge(Knowledge):
    """A `Knowledge` in the Redis at an address."""

    def __init__(self, address: Address, signer: Signer) -> None:
        self._signer = signer
        self._address = address
        self._client = _connect(address)

    def _signed(self, diff_ids: Sequence[Digest]) -> list[tuple[Digest, list[Signed]]]:
        with self._using() as client:
            keys = [self._key("layer", diff_id) for diff_id in diff_ids]
            found = zip(diff_ids, _each(client, "lrange", keys, -MAX_ENTRIES, -1), strict=True)
            return [(diff_id, list(_signed_of(diff_id, values))) for diff_id, values in found]

    def record(self, entries: Sequence[Entry]) -> None:
        """One round trip for all of them."""
        with self._using() as client:
            pipeline = client.pipeline(transaction=False)
            for entry in entries:
                key, row = self._key("layer", entry.diff_id), self._row(entry)
                value = json.dumps(row, separators=(",", ":"))
                pipeline.eval(_REPLACE, 1, key, beginning(row[:4]), value, MAX_ENTRIES)
            pipeline.execute()

    def forget(self, diff_id: Digest, digest: Digest, repository: str) -> None:
        """Whatever the account, and however it was known."""
        with self._using() as client:
            client.eval(_REPLACE, 1, self._key("layer", diff_id), beginning([digest, repository]))

    def _get(self, kind: str, name: str) -> bytes | None:
        with self._using() as client:
            found = client.get(self._key(kind, name))
            # Raises TypeError for anything but bytes.
            return None if found is None else b"" + found

    def _all(self, kind: str) -> Iterator[tuple[str, bytes]]:
        prefix = self._key(kind, "")
        with self._using() as client:
            for keys in _batches(client, prefix):
                for key, value in zip(keys, _each(client, "get", keys), strict=True):
                    if value is not None:  # its time may be over meanwhile
                        yield key.decode("utf-8", "replace").removeprefix(prefix), value

    def _put(self, kind: str, name: str, value: bytes, life: int = 0) -> None:
        with self._using() as client:
            client.set(self._key(kind, name), value, ex=life or None)

    def _swap(self, kind: str, name: str, before: bytes, after: bytes, life: int = 0) -> bool:
        with self._using() as client:
            return bool(client.eval(_SWAP, 1, self._key(kind, name), before, after, life))

    def stats(self) -> Stats:
        """Asks for every key of ours, some hundreds at a time."""
        diff_ids = entries = size = 0
        with self._using() as client:
            for keys in _batches(client, self._key("layer", "")):
                for values in _each(client, "lrange", keys, 0, -1):
                    entries += len(values)
                    # A config has an entry, too, by its digest.
                    diff_ids += any(layer_compression(str(_part(v, -5))) for v in values)
            for keys in _batches(client, self._address.prefix):
                # None for a key that has expired meanwhile.
                size += sum(filter(None, _each(client, "memory_usage", keys)))
        return Stats(self._address.shown, diff_ids, entries, size)

    def prune(self, older_than: float) -> int:
        """Removes exactly the values that it has read: one recorded meanwhile stays."""
        dropped = 0
        with self._using() as client:
            for keys in _batches(client, self._key("layer", "")):
                removal = client.pipeline(transaction=False)
                for key, values in zip(keys, _each(client, "lrange", keys, 0, -1), strict=True):
                    for value in values:
                        seen = _part(value, -2)
                        if not isinstance(seen, int | float) or seen < older_than:
                            removal.lrem(key, 0, value)
                dropped += sum(removal.execute())
        return dropped + self._prune_sessions(older_than)

    def clear(self) -> None:
        """Drop our keys but the secrets, some hundreds at a time."""
        secret = self._key("secret", "").encode()
        with self._using() as client:
            for keys in _batches(client, self._address.prefix):
                if ours := [key for key in keys if not key.startswith(secret)]:
                    client.delete(*ours)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _key(self, kind: str, name: str) -> str:
        return f"{self._address.prefix}{kind}:{name}"

    @contextmanager
    def _using(self) -> Iterator[Any]:
        from redis import RedisError

        try:
            yield self._client
        # The library does not wrap errors of the system, nor those of odd answers and options.
        except (RedisError, OSError, *UNREADABLE) as error:
            raise _unusable(self._address, error) from error


def _connect(address: Address) -> Any:  # noqa: ANN401 - the library's types differ by its version
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
            # One retry, for a connection that the server has closed while it was idle.
            retry=Retry(NoBackoff(), 1, supported_errors=(Lost,)),
            protocol=2,  # what every version of the server speaks
        )
        # Wrong options are noticed only when a connection is made. This one is not opened.
        client.connection_pool.make_connection()
    except (TypeError, ValueError, AttributeError) as error:
        raise _unusable(address, error) from error
    return client


def _unusable(address: Address, reason: object) -> KnowledgeError:
    """The error to raise when the server cannot be used."""
    said = str(reason).rstrip(".")  # the sentence may go on
    return KnowledgeError(f"the cache {address.shown} cannot be used: {said}")


def _batches(client: Any, beginning: str) -> Iterator[list[bytes]]:  # noqa: ANN401 - as above
    """The keys with that beginning, some hundreds at a time."""
    # SCAN may give a key twice: a batch is a set.
    batch: set[bytes] = set()
    for key in client.scan_iter(match=beginning.translate(_GLOB) + "*", count=_BATCH):
        batch.add(key)
        if len(batch) >= _BATCH:
            yield list(batch)
            batch = set()
    if batch:
        yield list(batch)


def _each(client: Any, command: str, keys: Iterable[bytes | str], *words: object) -> list[Any]:  # noqa: ANN401 - see `_connect`
    """The answers to a command about each key, in one round trip."""
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        getattr(pipeline, command)(key, *words)
    answers: list[Any] = pipeline.execute()
    return answers


def _signed_of(diff_id: Digest, values: Iterable[bytes]) -> Iterator[Signed]:
    """Entries with their MACs. Values of any other form are passed over."""
    for value in values:
        try:
            signed = entry_of(diff_id, json.loads(value))
        except UNREADABLE:
            continue
        yield signed


def _part(value: bytes, at: int) -> object:
    """An element of an entry's array; None for a value that cannot be read."""
    try:
        return json.loads(value)[at]
    except UNREADABLE:
        return None
