"""Manifests that refer to another, their `subject` (distribution-spec, "Listing Referrers").

A registry that has the API lists such a manifest by itself. Whether it does is seen from the list;
headers that say so are not believed. At other registries a tag named after the subject holds the
list. Every client reads, changes and writes it, so entries that others add in between are kept, and
a tag that holds something else is left alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import NetworkError, RegistryError, TowlineError
from towline.registry import errors
from towline.registry.call import Call
from towline.registry.manifests import MANIFEST_READ_MAX, get, put_manifest
from towline.registry.tags import next_page
from towline.spec import distribution, media_types, reading
from towline.spec.distribution import tag_of
from towline.spec.manifest import Index, Manifest, build_index, parse

if TYPE_CHECKING:
    from towline.reference import RepositoryName
    from towline.registry.manifests import Got
    from towline.registry.transport import Conversation
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest
    from towline.spec.manifest import RawManifest
    from towline.wire.message import Response

PAGES_MAX = 100
"""Pages of a list that are read: a registry that links back would be read for ever."""
ROUNDS_MAX = 5
"""Times that the list is written, when others write it too."""
SETTLED = 0.5
"""Seconds to wait after writing: whoever had read the older list has written theirs by then."""


class Page(NamedTuple):
    """Some of what refers to a manifest, and where there is more."""

    entries: tuple[Descriptor, ...]
    next: str | None
    """Path and query."""


def referrers(name: RepositoryName, subject: str, target: str | None = None) -> Call[Page | None]:
    """end-12: what refers to a manifest, or the list's page at `target`. None: there is no list.

    Registries without the API answer with 404, other refusals, HTML, or another type with 200.
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
        # An object without `manifests` would parse as an empty index, but lists nothing.
        listing = isinstance(found, Index) and "manifests" in reading.document(response.body)
        return Page(getattr(found, "manifests", ()), next_page(response)) if listing else None

    path = target or distribution.referrers_path(name.path, subject)
    accept = ("Accept", media_types.OCI_INDEX)
    return Call("GET", path, action, read, (accept,), limit=MANIFEST_READ_MAX, follow=True)


def listed(talk: Conversation, subject: Digest) -> tuple[Descriptor, ...]:
    """Everything that refers to a manifest, as the registry or the tag lists it."""
    found = _pages(talk, subject)
    if found is not None:
        return found
    got = get(talk, tag_of(subject))
    if got is None or got.manifest.digest == subject:
        return ()  # some registries read that tag as the digest, and give the subject (oras#2148)
    try:
        return _entries(talk, tag_of(subject), got)
    except RegistryError:  # the tag holds something else
        return ()


def _pages(talk: Conversation, subject: Digest) -> tuple[Descriptor, ...] | None:
    """None: the registry has no such list."""
    found: dict[Digest, Descriptor] = {}
    target: str | None = None
    for _ in range(PAGES_MAX):
        page = talk.call(referrers(talk.name, subject, target))
        if page is None:  # of a later page: what came before it counts
            return tuple(found.values()) if target else None
        found |= {entry.digest: entry for entry in page.entries}
        target = page.next
        if target is None:
            break
    return tuple(found.values())


def announce(talk: Conversation, manifest: RawManifest, subject: Digest) -> bool:
    """Make sure that `manifest`, which is in place, is listed. Returns whether that took a tag.

    Raises AuthError, NetworkError, and RegistryError also where the tag holds something else or
    others overwrite it all the time.
    """
    # ECR and the Hub have sent `OCI-Subject` without having the list; Quay has it and sends no such
    # header.
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
        side=talk.side,
    )


def _is_listed(talk: Conversation, tag: str, entry: Descriptor) -> bool:
    """One round: read the list, add the entry, write, wait, read again.

    Returns whether the entry was in the list at the end.
    """
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
        # 412: another writer was faster, whose list the next round reads.
        outrun = getattr(error, "status", None) == 412 and etag is not None
        # It went into a dead connection: the next round sees what came of it.
        stale = isinstance(error, NetworkError) and error.stale
        if not outrun and not stale:
            raise
        return False
    # Where a registry does not heed `If-Match`, whoever read the list before this write may write
    # it afterwards, without this entry. Only a look somewhat later shows that.
    talk.context.cancel.wait(SETTLED)
    return any(known.digest == entry.digest for known in _entries(talk, tag, get(talk, tag)))


def _entries(talk: Conversation, tag: str, found: Got | None) -> tuple[Descriptor, ...]:
    if found is None:
        return ()
    try:
        parsed = parse(found.manifest.content, found.manifest.media_type)
    except ValueError:
        parsed = None
    # An object without `manifests` is no list; with null it is an empty one.
    listing = parsed is not None and "manifests" in json.loads(found.manifest.content)
    if listing and isinstance(parsed, Index) and parsed.media_type == media_types.OCI_INDEX:
        return parsed.manifests
    raise RegistryError(
        f"{talk.name}:{tag} holds no list of what refers to its subject, and is left as it is",
        side=talk.side,
        hint="remove that tag, or push to a registry that has the referrers API",
    )
