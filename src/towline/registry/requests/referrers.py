"""The call about what refers to a manifest (distribution-spec, "Listing Referrers")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from towline.registry import errors
from towline.registry.requests.call import Call
from towline.registry.requests.manifests import MANIFEST_READ_MAX
from towline.spec import distribution, media_types, reading

if TYPE_CHECKING:
    from towline.reference import RepositoryName
    from towline.wire.message import Response


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
