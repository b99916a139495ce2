"""How one account is let in at one registry: challenges, tokens, and what to send with a request.

No I/O: what must be asked is yielded as a request, the answer is sent in (httpx's way). Not safe
from several threads; `admission` drives it under a lock, so that one token is fetched however many
wait for it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from towline.registry.auth.challenge import Challenge, challenges
from towline.registry.auth.token_service import TokenService, asks_too_much
from towline.wire.message import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from towline.registry.auth.keychain import Credentials
    from towline.registry.auth.token import Scopes, Token
    from towline.wire.message import Response
    from towline.wire.url import Url

_MARGIN = 5.0
_BODY_MARGIN = 60.0
"""Seconds that a token should still live when a body is begun."""
_NEW = 5.0
"""Seconds for which a token counts as just given."""
_INSUFFICIENT = "insufficient_scope"


class Authenticator:
    """What is known of how a registry wants this account to show itself."""

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
        """How the registry asks, as it has said in this run; None: not at all, as far as is known.

        Never what an earlier run was told: a password goes where this says.
        """
        self._tokens: dict[Scopes, Token] = {}
        self._wider: dict[Scopes, Scopes] = {}
        self._refused: set[Scopes] = set()

    def replace(self, credentials: Credentials) -> bool:
        """Use other credentials from here on; whether they are others."""
        if credentials == self.credentials:
            return False
        self.credentials = credentials
        self.worked = False
        self._tokens.clear()
        return True

    def aged(self, scopes: Scopes) -> bool:
        """Whether a token is in use that has been for a while."""
        token = self._tokens.get(self._granted(scopes))
        return token is not None and token.aged(self._clock())

    def is_new(self, scopes: Scopes, used: str | None, refused: Response) -> bool:
        """Whether a token was refused that was given only now, and not for what it lacks."""
        granted = self._granted(scopes)
        token = self._tokens.get(granted)
        if token is None or used != f"Bearer {token.value}":
            return False
        found = self._asked_in(refused)
        lacking = any(c.parameters.get("error") == _INSUFFICIENT for c in found)
        return (
            token.age(self._clock()) < _NEW and not lacking and _merged(granted, found) == granted
        )

    def forget(self, scopes: Scopes) -> None:
        """Have the next `fetch` get another token for these."""
        self._tokens.pop(self._granted(scopes), None)

    def header(self, scopes: Scopes, *, lasting: float = _MARGIN) -> str | None:
        """What to send as `Authorization`; None: nothing, or nothing yet (see `must_ask`)."""
        if self.credentials and self.credentials.registry_token:
            return f"Bearer {self.credentials.registry_token}"
        if self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            return self._basic()
        token = self._tokens.get(self._granted(scopes))
        return f"Bearer {token.value}" if token and token.lasts(lasting, self._clock()) else None

    def body_header(self, scopes: Scopes) -> str | None:
        """Likewise, for a request with a body, which takes its time."""
        return self.header(scopes, lasting=_BODY_MARGIN)

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

    def _basic(self) -> str | None:
        return self.credentials.basic if self.credentials else None

    def fetch(self, scopes: Scopes) -> Generator[Request, Response, None]:
        """Fetch the token that `header` lacks. Raises AuthError, RegistryError."""
        if self._challenge is not None and self._challenge.scheme == "bearer":
            yield from self._fetch(self._challenge, scopes)

    def renew(
        self, scopes: Scopes, refused: Response, used: str | None
    ) -> Generator[Request, Response, bool]:
        """Learn from a refusal; whether the request is worth sending once more.

        `used` is the `Authorization` that was refused.
        """
        found = self._asked_in(refused)
        if self._challenge is None and not self._answerable(found):
            # Some say how only where everybody asks first (distribution-spec, end-1); others let
            # everybody in there, and it was something on the way that wanted a password.
            answer = yield Request("GET", self.base)
            if answer.status != 401:
                return True
            found = self._asked_in(answer)
        before = self._learned()
        self._learn(found)
        if self._challenge is None:
            return False
        if self._challenge.scheme == "basic":
            # The same again helps only after a hiccup: it has been good before.
            return self.worked or self._basic() not in {None, used}
        try:
            self._drop(scopes, used)
            self._widen(scopes, found)
            yield from self._fetch(self._challenge, scopes)
        except BaseException:  # closed, where nobody answers
            # It leads nowhere: what was known before may be good yet.
            self._challenge, self._tokens, self._wider = before
            raise
        return True

    def _asked_in(self, refused: Response) -> list[Challenge]:
        # The base may have sent on: elsewhere nobody names a token service for our credentials.
        here = refused.url.origin == self.base.origin
        return challenges(refused.headers.all("WWW-Authenticate")) if here else []

    def _answerable(self, found: list[Challenge]) -> bool:
        schemes = {challenge.scheme for challenge in _usable(found)}
        return "bearer" in schemes or ("basic" in schemes and self._basic() is not None)

    def _learned(self) -> tuple[Challenge | None, dict[Scopes, Token], dict[Scopes, Scopes]]:
        return self._challenge, dict(self._tokens), dict(self._wider)

    def _learn(self, found: list[Challenge]) -> None:
        usable = _usable(found)
        bearer = next((challenge for challenge in usable if challenge.scheme == "bearer"), None)
        if bearer is not None:
            self._challenge = bearer
        elif usable and not self.must_ask:
            # Never Basic after Bearer: Harbor answers so to a token that has expired.
            self._challenge = usable[0]

    def _drop(self, scopes: Scopes, used: str | None) -> None:
        token = self._tokens.get(self._granted(scopes))
        if token is not None and used == f"Bearer {token.value}":
            del self._tokens[self._granted(scopes)]

    def _widen(self, scopes: Scopes, found: list[Challenge]) -> None:
        """Add what the registry says is wanting, in its own words."""
        granted = self._granted(scopes)
        wider = _merged(granted, found)
        if wider != granted:
            self._wider[scopes] = wider

    def hopeless(self, scopes: Scopes, refused: Response) -> bool:
        """Whether there is nothing to learn from a refusal: another token would fare the same."""
        found = self._asked_in(refused)
        usable = _usable(found)
        if not usable or (not self.must_ask and all(c.scheme == "basic" for c in usable)):
            return self.worked
        granted = self._granted(scopes)
        asked = granted in self._tokens and _merged(granted, found) == granted
        return asked and any(c.parameters.get("error") == _INSUFFICIENT for c in found)

    def _fetch(self, challenge: Challenge, scopes: Scopes) -> Generator[Request, Response, None]:
        granted = self._granted(scopes)
        if granted in self._tokens and self._tokens[granted].lasts(_BODY_MARGIN, self._clock()):
            return  # another thread was faster
        service = TokenService(self.base, challenge, self.credentials)
        response = yield from service.ask(granted)
        first = self._granted(scopes[:1])
        if too_much := granted != first and asks_too_much(response):
            granted = first
            response = yield from service.ask(granted)
        token = self._tokens[granted] = service.token(response, self._clock())
        if too_much:  # had the first alone been refused too, the account would be at fault
            self._refused.add(scopes)
        self._log(
            f"* token of {response.url.authority} for {' '.join(granted) or 'no scope'}: granted "
            f"{token.granted or 'what it does not say'}, for {token.life:g} s"
        )


def _usable(found: list[Challenge]) -> list[Challenge]:
    return [
        challenge
        for challenge in found
        if challenge.scheme == "basic"
        or (challenge.scheme == "bearer" and challenge.parameters.get("realm"))
    ]


def _merged(scopes: Scopes, found: list[Challenge]) -> Scopes:
    """These scopes, with the actions that the challenges name for the same things, and others."""
    actions = {_thing(scope): scope.rpartition(":")[2].split(",") for scope in scopes}
    wanted = [c.parameters.get("scope", "") for c in found if c.scheme == "bearer"]
    for scope in " ".join(wanted).split():
        actions.setdefault(_thing(scope), []).extend(scope.rpartition(":")[2].split(","))
    return tuple(f"{thing}{','.join(dict.fromkeys(named))}" for thing, named in actions.items())


def _thing(scope: str) -> str:
    """What a scope is about, `repository:NAME:`; of one that has no such form, nothing."""
    kind, colon, _ = scope.rpartition(":")
    return kind + colon
