"""Connections, kept for the next request to the same place; nobody waits for one here.

How many there are is up to those who ask. A kept connection that died before any byte of an
answer is replaced and the request sent once more (*replay*), if it has no body; else the error is
marked `stale`. No cookies, no redirects, no retries: that is for those who know what a request
means.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from towline._version import __version__
from towline.errors import NetworkError
from towline.wire import log, proxy, tls
from towline.wire.connect import Way, check_shunned, connect
from towline.wire.exchange import ANSWER_TIMEOUT, Died, Exchange, Manner, Unread
from towline.wire.failures import is_out_of_files
from towline.wire.kept import Kept
from towline.wire.message import ANSWER_MAX
from towline.wire.secrets import Secrets

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from towline.context import Cancel, Context
    from towline.wire.channel import Channel
    from towline.wire.kept import Loan
    from towline.wire.message import Request, Response, Shunned
    from towline.wire.pace import Pace
    from towline.wire.url import Url

T = TypeVar("T")

TIMEOUT = 30.0
"""Seconds without a byte either way."""
USER_AGENT = f"towline/{__version__}"
_BODIES = frozenset({"POST", "PUT", "PATCH"})


class Pool:
    """Safe from any thread."""

    def __init__(
        self,
        *,
        timeout: float = TIMEOUT,
        answer_timeout: float = ANSWER_TIMEOUT,
        trust: Callable[[Url], tls.Trust] = lambda _url: tls.Trust(),
        proxies: proxy.Proxies | None = None,
        proxy_trust: tls.Trust = tls.Trust(),  # noqa: B008 - a tuple never changes
        write_log: log.Log = log.silent,
        secrets: Secrets | None = None,
        pace: Pace | None = None,
        dial: Callable[[Cancel, float], Channel] | None = None,
    ) -> None:
        """`dial` connects where the host in a URL does not say where to."""
        self._dial = dial
        self._timeout = timeout
        self._manner = Manner(write_log, secrets or Secrets(), pace, answer_timeout)
        self._trust = trust
        self._proxies = proxies or proxy.Proxies()
        self._proxy_trust = proxy_trust
        self._kept = Kept()
        self._lock = threading.Lock()
        self._contexts: dict[tls.Trust, ssl.SSLContext] = {}
        self._peers: dict[str, str] = {}
        """Addresses connected to, by origin."""

    def request(
        self,
        request: Request,
        context: Context,
        *,
        limit: int = ANSWER_MAX,
        extra: int = 0,
        timeout: float | None = None,
        fresh: bool = False,
    ) -> Response:
        """Send a request whose body is whole, and read its answer, at most `limit` bytes of it.

        `extra`: bytes sent before that the other side must digest to answer; `timeout`: seconds
        without a byte, if other than usual; `fresh`: on a new connection, whatever is kept. Raises
        NetworkError, and RegistryError for an answer that is no HTTP.
        """

        def finish(exchange: Exchange) -> Response:
            return exchange.finish(limit=limit, extra=extra)

        if fresh:
            return finish(self._on_new(request, context, timeout or self._timeout))
        return self._with_replay(request, context, finish, timeout or self._timeout)

    def open(self, request: Request, context: Context, *, patience: float | None = None) -> Unread:
        """Likewise, but the body is read piece by piece; close it when done with it.

        `patience`: seconds to wait for the head, where that is other than usual.
        """

        def opened(exchange: Exchange) -> Unread:
            return exchange.open(patience)

        return self._with_replay(request, context, opened, self._timeout)

    def start(self, request: Request, context: Context) -> Exchange:
        """Send the head of a request whose body is written to the exchange that is returned."""
        return self._with_replay(request, context, lambda exchange: exchange, self._timeout)

    def _with_replay(
        self, request: Request, context: Context, use: Callable[[Exchange], T], timeout: float
    ) -> T:
        context.cancel.check()
        origin = request.url.origin
        check_shunned(request.shuns, request.url, self._peers.get(origin, ""))
        kept = self._kept.take(origin, context.cancel)
        if kept is not None:
            try:
                return use(self._begin(request, context, kept, timeout))
            except Died:
                self._manner.log("* the kept connection had died: once more on a new one")
        return use(self._on_new(request, context, timeout))

    def _on_new(self, request: Request, context: Context, timeout: float) -> Exchange:
        channel = self._connect(request, context, timeout)
        loan = self._kept.lend(request.url.origin, channel)
        return self._begin(request, context, loan, timeout)

    def _begin(self, request: Request, context: Context, loan: Loan, timeout: float) -> Exchange:
        via = self._proxies.of(request.url)
        loan.channel.timeout = timeout
        exchange = Exchange(loan, request, context, self._manner, str(via) if via else None)
        try:
            exchange.begin(*_head(request, via if request.url.scheme == "http" else None))
        except BaseException:
            exchange.close()
            raise
        return exchange

    def _connect(self, request: Request, context: Context, timeout: float) -> Channel:
        url = request.url
        if self._dial:
            return self._dial(context.cancel, timeout)
        via = self._proxies.of(url)
        self._manner.log(f"* connecting to {url.origin}" + (f" through {via}" if via else ""))
        secure = self._context(self._trust(url)) if url.scheme == "https" else None
        over_tls = via is not None and via.url.scheme == "https"
        proxy_tls = self._context(self._proxy_trust) if over_tls else None
        way = Way(url, via, context.cancel, timeout, request.shuns, proxy_tls)
        try:
            channel = connect(way, secure)
        except NetworkError as error:
            if not (is_out_of_files(error.__cause__) and self._kept.drop()):
                raise
            channel = connect(way, secure)
        if via is None:
            self._peers[url.origin] = channel.peer
        return channel

    def shunned_by(self, url: Url) -> Shunned | None:
        """Where that place has no business to send us, as far as is known where it is."""
        address = self._peers.get(url.origin) or url.host
        if proxy.is_here(address):
            return None
        return "this machine" if proxy.is_private(address) else "a private network"

    def _context(self, trust: tls.Trust) -> ssl.SSLContext:
        with self._lock:
            if trust not in self._contexts:
                self._contexts[trust] = tls.context(trust)
            return self._contexts[trust]

    def close(self) -> None:
        """Close the kept connections; those in use are closed when their answer is read."""
        self._kept.close()


def _head(request: Request, http_proxy: proxy.Proxy | None) -> tuple[str, list[tuple[str, str]]]:
    """The target as it is asked for there, and all header fields."""
    url = request.url
    fields = [("Host", url.authority), *_STANDING, *request.headers]
    if http_proxy and http_proxy.authorization:
        fields.append(("Proxy-Authorization", http_proxy.authorization))
    if request.streamed and request.length is None:
        fields.append(("Transfer-Encoding", "chunked"))
    elif request.streamed:
        fields.append(("Content-Length", str(request.length)))
    # Proxies answer 411 to a POST or PUT that does not say that it is empty.
    elif request.body is not None or request.method in _BODIES:
        fields.append(("Content-Length", str(len(request.body or b""))))
    return str(url) if http_proxy else url.target, fields


_STANDING = (("User-Agent", USER_AGENT), ("Accept-Encoding", "identity"))
