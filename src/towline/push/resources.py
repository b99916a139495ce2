"""The parts that all pushes of one `Pusher` share: connections, knowledge, slots, threads."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from functools import partial
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakValueDictionary

from towline.context import SLICE, Cancel, Context
from towline.errors import Cancelled, TowlineError, UsageError
from towline.knowledge.base import Entry, is_sound
from towline.knowledge.open import open_knowledge
from towline.push.interface.options import account, chunk_size, environment, limits, pair, rate
from towline.push_events import nowhere
from towline.registry.client import RegistryClient, Settings
from towline.transfers.retry import Gate, Policy
from towline.transfers.threads import Threads, processors

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

    from towline.layers.pipelines import Spares
    from towline.push.image import Blob
    from towline.push.interface.options import Limits, PusherOptions
    from towline.push.plan import Delivered, Made
    from towline.push.unfinished import Unfinished
    from towline.reference import RepositoryName
    from towline.spec.digest import Digest
    from towline.transfers.single_flight import SingleFlight
    from towline.transfers.slots import Slots
    from towline.wire.secrets import Secrets

T = TypeVar("T")

AT_ONCE = 16
"""Questions, small blobs and manifests that each host gets at once, beside the uploads."""
SMALL = 1 << 20
"""Bytes of the largest small blob: its upload is mostly two round trips, so `--jobs` does not count
it."""
LOOK_AGAIN = (1.0, 2.0, 4.0)
"""Seconds to wait, in turn, before a registry is asked again for blobs that it has confirmed."""
_LONGEST = 1.0
"""Seconds to wait for a connection under way, rather than to open another."""
WAIT_FOR_TAKERS = 20.0
"""Seconds for which a target that takes nothing of a pipe may keep the others waiting. Servers, and
what stands before them, hang up after 30 to 60 seconds without a byte."""
_REMEMBERED = 10_000
"""Delivered blobs that are remembered."""


class Resources:
    """The shared parts of one `Pusher`. None connects, opens or starts before it is needed."""

    def __init__(
        self, options: PusherOptions, warn: Callable[[str], None], secrets: Secrets
    ) -> None:
        """`secrets` is told every secret that is used."""
        self.limits = limits(options)
        self.secrets = secrets
        self.log = options.get("log") or nowhere
        self.environ = environment(options)
        secrets.add_environment(self.environ)
        cache = None if options.get("cache") is None else os.fspath(options["cache"])
        secrets.add_address(cache)
        self.engine = options.get("engine")
        """The Docker engine's address; None: it is found as docker's client finds it."""
        self.knowledge = open_knowledge(cache, self.environ, warn)
        self.gate = Gate()
        self.client = RegistryClient(
            _settings(options, self.limits, warn, secrets),
            recall=self.knowledge.host_facts,
            few_left=self.gate.follow,
        )
        self.policy = Policy(retries=self.limits.retries)
        self.look_again: tuple[float, ...] = LOOK_AGAIN
        # `--jobs 1` means that no request runs beside another.
        self.at_once = AT_ONCE if self.limits.jobs > 1 else 1
        """Manifests that are put to a host at once."""
        self.wait_for_takers = WAIT_FOR_TAKERS
        self.passing = Lock()
        """Held while a blob that passes begins at several targets."""
        # Weak: threads that are idle end, and what nobody uses is forgotten with the last of them.
        self._threads: WeakValueDictionary[str, Threads] = WeakValueDictionary()
        self._closed = False
        self._process = os.getpid()
        self._made: dict[str, Any] = {}
        """What an unchanged push needs none of, by names: slots, flights and the like."""
        self._seen: dict[Hashable, Made] = {}
        self._lock = Lock()

    @contextmanager
    def connecting(
        self, names: Iterable[RepositoryName], context: Context
    ) -> Iterator[Callable[[], None]]:
        """Connect to each host while the block runs, and give up at its end.

        Yields a function that waits for the connection, if there is only one. No request is made,
        and errors are dropped: the first request meets them again.
        """
        cancel = Cancel()
        threads = []

        def connect(host: str) -> None:
            with suppress(TowlineError, Cancelled):
                self.client.connect(host, context.but(cancel=cancel))

        for host in {name.host for name in names if name.is_at_registry}:
            thread = Thread(target=connect, args=[host], name="towline-connecting", daemon=True)
            with suppress(RuntimeError):  # the system gives no thread
                thread.start()
                threads.append(thread)

        def wait() -> None:
            until = time.monotonic() + _LONGEST
            while len(threads) == 1 and threads[0].is_alive() and time.monotonic() < until:
                threads[0].join(SLICE)
                context.cancel.check()

        try:
            yield wait
        finally:
            cancel.cancel()
            for thread in threads:
                thread.join(_LONGEST)

    def _once(self, name: str, make: Callable[[], T]) -> T:
        with self._lock:
            if name not in self._made:
                self._made[name] = make()
            return cast("T", self._made[name])

    @property
    def slots(self) -> Slots:
        """The slots for uploads of large blobs."""
        from towline.transfers.slots import Slots

        return self._once("slots", partial(Slots, self.limits.jobs))

    @property
    def small_slots(self) -> Slots:
        """The slots for questions and small blobs."""
        from towline.transfers.slots import Slots

        beside = self.limits.jobs > 1
        return self._once("small slots", partial(Slots, AT_ONCE)) if beside else self.slots

    @property
    def flights(self) -> SingleFlight[Delivered]:
        """The uploads of blobs that are under way."""
        from towline.transfers.single_flight import SingleFlight

        return self._once("flights", SingleFlight)

    @property
    def manifest_flights(self) -> SingleFlight[None]:
        """The PUTs of manifests that are under way."""
        from towline.transfers.single_flight import SingleFlight

        return self._once("manifest flights", SingleFlight)

    @property
    def spares(self) -> Spares:
        """The buffers that blocks are read into."""
        from towline.layers.pipelines import Spares

        return self._once("spares", Spares)

    @property
    def unfinished(self) -> Unfinished:
        """The uploads that were left unfinished."""
        from towline.push.unfinished import Unfinished

        return self._once("unfinished", partial(Unfinished, self.knowledge, self.record_hosts))

    @property
    def encoders(self) -> Threads:
        """Threads that compress blocks."""
        # Of their own: blobs that wait for their blocks would use up the threads that make them.
        return self._threads_of("encoder", processors())

    @property
    def lent(self) -> Threads:
        """Threads that are lent to blobs, for reading and hashing, as far as some are free."""
        return self._threads_of("towline-lent", processors())

    def host_threads(self, host: str) -> Threads:
        """Threads that ask a host."""
        # Of each host's own: a host that hangs would hold the threads of all.
        return self._threads_of(f"towline-host-{host}", AT_ONCE)

    def send_threads(self, host: str) -> Threads:
        """Threads that write a host's part of blobs for several hosts."""
        # As many as slots: whoever has a slot must not wait for a thread.
        return self._threads_of(f"towline-send-{host}", AT_ONCE + self.limits.jobs)

    def slots_for(self, hosts: Iterable[str], size: int) -> Slots:
        """The slots for an upload of so many bytes to these hosts."""
        # While a host strains, a small blob counts as any other.
        strained = any(self.slots.has_fewer(host) for host in hosts)
        return self.small_slots if size <= SMALL and not strained else self.slots

    def blob_threads(self, hosts: Iterable[str], size: int) -> Threads:
        """Threads that bring blobs to one or several hosts, each blob from its first question."""
        # Small blobs have threads of their own, so that they wait for no large one.
        names = "+".join(sorted(set(hosts)))
        if size <= SMALL:
            return self._threads_of(f"towline-small-{names}", AT_ONCE)
        return self._threads_of(f"towline-blob-{names}", AT_ONCE + self.limits.jobs)

    def put_threads(self, host: str) -> Threads:
        """Threads that put manifests to a host."""
        return self._threads_of(f"towline-put-{host}", self.at_once)

    def _threads_of(self, name: str, count: int) -> Threads:
        with self._lock:
            threads = self._threads.get(name)
            if threads is None:
                threads = self._threads[name] = Threads(count, name)
                if self._closed:
                    threads.close()
            return threads

    def known(self, blobs: Iterable[Blob]) -> Mapping[Digest, Sequence[Entry]]:
        """What the cache knows of blobs. Entries that others wrote are checked for their form."""
        found = self.knowledge.entries([blob.identity for blob in blobs])
        return {diff_id: list(filter(is_sound, entries)) for diff_id, entries in found.items()}

    def remember(self, key: Hashable, made: Made) -> None:
        """Note a blob that was delivered, for pushes that were planned before that."""
        with self._lock:
            self._seen[key] = made
            if len(self._seen) > _REMEMBERED:
                del self._seen[next(iter(self._seen))]

    def seen(self, key: Hashable) -> Made | None:
        """The blob of a transfer with that key, if one was delivered not long ago."""
        with self._lock:
            return self._seen.get(key)

    def check_open(self) -> None:
        """Raise UsageError if the Pusher is closed, or was made before a fork."""
        if self._closed:
            raise UsageError("this Pusher is closed", hint="make another")
        # A fork copies no threads, and perhaps locks that they held: nothing would ever start.
        if os.getpid() != self._process:
            raise UsageError("this Pusher is of another process", hint="make one after the fork")

    def record_hosts(self) -> None:
        """Write the facts of hosts into the cache, so that a kill does not lose them."""
        for host, facts in self.client.facts().items():
            self.knowledge.record_host(host, facts)

    def left(self) -> Sequence[str]:
        """Sentences about the uploads that this `Pusher` has left unfinished."""
        return self.unfinished.told() if "unfinished" in self._made else ()

    def close(self) -> None:
        """Stop the threads, close connections and stores."""
        with self._lock:
            self._closed = True
            threads = [*self._threads.values()]
        for some in threads:
            some.close()
        for some in threads:
            some.join()
        if "unfinished" in self._made:
            self.unfinished.close()
        self.record_hosts()
        self.client.close()
        self.knowledge.close()


def _settings(
    options: PusherOptions, limits: Limits, warn: Callable[[str], None], secrets: Secrets
) -> Settings:
    """The registry client's settings."""
    unverified = options.get("tls_verify") is False  # None is as if nothing was given
    given = Settings()
    given.plain_http = options.get("plain_http", False)
    given.insecure = options.get("insecure", False) or unverified
    given.loopback_http = True if unverified else None
    given.ca = options.get("ca")
    given.cert = options.get("cert")
    given.key = options.get("key")
    given.creds = account(options.get("creds"))
    given.src_creds = pair(options.get("src_creds"), "src_creds")
    given.authfile = options.get("authfile")
    given.timeout = limits.timeout
    given.limit_rate = rate(options.get("limit_rate"))
    given.chunk_size = chunk_size(options.get("chunk_size", "auto"))
    given.environ = environment(options)
    given.log = options.get("log") or nowhere
    given.warn = warn
    given.secrets = secrets
    return given
