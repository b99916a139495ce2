"""Lets a scripted registry ask for tokens or passwords, and says what was shown to it."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from typing import TYPE_CHECKING

from tests.support.scripted import Reply

if TYPE_CHECKING:
    from tests.support.scripted import Asked, Scripted

USER, PASSWORD = "me", "s3cret-word"


def basic(user: str = USER, password: str = PASSWORD) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def scopes_of(asked: Asked) -> list[str]:
    return urllib.parse.parse_qs(asked.query).get("scope", [])


def form_of(asked: Asked) -> dict[str, str]:
    return dict(urllib.parse.parse_qsl(asked.body.decode()))


class Tokens:
    """A token service at `/token` of the same server; `t0`, `t1`, … are its tokens."""

    def __init__(self, registry: Scripted, *, challenge: str = "", life: int = 0) -> None:
        self.registry = registry
        self.valid: dict[str, list[str]] = {}
        """Scopes by token."""
        self.life = life
        """Seconds, if they are to be said."""
        self.challenge = challenge or f'Bearer realm="{registry.url}/token",service="reg"'
        registry.guard = self.guard
        registry.on("GET", "^/token", self.grant, forever=True)
        registry.on("POST", "^/token", self.grant, forever=True)

    def guard(self, asked: Asked) -> Reply | None:
        shown = (asked.header("Authorization") or "").removeprefix("Bearer ")
        if shown in self.valid:
            return None
        return Reply(401, {"WWW-Authenticate": self.challenge})

    def grant(self, asked: Asked) -> Reply:
        scopes = scopes_of(asked) if asked.method == "GET" else form_of(asked)["scope"].split()
        token = f"t{len(self.valid)}"
        self.valid[token] = scopes
        answer = {"token": token, **({"expires_in": self.life} if self.life else {})}
        return Reply(200, {"Content-Type": "application/json"}, json.dumps(answer))

    def expire(self) -> None:
        """From here on none of the tokens given out is good."""
        self.valid = {f"-{token}": scopes for token, scopes in self.valid.items()}

    @property
    def asked(self) -> list[Asked]:
        return [one for one in self.registry.asked if re.match("/token", one.target)]
