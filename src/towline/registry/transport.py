"""Carries calls out: where they go, with what lets them in, and where reads are sent on to.

The only place of this package that speaks to `wire`. It never tries again for a reason other than
being let in.
"""

from __future__ import annotations

import re
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from towline.errors import AuthError, NetworkError, RegistryError, TowlineError
from towline.registry import errors, hints
from towline.registry.auth import token as tokens
from towline.registry.auth.admission import Admission, Visit
from towline.registry.auth.authenticator import Auth
from towline.registry.endpoints import acquired
from towline.spec import distribution
from towline.wire.message import Request
from towline.wire.proxy import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from towline.context import Context
    from towline.errors import Side
    from towline.registry.auth.keychain import Credentials
    from towline.registry.auth.token import Scopes
    from towline.registry.endpoints import Endpoint
    from towline.registry.requests.blobs import Call
    from towline.wire.exchange import Exchange, Unread
    from towline.wire.message import Response
    from towline.wire.pool import Pool
    from towline.wire.url import Url

T = TypeVar("T")
E = TypeVar("E", bound=TowlineError)

REDIRECTS_MAX = 5
_REMEDIED = frozenset({401, 411, 413})
"""Statuses that are answered by asking in another way, whoever says them."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SAME_AGAIN = frozenset({307, 308})
"""Redirects that keep method and body."""
_UPLOAD = re.compile(r"/v2/((?:[a-z0-9][a-z0-9._-]*/)*[a-z0-9][a-z0-9._-]*)/blobs/uploads?/[^/%]*")
"""Path of an upload; GHCR says `upload` in the addresses of its sessions."""
_UNAUTHORIZED, _NOT_FOUND = 401, 404
_LEAST_REFUSAL = 400


class Caller:
    """One registry spoken to by one account. Safe from any thread."""

    def __init__(
        self,
        pool: Pool,
        endpoint: Endpoint,
        credentials: Credentials | None,
        *,
        again: Callable[[Context], Credentials | None] | None = None,
        own: Callable[[Url, str, Context], Credentials | None] = lambda _url, _path, _context: None,
        clock: Callable[[], float] = time.monotonic,
        log: Callable[[str], None] = lambda _line: None,
        notice: Callable[[Response], None] = lambda _response: None,
        why_anonymous: Callable[[], str] = lambda: "no credentials were given",
    ) -> None:
        """`notice` is shown every answer to a call; `why_anonymous` says why nobody is named.

        `own` finds the account that another host has of its own, for a repository's path there.
        """
        self.endpoint = endpoint
        self.credentials = credentials
        """As they were found first."""
        self._pool = pool
        self._again = again
        self._own = own
        self._clock = clock
        self._log = log
        self._lock = threading.Lock()
        self._notice = notice
        self._why_anonymous = why_anonymous
        self._admission: Admission | None = None
        self._others: dict[tuple[str, str], Admission] = {}
        """By origin and repository: what uploads were sent on to, and has an account of its own."""
        self._proven = False
        """Whether a registry has answered there."""

    def call(self, call: Call[T], scopes: Scopes, context: Context, *, extra: int = 0) -> T:
        """Send it and read the answer.

        `extra`: bytes sent before that the registry must digest first. Raises AuthError,
        RegistryError, NetworkError.
        """
        response = self._answer(call, scopes, context, extra)
        if call.moves:
            response = self._moved(call, response, scopes, context)
        self._notice(response)
        try:
            result = call.read(response)
        except (AuthError, RegistryError) as error:
            if error.status == _NOT_FOUND and not errors.is_a_registrys(response):
                self.check_version(context)
            raise self.judged(error, response) from None
        self._proven = self._proven or errors.is_a_registrys(response)
        return result

    def _moved(
        self, call: Call[T], response: Response, scopes: Scopes, context: Context
    ) -> Response:
        """The answer of the host that a call is sent on to (RFC 9110, sections 15.4.8 and 15.4.9).

        Method and body are kept. It is asked without credentials, unless it has its own.
        """
        for _ in range(REDIRECTS_MAX):
            elsewhere = errors.sent_on(response)
            if response.status not in _SAME_AGAIN or elsewhere is None:
                return response
            same_host = elsewhere.host == response.url.host
            if same_host and (response.url.scheme, elsewhere.scheme) == ("https", "http"):
                # Behind a proxy that ends TLS registries say `http` of themselves.
                elsewhere = response.url.at(elsewhere.target)
            url = _still_secure(elsewhere, response)
            request = self._guarded(Request(call.method, url, call.headers, call.body), context)
            self._meet(url, context)

            def by(ready: Request) -> Response:
                return self._pool.request(ready, context, limit=call.limit, fresh=call.fresh)

            response = self._let_in(Visit(request, by, scopes, context, optional=call.optional))
        raise _astray(response.url)

    def _meet(self, url: Url, context: Context) -> None:
        """Look whether the host that an upload is sent on to has an account of its own."""
        key = _upload_at(url)
        if self._is_home(url, context) or key is None or key in self._others:
            return
        credentials = self._own(url, key[1], context)
        if credentials is not None:
            base = url.at(distribution.BASE)
            auth = Auth(base, credentials, self._clock, self._log)
            self._others[key] = Admission(auth, partial(self._asked, asker=base), None)

    def _answer(self, call: Call[T], scopes: Scopes, context: Context, extra: int) -> Response:
        """The answer of the place where the registry turns out to be."""
        base = self.endpoint.base(context)
        try:
            response = self._sent(call, base, scopes, context, extra)
        except (NetworkError, RegistryError) as error:
            if not self.endpoint.gives_way(base, error, context):
                speaks_tls = isinstance(error, NetworkError) and error.speaks_tls
                if speaks_tls and self.endpoint.plain_http and isinstance(call.target, str):
                    error.hint = hints.SPEAKS_HTTPS
                raise
        else:
            if not self.endpoint.gives_way(base, response, context):
                return response
        return self._answer(call, scopes, context, extra)

    def _sent(
        self, call: Call[T], base: Url, scopes: Scopes, context: Context, extra: int
    ) -> Response:
        def by(ready: Request) -> Response:
            def send(request: Request) -> Response:
                limit, fresh = call.limit, call.fresh
                return self._pool.request(request, context, limit=limit, extra=extra, fresh=fresh)

            if call.follow:
                return self._followed(ready, send(ready), context, call.limit)
            return _repeated(ready, send)

        request = self._request(call, base, context)
        return self._let_in(Visit(request, by, scopes, context, optional=call.optional))

    def open(self, call: Call[T], scopes: Scopes, context: Context) -> Unread:
        """Send it, and leave the body to be read piece by piece."""
        opened: list[Unread] = []

        def by(ready: Request) -> Response:
            while opened:
                opened.pop().close()
            opened.append(self._opened(ready, context))
            return opened[0].response

        request = self._request(call, self.endpoint.base(context), context)
        try:
            self._let_in(Visit(request, by, scopes, context))
        except BaseException:
            for unread in opened:
                unread.close()
            raise
        return opened[0]

    def _opened(self, request: Request, context: Context) -> Unread:
        for _ in range(REDIRECTS_MAX):
            unread = self._pool.open(request, context)
            if unread.response.status not in _REDIRECTS:
                return unread
            unread.close()
            request = self._guarded(_redirected(request, unread.response), context)
        raise _astray(request.url)

    def start(self, request: Request, scopes: Scopes, context: Context) -> Exchange:
        """Begin a request whose body is written to the exchange; its token lasts a while."""
        if door := self._door(request.url, context):
            request = door.for_body(request, scopes, context)
        return self._pool.start(self._guarded(request, context), context)

    def refused(self, response: Response, scopes: Scopes, context: Context) -> bool:
        """Renew what a body's request was refused with; whether sending it again makes sense."""
        door = self._door(response.url, context)
        return door is not None and door.refused(response, scopes, context)

    def grants(self, scopes: Scopes, context: Context) -> bool:
        """Whether a token for all of these scopes can be had, as far as is known."""
        return self._home(context).grants(scopes, context)

    def quietly(self, request: Request, scopes: Scopes, context: Context, seconds: float) -> None:
        """Send it with what lets in right now, and care for nothing that comes of it."""
        if door := self._door(request.url, context):
            request = door.now(request, scopes)
        try:
            self._pool.request(self._guarded(request, context), context, timeout=seconds)
        except TowlineError:
            return

    def check_version(self, context: Context) -> None:
        """Where nothing was found: raise RegistryError if the registry's protocol is too old.

        It is asked only where nothing has answered as a registry does.
        """
        if self._proven or not self._speaks_only_version_1(context):
            return
        raise RegistryError(
            f"the registry {self.endpoint.host} speaks only version 1 of the protocol, and "
            "version 2 is needed",
            status=_NOT_FOUND,
            hint="use a registry that speaks version 2",
        )

    def _speaks_only_version_1(self, context: Context) -> bool:
        base = self.endpoint.base(context)
        try:
            found = self._asked(Request("GET", base), context, asker=base)
            if found.status != _NOT_FOUND or errors.is_a_registrys(found):
                return False
            old = Request("GET", base.at(distribution.VERSION_1_PING))
            ping = self._asked(old, context, asker=base)
        except TowlineError:
            return False
        return ping.ok and not errors.is_page(ping)

    def judged(self, error: E, response: Response) -> E:
        """The same error, with the account that was refused where that matters, and no false hint.

        A hiccup, where this is known to be a registry and for once did not speak as one.
        """
        at_home = response.url.origin == self.endpoint.key
        if self._proven and response.status not in _REMEDIED and not speaks(response):
            error.transient = True
        if error.hint == hints.SPEAKS_HTTPS and not (at_home and self.endpoint.plain_http):
            error.hint = None
        if isinstance(error, AuthError):
            if at_home:
                self._say_account(error)
            else:
                self._say_elsewhere(error, response)
        return error

    def _say_account(self, error: AuthError) -> None:
        account = self._admission.credentials if self._admission else self.credentials
        if account is None:
            error.args = (f"{error.message}; {self._why_anonymous()}",)
            error.hint = f"towline login {self.endpoint.host}, or pass --creds USER:PASSWORD"
        else:
            error.args = (f"{error.message}; it was asked as {account}",)
        if error.status == _UNAUTHORIZED and self._admission and self._admission.doubts_clocks:
            error.hint = hints.CLOCKS

    def _say_elsewhere(self, error: AuthError, response: Response) -> None:
        key = _upload_at(response.url)
        if key in self._others:
            error.args = (f"{error.message}; it was asked as {self._others[key].credentials}",)
            return
        error.args = (f"{error.message}; no credentials are sent there",)
        if response.method == "POST":  # a registry, which an upload was sent on to
            error.hint = f"towline login {response.url.authority}"
            return
        # The next address that the registry names may be good: such ones are for a while.
        error.transient = True
        error.hint = f"ask whoever runs {self.endpoint.host}, which names that place"

    def _request(self, call: Call[T], base: Url, context: Context) -> Request:
        url = base.at(call.target) if isinstance(call.target, str) else call.target
        return self._guarded(Request(call.method, url, call.headers, call.body), context)

    def _let_in(self, visit: Visit) -> Response:
        door = self._door(visit.request.url, visit.context)
        return door.send(visit) if door else visit.by(visit.request)

    def _door(self, url: Url, context: Context) -> Admission | None:
        """What lets in at that place; None: nothing is shown there."""
        if self._is_home(url, context):
            return self._home(context)
        key = _upload_at(url)
        return self._others.get(key) if key else None

    def _is_home(self, url: Url, context: Context) -> bool:
        """Credentials are for the registry's own host and port alone."""
        return url.origin == self.endpoint.base(context).origin

    def _guarded(self, request: Request, context: Context) -> Request:
        """A registry sends us not to our own machine, nor from the internet into our network.

        What is on this machine, and spoken to in the clear for that alone, is nowhere else.
        """
        base = self.endpoint.base(context)
        here = request.url.host == base.host or is_loopback(request.url.host)
        if self.endpoint.is_bound and here:
            # Names may lead elsewhere the next time, and who sees to that must not get a password.
            return request._replace(shuns="another machine")
        if request.url.origin == base.origin:
            return request
        return request._replace(shuns=self._pool.shunned_by(base))

    def _home(self, context: Context) -> Admission:
        base, door = self.endpoint.base(context), self._admission
        if door is None or door.base != base:  # the place gave way to another
            auth = Auth(base, self.credentials, self._clock, self._log)
            with acquired(self._lock, context):
                door = self._admission
                if door is None or door.base != base:
                    door = self._admission = Admission(
                        auth, partial(self._asked, asker=base), self._again
                    )
        return door

    def _asked(self, request: Request, context: Context, *, asker: Url) -> Response:
        """The answer of a token service that `asker` names, or of the registry's base."""
        self._check_clear(request.url, context)
        request = self._guarded(request, context)
        if request.shuns is None and request.url.origin != asker.origin:
            request = request._replace(shuns=self._pool.shunned_by(asker))
        response = self._pool.request(request, context, limit=tokens.ANSWER_MAX)
        if request.method != "GET":
            return response
        return self._followed(request, response, context, tokens.ANSWER_MAX)

    def _check_clear(self, url: Url, context: Context) -> None:
        """That a place is on this machine lets it be spoken to in the clear, and no other."""
        here = url.host == self.endpoint.base(context).host or is_loopback(url.host)
        if url.scheme == "https" or here or self.endpoint.plain_http or self.credentials is None:
            return
        raise AuthError(
            f"{self.endpoint.host} sends for a token to {url.origin} in the clear",
            hint="pass --plain-http if the way there is safe",
        )

    def _followed(
        self, request: Request, response: Response, context: Context, limit: int
    ) -> Response:
        for _ in range(REDIRECTS_MAX):
            if response.status not in _REDIRECTS:
                return response
            request = self._guarded(_redirected(request, response), context)
            response = self._pool.request(request, context, limit=limit)
        raise _astray(request.url)


def _upload_at(url: Url) -> tuple[str, str] | None:
    """Origin and repository of an upload's address; None: it is none.

    The account of another host is shown at such addresses alone: else a registry could have us
    write a tag there in our own name.
    """
    match = _UPLOAD.fullmatch(url.target.partition("?")[0])
    return (url.origin, match[1]) if match else None


def _still_secure(url: Url, response: Response) -> Url:
    """Where an answer sends on to; RegistryError where that leads from https to http."""
    if response.url.scheme == "https" and url.scheme != "https":
        raise RegistryError(
            f"{response.url.authority} redirects to {url.origin}, which is not encrypted",
            status=response.status,
        )
    return url


def _repeated(request: Request, send: Callable[[Request], Response]) -> Response:
    """The answer to a request that may have to be made again at another path of the same host."""
    for _ in range(REDIRECTS_MAX):
        response = send(request)
        url = errors.sent_on(response)
        if response.status not in _SAME_AGAIN or url is None or url.origin != request.url.origin:
            return response
        request = request._replace(url=url)
    raise _astray(request.url)


def speaks(response: Response) -> bool:
    """Whether a failed call was answered by a registry, as far as one can tell."""
    return response.status >= _LEAST_REFUSAL and not errors.is_page(response)


def _redirected(request: Request, response: Response) -> Request:
    """The same request at another place: without credentials unless it is the same host."""
    try:
        url = response.url.join(response.headers.get("Location") or "")
    except ValueError:
        raise _astray(response.url) from None
    url = _still_secure(url, response)
    headers = request.headers
    if url.origin != request.url.origin:
        headers = tuple(field for field in headers if field[0] != "Authorization")
    return Request(request.method, url, headers)


def _astray(url: Url) -> RegistryError:
    return RegistryError(f"{url.authority} redirects in circles or to nowhere")


@contextmanager
def on_side(side: Side) -> Iterator[None]:
    """Errors from within are of that side of the transfer."""
    try:
        yield
    except TowlineError as error:
        error.side = error.side or side
        raise
