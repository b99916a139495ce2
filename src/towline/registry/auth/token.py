"""Access tokens: how a token service is asked for one, and what its answer means.

What a token says of itself is read for the log alone: only the registry can judge it.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import AuthError, RegistryError
from towline.registry import errors
from towline.spec import reading
from towline.wire.message import Challenge, Request, Response, Url, quote, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.registry.auth.credential_files import Credentials

Scopes = tuple[str, ...]
"""What a token must be good for, each `repository:NAME:ACTIONS`. The destination's is first: some
token services grant the first alone."""

ANSWER_MAX = 1 << 20
"""Bytes of a token service's answer."""
LIFE_MIN = 60.0
"""Seconds that a token is taken to live where its service says less, or nothing."""
_LIFE_MAX = 365 * 24 * 3600.0
"""Seconds that a token is taken to live at most, so that sums with it stay finite numbers."""
TOO_MUCH = frozenset({400, 401, 403})
"""Statuses by which a service may mean that it would grant fewer scopes: the Hub's answers 400 to
a repository of three parts."""


class Token(NamedTuple):
    """An access token; its value is never shown."""

    value: str
    life: float
    """Seconds."""
    expires: float
    """By the clock of whoever got it."""

    def __repr__(self) -> str:
        return f"<Token for {self.life:g} s>"

    def lasts(self, seconds: float, now: float) -> bool:
        """Whether it is good for `seconds` more. Of a token with a short life, half suffices."""
        return self.expires - now >= min(seconds, self.life / 2)

    def age(self, now: float) -> float:
        """Seconds since it was given."""
        return now - (self.expires - self.life)

    @property
    def granted(self) -> str:
        """The scopes that the token (a JWT) names, for the log; empty where it names none."""
        try:
            payload = self.value.split(".")[1]
            claims = reading.document(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            scopes = [
                f"{access['type']}:{access['name']}:{','.join(access['actions'])}"
                for access in claims["access"]
            ]
            return " ".join(scopes) or "nothing"
        except (ValueError, LookupError, TypeError):
            return ""


class TokenService(NamedTuple):
    """A registry's token service, as its challenge names it, asked by one account."""

    base: Url
    """Of the registry's API."""
    challenge: Challenge
    credentials: Credentials | None

    def ask(self, scopes: Scopes, send: Callable[[Request], Response]) -> Response:
        """Ask for a token. Raises AuthError and RegistryError for a realm that cannot be used."""
        # A password goes by GET, which all services take; only a refresh token must be posted
        # (ACR). A form has all scopes in one field, a query has a parameter for each.
        realm, credentials = self._realm(), self.credentials
        service = self.challenge.parameters.get("service", "")  # OpenShift names none
        if credentials and credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "service": service,
                "client_id": "towline",
                "scope": " ".join(scopes),
                "refresh_token": credentials.identity_token,
            }
            body = "&".join(f"{name}={quote(value)}" for name, value in form.items() if value)
            headers = (("Content-Type", "application/x-www-form-urlencoded"),)
            response = send(Request("POST", realm, headers, body.encode()))
            # Services that take no POST say 404 (GCR), 401 (Artifactory), 400 (ACR) or 405.
            if response.status not in {400, 401, 404, 405} or not credentials.password:
                return response
        url = realm.with_query("service", service) if service else realm
        for scope in scopes:
            url = url.with_query("scope", scope)
        if credentials is None or credentials.basic is None:
            return send(Request("GET", url))
        url = url.with_query("account", credentials.username)
        return send(Request("GET", url, (("Authorization", credentials.basic),)))

    def _realm(self) -> Url:
        text = self.challenge.parameters.get("realm", "")
        try:
            realm = self.base.join(text)
        except ValueError:
            raise RegistryError(
                f"{self.base.authority} sends for a token to {shown(text)}, which is no address"
            ) from None
        if self.base.scheme == "https" and realm.scheme != "https":
            raise AuthError(
                f"{self.base.authority} sends for a token to {realm.origin} in the clear"
            )
        return realm

    def token(self, response: Response, now: float) -> Token:
        """The token of an answer that came at `now` (the caller's clock).

        Raises AuthError, RegistryError. No word of a successful answer is in them: it may be a
        token.
        """
        action = f"get a token for {self.base.authority}"
        if not response.ok:
            error = errors.refusal(response, action)
            if response.status not in TOO_MUCH or error.transient:
                raise error
            who = f" as {self.credentials}" if self.credentials else " without credentials"
            raise AuthError(
                error.message + who, status=response.status, code=error.code, hint=error.hint
            )
        document = reading.mapping(response.body)
        # Docker's own format and OAuth's name it differently; some send an empty one, too.
        value = document.get("access_token") or document.get("token")
        if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
            body = response.body.strip()
            # JSON that was cut off on the way is worth another attempt.
            torn = body.startswith(b"{") and not body.endswith(b"}") and not response.truncated
            raise AuthError(
                f"cannot {action}: {response.url.authority} answered without one "
                f"({response.method} {response.url.redacted})",
                status=response.status,
                transient=torn,
            )
        said, life = document.get("expires_in"), LIFE_MIN
        # Quay names no time. Python's JSON also gives integers beyond any float, and NaN.
        if isinstance(said, int | float) and said >= LIFE_MIN:
            life = float(min(said, _LIFE_MAX))
        return Token(value, life, now + life)
