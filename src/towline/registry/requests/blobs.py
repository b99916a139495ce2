"""Each call to a registry as a value: what is asked, and how the answer is read (jib's way).

Those about blobs and uploads are here, those about manifests and tags in `documents`. Nothing
touches a socket; tests feed answers in. `action` completes "cannot …" in errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from towline.errors import RegistryError
from towline.registry import errors
from towline.spec import distribution, media_types
from towline.wire.message import ANSWER_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.reference import RepositoryName
    from towline.spec.digest import Digest
    from towline.wire.message import Response
    from towline.wire.url import Url

T = TypeVar("T")

BINARY = ("Content-Type", media_types.OCTET_STREAM)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SAYING = frozenset({401, 404, 408, 429, 499})
"""Refusals of a HEAD that say something; others are of a rule, or of a proxy."""
_NOT_IMPLEMENTED = 501
_GONE = frozenset({404, 410})
_CREATED, _ACCEPTED, _NOT_FOUND, _BAD_REQUEST, _SERVER_ERROR = 201, 202, 404, 400, 500


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
    """Go to another host, too, where a 307 or 308 points; other writes go to no other."""
    optional: bool = False
    """It only saves work: a refusal that nothing can be learned from is not questioned."""
    fresh: bool = False
    """On a new connection: the kept ones have turned out dead."""


class Unclear(NamedTuple):
    """The answer does not say; ask in another way."""

    status: int


@dataclass(frozen=True, slots=True)
class Mounted:
    """The registry has linked the blob from another repository."""

    instead: Digest | None = None
    """Another blob that it names as linked."""


class Opened(NamedTuple):
    """An upload session."""

    location: Url
    chunk_min: int = 0
    """Least bytes of a chunk, but for the last (`OCI-Chunk-Min-Length`)."""


def base(host: str) -> Call[None]:
    """end-1: whether there is a registry, and whether the account is let in."""
    action = f"log in to {host}"

    def read(response: Response) -> None:
        if not response.ok:
            raise errors.refusal(response, action)
        if errors.is_page(response):
            raise errors.no_registry(response, action)

    return Call("GET", distribution.BASE, action, read)


def blob_exists(name: RepositoryName, digest: str, size: int | None = None) -> Call[bool]:
    """end-2 by HEAD. A redirect to storage says already that the blob is there.

    Where `size` bytes are expected, one that is said to have others is none.
    """
    action = f"check blob {_short(digest)} in {name}"
    path = distribution.blob_path(name.path, digest)

    def read(response: Response) -> bool:
        if response.status in _REDIRECTS:
            return True
        other = size is not None and _size(response) not in {None, size}
        return _is_there(response, action) is True and not other

    return Call("HEAD", path, action, read)


def blob_stored(name: RepositoryName, digest: str) -> Call[bool | Unclear]:
    """end-2 by HEAD, of the storage too: it may have lost what the registry believes in."""
    action = f"check blob {_short(digest)} in {name}"
    path = distribution.blob_path(name.path, digest)

    def read(response: Response) -> bool | Unclear:
        if response.url.target != path:
            return response.status not in _GONE
        return _is_there(response, action)

    return Call("HEAD", path, action, read, follow=True)


def blob_size(name: RepositoryName, digest: str) -> Call[int | None]:
    """end-2 by HEAD, for the number of bytes alone; None: it is not said."""
    action = f"check the size of blob {_short(digest)} in {name}"
    path = distribution.blob_path(name.path, digest)

    def read(response: Response) -> int | None:
        return _size(response) if response.ok else None

    return Call("HEAD", path, action, read, follow=True)


def _size(response: Response) -> int | None:
    """Bytes of the blob, as far as a HEAD says."""
    # Cloud Run leaves the length out, GoDoxy and NORA say 0, what is encoded has another one.
    encoded = "Content-Encoding" in response.headers
    return None if encoded else response.headers.number("Content-Length") or None


def _is_there(response: Response, action: str) -> bool | Unclear:
    if response.ok:
        if errors.is_page(response):
            raise errors.no_registry(response, action)
        return True
    if response.status == _NOT_FOUND:
        return False
    if says_nothing(response):
        return Unclear(response.status)
    raise errors.refusal(response, action)


def open_upload(name: RepositoryName) -> Call[Opened]:
    """end-4a."""
    action = f"start an upload to {name}"

    def read(response: Response) -> Opened:
        if response.status in {_CREATED, _ACCEPTED}:
            return _opened(response, action)
        raise refused(response, action)

    return Call("POST", distribution.uploads_path(name.path), action, read, moves=True)


def mount(name: RepositoryName, digest: str, origin: str) -> Call[Mounted | Opened | None]:
    """end-11. None: refused, in whatever way; only the upload's own error counts."""
    action = f"mount blob {_short(digest)} from {origin} to {name}"

    def read(response: Response) -> Mounted | Opened | None:
        if response.status == _CREATED:
            return Mounted(errors.named_instead(response, digest))
        if response.status == _ACCEPTED and response.headers.get("Location"):
            return _opened(response, action)
        return None

    from towline.wire.url import quote

    path = distribution.uploads_path(name.path)
    target = f"{path}?mount={digest}&from={quote(origin)}"
    return Call("POST", target, action, read, moves=True, optional=True)


def _opened(response: Response, action: str) -> Opened:
    return Opened(
        session(response, action), response.headers.number(distribution.OCI_CHUNK_MIN_LENGTH) or 0
    )


def session(response: Response, action: str, before: Url | None = None) -> Url:
    """Where the session goes on; `before` where the answer does not say."""
    location = response.headers.get("Location")
    if not location:
        if before is not None:
            return before
        if errors.is_page(response):
            raise errors.no_registry(response, action)
        raise RegistryError(
            f"cannot {action}: {response.url.authority} answered {response.status} without the "
            "location of a session",
            status=response.status,
            transient=True,
        )
    try:
        return _secured(response.url.join(location), response.url)
    except ValueError as error:
        raise RegistryError(
            f"cannot {action}: {error}", status=response.status, transient=True
        ) from None


def _secured(url: Url, asked: Url) -> Url:
    """A proxy that ends TLS has registries say `http` of themselves; https it stays."""
    if asked.scheme == "https" and url.scheme == "http":
        if url.host != asked.host:
            raise ValueError(f"it goes on at {url.origin}, which is not encrypted")
        return asked.at(url.target)
    return url


def close_upload(location: Url, digest: str, action: str) -> Call[Digest | None]:
    """end-6 without a body: another blob that is named as kept, if one is."""

    def read(response: Response) -> Digest | None:
        if not response.ok:
            raise refused(response, action)
        if errors.is_page(response):
            raise errors.no_registry(response, action)
        return errors.named_instead(response, digest)

    return Call("PUT", location.with_query("digest", digest), action, read, (BINARY,))


def send_chunk(location: Url, chunk: memoryview, start: int, action: str) -> Call[Response]:
    """end-5: a chunk, its first byte being number `start` of the blob."""
    span = content_range(start, len(chunk))
    return Call("PATCH", location, action, lambda response: response, (BINARY, span), chunk)


def content_range(start: int, length: int) -> tuple[str, str]:
    """The header that says which bytes of a blob a body has."""
    return ("Content-Range", f"{start}-{start + length - 1}")


def ask_upload(location: Url, action: str) -> Call[Response | None]:
    """end-13. None: the session is gone, or cannot be asked."""

    def read(response: Response) -> Response | None:
        if response.ok:
            return response
        refusal = errors.refusal(response, action)
        if refusal.transient and response.status != _NOT_FOUND:
            raise refusal
        return None

    return Call("GET", location, action, read)


def get_blob(name: RepositoryName, digest: str) -> Call[Response]:
    """end-2; its body is to be read piece by piece."""
    action = f"read blob {_short(digest)} of {name}"
    path = distribution.blob_path(name.path, digest)
    return Call("GET", path, action, lambda response: response, follow=True)


def says_nothing(response: Response) -> bool:
    """Whether a refused HEAD leaves open what was asked for."""
    status = response.status
    refused = _BAD_REQUEST <= status < _SERVER_ERROR and status not in _SAYING
    return refused or status == _NOT_IMPLEMENTED


def refused(response: Response, action: str) -> Exception:
    """The error for an answer that is not the one that was hoped for."""
    if errors.is_page(response) and response.ok:
        return errors.no_registry(response, action)
    return errors.refusal(response, action)


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12] or digest
