"""How one account is let in at one registry: its challenge, its tokens, the header to send.

No I/O: generators yield the requests that must be made, and are sent the answers (as httpx does).
Not safe from several threads: `admission` holds a lock while it drives one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from towline.registry.challenge import challenges
from towline.wire.message import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from towline.registry.auth.docker_config import Credentials
    from towline.registry.auth.token import Scopes, Token
    from towline.registry.challenge import Challenge
    from towline.wire.message import Response
    from towline.wire.url import Url

MARGIN = 5.0
"""Seconds that a token should still live when a request is sent."""
BODY_MARGIN = 60.0
"""Seconds that a token should still live when a body is begun: a proxy that buffers the body
shows the token to the registry only when it has all of it."""
_NEW = 5.0
"""Seconds for which a token counts as just given."""


class Authenticator:
    """Challenges, tokens and credentials of one account at one registry."""

    def __init__(
        self,
        base: Url,
        credentials: Credentials | None,
        clock: Callable[[], float] = time.monotonic,
        log: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.base = base
        """The URL of the registry's API."""
        self.credentials = credentials
        self.worked = False
        """Whether a request with these credentials was let in."""
        self._clock = clock
        self._log = log
        self._challenge: Challenge | None = None
        """How the registry asks for credentials; None: it has not asked in this run.

        Never taken from an earlier run: the password goes where this says.
        """
        self._tokens: dict[Scopes, Token] = {}
        self._wider: dict[Scopes, Scopes] = {}
        """Scopes with those added that the registry has named as missing, in its own words."""
        self._refused: set[Scopes] = set()
        """Sets of scopes of which the token service grants only the first."""

    def replace(self, credentials: Credentials) -> bool:
        """Use these credentials from here on. Returns whether they differ from those before."""
        if credentials == self.credentials:
            return False
        self.credentials, self.worked = credentials, False
        self._tokens.clear()
        return True

    # What to show.

    def header(self, scopes: Scopes, *, lasting: float = MARGIN) -> str | None:
        """The `Authorization` to send; None: none, or none yet (see `must_ask`).

        `lasting`: seconds that a token should still live.
        """
        if self.credentials and self.credentials.registry_token:
            return f"Bearer {self.credentials.registry_token}"
        if self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            return self._basic
        token = self._token(scopes)
        return f"Bearer {token.value}" if token and token.lasts(lasting, self._clock()) else None

    @property
    def must_ask(self) -> bool:
        """Whether a missing `header` means that a token must be fetched first."""
        return self._challenge is not None and self._challenge.scheme == "bearer"

    def grants(self, scopes: Scopes) -> bool:
        """False when the token service gave only the first of these scopes."""
        return scopes not in self._refused

    def _granted(self, scopes: Scopes) -> Scopes:
        scopes = scopes[:1] if scopes in self._refused else scopes
        return self._wider.get(scopes, scopes)

    def _token(self, scopes: Scopes) -> Token | None:
        return self._tokens.get(self._granted(scopes))

    @property
    def _basic(self) -> str | None:
        return self.credentials.basic if self.credentials else None

    # What a refusal teaches.

    def is_new(self, scopes: Scopes, used: str | None, refused: Response) -> bool:
        """Whether a token was refused seconds after it was issued, though its scopes suffice."""
        token = self._token(scopes)
        if token is None or used != f"Bearer {token.value}":
            return False
        found, granted = self._asked_in(refused), self._granted(scopes)
        lacking = any(each.wants_more for each in found) or _merged(granted, found) != granted
        return token.age(self._clock()) < _NEW and not lacking

    def hopeless(self, scopes: Scopes, refused: Response) -> bool:
        """Whether another token would be refused just the same."""
        found, granted = self._asked_in(refused), self._granted(scopes)
        usable = [each for each in found if each.usable]
        # No token would come of it. If the account was let in before, this request is refused.
        if not usable or (not self.must_ask and all(c.scheme == "basic" for c in usable)):
            return self.worked
        # Its token had all that the registry names, and that did not suffice.
        asked = granted in self._tokens and _merged(granted, found) == granted
        return asked and any(each.wants_more for each in found)

    def forget_aged(self, scopes: Scopes) -> bool:
        """Drop the token if it is older than a minute. Returns whether it was."""
        from towline.registry.auth.token import LIFE_MIN

        token = self._token(scopes)
        if token is None or token.age(self._clock()) <= LIFE_MIN:
            return False
        self._tokens.pop(self._granted(scopes))
        return True

    def renew(
        self, scopes: Scopes, refused: Response, used: str | None
    ) -> Generator[Request, Response, bool]:
        """Learn from a refusal. Returns whether the request is worth sending once more.

        `used` is the `Authorization` that was refused. Raises AuthError, RegistryError.
        """
        found = self._asked_in(refused)
        schemes = {each.scheme for each in found if each.usable}
        answerable = "bearer" in schemes or ("basic" in schemes and self._basic is not None)
        if self._challenge is None and not answerable:
            # GCR answers some requests with a bare 401, and only `/v2/` (distribution-spec, end-1)
            # says how to log in. Where `/v2/` lets everybody in, something on the way wanted a
            # password, for once.
            answer = yield Request("GET", self.base)
            if answer.status != 401:
                return True
            found = self._asked_in(answer)
        before = self._challenge, dict(self._tokens), dict(self._wider)
        usable = [each for each in found if each.usable]
        bearer = next((each for each in usable if each.scheme == "bearer"), None)
        if bearer is not None:
            self._challenge = bearer
        elif usable and not self.must_ask:
            # Never Basic after Bearer: Harbor asks for Basic when a token has expired.
            self._challenge = usable[0]
        if self._challenge is None:
            return False
        if self._challenge.scheme == "basic":
            # The same header once more helps only after a hiccup, if it was good before.
            return self.worked or self._basic not in {None, used}
        try:
            token, granted = self._token(scopes), self._granted(scopes)
            if token is not None and used == f"Bearer {token.value}":
                del self._tokens[granted]
            if (wider := _merged(granted, found)) != granted:
                self._wider[scopes] = wider
            yield from self.fetch(scopes)
        except BaseException:  # GeneratorExit too: `close`, when the token service does not answer
            # A false challenge leads nowhere: what was known before it may still be good.
            self._challenge, self._tokens, self._wider = before
            raise
        return True

    def _asked_in(self, refused: Response) -> list[Challenge]:
        # The request may have been redirected: another host must not name a token service for our
        # credentials.
        here = refused.url.origin == self.base.origin
        return challenges(refused.headers.all("WWW-Authenticate")) if here else []

    def fetch(self, scopes: Scopes) -> Generator[Request, Response, None]:
        """Fetch the token that `header` lacks. Raises AuthError, RegistryError."""
        from towline.registry.auth.token import TOO_MUCH, TokenService

        challenge = self._challenge
        if challenge is None or challenge.scheme != "bearer":
            return
        granted, token = self._granted(scopes), self._token(scopes)
        if token is not None and token.lasts(BODY_MARGIN, self._clock()):
            return  # another thread was faster
        service = TokenService(self.base, challenge, self.credentials)
        response = yield from service.ask(granted)
        first = self._granted(scopes[:1])
        if too_much := granted != first and response.status in TOO_MUCH:
            granted = first
            response = yield from service.ask(granted)
        token = self._tokens[granted] = service.token(response, self._clock())
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
