"""Answers that say no, in the specification's form (distribution-spec, "Error Codes").

One function for each reason, so that status, code and words of a refusal have one home.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from towline.server.http import Response
from towline.spec import distribution

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Iterable[Any] = (None,),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.details = list(details)
        """One error is told for each; None where there is no detail."""
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The answer."""
        errors = [
            {"code": self.code, "message": str(self)} | ({"detail": detail} if detail else {})
            for detail in self.details
        ]
        content = json.dumps({"errors": errors}).encode()
        headers = {"Content-Type": "application/json"} | self.headers
        return Response(self.status, headers, content)


def not_a_page(path: str) -> Refused:
    """No such endpoint."""
    return Refused(404, distribution.UNSUPPORTED, f"there is no endpoint {path[:200]}")


def method_not_allowed(method: str, allowed: Iterable[str]) -> Refused:
    """The endpoint does not do that."""
    headers = {"Allow": ", ".join(sorted(allowed))}
    return Refused(405, distribution.UNSUPPORTED, f"{method} is not done here", headers=headers)


def read_only() -> Refused:
    """The registry was started with `--read-only`."""
    headers = {"Allow": "GET, HEAD"}
    return Refused(405, distribution.UNSUPPORTED, "this registry is read-only", headers=headers)


def unauthorized() -> Refused:
    """There were no credentials, or wrong ones."""
    headers = {"WWW-Authenticate": 'Basic realm="towline"'}
    message = "user name and password are required"
    return Refused(401, distribution.UNAUTHORIZED, message, headers=headers)


def name_invalid(name: str) -> Refused:
    """The repository's name does not match the grammar."""
    message = f"{name[:100]!r} is no repository name"
    return Refused(400, distribution.NAME_INVALID, message)


def name_unknown(name: str) -> Refused:
    """Nothing was ever pushed to that repository."""
    message = "there is no such repository"
    return Refused(404, distribution.NAME_UNKNOWN, message, details=[{"name": name}])


def digest_invalid(message: str, digest: str | None = None) -> Refused:
    """A digest is malformed, or is not that of the content."""
    details = [{"digest": digest[:200]}] if digest else [None]
    return Refused(400, distribution.DIGEST_INVALID, message, details=details)


def tag_invalid(tag: str) -> Refused:
    """Neither a digest nor a tag."""
    message = f"{tag[:150]!r} is no tag"
    return Refused(400, distribution.MANIFEST_INVALID, message)


def blob_unknown(digest: str) -> Refused:
    """The repository does not hold that blob."""
    details = [{"digest": digest}]
    return Refused(404, distribution.BLOB_UNKNOWN, "blob unknown to repository", details=details)


def manifest_unknown(reference: str) -> Refused:
    """The repository does not hold that manifest, or has no such tag."""
    details = [{"reference": reference}]
    return Refused(404, distribution.MANIFEST_UNKNOWN, "manifest unknown", details=details)


def manifest_invalid(message: str) -> Refused:
    """The manifest cannot be understood."""
    return Refused(400, distribution.MANIFEST_INVALID, f"manifest invalid: {message}")


def manifest_blob_unknown(digests: Iterable[str]) -> Refused:
    """The manifest refers to what the repository does not hold; one error for each."""
    return Refused(
        400,
        distribution.MANIFEST_BLOB_UNKNOWN,
        "the manifest refers to content unknown to the repository",
        details=[{"digest": digest} for digest in digests],
    )


def size_invalid(message: str) -> Refused:
    """A length that was told is not that of the content."""
    return Refused(400, distribution.SIZE_INVALID, message)


def too_large(limit: int) -> Refused:
    """A manifest above the limit."""
    message = f"the manifest is larger than {limit} bytes"
    return Refused(413, distribution.MANIFEST_INVALID, message)


def upload_unknown(session: str) -> Refused:
    """The upload session does not exist, was closed, cancelled or has expired."""
    details = [{"upload": session[:100]}]
    return Refused(404, distribution.BLOB_UPLOAD_UNKNOWN, "upload unknown", details=details)


def upload_invalid(message: str) -> Refused:
    """The upload request contradicts itself."""
    return Refused(400, distribution.BLOB_UPLOAD_INVALID, message)


def out_of_order(message: str, headers: Mapping[str, str]) -> Refused:
    """A chunk that does not begin where the last one ended; the session goes on."""
    status = HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    return Refused(status, distribution.BLOB_UPLOAD_INVALID, message, headers=headers)


def too_many_sessions() -> Refused:
    """More uploads at once than the registry keeps."""
    message = "too many uploads are open"
    return Refused(429, distribution.TOOMANYREQUESTS, message, headers={"Retry-After": "10"})


def too_many_bodies() -> Refused:
    """More bodies of one client under way at once than the registry takes."""
    message = "too many bodies of this client are under way"
    return Refused(429, distribution.TOOMANYREQUESTS, message, headers={"Retry-After": "1"})


def no_room() -> Refused:
    """The registry's disk is full."""
    status = HTTPStatus.INSUFFICIENT_STORAGE
    return Refused(status, distribution.UNKNOWN, "no room left on the registry's disk")


def failed() -> Refused:
    """A fault of the registry's own."""
    return Refused(500, distribution.UNKNOWN, "the registry failed; its log says more")
