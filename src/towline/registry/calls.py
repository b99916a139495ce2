"""A call to a registry as a value: what is asked, and where a redirect may lead it.

RFC 9110, "Redirection 3xx". Nothing here touches a socket.
"""

# No `from __future__ import annotations`: at every start Python would compile each text that
# annotates a field of a named tuple.

from typing import NamedTuple

from towline.errors import RegistryError
from towline.registry import errors
from towline.wire.message import ANSWER_MAX, Response, Url

REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""Statuses that send a request elsewhere (RFC 9110, section 15.4)."""
REDIRECTS_MAX = 5
"""Redirects in a row that are followed; more are most likely a circle."""


class Call(NamedTuple):
    """One request about a repository. It is carried out by `Access.answer`."""

    method: str
    target: str | Url
    """A path of the API, or the whole URL of an upload session."""
    action: str
    """Completes "cannot …" in errors."""
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | memoryview | None = None
    limit: int = ANSWER_MAX
    """Bytes of the answer that are of use."""
    follow: bool = False
    """Go where a redirect points (GET and HEAD alone)."""
    moves: bool = False
    """Follow a 307 or 308 to another host. Writes without this stay on their host."""
    optional: bool = False
    """It only saves work (a mount): no other token is fetched for a 401 that tells nothing new."""
    fresh: bool = False
    """Use a new connection: a kept one has turned out to be dead."""
    in_pieces: bool = False
    """Leave the body of a success to be read piece by piece."""
    extra: int = 0
    """Bytes sent before, which the registry has to hash before it answers."""


def sent_on(call: Call, response: Response) -> Url | None:
    """The URL at which to repeat the call; None: the answer is final.

    A call with `follow` goes wherever it is sent. Any other call follows 307 and 308 alone, which
    keep method and body (RFC 9110, sections 15.4.8 and 15.4.9), and leaves its host only with
    `moves`. Raises RegistryError where a redirect leads from https to http, or to no address.
    """
    # The method stays: storage on S3 has signed the address for this one alone.
    if call.follow and response.status in REDIRECTS:
        return read_sent_on(response)
    url = errors.sent_on(response)
    # 301, 302 and 303 would turn a write into a GET.
    if response.status not in {307, 308} or url is None:
        return None
    if call.moves:
        try:
            return still_secure(url, response.url)
        except ValueError as error:
            raise RegistryError(f"cannot {call.action}: {error}", status=response.status) from None
    # A registry could have us write a tag at another one, in our own name.
    return url if url.same_origin(response.url) else None


def read_sent_on(response: Response) -> Url:
    """The address to which a read is redirected.

    Raises RegistryError where that leads from https to http, or is no address.
    """
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
    """The error for too many redirects, and for one that names no address."""
    return RegistryError(f"{url.authority} redirects in circles or to nowhere")


def still_secure(url: Url, asked: Url) -> Url:
    """`url`, the next address of a write, on https if `asked`, the last one, was.

    Raises ValueError where it leads from https to http at another host.
    """
    if (asked.scheme, url.scheme) != ("https", "http"):
        return url
    if url.host != asked.host:
        raise ValueError(f"{asked.authority} sends on to {url.origin}, which is not encrypted")
    # Behind a proxy that ends TLS, a registry names itself with `http`. The proxy would redirect
    # that with a 301, which loses method and body.
    return asked.at(url.target)
