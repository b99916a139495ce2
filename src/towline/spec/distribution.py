"""The distribution specification as data: names, tags, paths, headers, error codes.

Client and server share only this package: each is then a check of how the other reads the text.
"""

from __future__ import annotations

import re

from towline.spec.digest import Digest

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
"""A repository's path ("Pulling manifests")."""
NAME_MAX = 255
"""Characters of host, slash and path together: the limit of CNCF distribution's parser."""
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

_COSIGN = (".sig", ".att", ".sbom")
_NAMED_AFTER = r"(sha256)-([0-9a-f]{64})(?:\.sig|\.att|\.sbom)?"

BASE = "/v2/"
API_VERSION = "Docker-Distribution-Api-Version"
"""Header by which many registries name themselves."""
VERSION_1_PING = "/v1/_ping"
"""The ping of Docker's protocol 1, from before `/v2/`: whoever answers it may speak only that."""
DOCKER_CONTENT_DIGEST = "Docker-Content-Digest"
OCI_SUBJECT = "OCI-Subject"
OCI_TAG = "OCI-Tag"
OCI_FILTERS_APPLIED = "OCI-Filters-Applied"
OCI_CHUNK_MIN_LENGTH = "OCI-Chunk-Min-Length"
DOCKER_UPLOAD_UUID = "Docker-Upload-UUID"

BLOB_UNKNOWN = "BLOB_UNKNOWN"
BLOB_UPLOAD_INVALID = "BLOB_UPLOAD_INVALID"
BLOB_UPLOAD_UNKNOWN = "BLOB_UPLOAD_UNKNOWN"
DENIED = "DENIED"
DIGEST_INVALID = "DIGEST_INVALID"
MANIFEST_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
MANIFEST_INVALID = "MANIFEST_INVALID"
MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
NAME_INVALID = "NAME_INVALID"
NAME_UNKNOWN = "NAME_UNKNOWN"
RANGE_INVALID = "RANGE_INVALID"
SIZE_INVALID = "SIZE_INVALID"
TAG_INVALID = "TAG_INVALID"
TOOMANYREQUESTS = "TOOMANYREQUESTS"
UNAUTHORIZED = "UNAUTHORIZED"
UNAVAILABLE = "UNAVAILABLE"
UNKNOWN = "UNKNOWN"
UNSUPPORTED = "UNSUPPORTED"


def blob_path(name: str, digest: str) -> str:
    """The path of a blob: read, ask or delete it (end-2, end-10)."""
    return f"{BASE}{name}/blobs/{digest}"


def uploads_path(name: str) -> str:
    """The path at which upload sessions are opened and blobs mounted (end-4, end-11)."""
    return f"{BASE}{name}/blobs/uploads/"


def manifest_path(name: str, reference: str) -> str:
    """The path of a manifest by tag or digest: read, put or delete it (end-3, end-7, end-9)."""
    return f"{BASE}{name}/manifests/{reference}"


def tags_path(name: str) -> str:
    """The path of a repository's list of tags (end-8)."""
    return f"{BASE}{name}/tags/list"


def referrers_path(name: str, digest: str) -> str:
    """The path of the list of manifests whose `subject` is this one (end-12)."""
    return f"{BASE}{name}/referrers/{digest}"


# Tags named after an image: `sha256-HEX` and the like hold its signatures, SBOMs, attestations. The
# tag without an ending holds the list of referrers, at registries without the referrers API
# ("Referrers Tag Schema"). cosign's tags have an ending and one manifest each.


def tag_of(subject: Digest) -> str:
    """The tag that holds the list of the manifests that refer to `subject`."""
    # Cut as the specification says: a sha512 digest would be longer than a tag may be.
    return f"{subject.algorithm[:32]}-{subject.hex[:64]}"


def is_list(tag: str) -> bool:
    """Whether a tag is one that holds a list of referrers."""
    subject = subject_of(tag)
    return subject is not None and tag_of(subject) == tag


def cosign_tags(subject: Digest) -> tuple[str, ...]:
    """The tags under which cosign puts signatures, attestations and SBOMs of `subject`."""
    return tuple(f"{tag_of(subject)}{ending}" for ending in _COSIGN)


def subject_of(tag: str) -> Digest | None:
    """The digest that a tag is named after; None for any other tag."""
    match = re.fullmatch(_NAMED_AFTER, tag) if tag.startswith("sha256-") else None
    return Digest(f"{match[1]}:{match[2]}") if match else None
