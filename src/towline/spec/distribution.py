"""The distribution specification as data: names, tags, paths, headers, error codes.

Client and server both read this page and share nothing else, so that they cannot share a
misunderstanding.
"""

from __future__ import annotations

import re

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
"""A repository's path ("Pulling manifests")."""
NAME_MAX = 255
"""Characters of host, slash and path together, as distribution has it."""
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

BASE = "/v2/"
API_VERSION = "Docker-Distribution-Api-Version"
"""Header by which many registries name themselves."""
VERSION_1_PING = "/v1/_ping"
"""Where a registry of the protocol that came before says that it is one."""
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
    """A blob (end-2, end-10)."""
    return f"{BASE}{name}/blobs/{digest}"


def uploads_path(name: str) -> str:
    """Where upload sessions are opened (end-4, end-11)."""
    return f"{BASE}{name}/blobs/uploads/"


def manifest_path(name: str, reference: str) -> str:
    """A manifest by tag or digest (end-3, end-7, end-9)."""
    return f"{BASE}{name}/manifests/{reference}"


def tags_path(name: str) -> str:
    """The list of tags (end-8)."""
    return f"{BASE}{name}/tags/list"


def referrers_path(name: str, digest: str) -> str:
    """What refers to a manifest (end-12)."""
    return f"{BASE}{name}/referrers/{digest}"
