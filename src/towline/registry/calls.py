"""Calls to a registry as values: what is asked, and how the answer is read.

Those about blobs are here (distribution-spec, "Endpoints": end-2 and 11), and what opens a session;
where a redirect may lead a call is decided, too (RFC 9110, "Redirection 3xx"). Nothing touches a
socket: tests feed answers in. `action` completes "cannot …" in errors.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from towline.errors import RegistryError
from towline.registry import errors
from towline.spec import distribution
from towline.wire.message import ANSWER_MAX, Response, Url, quote

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.reference import RepositoryName
    from towline.spec.digest import Digest

T = TypeVar("T")

REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""Statuses that send a request elsewhere (RFC 9110, section 15.4)."""
REDIRECTS_MAX = 5
"""Redirects in a row that are followed; more are most likely a circle."""
# `int` refuses texts of thousands of digits, and no blob needs more than 18.
_CONTENT_RANGE = r"bytes ([0-9]{1,18})-"


class Call(NamedTuple, Generic[T]):
    """One request, and the meaning of its answer."""

    method: str
    target: str | Url
    """A path of the API, or the whole URL of an upload session."""
    action: str
    read: Callable[[Response], T]
    """Raises AuthError or RegistryError for an answer that is no success."""
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


class Unclear(NamedTuple):
    """The answer does not say; ask in another way."""

    status: int


def says_nothing(response: Response) -> bool:
    """Whether a refused HEAD leaves open what was asked for.

    Most refusals are of a rule or of a proxy: 405, 501, 400 "invalid verb" (IIS), 403 for a tag
    that is not there (Artifactory).
    """
    status = response.status
    # 401 is about the login, 404 an answer, and 408, 429 and 499 (nginx, Nexus) pass.
    return status == 501 or (400 <= status < 500 and status not in {401, 404, 408, 429, 499})


def sent_on(call: Call[T], response: Response) -> Url | None:
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
    return url if url.origin == response.url.origin else None


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


class Seen(NamedTuple):
    """What a HEAD says of a blob."""

    there: bool | None
    """None: it does not say; ask in another way."""
    size: int | None = None
    """Bytes, as far as it says."""

    def has(self, size: int | None) -> bool:
        """Whether the blob is there. Where both sizes are known, they must be equal."""
        return self.there is True and (None in {size, self.size} or size == self.size)


class Confirmed(NamedTuple):
    """The registry has the blob: sent whole in one POST, or linked from another repository."""

    instead: Digest | None = None
    """The digest that the answer names, where it is not the blob's."""


class Opened(NamedTuple):
    """An upload session."""

    location: Url
    chunk_min: int = 0
    """Least bytes of a chunk, but for the last (`OCI-Chunk-Min-Length`)."""


def base(host: str) -> Call[None]:
    """end-1: whether there is a registry, and whether the account is let in."""
    action = f"log in to {host}"

    def read(response: Response) -> None:
        errors.check_success(response, action)

    return Call("GET", distribution.BASE, action, read)


def head_blob(name: RepositoryName, digest: str, *, in_storage: bool = False) -> Call[Seen]:
    """end-2 by HEAD. `in_storage`: follow to the storage behind the registry, too.

    The storage may have lost a blob that the registry still lists.
    """
    action = f"check blob {_short(digest)} in {name}"
    path = distribution.blob_path(name.path, digest)

    def read(response: Response) -> Seen:
        # Cloud Run leaves the length out, GoDoxy and NORA say 0, what is encoded has another one.
        encoded = "Content-Encoding" in response.headers or not response.ok
        size = None if encoded else response.headers.number("Content-Length") or None
        if response.status in REDIRECTS:  # to storage: the blob is there
            return Seen(there=True)
        if response.url.target != path:
            # Storage refuses a HEAD for many a reason (S3 signs for one method), but says 404.
            return Seen(response.status not in {404, 410}, size)
        if response.status == 404 or says_nothing(response):
            return Seen(there=False if response.status == 404 else None)
        errors.check_success(response, action)
        return Seen(there=True, size=size)

    return Call("HEAD", path, action, read, follow=in_storage)


def get_blob(name: RepositoryName, digest: str, start: int = 0) -> Call[Response]:
    """end-2, from byte number `start` on. The caller reads the body piece by piece."""
    action = f"read blob {_short(digest)} of {name}"
    path = distribution.blob_path(name.path, digest)
    span = (("Range", f"bytes={start}-"),) if start else ()
    return Call("GET", path, action, lambda response: response, span, follow=True)


def starts_at(response: Response) -> int | None:
    """The number of the byte with which an answer begins; None: it does not say."""
    if response.status != 206:  # `Range` was ignored, as it may be: the whole blob comes
        return 0
    match = re.match(_CONTENT_RANGE, response.headers.get("Content-Range") or "")
    return int(match[1]) if match else None


def mount(name: RepositoryName, digest: str, origin: str) -> Call[Confirmed | Opened | None]:
    """end-11. None: refused, in whatever way; only the upload's own error counts."""
    action = f"mount blob {_short(digest)} from {origin} to {name}"

    # ECR and Quay say no by 202, Harbor by 401 for a project that it does not have, Quay of old by
    # 400, ECR Public by an error.
    def read(response: Response) -> Confirmed | Opened | None:
        if response.status == 201:
            return Confirmed(errors.named_instead(response, digest))
        # 202 is the specification's way to decline. It opens a session, which saves a POST.
        if response.status == 202 and response.headers.get("Location"):
            return opened(response, action)
        return None

    # Always with `from`: without it distribution and Harbor mount nothing, and Quay of old said
    # 400. Never with `origin`, as crane does: it has broken the Hub and old Harbor.
    path = distribution.uploads_path(name.path)
    target = f"{path}?mount={digest}&from={quote(origin)}"
    return Call("POST", target, action, read, moves=True, optional=True)


def opened(response: Response, action: str) -> Opened:
    """The session that an answer opens. Raises as `session_url` does."""
    least = response.headers.number(distribution.OCI_CHUNK_MIN_LENGTH) or 0
    return Opened(session_url(response, action), least)


def session_url(response: Response, action: str, before: Url | None = None) -> Url:
    """The URL at which the session goes on; `before` where the answer names none.

    Raises RegistryError, transient, where there is no such URL.
    """
    # It is taken as it comes: distribution signs the offset into its query, anew in each answer,
    # and GHCR's path is not the specification's.
    location = response.headers.get("Location")
    if not location and before is not None:
        return before
    if not location:
        if errors.is_page(response):
            raise errors.no_success(response, action)
        raise RegistryError(
            f"cannot {action}: {response.url.authority} answered {response.status} without the "
            "location of a session",
            status=response.status,
            transient=True,
        )
    try:
        return still_secure(response.url.join(location), response.url)
    except ValueError as error:
        raise RegistryError(
            f"cannot {action}: {error}", status=response.status, transient=True
        ) from None


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12] or digest
