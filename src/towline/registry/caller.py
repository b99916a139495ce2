"""Carries calls out: adds what lets them in, renews it once when it is refused, follows reads.

The only place of this package that speaks to `wire`. It never tries again for any other reason.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from towline.errors import AuthError, RegistryError, TowlineError
from towline.registry.auth import TOKEN_ANSWER_MAX, Auth
from towline.registry.endpoints import acquired
from towline.wire.message import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from towline.context import Context
    from towline.errors import Side
    from towline.registry.auth import Scopes
    from towline.registry.credentials import Credentials
    from towline.registry.endpoints import Endpoint
    from towline.registry.requests import Call
    from towline.wire.exchange import Exchange
    from towline.wire.message import Response
    from towline.wire.pool import Pool
    from towline.wire.url import Url

T = TypeVar("T")
E = TypeVar("E", bound=TowlineError)

REDIRECTS_MAX = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_UNAUTHORIZED = 401
_DENIALS = frozenset({401, 403})
_RENEWALS_MAX = 2
"""A first challenge, and one that asks for more."""


class Caller:
    """One registry spoken to by one account. Safe from any thread."""

    def __init__(self, pool: Pool, endpoint: Endpoint, credentials: Credentials | None) -> None:
        self.endpoint = endpoint
        self.credentials = credentials
        self._pool = pool
        self._lock = threading.Lock()
        # The first request goes alone: all that start together would be refused together.
        self._meeting = threading.Lock()
        self._met = False
        self._auth: Auth | None = None

    def call(self, call: Call[T], scopes: Scopes, context: Context, *, extra: int = 0) -> T:
        """Send it and read the answer.

        `extra`: bytes sent before that the registry must digest first. Raises AuthError,
        RegistryError, NetworkError.
        """
        request = self._request(call, context)

        def send(ready: Request) -> Response:
            sent = self._pool.request(ready, context, limit=call.limit, extra=extra)
            return self._followed(ready, sent, context, call.limit) if call.follow else sent

        response = self._let_in(request, scopes, context, send)
        try:
            return call.read(response)
        except AuthError as error:
            raise self.explained(error) from None

    def open(
        self, call: Call[T], scopes: Scopes, context: Context
    ) -> tuple[Response, Callable[[], bytes], Exchange]:
        """Send it, and leave the body to be read piece by piece."""
        request = self._request(call, context)
        opened: list[tuple[Response, Callable[[], bytes], Exchange]] = []

        def send(ready: Request) -> Response:
            while opened:
                opened.pop()[2].close()
            opened.append(self._opened(ready, context))
            return opened[0][0]

        self._let_in(request, scopes, context, send)
        return opened[0]

    def _opened(
        self, request: Request, context: Context
    ) -> tuple[Response, Callable[[], bytes], Exchange]:
        for _ in range(REDIRECTS_MAX):
            response, next_piece, exchange = self._pool.open(request, context)
            if response.status not in _REDIRECTS:
                return response, next_piece, exchange
            exchange.close()
            request = self._guarded(_redirected(request, response), context)
        raise _astray(request.url)

    def start(self, request: Request, scopes: Scopes, context: Context) -> Exchange:
        """Begin a request whose body is written to the exchange; its token lasts a while."""
        header = None
        if self._is_home(request.url, context):
            header = self._ready(context).body_header(scopes)
            if header is None:
                header = self._fetched(scopes, context)
        return self._pool.start(_with(self._guarded(request, context), header), context)

    def refused(self, response: Response, scopes: Scopes, context: Context) -> bool:
        """Renew what a body's request was refused with; whether sending it again makes sense."""
        auth = self._ready(context)
        if response.status != _UNAUTHORIZED or not self._is_home(response.url, context):
            return False
        return self._renewed(auth, scopes, response, auth.header(scopes), context)

    def grants(self, scopes: Scopes, context: Context) -> bool:
        """Whether a token for all of these scopes can be had, as far as is known."""
        auth = self._ready(context)
        if auth.header(scopes) is None and auth.must_ask:
            self._fetched(scopes, context)
        return auth.grants(scopes)

    def quietly(self, request: Request, scopes: Scopes, context: Context, seconds: float) -> None:
        """Send it with what lets in right now, and care for nothing that comes of it."""
        auth = self._auth
        if auth is None:
            return
        header = auth.header(scopes) if self._is_home(request.url, context) else None
        try:
            ready = _with(self._guarded(request, context), header)
            self._pool.request(ready, context, timeout=seconds)
        except TowlineError:
            return

    def _request(self, call: Call[T], context: Context) -> Request:
        base = self.endpoint.base(context)
        url = base.at(call.target) if isinstance(call.target, str) else call.target
        return self._guarded(Request(call.method, url, call.headers, call.body), context)

    def _guarded(self, request: Request, context: Context) -> Request:
        """A registry on the internet does not send us into the network that we are in."""
        base = self.endpoint.base(context)
        if request.url.origin == base.origin or self._pool.is_private(base):
            return request
        return replace(request, public_only=True)

    def _ready(self, context: Context) -> Auth:
        if self._auth is None:
            base = self.endpoint.base(context)
            with acquired(self._lock, context):
                if self._auth is None:
                    self._auth = Auth(base, self.credentials)
        return self._auth

    def _is_home(self, url: Url, context: Context) -> bool:
        """Credentials are for the registry's own host and port alone."""
        return url.origin == self.endpoint.base(context).origin

    def _let_in(
        self,
        request: Request,
        scopes: Scopes,
        context: Context,
        send: Callable[[Request], Response],
    ) -> Response:
        if not self._is_home(request.url, context):
            return send(request)
        auth = self._ready(context)
        if not self._met:
            with acquired(self._meeting, context):
                if not self._met:
                    try:
                        return self._admitted(auth, request, scopes, context, send)
                    finally:
                        self._met = True
        return self._admitted(auth, request, scopes, context, send)

    def _admitted(
        self,
        auth: Auth,
        request: Request,
        scopes: Scopes,
        context: Context,
        send: Callable[[Request], Response],
    ) -> Response:
        header = auth.header(scopes)
        if header is None and auth.must_ask:
            header = self._fetched(scopes, context)
        response = send(_with(request, header))
        for _ in range(_RENEWALS_MAX):
            if response.status != _UNAUTHORIZED:
                break
            if not self._renewed(auth, scopes, response, header, context):
                break
            before, header = header, auth.header(scopes)
            response = send(_with(request, header))
            if header == before:
                break
        if response.status not in _DENIALS:
            auth.worked = True
        return response

    def _fetched(self, scopes: Scopes, context: Context) -> str | None:
        auth = self._ready(context)
        with acquired(self._lock, context):
            self._drive(auth.fetch(scopes), context)
        return auth.header(scopes)

    def _renewed(
        self, auth: Auth, scopes: Scopes, response: Response, used: str | None, context: Context
    ) -> bool:
        with acquired(self._lock, context):
            if auth.header(scopes) not in {None, used}:
                return True  # another thread has renewed it meanwhile
            return self._drive(auth.renew(scopes, response, used), context)

    def _drive(self, asking: Generator[Request, Response, T], context: Context) -> T:
        try:
            request = next(asking)
            while True:
                request = asking.send(self._asked(request, context))
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # typeshed has Any there

    def _asked(self, request: Request, context: Context) -> Response:
        request = self._guarded(request, context)
        response = self._pool.request(request, context, limit=TOKEN_ANSWER_MAX)
        if request.method != "GET":
            return response
        return self._followed(request, response, context, TOKEN_ANSWER_MAX)

    def _followed(
        self, request: Request, response: Response, context: Context, limit: int
    ) -> Response:
        for _ in range(REDIRECTS_MAX):
            if response.status not in _REDIRECTS:
                return response
            request = self._guarded(_redirected(request, response), context)
            response = self._pool.request(request, context, limit=limit)
        raise _astray(request.url)

    def explained(self, error: E) -> E:
        """The same error; one of access with the account that was refused."""
        if not isinstance(error, AuthError):
            return error
        if self.credentials is None:
            error.args = (f"{error.message}; no credentials were found for {self.endpoint.host}",)
            error.hint = "pass --creds USER:PASSWORD, or save a login for this registry"
        else:
            error.args = (f"{error.message}; it was asked as {self.credentials}",)
        return error


def _with(request: Request, header: str | None) -> Request:
    return request.with_header("Authorization", header) if header else request


def _redirected(request: Request, response: Response) -> Request:
    """The same request at another place: without credentials unless it is the same host."""
    try:
        url = response.url.join(response.headers.get("Location") or "")
    except ValueError:
        raise _astray(response.url) from None
    if response.url.scheme == "https" and url.scheme != "https":
        raise RegistryError(
            f"{response.url.authority} redirects to {url.origin}, which is not encrypted",
            status=response.status,
        )
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
