"""Knowledge in a Redis that several machines share.

The entries of a DiffID are a list, the oldest first. An entry is a JSON array whose first elements
identify it, so that it is found again by comparing a prefix. Changes that must not be seen half
done are scripts: a script is atomic, and repeating it after a lost answer changes nothing.

The library (extra `[redis]`) does TCP, TLS and Unix sockets, users and databases. It is told not to
wait and try again by itself: a cache that must be waited for is worse than none.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from towline.errors import UsageError
from towline.knowledge.base import (
    MAX_CONFIG_SIZE,
    MAX_ENTRIES,
    Entry,
    Knowledge,
    KnowledgeError,
    Stats,
    is_content_of,
)
from towline.spec.digest import Digest
from towline.spec.media_types import layer_compression

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from towline.knowledge.base import SavedSession
    from towline.knowledge.signing import Signer
    from towline.spec.compression import Compression

PATIENCE = 1.0
"""Seconds to wait for a connection, and for an answer."""
_BATCH = 500
"""Keys in one round trip."""
_GLOB = str.maketrans({character: "\\" + character for character in "\\*?[]^"})
CONFIG_LIFE = 90 * 24 * 3600
"""Seconds an image config is kept."""

_UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
"""Errors of reading values that are not ours."""
_COMPRESSIONS: dict[str, Compression] = {"none": "none", "gzip": "gzip", "zstd": "zstd"}

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

# If the session begins with ARGV[1] (empty: if there is none), put ARGV[2] there (empty: nothing).
_SWAP = """
local old = redis.call('GET', KEYS[1]) or ''
if string.sub(old, 1, #ARGV[1]) ~= ARGV[1] or (ARGV[1] == '' and old ~= '') then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1])
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
    """A `Knowledge` in the Redis at an address.

    Every method, `__init__` too, raises KnowledgeError when the Redis cannot be used.
    """

    def __init__(self, address: Address, signer: Signer) -> None:
        self._address = address
        self._signer = signer
        self._client = _connect(address)

    def entries(self, diff_ids: Sequence[Digest]) -> Mapping[Digest, Sequence[Entry]]:
        """One round trip for all of them."""
        with self._using() as client:
            pipeline = client.pipeline(transaction=False)
            for diff_id in diff_ids:
                pipeline.lrange(self._key("layer", diff_id), -MAX_ENTRIES, -1)
            found = {
                diff_id: self._signer.admit_all(_understood(diff_id, values))
                for diff_id, values in zip(diff_ids, pipeline.execute(), strict=True)
            }
        return {diff_id: entries for diff_id, entries in found.items() if entries}

    def record(self, entries: Sequence[Entry]) -> None:
        """One round trip for all of them."""
        now = time.time()
        with self._using() as client:
            pipeline = client.pipeline(transaction=False)
            for entry in entries:
                same = [entry.digest, entry.repository, entry.account, int(entry.learned)]
                rest = [entry.size, entry.media_type, entry.compression, entry.profile]
                value = _json([*same, *rest, entry.seen or now, self._signer.sign(entry)])
                key = self._key("layer", entry.diff_id)
                pipeline.eval(_REPLACE, 1, key, _beginning(same), value, MAX_ENTRIES)
            pipeline.execute()

    def forget(self, diff_id: Digest, digest: Digest, repository: str) -> None:
        """Whatever the account, and however it was known."""
        with self._using() as client:
            client.eval(_REPLACE, 1, self._key("layer", diff_id), _beginning([digest, repository]))

    def host_facts(self, host: str) -> Mapping[str, str]:
        """Only what this machine wrote or, with a key that machines share, what its holders did."""
        with self._using() as client:
            values = client.hgetall(self._key("host", host))
            return self._signer.admit_facts(host, _understood_facts(values))

    def record_host(self, host: str, facts: Mapping[str, str]) -> None:
        """One round trip for all of them."""
        signed = self._signer.sign_facts(host, facts)
        values = {name: _json([value, mac]) for name, value, mac in signed}
        if values:
            with self._using() as client:
                client.hset(self._key("host", host), mapping=values)

    def config(self, digest: Digest) -> bytes | None:
        """Checked against its digest, so it needs no MAC."""
        with self._using() as client:
            content: bytes | None = client.get(self._key("config", digest))
            return content if content is not None and is_content_of(digest, content) else None

    def record_config(self, digest: Digest, content: bytes) -> None:
        """Kept for 90 days."""
        if len(content) <= MAX_CONFIG_SIZE:
            with self._using() as client:
                client.set(self._key("config", digest), content, ex=CONFIG_LIFE)

    def account_key(self) -> bytes:
        """Made by whichever machine is the first to ask."""
        if self._account_key is None:
            key = self._key("secret", "account")
            with self._using() as client:
                client.set(key, os.urandom(32), nx=True)
                # Raises TypeError for anything but bytes; `bytes(number)` would be zeros.
                self._account_key = b"" + client.get(key)
        return self._account_key

    def session(self, key: str) -> SavedSession | None:
        """One round trip."""
        from towline.knowledge.sessions import read  # an unchanged push needs none

        with self._using() as client:
            text: bytes | None = client.get(self._key("session", key))
        return read(text, key, self._signer) if text else None

    def sessions(self) -> Sequence[SavedSession]:
        """Some hundreds at a time."""
        with self._using() as client:
            return [session for _, session in self._sessions(client) if session]

    def _sessions(self, client: Any) -> Iterator[tuple[bytes, SavedSession | None]]:  # noqa: ANN401 - see `_connect`
        from towline.knowledge.sessions import read

        prefix = self._key("session", "")
        for keys in _batches(client, prefix):
            for key, text in zip(keys, _each(client, "get", keys), strict=True):
                name = key.decode("utf-8", "replace").removeprefix(prefix)
                yield key, read(text, name, self._signer) if text else None

    def swap_session(self, key: str, owner: str | None, after: SavedSession | None) -> bool:
        """A script, which is atomic. Redis drops sessions that are too old."""
        from towline.knowledge.sessions import LIFE, beginning, written

        before = "" if owner is None else beginning(owner)
        text = written(after, key, self._signer) if after else ""
        with self._using() as client:
            return bool(client.eval(_SWAP, 1, self._key("session", key), before, text, LIFE))

    def beat(self, owner: str) -> None:
        """Write a key that expires."""
        from towline.knowledge.sessions import LEASE

        with self._using() as client:
            client.set(self._key("alive", owner), b"", ex=LEASE)

    def is_alive(self, owner: str) -> bool:
        """Whether the key of `beat` has not expired."""
        with self._using() as client:
            return bool(client.exists(self._key("alive", owner)))

    def stats(self) -> Stats:
        """Asks for every key of ours, some hundreds at a time."""
        diff_ids = entries = size = 0
        with self._using() as client:
            for keys in _batches(client, self._key("layer", "")):
                for values in _each(client, "lrange", keys, 0, -1):
                    entries += len(values)
                    diff_ids += any(map(_is_of_layer, values))
            for keys in _batches(client, self._address.prefix):
                # None for a key that has expired meanwhile.
                size += sum(filter(None, _each(client, "memory_usage", keys)))
            left = sum(len(keys) for keys in _batches(client, self._key("session", "")))
        return Stats(self._address.shown, diff_ids, entries, size, left)

    def prune(self, older_than: float) -> int:
        """Removes exactly the values that it has read: one recorded meanwhile stays."""
        dropped = 0
        with self._using() as client:
            for keys in _batches(client, self._key("layer", "")):
                removal = client.pipeline(transaction=False)
                for key, values in zip(keys, _each(client, "lrange", keys, 0, -1), strict=True):
                    for value in values:
                        if _seen(value) < older_than:
                            removal.lrem(key, 0, value)
                dropped += sum(removal.execute())
            for key, session in [*self._sessions(client)]:
                if session is None or session.saved < older_than:
                    dropped += client.delete(key)
        return dropped

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
        except (RedisError, OSError, *_UNREADABLE) as error:
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


def _each(client: Any, command: str, keys: list[bytes], *words: object) -> list[Any]:  # noqa: ANN401 - see `_connect`
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        getattr(pipeline, command)(key, *words)
    answers: list[Any] = pipeline.execute()
    return answers


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _beginning(parts: Sequence[object]) -> str:
    """The beginning of the text of a longer JSON array with these first elements."""
    return _json(parts)[:-1] + ","


def _understood(diff_id: Digest, values: Iterable[bytes]) -> Iterator[tuple[Entry, str]]:
    """Entries with their MACs. Values of any other form are passed over."""
    for value in values:
        try:
            digest, repository, account, learned, *rest, mac = json.loads(value)
            size, media_type, compression, profile, seen = rest
            entry = Entry(
                diff_id=diff_id,
                digest=Digest(digest),
                size=int(size),
                media_type=str(media_type),
                compression=_COMPRESSIONS[compression],
                profile=None if profile is None else str(profile),
                repository=str(repository),
                account=str(account),
                learned=bool(learned),
                seen=float(seen),
            )
        except _UNREADABLE:
            continue
        yield entry, str(mac)


def _understood_facts(values: Mapping[bytes, bytes]) -> Iterator[tuple[str, str, str]]:
    for name, signed in values.items():
        try:
            value, mac = json.loads(signed)
            yield name.decode(), str(value), str(mac)
        except _UNREADABLE:
            continue


def _is_of_layer(value: bytes) -> bool:
    """Whether an entry is a layer's; a config has one too, by its digest."""
    try:
        return layer_compression(str(json.loads(value)[-5])) is not None
    except _UNREADABLE:
        return False


def _seen(value: bytes) -> float:
    """When an entry was last seen; 0 for a value that cannot be read, so that it is dropped."""
    try:
        return float(json.loads(value)[-2])
    except _UNREADABLE:
        return 0.0
