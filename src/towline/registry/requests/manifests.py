"""Calls about manifests and tags as values; see `requests`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import RegistryError
from towline.registry import errors
from towline.registry.requests.blobs import Call, Unclear, refused, says_nothing
from towline.spec import distribution, media_types
from towline.spec.descriptor import Descriptor
from towline.spec.manifest import MAX_SIZE, RawManifest

if TYPE_CHECKING:
    from towline.reference import RepositoryName
    from towline.spec.digest import Digest
    from towline.wire.message import Response

ACCEPT_MANIFESTS = ("Accept", ", ".join(media_types.MANIFESTS))
MANIFEST_READ_MAX = 4 * MAX_SIZE
"""Bytes of a manifest that are read; some registries take more than all must."""
TAGS_READ_MAX = 16 << 20
"""Bytes of one page of tags."""
TAGS_PAGE = 1000
"""Tags asked for at once: the most that all take."""

_NOT_FOUND, _BAD_REQUEST, _SERVER_ERROR = 404, 400, 500
_BUSY = frozenset({401, 408, 429, 499})
_LINK = re.compile(r"<([^<>]*)>\s*((?:;[^,]*)?)")
_REL_NEXT = re.compile(r";\s*rel\s*=\s*\"?next\"?\s*(?:;|$)", re.IGNORECASE)


class Put(NamedTuple):
    """A manifest was taken."""

    status: int
    digest: Digest | None
    """As the registry says, if it says anything."""


class Got(NamedTuple):
    """A manifest, and what came with it."""

    manifest: RawManifest
    named: Digest | None
    """Its digest, as the registry says, if it says anything."""
    etag: str | None
    """To change it by."""


class TagsPage(NamedTuple):
    """Some of a repository's tags, and where there are more."""

    tags: tuple[str, ...]
    next: str | None
    """Path and query."""


def put_manifest(
    name: RepositoryName, target: str, manifest: RawManifest, *, if_match: str | None = None
) -> Call[Put]:
    """end-7; with `if_match` only in the place of what has that `ETag`."""
    action = f"put the manifest of {place(name, target)}"

    def read(response: Response) -> Put:
        if not response.ok:
            raise refused(response, action)
        if errors.is_page(response):
            raise errors.no_registry(response, action)
        return Put(response.status, errors.named(response))

    path = distribution.manifest_path(name.path, target)
    match = (("If-Match", if_match),) if if_match else ()
    headers = (("Content-Type", manifest.media_type), *match)
    return Call("PUT", path, action, read, headers, manifest.content)


def head_manifest(name: RepositoryName, target: str) -> Call[Descriptor | Unclear | None]:
    """end-3 by HEAD. None: there is none."""
    action = f"look at {place(name, target)}"

    def read(response: Response) -> Descriptor | Unclear | None:
        if response.status == _NOT_FOUND:
            return None
        if says_nothing(response):
            return Unclear(response.status)
        if not response.ok:
            raise errors.refusal(response, action)
        digest = errors.named(response)
        size = response.headers.number("Content-Length")
        if digest is None or not size or errors.is_page(response):
            return Unclear(response.status)
        return Descriptor(response.media_type, digest, size)

    path = distribution.manifest_path(name.path, target)
    return Call("HEAD", path, action, read, (ACCEPT_MANIFESTS,), follow=True)


def get_manifest(name: RepositoryName, target: str, *, checked: bool = True) -> Call[Got | None]:
    """end-3. None: there is none. What has another digest than was asked for is refused.

    Unless `checked` is False: it is asked what lies there, whatever it is.
    """
    action = f"get {place(name, target)}"

    def read(response: Response) -> Got | None:
        if response.status == _NOT_FOUND:
            return None
        if not response.ok:
            raise errors.refusal(response, action)
        if errors.is_page(response):
            raise errors.no_registry(response, action)
        if response.truncated:
            raise RegistryError(f"cannot {action}: it is larger than {MANIFEST_READ_MAX} bytes")
        raw = _raw(response)
        if checked:
            _check(raw, target, action)
        return Got(raw, errors.named(response), response.headers.get("ETag"))

    path = distribution.manifest_path(name.path, target)
    return Call(
        "GET", path, action, read, (ACCEPT_MANIFESTS,), limit=MANIFEST_READ_MAX, follow=True
    )


def referrers(name: RepositoryName, subject: str) -> Call[frozenset[str] | None]:
    """end-12: digests of what refers to a manifest. None: the registry has no such list.

    Any answer that is not one means that: 404, other refusals, pages, other types with 200.
    """

    def read(response: Response) -> frozenset[str] | None:
        if response.status in _BUSY or response.status >= _SERVER_ERROR:
            raise errors.refusal(response, action)
        if not response.ok or response.media_type != media_types.OCI_INDEX:
            return None
        try:
            document = json.loads(response.body)
            return frozenset(str(entry["digest"]) for entry in document["manifests"])
        except (ValueError, LookupError, TypeError, RecursionError):
            return None

    action = f"list what refers to {subject} in {name}"
    path = distribution.referrers_path(name.path, subject)
    accept = ("Accept", media_types.OCI_INDEX)
    return Call("GET", path, action, read, (accept,), limit=MANIFEST_READ_MAX, follow=True)


def _raw(response: Response) -> RawManifest:
    from towline.spec import schema1

    return schema1.raw(response.body, _media_type(response))


def _check(manifest: RawManifest, target: str, action: str) -> None:
    if target.startswith("sha256:") and manifest.digest != target:
        raise RegistryError(
            f"cannot {action}: what came has the digest {manifest.digest}", transient=True
        )


def _media_type(response: Response) -> str:
    """The document's own type counts: proxies rewrite the header."""
    try:
        document = json.loads(response.body)
    except (ValueError, RecursionError):
        return response.media_type
    own = document.get("mediaType") if isinstance(document, dict) else None
    return own if isinstance(own, str) and own else response.media_type


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
        raise errors.refusal(response, _listing(name))
    try:
        document = json.loads(response.body)
    except (ValueError, RecursionError):
        document = None
    listed = document.get("tags", "") if isinstance(document, dict) else ""
    if not isinstance(listed, list | None):
        raise errors.no_registry(response, _listing(name))
    return TagsPage(tuple(filter(_is_tag, listed or ())), _next(response))


def _is_tag(value: object) -> bool:
    # `null` for none, nulls among them, and digests have all been seen.
    return isinstance(value, str) and distribution.TAG.fullmatch(value) is not None


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


def place(name: RepositoryName, target: str) -> str:
    """A tag or digest of that repository, as references have it."""
    return f"{name}@{target}" if ":" in target else f"{name}:{target}"
