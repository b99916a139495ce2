"""Where an answer sends on to, and whether a call may go there (RFC 9110, "Redirection 3xx")."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from towline.errors import RegistryError
from towline.registry import errors

if TYPE_CHECKING:
    from towline.registry.requests.call import Call
    from towline.wire.message import Response
    from towline.wire.url import Url

T = TypeVar("T")

REDIRECTS = frozenset({301, 302, 303, 307, 308})
REDIRECTS_MAX = 5


def sent_on(call: Call[T], response: Response) -> Url | None:
    """Where a call is to be made again; None: nowhere, its answer is final.

    A read that follows goes wherever it is sent. Another request, with method and body, goes to
    another path of its host (RFC 9110, sections 15.4.8 and 15.4.9), to another host only if it
    `moves`.
    """
    if call.follow and response.status in REDIRECTS:
        return read_sent_on(response)
    url = errors.sent_on(response)
    if response.status not in {307, 308} or url is None:
        return None
    if call.moves:
        try:
            return still_secure(url, response.url)
        except ValueError as error:
            raise RegistryError(f"cannot {call.action}: {error}", status=response.status) from None
    return url if url.origin == response.url.origin else None


def read_sent_on(response: Response) -> Url:
    """Where a read is sent on to, in which nothing is shown that was encrypted before."""
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
    """The error for a call that comes to no end."""
    return RegistryError(f"{url.authority} redirects in circles or to nowhere")


def still_secure(url: Url, asked: Url) -> Url:
    """Where an answer sends a write on to; ValueError where that leads from https to http."""
    if (asked.scheme, url.scheme) != ("https", "http"):
        return url
    if url.host != asked.host:
        raise ValueError(f"{asked.authority} sends on to {url.origin}, which is not encrypted")
    # Behind a proxy that ends TLS registries say `http` of themselves: https it stays.
    return asked.at(url.target)
