"""Carries calls out, in one loop, and says what a refusal means.

    call ─▶ to the registry's address ─▶ let in (`auth.admission`) ─▶ answer ─┬▶ read by its verb
              ▲            to the other address, without credentials          │
              └───────────────────────── redirected ──────────────────────────┘

The only module of this package that speaks to `wire`. It sends a request again only to be let in;
any other second attempt is `transfers`' work.
"""

from __future__ import annotations

import re
import time
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from towline.errors import AuthError, NetworkError, RegistryError, TowlineError
from towline.reference import RepositoryName
from towline.registry import errors
from towline.registry.auth.admission import BODY_MARGIN, Admission
from towline.registry.calls import REDIRECTS, REDIRECTS_MAX, Call, astray, read_sent_on, sent_on
from towline.registry.endpoints import Endpoint, host_of
from towline.spec import distribution
from towline.told import nowhere
from towline.wire.message import Request, Response, Url
from towline.wire.proxy import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.context import Context
    from towline.registry.auth.credential_files import Credentials
    from towline.registry.auth.keychain import Keychain
    from towline.registry.auth.token import Scopes
    from towline.wire.exchange import Exchange
    from towline.wire.pool import Pool


E = TypeVar("E", bound=AuthError | RegistryError)

# GHCR says `upload` in the addresses of its sessions.
_UPLOAD = r"/v2/((?:[a-z0-9][a-z0-9._-]*/)*[a-z0-9][a-z0-9._-]*)/blobs/uploads?/[^/%]*"


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
        self._keychain = keychain
        self._again = again
        self._notice = notice
        self._to_admit = partial(Admission, pool.request, self._ask, clock=clock, log=log)
        self._admissions: dict[tuple[str, str], Admission] = {}
        """By origin, and for other hosts that uploads were redirected to by repository, too."""
        self.proven = False
        """Whether an answer was certainly a registry's."""

    def send(self, call: Call, scopes: Scopes, context: Context) -> Response:
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
            admission = self._admission(request.url, context, meet=call.moves)
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

    def start(self, request: Request, scopes: Scopes, context: Context) -> Exchange:
        """Begin a request whose body is written to the exchange; its token lasts another minute."""
        if admission := self._admission(request.url, context):
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

    def refused(self, response: Response, scopes: Scopes, context: Context) -> bool:
        """After a refused body: if it was a 401, renew the token. Whether to send it again."""
        admission = self._admission(response.url, context)
        if response.status != 401 or admission is None:
            return False
        return admission.renewed(scopes, response, admission.at_hand(scopes), context)

    def grants(self, scopes: Scopes, context: Context) -> bool:
        """Whether a token for all of these scopes can be had; fetches it, if there is none yet."""
        admission = self._admission(self.endpoint.base(context), context)
        return admission is None or admission.grants(scopes, context)

    def quietly(self, request: Request, scopes: Scopes, context: Context, seconds: float) -> None:
        """Send a request with the token at hand, and ignore its outcome; wait for `seconds`."""
        # No token is fetched for it: the push may be ending within a second.
        if admission := self._admission(request.url, context):
            request = request.authorized(admission.at_hand(scopes))
        try:
            guarded = self._guarded(request, context)
            self._pool.request(guarded._replace(timeout=seconds), context)
        except TowlineError:
            return

    # Who is let in, and where.

    def _admission(self, url: Url, context: Context, *, meet: bool = False) -> Admission | None:
        """Who adds credentials to a request for this URL; None: nobody does.

        `meet`: another host's own login may be looked up. Only an upload's POST does so: else a
        registry could have us write a tag elsewhere, in our own name.
        """
        base = self.endpoint.base(context)
        if url.same_origin(base):
            key = (url.origin, "")
            if key not in self._admissions:
                admission = self._to_admit(base, self.credentials, self._again)
                self._admissions.setdefault(key, admission)  # of two threads the first has made it
            return self._admissions[key]
        # Storage gets none: S3 refuses a signed address that comes with an `Authorization`.
        key = _upload_at(url)
        # No password in the clear, unless the user has said that the way is safe.
        safe = url.scheme == "https" or self.endpoint.plain_http
        if key[1] and meet and safe and key not in self._admissions:
            name = RepositoryName(host_of(url), key[1])
            credentials = self._keychain.find(name, None, context)
            if credentials is not None:
                self._admissions[key] = self._to_admit(url.at(distribution.BASE), credentials)
        return self._admissions.get(key)

    @property
    def asks_for_login(self) -> bool:
        """Whether the registry has asked for credentials so far."""
        home = self._admissions.get((self.endpoint.key, ""))
        return home is not None and home.challenge is not None

    def _ask(self, asker: Url, request: Request, context: Context) -> Response:
        """The answer of a token service that `asker` names, or of the registry's base."""
        from towline.registry.auth.token import ANSWER_MAX

        # In the clear only on this machine: a registry here may name a service elsewhere.
        here = request.url.host == self.endpoint.base(context).host or is_loopback(request.url.host)
        safe = request.url.scheme == "https" or here or self.endpoint.plain_http
        if not safe and self.credentials is not None:
            raise AuthError(
                f"{self.endpoint.host} sends for a token to {request.url.origin} in the clear",
                hint="pass `plain_http=True` if the way there is safe",
            )
        for _ in range(REDIRECTS_MAX):
            guarded = self._guarded(request, context)._replace(limit=ANSWER_MAX)
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

    # What a refusal means.

    def check_version(self, context: Context) -> None:
        """After a 404: raise RegistryError if the registry speaks version 1 alone.

        Asks the host only if no answer of it so far was certainly a registry's.
        """
        if self.proven:
            return
        base = self.endpoint.base(context)
        try:
            found = self._ask(base, Request("GET", base), context)
            if found.status != 404 or errors.is_a_registrys(found):
                return
            old = Request("GET", base.at(distribution.VERSION_1_PING))
            ping = self._ask(base, old, context)
        except TowlineError:
            return
        if ping.ok and not errors.is_page(ping):
            raise RegistryError(
                f"the registry {self.endpoint.host} speaks only version 1 of the protocol, and "
                "version 2 is needed",
                status=404,
                hint="use a registry that speaks version 2",
            )

    def judged(self, error: E, response: Response, context: Context) -> E:
        """Complete an error with the account that was refused, and drop a hint that is false.

        Raises RegistryError where the registry speaks version 1 alone.
        """
        # A registry of version 1 answers everything with 404.
        if error.status == 404 and not errors.is_a_registrys(response):
            self.check_version(context)
        here = response.url.origin == self.endpoint.key
        speaks = response.status >= 400 and not errors.is_page(response)
        # A known registry has answered with a page, or with neither yes nor no: something on the
        # way, for once. 401, 411 and 413 have remedies of their own, whoever says them.
        if self.proven and response.status not in {401, 411, 413} and not speaks:
            error.transient = True
        if error.hint == errors.SPEAKS_HTTPS and not (here and self.endpoint.plain_http):
            error.hint = None
        if isinstance(error, AuthError):
            self._say_account(error, response, here=here)
        return error

    def _say_account(self, error: AuthError, response: Response, *, here: bool) -> None:
        host = self.endpoint.host
        who = self._admissions.get((response.url.origin, "") if here else _upload_at(response.url))
        account = who.credentials if who else self.credentials if here else None
        if account is not None:
            said = f"it was asked as {account}"
        elif here:
            said = self._keychain.nothing_found(host)
            error.hint = f"towline login {host}, or pass `creds='USER:PASSWORD'`"
        else:
            said = "no credentials are sent there"
            if response.method == "POST":  # an upload was redirected there: it is a registry
                error.hint = f"towline login {response.url.authority}"
            else:
                # The signed address of a storage ends after a while; the registry may name a
                # better one.
                error.transient = True
                error.hint = f"ask whoever runs {host}, which names that place"
        error.args = (f"{error.message}; {said}",)
        if here and error.status == 401 and who and who.doubts_clocks:
            error.hint = errors.CLOCKS


def _upload_at(url: Url) -> tuple[str, str]:
    """The origin and the repository of an upload; the latter is empty for any other address."""
    match = re.fullmatch(_UPLOAD, url.target.partition("?")[0])
    return url.origin, match[1] if match else ""
