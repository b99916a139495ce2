"""Carries calls out, in one loop.

    call ─▶ to the registry's address ─▶ let in (`auth.admission`) ─▶ answer ─┬▶ read by its verb
              ▲            to the other address, without credentials          │
              └───────────────────────── redirected ──────────────────────────┘

The only module of this package that speaks to `wire`. It sends a request again only to be let in;
any other second attempt is `transfers`' work. Where a redirect may lead a call is decided here, too
(RFC 9110, "Redirection 3xx").
"""

# No `from __future__ import annotations`: at every start Python would compile each text that
# annotates a field of a named tuple.

import re
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from towline.context import Context
from towline.errors import AuthError, NetworkError, RegistryError, TowlineError
from towline.push_events import nowhere
from towline.reference import RepositoryName
from towline.registry import errors
from towline.registry.auth.admission import BODY_MARGIN, Admission
from towline.registry.auth.credential_files import Credentials
from towline.registry.auth.keychain import Keychain
from towline.registry.endpoints import Endpoint, host_of
from towline.spec import distribution
from towline.wire.exchange import Exchange
from towline.wire.message import ANSWER_MAX, Request, Response, Url
from towline.wire.pool import Pool
from towline.wire.proxy import is_loopback

if TYPE_CHECKING:
    from towline.registry.auth.token import Scopes

REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""Statuses that send a request elsewhere (RFC 9110, section 15.4)."""
REDIRECTS_MAX = 5
"""Redirects in a row that are followed; more are most likely a circle."""
# GHCR says `upload` in the addresses of its sessions.
_UPLOAD = r"/v2/((?:[a-z0-9][a-z0-9._-]*/)*[a-z0-9][a-z0-9._-]*)/blobs/uploads?/[^/%]*"


class Call(NamedTuple):
    """One request about a repository. It is carried out by `Access.answer`."""

    method: str
    target: str | Url
    """A path of the API, or the whole URL of an upload session."""
    action: str
    """Completes "cannot …" in errors."""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | memoryview | None = None
    limit: int = ANSWER_MAX
    """Bytes of the answer that are of use."""
    follow: bool = False
    """Go where a redirect points (GET and HEAD alone)."""
    moves: bool = False
    """Follow a 307 or 308 to another host. Writes without this stay on their host."""
    optional: bool = False
    """It only saves work (a mount): no other token is fetched for a 401 that tells nothing new."""
    fresh: bool = False
    """Use a new connection: a kept one has turned out to be dead."""
    in_pieces: bool = False
    """Leave the body of a success to be read piece by piece."""
    extra: int = 0
    """Bytes sent before, which the registry has to hash before it answers."""


class Transport:
    """One registry spoken to by one account. Safe from any thread."""

    def __init__(
        self,
        pool: Pool,
        endpoint: Endpoint,
        credentials: Credentials | None,
        keychain: Keychain,
        *,
        again: Callable[[Context], Credentials | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        log: Callable[[str], None] = nowhere,
        notice: Callable[[Response], None] = lambda _response: None,
    ) -> None:
        """`notice` sees every answer to a call; `again` asks once more for these credentials."""
        self.endpoint = endpoint
        self.credentials = credentials
        """As they were first found; a helper may have given others since."""
        self._pool = pool
        self.keychain = keychain
        self._again = again
        self._notice = notice
        self._to_admit = partial(Admission, pool.request, self.ask, clock=clock, log=log)
        self._admissions: dict[tuple[str, str], Admission] = {}
        """By origin, and for other hosts that uploads were redirected to by repository, too."""
        self.proven = False
        """Whether an answer was certainly a registry's."""

    def send(self, call: Call, scopes: "Scopes", context: Context) -> Response:
        """Send the call, follow its redirects, and return the last answer, whatever it says."""
        request, hops = None, 0
        while request is None or hops <= REDIRECTS_MAX:
            base = self.endpoint.base(context)
            if request is None:
                url = base.at(call.target) if isinstance(call.target, str) else call.target
                request = Request(
                    call.method,
                    url,
                    call.headers,
                    call.body,
                    fresh=call.fresh,
                    extra=call.extra,
                    limit=call.limit,
                    in_pieces=call.in_pieces,
                )
            admission = self.admission(request.url, context, meet=call.moves)
            guarded = self._guarded(request, context)
            try:
                if admission:
                    response = admission.send(guarded, scopes, context, optional=call.optional)
                else:
                    response = self._pool.request(guarded, context)
            except (NetworkError, RegistryError) as error:
                # Only the first hop is at the endpoint: another host's failure says nothing of it.
                if not hops and self.endpoint.gives_way(base, error, context):
                    request = None
                    continue
                if isinstance(error, NetworkError):
                    if isinstance(call.target, str):
                        self.endpoint.explain(error, context)
                        error.hint = errors.SPEAKS_HTTPS if error.speaks_tls else error.hint
                    self._say_who_sent(error, request.url, base)
                raise
            if not hops and self.endpoint.gives_way(base, response, context):
                request = None
                continue
            elsewhere = sent_on(call, response)
            if elsewhere is None:
                self._notice(response)
                return response
            request, hops = request._replace(url=elsewhere), hops + 1
        raise astray(request.url)

    def start(self, request: Request, scopes: "Scopes", context: Context) -> Exchange:
        """Begin a request whose body is written to the exchange; its token lasts another minute."""
        if admission := self.admission(request.url, context):
            header = admission.header(scopes, context, lasting=BODY_MARGIN)
            request = request.authorized(header)
        try:
            return self._pool.start(self._guarded(request, context), context)
        except NetworkError as error:
            self._say_who_sent(error, request.url, self.endpoint.base(context))
            raise

    def _say_who_sent(self, error: NetworkError, url: Url, base: Url) -> None:
        """Say in an error who sends to a host that nobody has named here."""
        if not url.same_origin(base):
            error.args = (f"{error.message}; {self.endpoint.host} sends there",)

    def refused(self, response: Response, scopes: "Scopes", context: Context) -> bool:
        """After a refused body: if it was a 401, renew the token. Whether to send it again."""
        admission = self.admission(response.url, context)
        if response.status != 401 or admission is None:
            return False
        return admission.renewed(scopes, response, admission.at_hand(scopes), context)

    def quietly(self, request: Request, scopes: "Scopes", context: Context, seconds: float) -> None:
        """Send a request with the token at hand, and ignore its outcome; wait for `seconds`."""
        # No token is fetched for it: the push may be ending within a second.
        if admission := self.admission(request.url, context):
            request = request.authorized(admission.at_hand(scopes))
        try:
            guarded = self._guarded(request, context)
            self._pool.request(guarded._replace(timeout=seconds), context)
        except TowlineError:
            return

    # Who is let in, and where.

    def home(self, context: Context) -> Admission:
        """Who is let in at the registry itself."""
        base = self.endpoint.base(context)
        key = (base.origin, "")
        if key not in self._admissions:
            admission = self._to_admit(base, self.credentials, self._again)
            self._admissions.setdefault(key, admission)  # of two threads the first has made it
        return self._admissions[key]

    def admission(self, url: Url, context: Context, *, meet: bool = False) -> Admission | None:
        """Who adds credentials to a request for this URL; None: nobody does.

        `meet`: another host's own login may be looked up. Only an upload's POST does so: else a
        registry could have us write a tag elsewhere, in our own name.
        """
        if url.same_origin(self.endpoint.base(context)):
            return self.home(context)
        # Storage gets none: S3 refuses a signed address that comes with an `Authorization`.
        match = re.fullmatch(_UPLOAD, url.target.partition("?")[0])
        key = (url.origin, match[1] if match else "")
        # No password in the clear, unless the user has said that the way is safe.
        safe = url.scheme == "https" or self.endpoint.plain_http
        if key[1] and meet and safe and key not in self._admissions:
            name = RepositoryName(host_of(url), key[1])
            credentials = self.keychain.find(name, None, context)
            if credentials is not None:
                self._admissions[key] = self._to_admit(url.at(distribution.BASE), credentials)
        return self._admissions.get(key)

    def ask(self, asker: Url, request: Request, context: Context) -> Response:
        """The answer of a token service that `asker` names, or of the registry's base."""
        from towline.registry.auth import token

        # In the clear only on this machine: a registry here may name a service elsewhere.
        here = request.url.host == self.endpoint.base(context).host or is_loopback(request.url.host)
        safe = request.url.scheme == "https" or here or self.endpoint.plain_http
        if not safe and self.credentials is not None:
            raise AuthError(
                f"{self.endpoint.host} sends for a token to {request.url.origin} in the clear",
                hint="pass `plain_http=True` if the way there is safe",
            )
        for _ in range(REDIRECTS_MAX):
            guarded = self._guarded(request, context)._replace(limit=token.ANSWER_MAX)
            elsewhere = not request.url.same_origin(asker)
            # Another host's realm is held to the limits of the host that named it.
            if guarded.shuns is None and elsewhere:
                guarded = guarded._replace(shuns=self._pool.shunned_by(asker))
            try:
                response = self._pool.request(guarded, context)
            except NetworkError as error:
                if elsewhere:  # a host that nobody has named here
                    error.args = (f"cannot get a token for {self.endpoint.host}: {error.message}",)
                raise
            if request.method != "GET" or response.status not in REDIRECTS:
                return response
            url = read_sent_on(response)
            if not url.same_origin(request.url):
                headers = (field for field in request.headers if field[0] != "Authorization")
                request = request._replace(headers=tuple(headers))
            request = request._replace(url=url)
        raise astray(request.url)

    def _guarded(self, request: Request, context: Context) -> Request:
        """The request, with the addresses that it must not reach.

        A registry may not send us to this machine nor, from the internet, into a private network.
        A host that is spoken to in plain http because it is on this machine must be on it.
        """
        base = self.endpoint.base(context)
        here = request.url.host == base.host or is_loopback(request.url.host)
        if self.endpoint.is_bound and here:
            # A name may lead elsewhere the next time, and whoever arranges that must not get a
            # password in the clear.
            return request._replace(shuns="another machine")
        if request.url.same_origin(base):
            return request
        return request._replace(shuns=self._pool.shunned_by(base))


def sent_on(call: Call, response: Response) -> Url | None:
    """The URL at which to repeat the call; None: the answer is final.

    A call with `follow` goes wherever it is sent. Any other call follows 307 and 308 alone, which
    keep method and body (RFC 9110, sections 15.4.8 and 15.4.9), and leaves its host only with
    `moves`. Raises RegistryError where a redirect leads from https to http, or to no address.
    """
    # The method stays: storage on S3 has signed the address for this one alone.
    if call.follow and response.status in REDIRECTS:
        return read_sent_on(response)
    url = errors.sent_on(response)
    # 301, 302 and 303 would turn a write into a GET.
    if response.status not in {307, 308} or url is None:
        return None
    if call.moves:
        try:
            return still_secure(url, response.url)
        except ValueError as error:
            raise RegistryError(f"cannot {call.action}: {error}", status=response.status) from None
    # A registry could have us write a tag at another one, in our own name.
    return url if url.same_origin(response.url) else None


def read_sent_on(response: Response) -> Url:
    """The address to which a read is redirected.

    Raises RegistryError where that leads from https to http, or is no address.
    """
    try:
        url = response.url.join(response.headers.get("Location") or "")
    except ValueError:
        raise astray(response.url) from None
    if response.url.scheme == "https" and url.scheme != "https":
        raise RegistryError(
            f"{response.url.authority} redirects to {url.origin}, which is not encrypted",
            status=response.status,
        )
    return url


def astray(url: Url) -> RegistryError:
    """The error for too many redirects, and for one that names no address."""
    return RegistryError(f"{url.authority} redirects in circles or to nowhere")


def still_secure(url: Url, asked: Url) -> Url:
    """`url`, the next address of a write, on https if `asked`, the last one, was.

    Raises ValueError where it leads from https to http at another host.
    """
    if (asked.scheme, url.scheme) != ("https", "http"):
        return url
    if url.host != asked.host:
        raise ValueError(f"{asked.authority} sends on to {url.origin}, which is not encrypted")
    # Behind a proxy that ends TLS, a registry names itself with `http`. The proxy would redirect
    # that with a 301, which loses method and body.
    return asked.at(url.target)
