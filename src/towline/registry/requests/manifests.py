"""Calls about manifests (distribution-spec, "Endpoints": end-3 and end-7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from towline.errors import RegistryError
from towline.registry import errors
from towline.registry.requests.call import Call, Unclear, says_nothing
from towline.spec import distribution, media_types, reading
from towline.spec.descriptor import Descriptor
from towline.spec.manifest import MAX_SIZE

if TYPE_CHECKING:
    from towline.reference import RepositoryName
    from towline.spec.digest import Digest
    from towline.spec.manifest import RawManifest
    from towline.wire.message import Response

# Distribution 2.8 answers 404 of an OCI manifest to `*/*`: the exact types are listed.
ACCEPT_MANIFESTS = ("Accept", ", ".join(media_types.MANIFESTS))
MANIFEST_READ_MAX = 4 * MAX_SIZE
"""Bytes of a manifest that are read; some registries take more than all must."""


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


def place(name: RepositoryName, target: str) -> str:
    """A tag or digest of that repository, as references have it."""
    return f"{name}@{target}" if ":" in target else f"{name}:{target}"


def put_manifest(
    name: RepositoryName, target: str, manifest: RawManifest, *, if_match: str | None = None
) -> Call[Put]:
    """end-7; with `if_match` only in the place of what has that `ETag`."""
    action = f"put the manifest of {place(name, target)}"

    def read(response: Response) -> Put:
        errors.check_success(response, action)
        return Put(response.status, errors.named(response))

    path = distribution.manifest_path(name.path, target)
    match = (("If-Match", if_match),) if if_match else ()
    headers = (("Content-Type", manifest.media_type), *match)
    return Call("PUT", path, action, read, headers, manifest.content)


def head_manifest(name: RepositoryName, target: str) -> Call[Descriptor | Unclear | None]:
    """end-3 by HEAD. None: there is none."""
    action = f"look at {place(name, target)}"

    def read(response: Response) -> Descriptor | Unclear | None:
        if response.status == 404:
            return None
        if says_nothing(response):
            return Unclear(response.status)
        if not response.ok:
            raise errors.refusal(response, action)
        digest = errors.named(response)
        size = response.headers.number("Content-Length")
        # ECR names no digest, Cloud Run no length.
        if digest is None or not size or errors.is_page(response):
            return Unclear(response.status)
        return Descriptor(response.media_type, digest, size)

    path = distribution.manifest_path(name.path, target)
    return Call("HEAD", path, action, read, (ACCEPT_MANIFESTS,), follow=True)


def get_manifest(name: RepositoryName, target: str, *, checked: bool = True) -> Call[Got | None]:
    """end-3. None: there is none. What has another digest than was asked for is refused.

    Unless `checked` is False: it is asked what lies there, whatever it is.
    """
    from towline.spec import schema1

    action = f"get {place(name, target)}"

    def read(response: Response) -> Got | None:
        if response.status == 404:
            return None
        errors.check_success(response, action)
        if response.truncated:
            raise RegistryError(f"cannot {action}: it is larger than {MANIFEST_READ_MAX} bytes")
        manifest = schema1.raw(response.body, _media_type(response))
        if checked and target.startswith("sha256:") and manifest.digest != target:
            raise RegistryError(
                f"cannot {action}: what came has the digest {manifest.digest}", transient=True
            )
        return Got(manifest, errors.named(response), response.headers.get("ETag"))

    path = distribution.manifest_path(name.path, target)
    return Call(
        "GET", path, action, read, (ACCEPT_MANIFESTS,), limit=MANIFEST_READ_MAX, follow=True
    )


def _media_type(response: Response) -> str:
    """The document's own type counts: proxies rewrite the header."""
    try:
        document = reading.document(response.body)
    except ValueError:
        return response.media_type
    own = document.get("mediaType") if isinstance(document, dict) else None
    return own if isinstance(own, str) and own else response.media_type
