"""Access tokens: read from a token service's answer, and for how long they are good.

What a token says of itself is looked at for the log alone: only its registry can judge it.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from towline.errors import AuthError

if TYPE_CHECKING:
    from towline.wire.message import Response

Scopes = tuple[str, ...]
"""What a token must be good for, `repository:NAME:ACTIONS` each, the destination's first: some
token services look at the first alone."""

ANSWER_MAX = 1 << 20
"""Bytes of a token service's answer."""
LIFE_MIN = 60.0
"""Seconds that a token is taken to live where its service says less, or nothing."""
_LIFE_MAX = 365 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Token:
    """An access token; its value is never shown."""

    value: str = field(repr=False)
    life: float
    """Seconds."""
    expires: float
    """By the clock of whoever got it."""

    def lasts(self, seconds: float, now: float) -> bool:
        """Whether it is good for that long, or for half of a short life."""
        return self.expires - now >= min(seconds, self.life / 2)

    def aged(self, now: float) -> bool:
        """Whether it has been in use for a while."""
        return self.age(now) > LIFE_MIN

    def age(self, now: float) -> float:
        """Seconds since it was given."""
        return now - (self.expires - self.life)

    @property
    def granted(self) -> str:
        """What it is good for by its own words, for a log; empty where it has none."""
        try:
            payload = self.value.split(".")[1]
            claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
            return " ".join(_scope(access) for access in claims["access"]) or "nothing"
        except (ValueError, LookupError, TypeError, RecursionError):
            return ""


def _scope(access: dict[str, Any]) -> str:
    return f"{access['type']}:{access['name']}:{','.join(access['actions'])}"


def read(response: Response, action: str, now: float) -> Token:
    """The token of a successful answer. Raises AuthError, without the answer's words.

    Docker's own format and OAuth's name it differently; the times in it are by other clocks.
    """
    document = _document(response)
    value = document.get("access_token") or document.get("token")
    if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
        raise AuthError(
            f"cannot {action}: {response.url.authority} answered without one "
            f"({response.method} {response.url.redacted})",
            status=response.status,
            transient=_is_torn(response),
        )
    life = _life(document.get("expires_in"))
    return Token(value, life, now + life)


def _life(said: Any) -> float:  # noqa: ANN401 - any JSON
    """Seconds; numbers beyond all floats, and NaN, have been read as JSON too."""
    known = isinstance(said, int | float) and said >= LIFE_MIN
    return float(min(said, _LIFE_MAX)) if known else LIFE_MIN


def _is_torn(response: Response) -> bool:
    """Whether an object was begun and not ended: the next answer may be whole."""
    body = response.body.strip()
    return body.startswith(b"{") and not body.endswith(b"}") and not response.truncated


def _document(response: Response) -> dict[str, Any]:
    try:
        document = json.loads(response.body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
