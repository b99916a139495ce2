"""Makes a manifest with a `subject` findable from it (distribution-spec, "Listing Referrers").

A registry that has the API lists it by itself; what its answers say of that is not believed, the
list is. Elsewhere a tag named after the subject holds the list, and is read, changed and written
by everybody: what others add in between is kept, and what is no such list is left alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from towline.errors import NetworkError, RegistryError, TowlineError
from towline.registry.manifests import got
from towline.registry.requests import manifests as documents
from towline.registry.transport import on_side
from towline.spec import manifest as manifests
from towline.spec import media_types

if TYPE_CHECKING:
    from towline.registry.conversation import Conversation
    from towline.registry.requests.manifests import Got
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest
    from towline.spec.manifest import RawManifest

ROUNDS_MAX = 3
"""Times that the list is written when others write it too."""
_ALGORITHM_MAX, _HEX_MAX = 32, 64
_PRECONDITION_FAILED = 412


def tag_of(subject: Digest) -> str:
    """The tag that holds the list ("Referrers Tag Schema")."""
    return f"{subject.algorithm[:_ALGORITHM_MAX]}-{subject.hex[:_HEX_MAX]}"


def announce(talk: Conversation, manifest: RawManifest, subject: Digest) -> bool:
    """See to it that `manifest`, which is in place, is listed; whether that took a tag.

    Raises RegistryError, also where the tag holds something else or cannot be kept; AuthError,
    NetworkError.
    """
    with on_side("destination"):
        listed = talk.call(documents.referrers(talk.name, subject))
        if listed is not None and manifest.digest in listed:
            return False
        entry = _entry(manifest)
        for _ in range(ROUNDS_MAX):
            if _is_listed(talk, tag_of(subject), entry):
                return True
    raise RegistryError(
        f"the list of what refers to {subject} in {talk.name} is written by others all the time: "
        f"{manifest.digest} is not in it",
        transient=True,
        side="destination",
    )


def _is_listed(talk: Conversation, tag: str, entry: Descriptor) -> bool:
    """One round: read, add, write, read again."""
    found = got(talk, tag)
    etag = found.etag if found else None
    entries = _entries(talk, tag, found)
    if any(known.digest == entry.digest for known in entries):
        return True
    ordered = sorted((*entries, entry), key=lambda known: known.digest)
    index = manifests.build_index("oci", ordered)
    try:
        talk.call(documents.put_manifest(talk.name, tag, index, if_match=etag))
    except TowlineError as error:
        outrun = getattr(error, "status", None) == _PRECONDITION_FAILED and etag is not None
        if not outrun and not _is_stale(error):
            raise
        return False
    return any(known.digest == entry.digest for known in _entries(talk, tag, got(talk, tag)))


def _is_stale(error: TowlineError) -> bool:
    """Whether it went into a dead connection: the next round sees what came of it."""
    return isinstance(error, NetworkError) and error.stale


def _entries(talk: Conversation, tag: str, found: Got | None) -> tuple[Descriptor, ...]:
    if found is None:
        return ()
    try:
        parsed = manifests.parse(found.manifest.content, found.manifest.media_type)
    except ValueError:
        parsed = None
    if isinstance(parsed, manifests.Index) and parsed.media_type == media_types.OCI_INDEX:
        return parsed.manifests
    raise RegistryError(
        f"{talk.name}:{tag} holds no list of what refers to its subject, and is left as it is",
        hint="remove that tag, or push to a registry that has the referrers API",
    )


def _entry(manifest: RawManifest) -> Descriptor:
    parsed = manifests.parse(manifest.content, manifest.media_type)
    kind = parsed.artifact_type if isinstance(parsed, manifests.Manifest) else None
    if isinstance(parsed, manifests.Manifest) and kind is None:
        kind = parsed.config.media_type
    return replace(manifest.descriptor(), annotations=parsed.annotations, artifact_type=kind)
