"""A token service: how it is asked for a token, and what its answer means.

No I/O: see `auth`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from towline.errors import AuthError, RegistryError
from towline.registry import errors
from towline.registry.auth import token as tokens
from towline.wire.message import Request
from towline.wire.url import quote

if TYPE_CHECKING:
    from collections.abc import Generator

    from towline.registry.auth.challenge import Challenge
    from towline.registry.auth.keychain import Credentials
    from towline.registry.auth.token import Scopes, Token
    from towline.wire.message import Response
    from towline.wire.url import Url

CLIENT_ID = "towline"
_NO_FORM = frozenset({400, 401, 404, 405})
"""Answers of services that take no token request by POST."""
_TOO_MUCH = frozenset({400, 401, 403})
"""Answers of services that do not grant what several scopes ask together."""


class TokenService(NamedTuple):
    """The one that a registry's challenge names, asked by one account."""

    base: Url
    """Of the registry's API."""
    challenge: Challenge
    credentials: Credentials | None

    def ask(self, scopes: Scopes) -> Generator[Request, Response, Response]:
        """Ask for a token. Raises AuthError, RegistryError for an address that is none."""
        credentials = self.credentials
        if credentials and credentials.identity_token:
            response = yield self._form_request(credentials.identity_token, scopes)
            if response.status not in _NO_FORM or not credentials.password:
                return response
        return (yield self._get_request(scopes))

    def _get_request(self, scopes: Scopes) -> Request:
        url = self._realm()
        if service := self._parameter("service"):
            url = url.with_query("service", service)
        for scope in scopes:
            url = url.with_query("scope", scope)
        if self.credentials is None or self.credentials.basic is None:
            return Request("GET", url)
        url = url.with_query("account", self.credentials.username)
        return Request("GET", url, (("Authorization", self.credentials.basic),))

    def _form_request(self, refresh: str, scopes: Scopes) -> Request:
        form = {
            "grant_type": "refresh_token",
            "service": self._parameter("service"),
            "client_id": CLIENT_ID,
            "scope": " ".join(scopes),
            "refresh_token": refresh,
        }
        body = "&".join(f"{name}={quote(value)}" for name, value in form.items() if value)
        headers = (("Content-Type", "application/x-www-form-urlencoded"),)
        return Request("POST", self._realm(), headers, body.encode())

    def _parameter(self, name: str) -> str:
        return self.challenge.parameters.get(name, "")

    def _realm(self) -> Url:
        text = self._parameter("realm")
        try:
            realm = self.base.join(text)
        except ValueError:
            raise RegistryError(
                f"{self.base.authority} sends for a token to {text[:80]!r}, which is no address"
            ) from None
        if self.base.scheme == "https" and realm.scheme != "https":
            raise AuthError(
                f"{self.base.authority} sends for a token to {realm.origin} in the clear"
            )
        return realm

    def token(self, response: Response, now: float) -> Token:
        """The token of an answer that came `now`. Raises AuthError, RegistryError."""
        action = f"get a token for {self.base.authority}"
        if not response.ok:
            raise self._no_token(response, action)
        return tokens.read(response, action, now)

    def _no_token(self, response: Response, action: str) -> AuthError | RegistryError:
        error = errors.refusal(response, action)
        if response.status in _TOO_MUCH and not error.transient:
            who = f" as {self.credentials}" if self.credentials else " without credentials"
            return AuthError(
                error.message + who, status=response.status, code=error.code, hint=error.hint
            )
        return error


def asks_too_much(response: Response) -> bool:
    """Whether the service may grant less than it was asked for."""
    return response.status in _TOO_MUCH
