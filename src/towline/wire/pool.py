"""The connections of a client: made when needed, and kept for the next request to the same origin.

Nobody waits for a connection here; callers decide how many there are. A request without a body
whose kept connection died before any byte of an answer is sent once more on a new one (*replay*).
With a body the error is marked `stale` instead. No cookies, no redirects, no retries: those are for
callers, who know what a request means.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from towline._version import __version__
from towline.errors import NetworkError
from towline.push_events import nowhere
from towline.wire import proxy, tls
from towline.wire.channel import Channel, Kept
from towline.wire.connect import Way, check_shunned, connect, is_out_of_files
from towline.wire.exchange import ANSWER_TIMEOUTS, Died, Exchange, Manner, Pace
from towline.wire.secrets import Secrets

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from towline.context import Cancel, Context
    from towline.wire.message import Request, Response, Shunned, Url

TIMEOUT = 30.0
"""Seconds without a byte either way."""
USER_AGENT = f"towline/{__version__}"


class Pool:
    """Sends requests over connections that are kept. Safe from any thread."""

    def __init__(
        self,
        *,
        timeout: float = TIMEOUT,
        answer_timeouts: tuple[float, float] = ANSWER_TIMEOUTS,
        trust: Callable[[Url], tls.Trust] = lambda _url: tls.Trust(),
        proxies: proxy.Proxies | None = None,
        proxy_trust: tls.Trust = tls.Trust(),  # noqa: B008 - a tuple never changes
        write_log: Callable[[str], None] = nowhere,
        secrets: Secrets | None = None,
        pace: Pace | None = None,
        dial: Callable[[Cancel, float], Channel] | None = None,
    ) -> None:
        """`dial` makes the connections, where a URL's host does not tell where (an engine's)."""
        self._dial = dial
        self._timeout = timeout
        self._kept = Kept()
        self._manner = Manner(write_log, secrets or Secrets(), self._kept, pace, answer_timeouts)
        self._trust = trust
        self._proxies = proxies or proxy.Proxies()
        self._proxy_trust = proxy_trust
        self._lock = threading.Lock()
        self._contexts: dict[tls.Trust, ssl.SSLContext] = {}
        self._peers: dict[str, str] = {}
        """By origin: the address of the last connection."""

    def request(self, request: Request, context: Context) -> Response:
        """Send a request whose body is whole, and read its answer.

        Raises NetworkError, and RegistryError for an answer that is no HTTP.
        """
        exchange = self.start(request, context)
        try:
            return exchange.finish()
        except Died:
            return self.start(request._replace(fresh=True), context).finish()

    def start(self, request: Request, context: Context) -> Exchange:
        """Send a request's head, and its body if it is whole; the caller writes any other body.

        Raises NetworkError.
        """
        context.cancel.check()
        origin, timeout = request.url.origin, request.timeout or self._timeout
        check_shunned(request.shuns, request.url, self._peers.get(origin, ""))
        via = self._proxies.of(request.url)
        kept = None if request.fresh else self._kept.take(origin, context.cancel)
        channel = kept or self._connect(request, context, timeout, via)
        channel.timeout = timeout
        through = str(via) if via else None
        exchange = Exchange(
            channel, request, context, self._manner, fresh=kept is None, via=through
        )
        try:
            exchange.begin(*_target_and_fields(request, via))
        except Died:
            return self.start(request._replace(fresh=True), context)
        except BaseException:
            exchange.close()
            raise
        return exchange

    def connect_ahead(self, request: Request, context: Context) -> None:
        """Keep a connection for a request that will come soon. Raises NetworkError."""
        origin = request.url.origin
        channel = self._kept.take(origin, context.cancel)
        via = self._proxies.of(request.url)
        channel = channel or self._connect(request, context, self._timeout, via)
        self._kept.keep(origin, channel, fresh=True)

    def _connect(
        self, request: Request, context: Context, timeout: float, via: proxy.Proxy | None
    ) -> Channel:
        # Else those to hosts that are asked no more would stay as long as the client lives.
        self._kept.close_lost()
        url = request.url
        if self._dial:
            return self._dial(context.cancel, timeout)
        self._manner.log(f"* connecting to {url.origin}" + (f" through {via}" if via else ""))
        secure = self._context(self._trust(url)) if url.scheme == "https" else None
        over_tls = via is not None and via.url.scheme == "https"
        proxy_tls = self._context(self._proxy_trust) if over_tls else None
        shuns = request.shuns
        way = Way(url, via, context.cancel, timeout, shuns=shuns, proxy_tls=proxy_tls)
        try:
            channel = connect(way, secure)
        except NetworkError as error:
            if not (is_out_of_files(error.__cause__) and self._kept.drop()):
                raise
            channel = connect(way, secure)  # closing the idle connections has made room
        if via is None:
            self._peers[url.origin] = channel.peer
        return channel

    def shunned_by(self, url: Url) -> Shunned | None:
        """The addresses to which the host of that URL may not send us, by where it is itself."""
        # A registry here may name anything, one in a private network no service of this machine,
        # one on the internet nothing in the network behind us.
        where = proxy.located(self._peers.get(url.origin) or url.host)
        if where == "this machine":
            return None
        return "this machine" if where == "a private network" else "a private network"

    def _context(self, trust: tls.Trust) -> ssl.SSLContext:
        with self._lock:  # a second thread waits: loading the certificates twice takes longer
            if trust not in self._contexts:
                self._contexts[trust] = tls.context(trust)
            return self._contexts[trust]

    def close(self) -> None:
        """Close the kept connections; those in use are closed once their answer was read."""
        self._kept.close()


def _target_and_fields(
    request: Request, via: proxy.Proxy | None
) -> tuple[str, list[tuple[str, str]]]:
    """What stands in the request line, and the header fields."""
    # A plain http request goes to the proxy itself, with the whole URL (RFC 9112, section 3.2.2);
    # https goes through a tunnel, in which nothing is the proxy's.
    url, to_proxy = request.url, via if request.url.scheme == "http" else None
    fields = [("Host", url.authority), ("User-Agent", USER_AGENT)]
    # Never a cookie: with the one that Harbor sets, the next write is refused as forged (CSRF). No
    # encoding: Harbor and proxies would name the encoded size of a blob in a HEAD.
    fields += [("Accept-Encoding", "identity"), *request.headers]
    if to_proxy and to_proxy.authorization:
        fields.append(("Proxy-Authorization", to_proxy.authorization))
    if request.streamed and request.length is None:
        fields.append(("Transfer-Encoding", "chunked"))
    elif request.streamed:
        fields.append(("Content-Length", str(request.length)))
    # Proxies answer 411 to a POST or PUT that does not say that it is empty.
    elif request.body is not None or request.method in {"POST", "PUT", "PATCH"}:
        fields.append(("Content-Length", str(len(request.body or b""))))
    return str(url) if to_proxy else url.target, fields
