"""Each call to a registry as a value: what is asked, and how the answer is read (jib's way).

Nothing here touches a socket; tests feed answers in. `action` completes "cannot …" in errors.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from towline.errors import RegistryError
from towline.registry import answers
from towline.spec import distribution, media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest
from towline.spec.manifest import MAX_SIZE, RawManifest
from towline.wire.message import ANSWER_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from towline.reference import RepositoryName
    from towline.wire.message import Response
    from towline.wire.url import Url

T = TypeVar("T")

BINARY = ("Content-Type", media_types.OCTET_STREAM)
ACCEPT_MANIFESTS = ("Accept", ", ".join(media_types.MANIFESTS))
MANIFEST_READ_MAX = 4 * MAX_SIZE
"""Bytes of a manifest that are read; some registries take more than all must."""
TAGS_READ_MAX = 16 << 20
"""Bytes of one page of tags."""
TAGS_PAGE = 1000
"""Tags asked for at once: the most that all take."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SAYING = frozenset({401, 404, 408, 429, 499})
"""Refusals of a HEAD that say something; others are of a rule, or of a proxy."""
_NOT_IMPLEMENTED = 501
_CREATED, _ACCEPTED, _NOT_FOUND, _BAD_REQUEST, _SERVER_ERROR = 201, 202, 404, 400, 500
_LINK = re.compile(r"<([^>]*)>\s*((?:;[^,]*)?)")
_REL_NEXT = re.compile(r";\s*rel\s*=\s*\"?next\"?\s*(?:;|$)", re.IGNORECASE)


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


class Unclear(NamedTuple):
    """The answer does not say; ask in another way."""

    status: int


@dataclass(frozen=True, slots=True)
class Mounted:
    """The registry has linked the blob from another repository."""


class Opened(NamedTuple):
    """An upload session."""

    location: Url
    chunk_min: int = 0
    """Least bytes of a chunk, but for the last (`OCI-Chunk-Min-Length`)."""


class Put(NamedTuple):
    """A manifest was taken."""

    status: int
    digest: str | None
    """As the registry says, if it says anything."""


class TagsPage(NamedTuple):
    """Some of a repository's tags, and where there are more."""

    tags: tuple[str, ...]
    next: str | None
    """Path and query."""


def base(host: str) -> Call[None]:
    """end-1: whether there is a registry, and whether the account is let in."""
    action = f"log in to {host}"

    def read(response: Response) -> None:
        if not response.ok:
            raise answers.refusal(response, action)
        if answers.is_page(response):
            raise answers.no_registry(response, action)

    return Call("GET", distribution.BASE, action, read)


def blob_exists(name: RepositoryName, digest: str) -> Call[bool]:
    """end-2 by HEAD. A redirect to storage says already that the blob is there."""
    action = f"check blob {_short(digest)} in {name}"

    def read(response: Response) -> bool:
        if response.ok:
            if answers.is_page(response):
                raise answers.no_registry(response, action)
            return True
        if response.status in _REDIRECTS:
            return True
        if response.status == _NOT_FOUND or _says_nothing(response):
            return False
        raise answers.refusal(response, action)

    return Call("HEAD", distribution.blob_path(name.path, digest), action, read)


def open_upload(name: RepositoryName) -> Call[Opened]:
    """end-4a."""
    action = f"start an upload to {name}"

    def read(response: Response) -> Opened:
        if response.status in {_CREATED, _ACCEPTED}:
            return _opened(response, action)
        raise _refused(response, action)

    return Call("POST", distribution.uploads_path(name.path), action, read)


def mount(name: RepositoryName, digest: str, origin: str) -> Call[Mounted | Opened | None]:
    """end-11. None: refused, in whatever way; only the upload's own error counts."""
    action = f"mount blob {_short(digest)} from {origin} to {name}"

    def read(response: Response) -> Mounted | Opened | None:
        if response.status == _CREATED:
            return Mounted()
        if response.status == _ACCEPTED and response.headers.get("Location"):
            return _opened(response, action)
        return None

    from towline.wire.url import quote

    path = distribution.uploads_path(name.path)
    return Call("POST", f"{path}?mount={digest}&from={quote(origin)}", action, read)


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
        if answers.is_page(response):
            raise answers.no_registry(response, action)
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


def close_upload(location: Url, digest: str, action: str) -> Call[None]:
    """end-6 without a body."""

    def read(response: Response) -> None:
        if not response.ok:
            raise _refused(response, action)
        if answers.is_page(response):
            raise answers.no_registry(response, action)

    return Call("PUT", location.with_query("digest", digest), action, read, (BINARY,))


def send_chunk(location: Url, chunk: memoryview, start: int, action: str) -> Call[Response]:
    """end-5: a chunk, its first byte being number `start` of the blob."""
    span = ("Content-Range", f"{start}-{start + len(chunk) - 1}")
    return Call("PATCH", location, action, lambda response: response, (BINARY, span), chunk)


def ask_upload(location: Url, action: str) -> Call[Response | None]:
    """end-13. None: the session is gone, or cannot be asked."""

    def read(response: Response) -> Response | None:
        return response if response.ok else None

    return Call("GET", location, action, read)


def put_manifest(name: RepositoryName, target: str, manifest: RawManifest) -> Call[Put]:
    """end-7."""
    action = f"put the manifest of {_target(name, target)}"

    def read(response: Response) -> Put:
        if not response.ok:
            raise _refused(response, action)
        if answers.is_page(response):
            raise answers.no_registry(response, action)
        digest = response.headers.get(distribution.DOCKER_CONTENT_DIGEST)
        return Put(response.status, digest)

    path = distribution.manifest_path(name.path, target)
    headers = (("Content-Type", manifest.media_type),)
    return Call("PUT", path, action, read, headers, manifest.content)


def head_manifest(name: RepositoryName, target: str) -> Call[Descriptor | Unclear | None]:
    """end-3 by HEAD. None: there is none."""
    action = f"look at {_target(name, target)}"

    def read(response: Response) -> Descriptor | Unclear | None:
        if response.status == _NOT_FOUND:
            return None
        if _says_nothing(response):
            return Unclear(response.status)
        if not response.ok:
            raise answers.refusal(response, action)
        digest = _digest(response)
        size = response.headers.number("Content-Length")
        if digest is None or not size or answers.is_page(response):
            return Unclear(response.status)
        return Descriptor(response.media_type, digest, size)

    path = distribution.manifest_path(name.path, target)
    return Call("HEAD", path, action, read, (ACCEPT_MANIFESTS,), follow=True)


def get_manifest(name: RepositoryName, target: str) -> Call[RawManifest | None]:
    """end-3. None: there is none."""
    action = f"get {_target(name, target)}"

    def read(response: Response) -> RawManifest | None:
        if response.status == _NOT_FOUND:
            return None
        if not response.ok:
            raise answers.refusal(response, action)
        if answers.is_page(response):
            raise answers.no_registry(response, action)
        if response.truncated:
            raise RegistryError(f"cannot {action}: it is larger than {MANIFEST_READ_MAX} bytes")
        return _checked(_raw(response), target, action)

    path = distribution.manifest_path(name.path, target)
    return Call(
        "GET", path, action, read, (ACCEPT_MANIFESTS,), limit=MANIFEST_READ_MAX, follow=True
    )


def _raw(response: Response) -> RawManifest:
    from towline.spec import schema1

    return schema1.raw(response.body, _media_type(response))


def _checked(manifest: RawManifest, target: str, action: str) -> RawManifest:
    if target.startswith("sha256:") and manifest.digest != target:
        raise RegistryError(
            f"cannot {action}: what came has the digest {manifest.digest}", transient=True
        )
    return manifest


def _media_type(response: Response) -> str:
    """The document's own type counts: proxies rewrite the header."""
    try:
        document = json.loads(response.body)
    except (ValueError, RecursionError):
        return response.media_type
    own = document.get("mediaType") if isinstance(document, dict) else None
    return own if isinstance(own, str) and own else response.media_type


def get_blob(name: RepositoryName, digest: str) -> Call[Response]:
    """end-2; its body is to be read piece by piece."""
    action = f"read blob {_short(digest)} of {name}"
    path = distribution.blob_path(name.path, digest)
    return Call("GET", path, action, lambda response: response, follow=True)


def tags(name: RepositoryName, target: str | None = None) -> Call[TagsPage | Unclear]:
    """end-8; `target` is the next page's. Unclear: it does not like the size of a page."""

    def read(response: Response) -> TagsPage | Unclear:
        if response.status == _BAD_REQUEST and target is None:
            return Unclear(response.status)
        return _page(response, name)

    path = target or f"{distribution.tags_path(name.path)}?n={TAGS_PAGE}"
    return Call("GET", path, _listing(name), read, limit=TAGS_READ_MAX, follow=True)


def plain_tags(name: RepositoryName) -> Call[TagsPage]:
    """The same, with pages of the registry's own size."""
    path = distribution.tags_path(name.path)
    return Call(
        "GET",
        path,
        _listing(name),
        lambda response: _page(response, name),
        limit=TAGS_READ_MAX,
        follow=True,
    )


def _listing(name: RepositoryName) -> str:
    return f"list the tags of {name}"


def _page(response: Response, name: RepositoryName) -> TagsPage:
    if not response.ok:
        raise answers.refusal(response, _listing(name))
    try:
        document = json.loads(response.body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise answers.no_registry(response, _listing(name))
    return TagsPage(_tags(document.get("tags")), _next(response))


def _tags(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - any JSON
    # `null` for none, nulls among them, and digests have all been seen.
    listed = value if isinstance(value, list) else ()
    return tuple(tag for tag in listed if isinstance(tag, str) and distribution.TAG.fullmatch(tag))


def _next(response: Response) -> str | None:
    """Path and query of the next page; its host may be one that only the proxy knows."""
    for value in response.headers.all("Link"):
        for link, parameters in _LINK.findall(value):
            if _REL_NEXT.search(parameters):
                try:
                    return response.url.join(link).target
                except ValueError:
                    return None
    return None


def _says_nothing(response: Response) -> bool:
    status = response.status
    refused = _BAD_REQUEST <= status < _SERVER_ERROR and status not in _SAYING
    return refused or status == _NOT_IMPLEMENTED


def _digest(response: Response) -> Digest | None:
    try:
        return Digest((response.headers.get(distribution.DOCKER_CONTENT_DIGEST) or "").strip())
    except ValueError:
        return None


def _refused(response: Response, action: str) -> Exception:
    if answers.is_page(response) and response.ok:
        return answers.no_registry(response, action)
    return answers.refusal(response, action)


def _short(digest: str) -> str:
    return digest.partition(":")[2][:12] or digest


def _target(name: RepositoryName, target: str) -> str:
    return f"{name}@{target}" if ":" in target else f"{name}:{target}"
