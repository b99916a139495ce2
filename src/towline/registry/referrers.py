"""Makes a manifest with a `subject` findable from it (distribution-spec, "Listing Referrers").

A registry that has the API lists it by itself; what its answers say of that is not believed, the
list is. Elsewhere a tag named after the subject holds the list, and is read, changed and written
by everybody: what others add in between is kept, and what is no such list is left alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import NetworkError, RegistryError, TowlineError
from towline.registry import errors
from towline.registry.call import Call
from towline.registry.errors import on_side
from towline.registry.manifests import MANIFEST_READ_MAX, get, put_manifest
from towline.registry.tags import next_page
from towline.spec import distribution, media_types, reading
from towline.spec.manifest import Index, Manifest, build_index, parse
from towline.spec.referrers import tag_of

if TYPE_CHECKING:
    from towline.reference import RepositoryName
    from towline.registry.manifests import Got
    from towline.registry.transport import Conversation
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest
    from towline.spec.manifest import RawManifest
    from towline.wire.message import Response

PAGES_MAX = 100
ROUNDS_MAX = 5
"""Times that the list is written when others write it too."""
SETTLED = 0.5
"""Seconds after which those who had read the list before it was written have written theirs."""


class Page(NamedTuple):
    """Some of what refers to a manifest, and where there is more."""

    entries: tuple[Descriptor, ...]
    next: str | None
    """Path and query."""


def referrers(name: RepositoryName, subject: str, target: str | None = None) -> Call[Page | None]:
    """end-12: what refers to a manifest, or its page at `target`. None: there is no such list.

    Any answer that is not one means that: 404, other refusals, HTML, other types with 200.
    """
    action = f"list what refers to {subject} in {name}"

    def read(response: Response) -> Page | None:
        if response.status in {401, 408, 429, 499} or response.status >= 500:
            raise errors.refusal(response, action)
        if not response.ok or response.media_type != media_types.OCI_INDEX:
            return None
        try:
            found = parse(response.body, media_types.OCI_INDEX)
        except ValueError:
            return None
        listing = isinstance(found, Index) and "manifests" in reading.document(response.body)
        return Page(getattr(found, "manifests", ()), next_page(response)) if listing else None

    path = target or distribution.referrers_path(name.path, subject)
    accept = ("Accept", media_types.OCI_INDEX)
    return Call("GET", path, action, read, (accept,), limit=MANIFEST_READ_MAX, follow=True)


def listed(talk: Conversation, subject: Digest) -> tuple[Descriptor, ...]:
    """All that is listed as referring to a manifest, by the registry or under the tag.

    Raises AuthError, RegistryError, NetworkError.
    """
    found = _pages(talk, subject)
    if found is not None:
        return found
    got = get(talk, tag_of(subject))
    if got is None or got.manifest.digest == subject:
        return ()  # some take that tag for the digest, and give the subject (oras#2148)
    try:
        return _entries(talk, tag_of(subject), got)
    except RegistryError:
        return ()


def _pages(talk: Conversation, subject: Digest) -> tuple[Descriptor, ...] | None:
    """None: the registry has no such list."""
    found: dict[Digest, Descriptor] = {}
    target: str | None = None
    for _ in range(PAGES_MAX):
        page = talk.call(referrers(talk.name, subject, target))
        if page is None:
            return tuple(found.values()) if target else None
        found |= {entry.digest: entry for entry in page.entries}
        target = page.next
        if target is None:
            break
    return tuple(found.values())


def announce(talk: Conversation, manifest: RawManifest, subject: Digest) -> bool:
    """Make sure that `manifest`, which is in place, is listed; whether that took a tag.

    Raises RegistryError, also where the tag holds something else or cannot be kept; AuthError,
    NetworkError.
    """
    with on_side("destination"):
        # ECR and the Hub have sent `OCI-Subject` without having the list; Quay has it and sends
        # no such header.
        there = _pages(talk, subject)
        if any(entry.digest == manifest.digest for entry in there or ()):
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
    """One round: read, add, write, wait, read again."""
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
    # Who has read the list before this write may write it after it, without this entry, where the
    # registry does not heed `If-Match`: only a look somewhat later shows it.
    talk.context.cancel.wait(SETTLED)
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
