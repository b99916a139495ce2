"""Manifests as they lie at a registry: looked at, and got with what is said of them compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.errors import AuthError, RegistryError
from towline.registry.requests import manifests
from towline.registry.requests.blobs import Unclear
from towline.spec import media_types, schema1

if TYPE_CHECKING:
    from towline.registry.conversation import Conversation
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest
    from towline.spec.manifest import RawManifest

_NOT_IMPLEMENTED = 501
_NO_HEAD = frozenset({400, 405, 501})


def looked_at(talk: Conversation, target: str) -> Descriptor | Unclear | None:
    """What a HEAD says of a tag or digest; None: that there is nothing.

    Where it says nothing of manifests it is not asked again. Raises AuthError, RegistryError,
    NetworkError.
    """
    if talk.facts.head_refused:
        return Unclear(_NOT_IMPLEMENTED)
    found = talk.call(manifests.head_manifest(talk.name, target))
    if isinstance(found, Unclear):
        talk.facts.head_refused = found.status in _NO_HEAD
    return found


def got(talk: Conversation, target: str) -> manifests.Got | None:
    """What lies under a tag or digest; None: nothing.

    Bytes that are not those of the digest that comes with them were altered on the way, or their
    digest is named wrongly: then they are to be had under their own. Raises AuthError,
    RegistryError, NetworkError.
    """
    found = talk.call(manifests.get_manifest(talk.name, target))
    if found is None or ":" in target or _agrees(found.manifest, found.named):
        return found
    digest = found.manifest.digest
    if not _has(talk, digest):
        raise RegistryError(
            f"what came for {talk.name}:{target} has the digest {digest}, but {talk.name.host} "
            f"names {found.named}",
            transient=True,
            hint="check what lies between here and the registry: it changes what is sent",
        )
    return found


def _agrees(manifest: RawManifest, named: Digest | None) -> bool:
    if named is None or named.algorithm != manifest.digest.algorithm or named == manifest.digest:
        return True
    # One of schema 1 is not known by its type where something on the way has changed that.
    return schema1.raw(manifest.content, media_types.SCHEMA1_SIGNED).digest == named


def _has(talk: Conversation, digest: Digest) -> bool:
    try:
        return talk.call(manifests.get_manifest(talk.name, digest)) is not None
    except (AuthError, RegistryError):
        return False
