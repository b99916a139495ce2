"""How one account is let in at one registry: its challenge, its tokens, the header to send.

A request goes with the header that is due, and once more after a refusal that has taught something.
One token is fetched, however many threads wait for it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from towline.context import Context, acquired
from towline.errors import AuthError, TowlineError
from towline.push_events import nowhere
from towline.registry import errors
from towline.wire.message import Challenge, Request, Response, Url, challenges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from towline.registry.auth.credential_files import Credentials
    from towline.registry.auth.token import Scopes, Token

MARGIN = 5.0
"""Seconds that a token should still live when a request is sent."""
BODY_MARGIN = 60.0
"""Seconds that a token should still live when a body is begun: a proxy that buffers the body
shows the token to the registry only when it has all of it."""
_NEW = 5.0
"""Seconds for which a token counts as just given."""
_GOOD_MAX = 64
"""More tokens than are just given at any time: of an older one it does not matter."""
_RENEWALS_MAX = 2
"""For the first challenge, and for one that asks for more scopes."""
_MOMENT = 1.0
"""Seconds after which a token that was too new is good: the times in tokens are whole seconds."""


class Admission:
    """One account at one registry. Safe from any thread: what it knows is changed under a lock."""

    def __init__(
        self,
        request: Callable[[Request, Context], Response],
        ask: Callable[[Url, Request, Context], Response],
        base: Url,
        credentials: Credentials | None,
        again: Callable[[Context], Credentials | None] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        log: Callable[[str], None] = nowhere,
    ) -> None:
        """`request` sends what is to be let in, `again` asks for a login.

        `ask` sends what is asked for that: of the base or, in its name, of a token service.
        """
        self.base = base
        """The URL of the registry's API."""
        self.credentials = credentials
        self._request = request
        self._ask = ask
        self._again = again
        self._clock = clock
        self._log = log
        self._lock = threading.Lock()
        self._meeting = threading.Lock()
        self._met = False
        """Whether a first request has been answered, or has failed."""
        self._good: deque[str | None] = deque(maxlen=_GOOD_MAX)
        """Values of `Authorization` that were let in, with these credentials; the last ones."""
        self.doubts_clocks = False
        """Whether a token that was just given was refused, and refused again after a moment."""
        self.challenge: Challenge | None = None
        """How the registry asks for credentials; None: in this run it has not looked at any.

        Never taken from an earlier run: the password goes where this says.
        """
        self._tokens: dict[Scopes, Token] = {}
        self._wider: dict[Scopes, Scopes] = {}
        """Scopes with those added that the registry has named as missing, in its own words."""
        self._refused: set[Scopes] = set()
        """Sets of scopes of which the token service grants only the first."""

    def send(
        self, request: Request, scopes: Scopes, context: Context, *, optional: bool
    ) -> Response:
        """Send a request with the `Authorization` that it needs, renewed if it is refused.

        `optional`: a 401 whose challenge tells nothing new is final, no other token is fetched.
        Returns the last answer, which may still be a refusal. Errors are those of the token service
        and of sending.
        """
        if not self._met:
            # Those that start together would all be refused, before the first challenge is known.
            with acquired(self._meeting, context):
                if not self._met:
                    try:
                        return self._let_in(request, scopes, context, optional=optional)
                    finally:
                        self._met = True
        return self._let_in(request, scopes, context, optional=optional)

    def _let_in(
        self, request: Request, scopes: Scopes, context: Context, *, optional: bool
    ) -> Response:
        """Send the request, once more with other credentials or a fresh token if it is refused."""
        try:
            response = self._tried(request, scopes, context, optional=optional)
        except AuthError:  # of the token service
            if not self._other_credentials(context):
                raise
            response = self._tried(request, scopes, context, optional=optional)
        if response.status == 400:
            from towline.registry.auth.token import LIFE_MIN

            # ECR Public answers 400 to a token that has expired: one that is not new is dropped.
            with acquired(self._lock, context):
                token = self._token(scopes)
                again = token is not None and token.age(self._clock()) > LIFE_MIN
                if again:
                    del self._tokens[self._granted(scopes)]
        else:
            # ECR answers 403 to a login that has expired, and says so in plain text.
            denied = response.status == 403 and "expired" in errors.text(response)
            denied = denied or response.status == 401
            again = denied and self._other_credentials(context)
        return self._tried(request, scopes, context, optional=optional) if again else response

    def _tried(
        self, request: Request, scopes: Scopes, context: Context, *, optional: bool
    ) -> Response:
        """Send the request, and again with a renewed header while that may help."""
        header, renewals = self.header(scopes, context), 0
        while True:
            authorized = request.authorized(header)
            response = self._request(authorized, context)
            unknown = not (optional or self.doubts_clocks or header in self._good)
            if response.status == 401 and unknown and self._is_new(scopes, header, response):
                # The registry's clock may be behind its token service's: then a token that was
                # only just given is not good yet.
                context.cancel.wait(_MOMENT)
                response = self._request(authorized, context)
                self.doubts_clocks = response.status == 401
            if response.status != 401:
                if response.status != 403 and header not in self._good:
                    self._good.append(header)
                return response
            hopeless = optional and self._is_hopeless(scopes, response)
            if renewals == _RENEWALS_MAX or hopeless:
                return response
            if not self.renewed(scopes, response, header, context):
                return response
            before, header = header, self.at_hand(scopes)
            # The same header once more is for a hiccup (a password that was good), and only once.
            renewals = _RENEWALS_MAX if header == before else renewals + 1

    def _other_credentials(self, context: Context) -> bool:
        """Ask the credential helper once more. Returns whether its answer has changed."""
        with acquired(self._lock, context):
            # Once in a run: a login that stays refused would start the helper for each request.
            again, self._again = self._again, None
            other = again(context) if again is not None else None
            if other is None or other == self.credentials:
                return False
            self.credentials = other
            self._good.clear()
            self._tokens.clear()
            return True

    # What to show.

    def header(self, scopes: Scopes, context: Context, *, lasting: float = MARGIN) -> str | None:
        """The `Authorization` to send; fetches a token if one is needed. None: send none.

        `lasting`: seconds that a token should still live.
        """
        header = self.at_hand(scopes, lasting=lasting)
        if header is None and self._takes_tokens:
            with self._asking(context):
                self._fetch(scopes, context)
            header = self.at_hand(scopes)
        return header

    def at_hand(self, scopes: Scopes, *, lasting: float = MARGIN) -> str | None:
        """As `header`, without asking anybody: None, too, where a token must be fetched first."""
        if self.credentials and self.credentials.registry_token:
            return f"Bearer {self.credentials.registry_token}"
        if self.challenge is None:
            return None
        if self.challenge.scheme == "basic":
            return self._basic
        token = self._token(scopes)
        return f"Bearer {token.value}" if token and token.lasts(lasting, self._clock()) else None

    def grants(self, scopes: Scopes, context: Context) -> bool:
        """Whether a token for all of these scopes can be had. Raises as `header` does."""
        self.header(scopes, context)
        return scopes not in self._refused

    @property
    def _takes_tokens(self) -> bool:
        return self.challenge is not None and self.challenge.scheme == "bearer"

    def _granted(self, scopes: Scopes) -> Scopes:
        scopes = scopes[:1] if scopes in self._refused else scopes
        return self._wider.get(scopes, scopes)

    def _token(self, scopes: Scopes) -> Token | None:
        return self._tokens.get(self._granted(scopes))

    @property
    def _basic(self) -> str | None:
        return self.credentials.basic if self.credentials else None

    # What a refusal teaches.

    def _is_new(self, scopes: Scopes, used: str | None, refused: Response) -> bool:
        """Whether a token was refused seconds after it was issued, though its scopes suffice."""
        token = self._token(scopes)
        if token is None or used != f"Bearer {token.value}":
            return False
        found, granted = self._asked_in(refused), self._granted(scopes)
        lacking = any(each.wants_more for each in found) or _merged(granted, found) != granted
        return token.age(self._clock()) < _NEW and not lacking

    def _is_hopeless(self, scopes: Scopes, refused: Response) -> bool:
        """Whether another token would be refused just the same."""
        found, granted = self._asked_in(refused), self._granted(scopes)
        usable = [each for each in found if each.usable]
        # No token would come of it. If the account was let in before, this request is refused.
        if not usable or (not self._takes_tokens and all(c.scheme == "basic" for c in usable)):
            return bool(self._good)
        # Its token had all that the registry names, and that did not suffice.
        asked = granted in self._tokens and _merged(granted, found) == granted
        return asked and any(each.wants_more for each in found)

    def renewed(
        self, scopes: Scopes, refused: Response, used: str | None, context: Context
    ) -> bool:
        """After a 401 to the header `used`, learn from it. Whether to send the request again."""
        with self._asking(context):
            if self.at_hand(scopes) not in {None, used}:
                return True  # another thread has renewed it meanwhile
            found = self._asked_in(refused)
            schemes = {each.scheme for each in found if each.usable}
            answerable = "bearer" in schemes or ("basic" in schemes and self._basic is not None)
            if self.challenge is None and not answerable:
                # GCR answers some requests with a bare 401, and only `/v2/` (distribution-spec,
                # end-1) says how to log in. Where `/v2/` lets everybody in, something on the way
                # wanted a password, for once.
                answer = self._ask(self.base, Request("GET", self.base), context)
                if answer.status != 401:
                    return True
                found = self._asked_in(answer)
            before = self.challenge, dict(self._tokens), dict(self._wider)
            self._learn(found)
            if self.challenge is None:
                return False
            if self.challenge.scheme == "basic":
                # The same header once more helps only after a hiccup, if it was good before.
                return bool(self._good) or self._basic not in {None, used}
            try:
                token, granted = self._token(scopes), self._granted(scopes)
                if token is not None and used == f"Bearer {token.value}":
                    del self._tokens[granted]
                if (wider := _merged(granted, found)) != granted:
                    self._wider[scopes] = wider
                self._fetch(scopes, context)
            except BaseException:
                # A false challenge leads nowhere: what was known before it may still be good.
                self.challenge, self._tokens, self._wider = before
                raise
            return True

    def _learn(self, found: list[Challenge]) -> None:
        usable = [each for each in found if each.usable]
        bearer = next((each for each in usable if each.scheme == "bearer"), None)
        if bearer is not None:
            self.challenge = bearer
        elif usable and not self._takes_tokens:
            # Never Basic after Bearer: Harbor asks for Basic when a token has expired.
            self.challenge = usable[0]

    def _asked_in(self, refused: Response) -> list[Challenge]:
        # The request may have been redirected: another host must not name a token service for our
        # credentials.
        here = refused.url.same_origin(self.base)
        return challenges(refused.headers.all("WWW-Authenticate")) if here else []

    @contextmanager
    def _asking(self, context: Context) -> Iterator[None]:
        """Hold the lock. Errors are marked: the request that was meant has never been sent."""
        try:
            with acquired(self._lock, context):
                yield
        except TowlineError as error:
            error.beside = True
            raise

    def _fetch(self, scopes: Scopes, context: Context) -> None:
        """Fetch the token that `at_hand` lacks. Lock held."""
        from towline.registry.auth.token import TOO_MUCH, TokenService

        challenge = self.challenge
        if challenge is None or challenge.scheme != "bearer":
            return
        granted, token = self._granted(scopes), self._token(scopes)
        if token is not None and token.lasts(BODY_MARGIN, self._clock()):
            return  # another thread was faster

        def send(request: Request) -> Response:
            return self._ask(self.base, request, context)

        service = TokenService(self.base, challenge, self.credentials)
        response = service.ask(granted, send)
        first = self._granted(scopes[:1])
        if too_much := granted != first and response.status in TOO_MUCH:
            granted = first
            response = service.ask(granted, send)
        now = self._clock()
        self._tokens = {one: token for one, token in self._tokens.items() if token.lasts(0.0, now)}
        token = self._tokens[granted] = service.token(response, now)
        # Noted only now: had the first scope alone been refused too, the account would be at fault.
        if too_much:
            self._refused.add(scopes)
        self._log(
            f"* token of {response.url.authority} for {' '.join(granted) or 'no scope'}: granted "
            f"{token.granted or 'what it does not say'}, for {token.life:g} s"
        )


def _merged(scopes: Scopes, found: list[Challenge]) -> Scopes:
    """The scopes, widened by the actions and the scopes that the challenges name."""
    actions: dict[str, list[str]] = {}
    wanted = [c.parameters.get("scope", "") for c in found if c.scheme == "bearer"]
    for scope in (*scopes, *" ".join(wanted).split()):
        # `repository:NAME:ACTIONS`; Gitea's `*` has no such form, and goes back as it is.
        kind, colon, named = scope.rpartition(":")
        actions.setdefault(kind + colon, []).extend(named.split(","))
    return tuple(f"{thing}{','.join(dict.fromkeys(named))}" for thing, named in actions.items())
