"""What a refusal means for what may be tried instead; by its code, then by its words."""

from __future__ import annotations

import re

from towline.errors import RegistryError
from towline.registry import hints
from towline.spec import distribution

_TYPE_STATUSES = frozenset({400, 404, 405, 415, 501})
"""With which a registry, or a proxy, says that it does not know a manifest's type."""
_TYPE_CODES = frozenset(
    {
        None,
        distribution.UNSUPPORTED,
        distribution.MANIFEST_INVALID,
        distribution.MANIFEST_UNKNOWN,
        distribution.TAG_INVALID,
        distribution.UNKNOWN,
    }
)


_BLOBS_UNKNOWN = frozenset({distribution.MANIFEST_BLOB_UNKNOWN, distribution.BLOB_UNKNOWN})
_LACKING = re.compile(r"unknown blob|blob unknown|blob .*(?:not found|does not exist)")


def lacks_blobs(error: Exception) -> bool:
    """Whether a refused manifest lists what the registry does not find, in whatever words."""
    return isinstance(error, RegistryError) and (
        error.code in _BLOBS_UNKNOWN
        or (
            error.code == distribution.MANIFEST_INVALID
            and _LACKING.search(error.message.lower()) is not None
        )
    )


def refuses_type(error: Exception) -> bool:
    """Whether a refused manifest may be taken as one of another type (OCI, schema 2)."""
    return (
        isinstance(error, RegistryError)
        and error.status in _TYPE_STATUSES
        and error.code in _TYPE_CODES
        and not lacks_blobs(error)
        and not hints.is_immutable(error.message.lower())
    )
