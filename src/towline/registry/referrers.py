"""Makes a manifest with a `subject` findable from it (distribution-spec, "Listing Referrers").

A registry that has the API lists it by itself; what its answers say of that is not believed, the
list is. Elsewhere a tag named after the subject holds the list, and is read, changed and written
by everybody: what others add in between is kept, and what is no such list is left alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from towline.errors import NetworkError, RegistryError, TowlineError
from towline.registry import errors
from towline.registry.call import Call
from towline.registry.errors import on_side
from towline.registry.manifests import MANIFEST_READ_MAX, get, put_manifest
from towline.spec import distribution, media_types, reading
from towline.spec.manifest import Index, Manifest, build_index, parse

if TYPE_CHECKING:
    from towline.reference import RepositoryName
    from towline.registry.manifests import Got
    from towline.registry.transport import Conversation
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest
    from towline.spec.manifest import RawManifest
    from towline.wire.message import Response

ROUNDS_MAX = 3
"""Times that the list is written when others write it too."""


def tag_of(subject: Digest) -> str:
    """The tag that holds the list ("Referrers Tag Schema")."""
    return f"{subject.algorithm[:32]}-{subject.hex[:64]}"


def referrers(name: RepositoryName, subject: str) -> Call[frozenset[str] | None]:
    """end-12: digests of what refers to a manifest. None: the registry has no such list.

    Any answer that is not one means that: 404, other refusals, pages, other types with 200.
    """
    action = f"list what refers to {subject} in {name}"

    def read(response: Response) -> frozenset[str] | None:
        if response.status in {401, 408, 429, 499} or response.status >= 500:
            raise errors.refusal(response, action)
        if not response.ok or response.media_type != media_types.OCI_INDEX:
            return None
        try:
            document = reading.document(response.body)
            return frozenset(str(entry["digest"]) for entry in document["manifests"])
        except (ValueError, LookupError, TypeError):
            return None

    path = distribution.referrers_path(name.path, subject)
    accept = ("Accept", media_types.OCI_INDEX)
    return Call("GET", path, action, read, (accept,), limit=MANIFEST_READ_MAX, follow=True)


def announce(talk: Conversation, manifest: RawManifest, subject: Digest) -> bool:
    """Make sure that `manifest`, which is in place, is listed; whether that took a tag.

    Raises RegistryError, also where the tag holds something else or cannot be kept; AuthError,
    NetworkError.
    """
    with on_side("destination"):
        # ECR and the Hub have sent `OCI-Subject` without having the list; Quay has it and sends
        # no such header.
        listed = talk.call(referrers(talk.name, subject))
        if listed is not None and manifest.digest in listed:
            return False
        parsed = parse(manifest.content, manifest.media_type)
        kind = None  # without a type of its own it has its config's
        if isinstance(parsed, Manifest):
            kind = parsed.artifact_type or parsed.config.media_type
        entry = manifest.descriptor()._replace(annotations=parsed.annotations, artifact_type=kind)
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
    found = get(talk, tag)
    etag = found.etag if found else None
    entries = _entries(talk, tag, found)
    if any(known.digest == entry.digest for known in entries):
        return True
    ordered = sorted((*entries, entry), key=lambda known: known.digest)
    index = build_index("oci", ordered)
    try:
        talk.call(put_manifest(talk.name, tag, index, if_match=etag))
    except TowlineError as error:
        outrun = getattr(error, "status", None) == 412 and etag is not None
        # Into a dead connection: the next round sees what came of it.
        stale = isinstance(error, NetworkError) and error.stale
        if not outrun and not stale:
            raise
        return False
    return any(known.digest == entry.digest for known in _entries(talk, tag, get(talk, tag)))


def _entries(talk: Conversation, tag: str, found: Got | None) -> tuple[Descriptor, ...]:
    if found is None:
        return ()
    try:
        parsed = parse(found.manifest.content, found.manifest.media_type)
    except ValueError:
        parsed = None
    # What lists nothing at all, not even null, is no list.
    listing = parsed is not None and "manifests" in json.loads(found.manifest.content)
    if listing and isinstance(parsed, Index) and parsed.media_type == media_types.OCI_INDEX:
        return parsed.manifests
    raise RegistryError(
        f"{talk.name}:{tag} holds no list of what refers to its subject, and is left as it is",
        hint="remove that tag, or push to a registry that has the referrers API",
    )
