"""What a registry lists: a repository's tags, and what refers to a manifest, its `subject`.

distribution-spec, "Content Discovery". A registry that has the referrers API lists a manifest with
a subject by itself. Whether it does is seen from the list; headers that say so are not believed. At
other registries a tag named after the subject holds the list. Every client reads, changes and
writes it, so entries that others add in between are kept, and a tag that holds something else is
left alone.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from towline.errors import NetworkError, RegistryError, TowlineError
from towline.registry import errors
from towline.registry.manifests import MANIFEST_READ_MAX, Got, Manifests
from towline.registry.transport import Call
from towline.spec import distribution, media_types, reading
from towline.spec.distribution import tag_of
from towline.spec.manifest import Index, Manifest, RawManifest, build_index, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from towline.context import Context
    from towline.reference import RepositoryName
    from towline.spec.descriptor import Descriptor
    from towline.spec.digest import Digest
    from towline.wire.message import Response

TAGS_READ_MAX = 16 << 20
"""Bytes of one page of tags."""
TAGS_READ_MAX_IN_ALL = 4 * TAGS_READ_MAX
"""Bytes of all pages together: each page alone may be allowed, but not all of them in memory."""
TAGS_PAGES_MAX = 2000
"""Some registries give a hundred tags a page, whatever is asked for."""
_LINK = r"<([^<>]*)>\s*((?:;[^,]*)?)"
_REL_NEXT = r"(?i);\s*rel\s*=\s*\"?next\"?\s*(?:;|$)"
REFERRERS_PAGES_MAX = 100
"""Pages of a list that are read: a registry that links back would be read for ever."""
ROUNDS_MAX = 5
"""Times that the list is written, when others write it too."""
SETTLED = 0.5
"""Seconds to wait after writing: whoever had read the older list has written theirs by then."""


class Listings(Manifests):
    """What a repository lists, and is made to list."""

    def tags(self, context: Context, *, pages: int = TAGS_PAGES_MAX) -> list[str]:
        """Every tag, in the registry's order. Raises RegistryError if they take more pages."""
        name, found, size = self.name, dict[str, None](), 0
        seen: set[str] = set()
        target: str | None = first_page(name)
        while target is not None and target not in seen:
            seen.add(target)
            page = self._tags_page(target, context)
            if page is None:
                # Distribution has a maximum, which its owner sets. Ask for no number, then.
                target = distribution.tags_path(name.path)
                continue
            listed, more, bytes_read = page
            found.update(dict.fromkeys(listed))
            size += bytes_read
            # An empty page ends the list, as does a link that was followed before: some never end.
            target = more if listed else None
            if target and (len(seen) >= pages or size >= TAGS_READ_MAX_IN_ALL):
                most = f"{pages} pages" if len(seen) >= pages else f"{TAGS_READ_MAX_IN_ALL} bytes"
                raise RegistryError(
                    f"cannot list the tags of {name}: they have more than {most}", side=self.side
                )
        return list(found)

    def some_tags(self, context: Context) -> Sequence[str]:
        """The first page of tags, up to 1000; empty where the registry refuses so many at once."""
        page = self._tags_page(first_page(self.name), context)
        return page[0] if page else ()

    def _tags_page(
        self, target: str, context: Context
    ) -> tuple[tuple[str, ...], str | None, int] | None:
        """end-8: some of the tags, path and query of the next ones, and the answer's bytes.

        None: the registry refuses that many at once.
        """
        action = f"list the tags of {self.name}"
        call = Call("GET", target, action, limit=TAGS_READ_MAX, follow=True)
        with self.answer(call, context) as response:
            if response.status == 400 and target == first_page(self.name):
                return None
            if not response.ok:
                raise errors.refusal(response, action)
            if response.truncated:
                raise RegistryError(
                    f"cannot {action}: a page of them is larger than {TAGS_READ_MAX} bytes"
                )
            listed = reading.mapping(response.body).get("tags", "")
            if not isinstance(listed, list | None):
                raise errors.no_success(response, action)
            # Distribution says `null` for none; Nexus lists nulls among them, Artifactory digests.
            texts = (each for each in listed or () if isinstance(each, str))
            found = tuple(text for text in texts if distribution.TAG.fullmatch(text))
            return found, next_page(response), len(response.body)

    def referrers(self, subject: Digest, context: Context) -> tuple[Descriptor, ...]:
        """Everything that refers to a manifest, as the registry or the tag lists it."""
        found = self._pages(subject, context)
        if found is not None:
            return found
        got = self.get(tag_of(subject), context)
        if got is None or got.manifest.digest == subject:
            # Some registries read that tag as the digest, and give the subject (oras#2148).
            return ()
        try:
            return self._entries(tag_of(subject), got)
        except RegistryError:  # the tag holds something else
            return ()

    def announce_referrer(self, manifest: RawManifest, subject: Digest, context: Context) -> bool:
        """Make sure that `manifest`, which is in place, is listed. Returns whether that took a tag.

        Raises AuthError, NetworkError, and RegistryError also where the tag holds something else or
        others overwrite it all the time.
        """
        # ECR and the Hub have sent `OCI-Subject` without having the list; Quay has it and sends no
        # such header.
        there = self._pages(subject, context)
        if any(entry.digest == manifest.digest for entry in there or ()):
            return False
        parsed = parse(manifest.content, manifest.media_type)
        kind = None  # without a type of its own it has its config's
        if isinstance(parsed, Manifest):
            kind = parsed.artifact_type or parsed.config.media_type
        entry = manifest.descriptor()._replace(annotations=parsed.annotations, artifact_type=kind)
        for _ in range(ROUNDS_MAX):
            if self._is_listed(tag_of(subject), entry, context):
                return True
        raise RegistryError(
            f"the list of what refers to {subject} in {self.name} is written by others all the "
            f"time: {manifest.digest} is not in it",
            transient=True,
            side=self.side,
        )

    def _is_listed(self, tag: str, entry: Descriptor, context: Context) -> bool:
        """One round: read the list, add the entry, write, wait, read again.

        Returns whether the entry was in the list at the end.
        """
        found = self.get(tag, context)
        etag = found.etag if found else None
        entries = self._entries(tag, found)
        if any(known.digest == entry.digest for known in entries):
            return True
        ordered = sorted((*entries, entry), key=lambda known: known.digest)
        index = build_index("oci", ordered)
        try:
            self.send_manifest(tag, index, context, if_match=etag)
        except TowlineError as error:
            # 412: another writer was faster, whose list the next round reads.
            outrun = getattr(error, "status", None) == 412 and etag is not None
            # It went into a dead connection: the next round sees what came of it.
            stale = isinstance(error, NetworkError) and error.stale
            if not outrun and not stale:
                raise
            return False
        # Where a registry does not heed `If-Match`, whoever read the list before this write may
        # write it afterwards, without this entry. Only a look somewhat later shows that.
        context.cancel.wait(SETTLED)
        entries = self._entries(tag, self.get(tag, context))
        return any(known.digest == entry.digest for known in entries)

    def _pages(self, subject: Digest, context: Context) -> tuple[Descriptor, ...] | None:
        """All pages of what refers to a manifest (end-12). None: the registry has no such list.

        Registries without the API answer with 404, other refusals, HTML, or another type with 200.
        """
        action = f"list what refers to {subject} in {self.name}"
        headers = (("Accept", media_types.OCI_INDEX),)
        found: dict[Digest, Descriptor] = {}
        target: str | None = distribution.referrers_path(self.name.path, subject)
        for turn in range(REFERRERS_PAGES_MAX):
            if target is None:
                break
            call = Call("GET", target, action, headers, limit=MANIFEST_READ_MAX, follow=True)
            with self.answer(call, context) as response:
                if response.status in {401, 408, 429, 499} or response.status >= 500:
                    raise errors.refusal(response, action)
                entries = None
                if response.ok and response.media_type == media_types.OCI_INDEX:
                    entries = _entries_of(response.body, media_types.OCI_INDEX)
                target = next_page(response)
            if entries is None:  # of a later page: what came before it counts
                return tuple(found.values()) if turn else None
            found |= {entry.digest: entry for entry in entries}
        return tuple(found.values())

    def _entries(self, tag: str, found: Got | None) -> tuple[Descriptor, ...]:
        if found is None:
            return ()
        entries = _entries_of(found.manifest.content, found.manifest.media_type)
        if entries is not None:
            return entries
        raise RegistryError(
            f"{self.name}:{tag} holds no list of what refers to its subject, and is left as it is",
            side=self.side,
            hint="remove that tag, or push to a registry that has the referrers API",
        )


def first_page(name: RepositoryName) -> str:
    """Path and query of the first 1000 tags: ECR refuses to be asked for more."""
    return f"{distribution.tags_path(name.path)}?n=1000"


def next_page(response: Response) -> str | None:
    """Path and query of the next page (RFC 8288), if the answer links to one."""
    # The link's host is left out: behind a proxy it may be one that only the proxy knows.
    for value in response.headers.all("Link"):
        for link, parameters in re.findall(_LINK, value):
            if re.search(_REL_NEXT, parameters):
                try:
                    return response.url.join(link).target
                except ValueError:
                    return None
    return None


def _entries_of(content: bytes, media_type: str) -> tuple[Descriptor, ...] | None:
    """What an OCI index lists; None: it is none."""
    try:
        found = parse(content, media_type)
    except ValueError:
        return None
    # An object without `manifests` would parse as an empty index, but lists nothing.
    listing = found.media_type == media_types.OCI_INDEX and "manifests" in json.loads(content)
    return found.manifests if listing and isinstance(found, Index) else None
