"""What a request carried and nobody may read, taken out of a refusal that repeats it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from towline.wire.message import Headers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from towline.wire.message import Request

_HIDDEN = "[hidden]"
"""In no angle brackets: a refusal that begins with it is to be no page."""
_SHORTEST = 4
"""Characters: hiding what is shorter would spoil every word that holds it."""
_FORM_SECRETS = frozenset({"refresh_token", "password"})


def hide(request: Request, text: str) -> str:
    """The text without the secrets of the request that it answers."""
    for secret in sorted(_secrets(request), key=len, reverse=True):
        # Some encoders of JSON escape the slash.
        for form in (secret, secret.replace("/", "\\/")):
            text = text.replace(form, _HIDDEN)
    return text


def hide_in_fields(request: Request, fields: Headers) -> Headers:
    """Header fields without them."""
    return Headers((name, hide(request, value)) for name, value in fields)


def _secrets(request: Request) -> set[str]:
    found = {*_of_headers(request), *_of_form(request)}
    return {secret for secret in found if len(secret) >= _SHORTEST}


def _of_headers(request: Request) -> Iterator[str]:
    for name, value in request.headers:
        if name.lower() == "authorization":
            scheme, _, secret = value.partition(" ")
            yield secret
            if scheme.lower() == "basic":
                yield _password(secret)


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded).decode("utf-8").partition(":")[2]
    except ValueError:
        return ""


def _of_form(request: Request) -> Iterator[str]:
    """Of a token request (a form, as OAuth 2 has it)."""
    if not isinstance(request.body, bytes) or request.method != "POST":
        return
    for name, value in parse_qsl(request.body.decode("latin-1")):
        if name in _FORM_SECRETS:
            yield value
