"""All registries that one `Pusher` speaks to: connections, credentials, endpoints, tokens."""

from __future__ import annotations

import re
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from towline.context import Context, acquired
from towline.push_events import nowhere
from towline.reference import RepositoryName
from towline.registry import errors
from towline.registry.auth.keychain import Keychain
from towline.registry.capabilities import HostFacts
from towline.registry.endpoints import Endpoint, host_of, trust_of
from towline.registry.repository import Repository
from towline.registry.transport import Transport
from towline.wire import proxy, tls
from towline.wire.exchange import ANSWER_TIMEOUTS, Pace
from towline.wire.message import Request, Response, Url
from towline.wire.pool import TIMEOUT, Pool
from towline.wire.secrets import Secrets

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping

    from towline.errors import Side
    from towline.registry.auth.credential_files import Credentials
    from towline.registry.auth.keychain import AskForHost


_WARNINGS_READ = 4096
"""Characters of the warnings of one answer; more than that may be dropped."""
_WARNINGS_MAX = 20
"""Different ones that are told: nobody reads more."""
_WARNING = r'299 - "((?:[^"\\]|\\.)*)"'


class Settings:
    """What the user says of all registries."""

    def __init__(self) -> None:
        self.plain_http = False
        """http at once, no try of https."""
        self.insecure = False
        """Certificates unchecked, and never http."""
        self.ca: str | os.PathLike[str] | None = None
        self.cert: str | os.PathLike[str] | None = None
        self.key: str | os.PathLike[str] | None = None
        self.creds: tuple[str, str] | AskForHost | None = None
        """For destinations."""
        self.src_creds: tuple[str, str] | None = None
        """For sources."""
        self.authfile: str | os.PathLike[str] | None = None
        self.timeout: float = TIMEOUT
        """Seconds without a byte either way."""
        self.answer_timeouts = ANSWER_TIMEOUTS
        """Seconds allowed for the answer to a body, if `timeout` is not more."""
        self.limit_rate: float | None = None
        """Bytes a second that all uploads together may send; None: as many as there are."""
        self.chunk_size: int | None = None
        """Bytes; larger blobs go in chunks. None: in one body wherever it is taken."""
        self.environ: Mapping[str, str] = {}
        self.log: Callable[[str], None] = nowhere
        """Takes the lines of the wire log."""
        self.warn: Callable[[str], None] = nowhere
        """Takes one sentence about something that is not as it should be."""
        self.secrets: Secrets | None = None
        """Is told every secret that is used."""
        self.loopback_http: bool | None = None
        """Whether a registry on this machine may be spoken to in http; None: unless `insecure`."""


class RegistryClient:
    """Gives repositories. Safe from any thread."""

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        *,
        recall: Callable[[str], Mapping[str, str]] | None = None,
        few_left: Callable[[str, int, float], object] = lambda _host, _left, _seconds: None,
    ) -> None:
        """`recall` gives what an earlier client said of a host in `facts`.

        `few_left` is told of a host that takes few more requests: the host, their number, and the
        seconds in which it takes no others.
        """
        self._few_left = few_left
        self._settings = settings
        self._clock = clock
        self._recall = recall
        self._lock = threading.Lock()
        self._pool: Pool | None = None
        self._closed = False
        self._secrets = settings.secrets or Secrets()
        self._keychain = Keychain(
            settings.environ,
            creds=settings.creds,
            src_creds=settings.src_creds,
            authfile=str(settings.authfile) if settings.authfile else None,
            log=settings.log,
            warn=settings.warn,
            secrets=self._secrets,
        )
        self._endpoints: dict[str, Endpoint] = {}
        self._facts: dict[str, tuple[str, HostFacts]] = {}
        """By host: the name under which its facts are kept, and the facts."""
        self._finding: dict[str, threading.Lock] = {}
        """By host: held while its credentials are found."""
        self._warnings = Warnings(settings.warn)
        self._transports: dict[tuple[str, Credentials | None], Transport] = {}

    def repository(
        self,
        name: RepositoryName,
        side: Side = "destination",
        *,
        context: Context | None = None,
    ) -> Repository:
        """A repository. Nobody is asked yet.

        Raises UsageError for a file of credentials, a proxy or a certificate that cannot be used.
        Its first call finds the credentials, and raises AuthError where the caller's own function
        fails, and Cancelled while a helper is waited for.
        """
        context = context or Context()
        self._keychain.check()
        with acquired(self._lock, context):
            self._made_pool()
            if name.host not in self._facts:
                kept_as = self._name(name.host)
                # How a host takes uploads is of no interest to those who only read.
                known = self._recall(kept_as) if self._recall and side == "destination" else {}
                self._facts[name.host] = kept_as, HostFacts.recalled(known, time.time())
            facts = self._facts[name.host][1]
        find = partial(self._transport, name, side, context)
        size = self._settings.chunk_size
        return Repository(name, find, facts, side=side, chunk_size=size)

    def connect(self, host: str, context: Context) -> None:
        """Open a connection for the first call to a host. Nobody is asked for a login.

        Raises NetworkError, and UsageError for a proxy or a certificate that cannot be used.
        """
        with acquired(self._lock, context):
            pool, endpoint = self._made_pool(), self._endpoint(host)
        request = Request("GET", endpoint.base(context))
        if endpoint.is_bound:  # the same guard as `Transport._guarded`
            request = request._replace(shuns="another machine")
        pool.connect_ahead(request, context)

    def write_to(self, hosts: Iterable[str]) -> None:
        """Use a destination's account for reads from these hosts, too.

        Raises UsageError where an account was given, and an earlier call has used it elsewhere.
        """
        self._keychain.write_to(hosts)

    def _name(self, host: str) -> str:
        """The name under which facts of a host are kept.

        Without a certificate that vouches for the host (http, or https unchecked) somebody on the
        way may have said them: they have a name of their own, and never count for verified https.
        """
        return host if self._endpoint(host).is_verified else f"unverified {host}"

    def _transport(self, name: RepositoryName, side: Side, context: Context) -> Transport:
        keychain = self._keychain
        with self._lock:
            finding = self._finding.setdefault(name.host, threading.Lock())
        # A lock of each host: a helper or function that is slow for one keeps no other waiting.
        with acquired(finding, context):
            credentials = keychain.find(name, side, context)
        key = (name.host, credentials)
        with self._lock:
            if key not in self._transports:
                renewable = credentials is not None and credentials.renewable
                self._transports[key] = Transport(
                    self._made_pool(),
                    self._endpoint(name.host),
                    credentials,
                    keychain,
                    again=partial(keychain.find, name, side) if renewable else None,
                    clock=self._clock,
                    log=self._settings.log,
                    notice=partial(self._notice, name.host),
                )
            return self._transports[key]

    def _notice(self, host: str, response: Response) -> None:
        if "Warning" in response.headers:
            self._warnings.tell(response)
        if few := errors.few_left(response):
            self._few_left(host, *few)

    def _endpoint(self, host: str) -> Endpoint:
        settings = self._settings
        if host not in self._endpoints:
            allowed = settings.loopback_http
            self._endpoints[host] = Endpoint(
                host,
                plain_http=settings.plain_http,
                loopback_http=not settings.insecure if allowed is None else allowed,
                checked=not settings.insecure,
                timeout=settings.timeout,
            )
        return self._endpoints[host]

    def _made_pool(self) -> Pool:
        settings = self._settings
        if self._pool is None:
            authorities = (settings.ca,) if settings.ca else ()
            cert, key = settings.cert or None, settings.key or None
            given = tls.Trust(settings.insecure, authorities, cert, key)
            tls.check(given)

            def trust(url: Url) -> tls.Trust:
                return trust_of(host_of(url), given, settings.environ)

            self._pool = Pool(
                timeout=settings.timeout,
                answer_timeouts=settings.answer_timeouts,
                trust=trust,
                proxies=proxy.from_environment(settings.environ),
                # `--ca` counts for a proxy's certificate too; `--insecure` and `--cert` do not.
                proxy_trust=tls.Trust(authorities=given.authorities),
                write_log=settings.log,
                secrets=self._secrets,
                pace=Pace(settings.limit_rate) if settings.limit_rate else None,
            )
            # Whoever still asks after `close` gets a pool that keeps no connection open.
            if self._closed:
                self._pool.close()
        return self._pool

    def log_in(self, host: str, context: Context) -> bool:
        """Ask a registry whether the credentials of destinations are good.

        False: it has asked for none. Raises AuthError when they are not good, RegistryError,
        NetworkError.
        """
        name = RepositoryName(host, "")
        return self.repository(name, "destination", context=context).ask_base(context)

    def facts(self) -> dict[str, dict[str, str]]:
        """The facts to store, by the names that `recall` is asked for; only of hosts with news."""
        now = time.time()
        with self._lock:
            found = {
                name: facts.news(now)
                for host, (name, facts) in self._facts.items()
                # If it fell back to http, what it does there says nothing of https.
                if self._name(host) == host or name != host
            }
        return {name: facts for name, facts in found.items() if facts}

    def close(self) -> None:
        """Close the connections. None is kept from here on, though somebody may still ask."""
        with self._lock:
            self._closed = True
            self._transports.clear()
            if self._pool is not None:
                self._pool.close()


class Warnings:
    """Tells each warning of a registry once, on one line (distribution-spec, "Warnings").

    Safe from any thread.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._lock = threading.Lock()
        self._told: set[str] = set()

    def tell(self, response: Response) -> None:
        """Tell what is new in an answer."""
        said = ", ".join(response.headers.all("Warning"))[:_WARNINGS_READ]
        for quoted in re.findall(_WARNING, said):
            text = errors.shown(re.sub(r"\\(.)", r"\1", quoted), _WARNINGS_READ)
            message = f"{response.url.authority} says: {text}"
            with self._lock:
                new = bool(text) and message not in self._told and len(self._told) < _WARNINGS_MAX
                if new:
                    self._told.add(message)
            if new:
                self._warn(message)
