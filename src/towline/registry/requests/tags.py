"""Calls about a repository's tags (distribution-spec, "Listing Tags")."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from towline.errors import RegistryError
from towline.registry import errors
from towline.registry.requests.call import Call, Unclear
from towline.spec import distribution, reading

if TYPE_CHECKING:
    from towline.reference import RepositoryName
    from towline.wire.message import Response

TAGS_READ_MAX = 16 << 20
"""Bytes of one page of tags."""
TAGS_READ_MAX_IN_ALL = 4 * TAGS_READ_MAX
TAGS_PAGES_MAX = 2000
"""Some give a hundred tags a page, whatever is asked for."""
_LINK = r"<([^<>]*)>\s*((?:;[^,]*)?)"
_REL_NEXT = r"(?i);\s*rel\s*=\s*\"?next\"?\s*(?:;|$)"


class TagsPage(NamedTuple):
    """Some of a repository's tags, and where there are more."""

    tags: tuple[str, ...]
    next: str | None
    """Path and query."""
    size: int
    """Bytes that said so."""


def first_page(name: RepositoryName) -> str:
    """Path and query of the first 1000 tags, the most that all registries can be asked for."""
    return f"{distribution.tags_path(name.path)}?n=1000"  # ECR: no more than 1000


def tags(name: RepositoryName, target: str) -> Call[TagsPage | Unclear]:
    """end-8: one page of tags. Unclear: the registry refuses that many at once."""
    action = f"list the tags of {name}"

    def read(response: Response) -> TagsPage | Unclear:
        if response.status == 400 and target == first_page(name):
            return Unclear(response.status)
        if not response.ok:
            raise errors.refusal(response, action)
        if response.truncated:
            raise too_many(name, f"a page of them is larger than {TAGS_READ_MAX} bytes")
        try:
            document = reading.document(response.body)
        except ValueError:
            document = None
        listed = document.get("tags", "") if isinstance(document, dict) else ""
        if not isinstance(listed, list | None):
            raise errors.no_success(response, action)
        return TagsPage(tuple(filter(_is_tag, listed or ())), _next(response), len(response.body))

    return Call("GET", target, action, read, limit=TAGS_READ_MAX, follow=True)


def too_many(name: RepositoryName, how: str) -> RegistryError:
    """The error for tags that have no end, as far as anybody would read."""
    return RegistryError(f"cannot list the tags of {name}: {how}")


def _is_tag(value: object) -> bool:
    # `null` for none, nulls among them (Nexus), and digests (Artifactory) have all been seen.
    return isinstance(value, str) and distribution.TAG.fullmatch(value) is not None


def _next(response: Response) -> str | None:
    """Path and query of the next page; its host may be one that only the proxy knows."""
    for value in response.headers.all("Link"):
        for link, parameters in re.findall(_LINK, value):
            if re.search(_REL_NEXT, parameters):
                try:
                    return response.url.join(link).target
                except ValueError:
                    return None
    return None
