"""Calls about manifests and tags as values; see `requests`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from towline.errors import RegistryError
from towline.registry import answers
from towline.registry.requests import Call, Unclear, refused, says_nothing
from towline.spec import distribution, media_types
from towline.spec.descriptor import Descriptor
from towline.spec.digest import Digest
from towline.spec.manifest import MAX_SIZE, RawManifest

if TYPE_CHECKING:
    from towline.reference import RepositoryName
    from towline.wire.message import Response

ACCEPT_MANIFESTS = ("Accept", ", ".join(media_types.MANIFESTS))
MANIFEST_READ_MAX = 4 * MAX_SIZE
"""Bytes of a manifest that are read; some registries take more than all must."""
TAGS_READ_MAX = 16 << 20
"""Bytes of one page of tags."""
TAGS_PAGE = 1000
"""Tags asked for at once: the most that all take."""

_NOT_FOUND, _BAD_REQUEST = 404, 400
_LINK = re.compile(r"<([^>]*)>\s*((?:;[^,]*)?)")
_REL_NEXT = re.compile(r";\s*rel\s*=\s*\"?next\"?\s*(?:;|$)", re.IGNORECASE)


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


def put_manifest(name: RepositoryName, target: str, manifest: RawManifest) -> Call[Put]:
    """end-7."""
    action = f"put the manifest of {_target(name, target)}"

    def read(response: Response) -> Put:
        if not response.ok:
            raise refused(response, action)
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
        if says_nothing(response):
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


def _digest(response: Response) -> Digest | None:
    try:
        return Digest((response.headers.get(distribution.DOCKER_CONTENT_DIGEST) or "").strip())
    except ValueError:
        return None


def _target(name: RepositoryName, target: str) -> str:
    return f"{name}@{target}" if ":" in target else f"{name}:{target}"
