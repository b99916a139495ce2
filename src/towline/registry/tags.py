"""A repository's tags (distribution-spec, "Listing Tags"): page by page, or all of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import RegistryError
from towline.registry import errors
from towline.registry.call import Call, Unclear
from towline.spec import distribution, reading

if TYPE_CHECKING:
    from towline.reference import RepositoryName
    from towline.registry.transport import Conversation
    from towline.wire.message import Response

TAGS_READ_MAX = 16 << 20
"""Bytes of one page of tags."""
TAGS_READ_MAX_IN_ALL = 4 * TAGS_READ_MAX
"""Bytes of all pages together: each page alone may be allowed, but not all of them in memory."""
TAGS_PAGES_MAX = 2000
"""Some registries give a hundred tags a page, whatever is asked for."""
_LINK = r"<([^<>]*)>\s*((?:;[^,]*)?)"
_REL_NEXT = r"(?i);\s*rel\s*=\s*\"?next\"?\s*(?:;|$)"


class TagsPage(NamedTuple):
    """Some of a repository's tags, and where there are more."""

    tags: tuple[str, ...]
    next: str | None
    """Path and query."""
    size: int
    """Bytes of the answer."""


def first_page(name: RepositoryName) -> str:
    """Path and query of the first 1000 tags: ECR refuses to be asked for more."""
    return f"{distribution.tags_path(name.path)}?n=1000"


def tags(name: RepositoryName, target: str) -> Call[TagsPage | Unclear]:
    """end-8: one page of tags. Unclear: the registry refuses that many at once."""
    action = f"list the tags of {name}"

    def read(response: Response) -> TagsPage | Unclear:
        if response.status == 400 and target == first_page(name):
            return Unclear(response.status)
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
        return TagsPage(found, next_page(response), len(response.body))

    return Call("GET", target, action, read, limit=TAGS_READ_MAX, follow=True)


def every_tag(talk: Conversation, pages: int) -> list[str]:
    """All pages, in the registry's order; more than `pages` of them are a RegistryError."""
    name, found, size = talk.name, dict[str, None](), 0
    seen: set[str] = set()
    target: str | None = first_page(name)
    while target is not None and target not in seen:
        seen.add(target)
        page = talk.call(tags(name, target))
        if isinstance(page, Unclear):
            # Distribution has a maximum, which its owner sets. Ask for no number, then.
            target = distribution.tags_path(name.path)
            continue
        found.update(dict.fromkeys(page.tags))
        size += page.size
        # An empty page ends the list, as does a link that was followed before: some never end.
        target = page.next if page.tags else None
        if target and (len(seen) >= pages or size >= TAGS_READ_MAX_IN_ALL):
            most = f"{pages} pages" if len(seen) >= pages else f"{TAGS_READ_MAX_IN_ALL} bytes"
            raise RegistryError(
                f"cannot list the tags of {name}: they have more than {most}", side=talk.side
            )
    return list(found)


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
